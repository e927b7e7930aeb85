package lockfix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
)

const (
	placeLimit  = 30 * time.Second // for two files: what is mounted there may never answer
	daemonLimit = 5 * time.Second  // for a process's maps
	loadedLimit = 10 * time.Second // after a restart, until libvirt's daemon is seen as it is to be
)

// lookAtLibrary sees what of it is in a container, and which of libvirt's daemons have it. What of that cannot be seen is said where it matters.
func (j *job) lookAtLibrary(ctx context.Context, t *target, see sight) {
	s := &t.seen
	type sight struct {
		place   preloaded.Place
		program preloaded.Program
	}
	root := t.root
	found, err := within(ctx, placeLimit, func() (v sight, err error) {
		if v.place, err = preloaded.Look(root); err != nil {
			return v, err
		}
		if see.change && v.place.Refusal == "" {
			if left, err := preloaded.Tidy(root); err != nil {
				return v, err
			} else if left {
				if v.place, err = preloaded.Look(root); err != nil {
					return v, err
				}
			}
		}
		if see.library && s.Program.Path == "" {
			v.program, err = preloaded.FindProgram(root)
		}
		return v, err
	})
	if err != nil {
		s.LibraryDamage = err.Error()
		return
	}
	s.Library, s.LibraryDamage = found.place, ""
	if found.program.Path != "" {
		s.Program = found.program
	}
	if s.Architecture == "" {
		s.Architecture = s.Program.Architecture
	}
	if see.library && kolla.RunsGuests(s.Name) {
		if s.Daemons, err = j.daemons(ctx, t.ID); err != nil {
			s.LibraryDamage = err.Error()
		}
	}
}

// within bounds what no signal ends, such as a read from a filesystem that is gone. What f makes is its own until then.
func within[T any](ctx context.Context, limit time.Duration, f func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("there was no answer within %v", limit))
	defer cancel()
	found, err := foreign.Within(ctx, f)
	if errors.Is(err, foreign.ErrNoAnswer) {
		err = ended(ctx)
	}
	return found, err
}

// daemons finds libvirt's in a container: containers may share the host's process numbers, so each tells by its control group whose it is.
func (j *job) daemons(ctx context.Context, id string) (list []Daemon, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, daemonLimit, fmt.Errorf("there was no answer within %v", daemonLimit))
	defer cancel()
	processes, err := host.Processes(j.proc, preloaded.Daemons...)
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		if p.Container != id {
			continue
		}
		loaded, err := preloaded.Loaded(ctx, j.proc, p.PID)
		if err != nil {
			return nil, err
		}
		list = append(list, Daemon{p.PID, p.Name, loaded})
	}
	return list, nil
}

// withoutLibrary adds to the stale guests those that were started before the library came.
func (j *job) withoutLibrary(ctx context.Context, guests, stale []host.Guest) ([]host.Guest, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), daemonLimit, fmt.Errorf("there was no answer within %v", daemonLimit))
	defer cancel()
	var all []host.Guest
	for _, g := range guests {
		if !slices.Contains(stale, g) {
			if loaded, err := preloaded.Loaded(ctx, j.proc, g.PID); err != nil {
				return nil, err
			} else if loaded {
				continue
			}
		}
		all = append(all, g)
	}
	return all, nil
}

// writeRecord keeps in the record what is in the containers' layers now. Of what could not be seen nothing changes.
func (j *job) writeRecord(record preloaded.Record, all []*work) []string {
	before := maps.Clone(record.Containers)
	for _, w := range all {
		switch s := w.seen; s.Library.State {
		case "":
		case preloaded.Installed, preloaded.Old:
			record.Containers[s.Name] = preloaded.Put{ID: s.ID, SHA256: s.Library.SHA256}
		default:
			delete(record.Containers, s.Name)
		}
	}
	if maps.Equal(before, record.Containers) {
		return nil
	}
	if err := preloaded.WriteRecord(j.dir, record); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// load makes the two files what they are to be. Where the engine or the container went away under it, and both are back, it tries again: what is written
// through the root of a container that has ended, that container does not see.
func (j *job) load(ctx context.Context, w *work, verb Verb, want preloaded.Files) error {
	for tries := 1; ; tries++ {
		err := j.loadOnce(ctx, w, verb, want)
		if err == nil || ctx.Err() != nil || tries == lostTries {
			return err
		}
		was := w.Container
		if e := j.reopen(ctx, w.target); e != nil {
			return errors.Join(err, e)
		}
		if !errors.Is(err, engine.ErrUnknown) && w.SameStart(was) {
			return err
		}
	}
}

func (j *job) loadOnce(ctx context.Context, w *work, verb Verb, want preloaded.Files) error {
	cannot := func(err error) error {
		word := "put the library into"
		if verb == Unload {
			word = "take the library out of"
		}
		return fail(string(verb), "cannot %s %s: %w", word, w.Name, err)
	}
	if err := j.still(ctx, w.target); err != nil {
		return cannot(err)
	}
	now, err := preloaded.Look(w.root)
	if err == nil && now.Refusal != "" {
		err = errors.New(now.Refusal)
	}
	if planned := w.plan.Seen.Library.List; err == nil && !w.onTheWayBack && !now.List.Equal(planned) && !now.List.Equal(want.List) {
		err = errors.New("the list of preloaded libraries is another one than a moment ago, so somebody else is at work there")
	}
	if err == nil {
		err = j.begin(w, verb)
	}
	if err == nil {
		err = preloaded.Write(w.root, want, func(moment string) { faultpoint.Hit(moment + " " + w.Name) })
	}
	if err == nil {
		err = j.still(ctx, w.target)
	}
	if err != nil {
		return cannot(err)
	}
	now, err = preloaded.Look(w.root)
	if err == nil && now.State != want.Effect() {
		err = fmt.Errorf("its state is %s, and should be %s", now.State, want.Effect())
	}
	if err != nil {
		return fail("verify", "cannot tell what became of the library in %s: %w", w.Name, err)
	}
	w.seen.Library = now
	faultpoint.Hit(string(verb) + " " + w.Name + " done")
	return nil
}

// verifyLoaded proves that libvirt's daemon came up with the library, or without it, as it was planned. One that does not run proves nothing.
func (j *job) verifyLoaded(ctx context.Context, w *work) error {
	if !w.plan.reloaded || len(w.plan.Seen.Daemons) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadedLimit)
	defer cancel()
	for {
		daemons, err := j.daemons(ctx, w.ID)
		if err != nil {
			return fail("verify", "cannot tell whether libvirt has the library in %s: %w", w.Name, err)
		}
		i := slices.IndexFunc(daemons, func(d Daemon) bool { return d.Loaded != w.plan.loadedAfter() })
		if i < 0 && len(daemons) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if i < 0 {
				return nil
			}
			return fail("verify", "cannot get the library into or out of %s in %s: %v after the restart it is loaded: %v", daemons[i].Name, w.Name, loadedLimit,
				daemons[i].Loaded)
		case <-time.After(startPoll):
		}
	}
}
