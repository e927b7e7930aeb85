package lockfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// undoTimeout bounds the way back of a whole host. It is not part of the run's own time, whose end is often the reason.
const undoTimeout = 15 * time.Minute

// undoSet are the packages as they were before, patched ones too. It is kept beside the journal, apart from the baseline,
// which holds the distribution's packages until they are wanted back.
type undoSet struct {
	folder *os.Root
	index  *baseline.Index
}

// foundDead is a package as the first dead run found it that was going to replace it.
func (s Seen) foundDead(name string) (BeforePackage, bool) {
	if s.Dead == nil {
		return BeforePackage{}, false
	}
	i := slices.IndexFunc(s.Dead.Packages, func(b BeforePackage) bool { return b.Name == name && b.Replaced })
	if i < 0 {
		return BeforePackage{}, false
	}
	return s.Dead.Packages[i], true
}

// keepUndo keeps what the install will replace. What the baseline holds of the very same state need not be kept twice, and
// what a dead run kept of the state before it stays.
func (j *job) keepUndo(ctx context.Context, w *work) (u *undoSet, warnings []string, err error) {
	dir := j.undoFolder(w.Name)
	var names []string
	fresh := w.seen
	fresh.Kept = nil
	if w.seen.Dead != nil {
		earlier, root, err := baseline.Open(dir)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: the packages that a dead run found, in %s, cannot be used: %v", w.Name, dir, err))
		}
		if root != nil {
			root.Close()
		}
		fresh.Kept = earlier
	} else if err := baseline.Forget(dir); err != nil {
		return nil, nil, err
	}
	install, _ := w.step(Install)
	for _, name := range install.Packages {
		have, _ := w.plan.Seen.find(name)
		before, known := w.seen.foundDead(name)
		if known && whole(have) && have.Version == before.Version {
			known = fresh.Kept.Keeps(fresh.ID, have) // else that run died before it kept it, and so before it replaced it
		}
		if !known && whole(have) && !w.seen.Kept.Keeps(w.seen.ID, have) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		if err := j.journal.step(w.Name, Keep, w.StartedAt); err != nil {
			return nil, warnings, err
		}
		x := baseline.Index{ID: fresh.ID, Image: fresh.Image, Made: time.Now().UTC()}
		if fresh.Kept != nil && fresh.Kept.ID == fresh.ID {
			x.Packages = fresh.Kept.Packages
		}
		if _, err := baseline.Save(ctx, dir, x, w.root, names); err != nil {
			return nil, warnings, err
		}
	}
	u = &undoSet{}
	if u.index, u.folder, err = baseline.Open(dir); err != nil && len(warnings) == 0 {
		return nil, nil, err
	}
	return u, warnings, nil
}

func (j *job) undoFolder(container string) string {
	return filepath.Join(j.journal.dir, undoName, container)
}

func (u *undoSet) close() {
	if u != nil && u.folder != nil {
		u.folder.Close()
	}
}

// rollBack brings every container in which something was begun back to what it was, the last first.
func (j *job) rollBack(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, w := range slices.Backward(all) {
		if !w.begun || w.rolledBack {
			continue
		}
		w.done = false
		err := noPanic(func() error { return j.rollBackOne(ctx, w) })
		if w.gone = errors.Is(err, engine.ErrNotFound); w.gone {
			continue // with the container went what was begun in it
		}
		w.undoErr, w.rolledBack = err, err == nil
	}
}

func (j *job) rollBackOne(ctx context.Context, w *work) error {
	if err := j.reopen(ctx, w.target); err != nil {
		return err
	}
	if w.undo == nil { // keeping failed before it was opened; what a dead run kept counts all the same
		w.undo = &undoSet{}
		w.undo.index, w.undo.folder, _ = baseline.Open(j.undoFolder(w.Name))
	}
	w.onTheWayBack = true
	_ = j.journal.step(w.Name, Undo, w.StartedAt)
	var names []string
	for _, b := range w.before.Packages {
		if b.Replaced {
			names = append(names, b.Name)
		}
	}
	if len(names) > 0 {
		d, err := w.undo.files(w, names)
		if err != nil {
			return err
		}
		// dpkg puts the former files back itself where it could not unpack, on a full disk for instance.
		if w.verify(ctx, w.seen.Packages, d) != nil {
			if err := j.install(ctx, w, w.seen.Packages, d); err != nil {
				return err
			}
		}
	}
	for _, b := range w.before.Packages {
		now, ok := w.seen.find(b.Name)
		if ok && b.Held != (now.Status.Want == "hold") {
			verb := Unhold
			if b.Held {
				verb = Hold
			}
			if err := j.hold(ctx, w, []string{b.Name}, verb); err != nil {
				return err
			}
		}
	}
	if b := w.before.Library; b != nil {
		if verb, files := back(*b); w.seen.Library.Needs(files) {
			if err := j.load(ctx, w, verb, files); err != nil {
				return err
			}
		}
	}
	if w.restarted || slices.Contains(w.before.Begun, Restart) {
		if err := j.restartNow(ctx, w); err != nil {
			return err
		}
	}
	j.journal.done(w.Name, Undo, w.StartedAt)
	return nil
}

// files are the packages as they were, each from the folder beside the journal or from the baseline.
func (u *undoSet) files(w *work, names []string) (delivery, error) {
	kept := map[string]baseline.Kept{}
	from := map[string]*os.Root{}
	add := func(x *baseline.Index, root *os.Root) {
		if x == nil {
			return
		}
		for _, k := range x.Packages {
			if slices.ContainsFunc(w.before.Packages, func(p BeforePackage) bool { return p.Name == k.Name && p.Version == k.Version }) {
				kept[k.Name], from[k.Name] = k, root
			}
		}
	}
	add(w.seen.Kept, w.kept)
	add(u.index, u.folder)
	var packages []patchset.Package
	for _, b := range w.before.Packages {
		if !slices.Contains(names, b.Name) {
			continue
		}
		if !b.Whole {
			return delivery{}, fmt.Errorf("%s was not whole before either", b.Name)
		}
		k, ok := kept[b.Name]
		if now, _ := w.seen.find(b.Name); !ok && whole(now) && now.Version == b.Version {
			continue // a run that died before it kept it did not replace it either
		}
		if !ok {
			return delivery{}, fmt.Errorf("%s %s is not kept on this host", b.Name, b.Version)
		}
		packages = append(packages, k.Deb())
	}
	return keptDelivery(packages, kept, from), nil
}

// downError says that a container does not come up by itself.
type downError struct{ state string }

func (e *downError) Error() string { return "it is " + e.state }

// reopen follows a container through a restart, its own or its engine's, and looks into it again. It waits while the
// engine does not answer, and while the container is between a stop and a start.
func (j *job) reopen(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var downSince time.Time
	last := errors.New("it does not run")
	for {
		now, err := j.engine.Inspect(ctx, t.ID)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			return fmt.Errorf("it is gone: %w", err)
		case err != nil && ctx.Err() == nil:
			last, downSince = err, time.Time{}
		case err == nil && now.State != "running":
			last = fmt.Errorf("it is %s", now.State)
			if downSince.IsZero() {
				downSince = time.Now()
			}
			if t.down || time.Since(downSince) > downLimit {
				t.down = true
				return &downError{now.State}
			}
		case err == nil && t.root != nil && now.SameStart(t.Container):
			// The kernel ends a container's processes, dpkg too, before the engine knows that its first one has ended.
			if last = j.still(ctx, t); last == nil {
				return t.lookAgain(ctx)
			}
		case err == nil:
			root, err := j.engine.OpenRoot(ctx, now)
			if err == nil {
				if t.root != nil {
					t.root.Close()
				}
				name := t.Name
				t.Container, t.root, t.down = now, root, false
				t.Name = name
				return t.lookAgain(ctx)
			}
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot look into it: %w", last)
		case <-time.After(startPoll):
		}
	}
}
