package lockfix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/carriers"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
)

// containers is what the main job asks of an engine.
type containers interface {
	carriers.Engine
	Exec(ctx context.Context, id string, c engine.Command) (engine.Outcome, error)
	Restart(ctx context.Context, id string, grace time.Duration) error
}

// target is one container while it is worked on.
type target struct {
	engine.Container
	seen Seen
	root *os.Root // its files; nil unless it runs
	db   *deb.Database
	dpkg bool     // its packages are of interest
	kept *os.Root // the folder of its baseline, nil if there is none
	// known is what its packages are judged by. It has the host's record also where a file that is kept is damaged.
	known baseline.Known
	down  bool // it was waited for already, and did not come up
}

func (t *target) close() {
	if t.root != nil {
		t.root.Close()
	}
	if t.kept != nil {
		t.kept.Close()
	}
}

// sight is how a run looks at containers.
type sight struct {
	asked    []string
	open     map[string]Before // in which a run that died or failed began something
	record   preloaded.Record  // which containers had the library
	packages bool              // they are of interest everywhere, not only where a dead run began something with them
	contents bool              // read the packages from before, too: they may be installed
	library  bool              // the library is to come or go
	change   bool              // no check mode: wait for another dpkg, remove what a run left
}

// observe looks at all containers at once. What cannot be seen of one is its Seen.Failure.
func (j *job) observe(ctx context.Context, names []string, see sight) []*target {
	targets := make([]*target, len(names))
	var group errgroup.Group
	for i, name := range names {
		t := &target{seen: Seen{Name: name, Unasked: !slices.Contains(see.asked, name), Recorded: see.record.Containers[name].ID}}
		if b, ok := see.open[name]; ok {
			t.seen.Dead = &b
		}
		targets[i] = t
		group.Go(func() error {
			if err := foreign.NoPanic(func() error { return j.look(ctx, t, see) }); err != nil {
				t.seen.Failure = &Failure{Step: "observe", Message: fmt.Sprintf("cannot observe %s: %v", name, err), Hint: observeHint(err)}
			}
			return nil
		})
	}
	_ = group.Wait()
	return targets
}

var errRecreated = errors.New("it was recreated just now")

func observeHint(err error) string {
	var unread *unreadError
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return "it was removed just now; run again"
	case errors.Is(err, errRecreated):
		return "run again"
	case errors.As(err, &unread):
		return unread.byHand
	}
	return ""
}

// look reads the contents of the packages from before only where they may be installed.
func (j *job) look(ctx context.Context, t *target, see sight) (err error) {
	s := &t.seen
	if t.Container, t.root, err = j.openSettled(ctx, s.Name); err != nil {
		return err
	}
	if s.Dead != nil && s.Dead.ID != t.ID {
		return errRecreated // what was found in its predecessor is nothing to go back to
	}
	t.Name = s.Name // as the user calls it
	s.ID, s.Image, s.State, s.ReadOnly, s.StartedAt = t.ID, t.Image, t.State, t.ReadOnly, t.StartedAt
	s.Kept, t.kept, err = baseline.Open(j.baseline(s.Name))
	t.known = baseline.Known{ID: t.ID, Index: s.Kept}
	if err == nil && s.Kept != nil && (see.contents || s.Dead != nil) {
		if err = s.Kept.ReadContents(t.kept); err != nil {
			s.Kept = nil
		}
	}
	if err != nil {
		s.KeptDamage = fmt.Sprintf("the packages from before, in %s, cannot be used: %v", j.baseline(s.Name), err)
	}
	if s.stopped() {
		// An error is about a unit that runs and could not be restarted.
		runs, err := j.units.runs(ctx, kolla.Unit(s.Name))
		s.Returns = runs || err != nil
	}
	if t.State != "running" {
		return nil
	}
	if s.Distribution, err = kolla.ReadDistribution(t.root); err != nil {
		return err
	}
	j.lookAtLibrary(ctx, t, see)
	t.dpkg = s.Distribution.UsesDpkg() && (see.packages || s.Dead != nil && len(s.Dead.Packages) > 0)
	if !t.dpkg {
		return nil
	}
	if inside, err := t.root.Stat(filepath.Dir(privateDir)); err == nil {
		if outside, err := os.Stat(filepath.Dir(j.dir)); err == nil && os.SameFile(inside, outside) {
			return fmt.Errorf("this host's %s is mounted there, so what is ours in the container would be the host's", filepath.Dir(j.dir))
		}
	}
	s.Room = measure(t.root)
	if see.change {
		if err := t.tidy(ctx); err != nil {
			return err
		}
	}
	if err := t.readPackages(); err != nil {
		return err
	}
	if s.Kept != nil {
		if err := s.Kept.FindRefused(t.db); err != nil {
			return err
		}
	}
	if see.change {
		if err := j.readIn(ctx, t); err != nil {
			return err
		}
	}
	if s.Triggers, err = t.triggersNoted(); err != nil || s.Dead == nil {
		return err
	}
	undo, _ := j.openUndo(s.Name) // one that cannot be used is said by keepUndo
	defer undo.close()
	s.Astray, err = t.strayed(ctx, *s.Dead, undo)
	return err
}

// openSettled gives a container with its files, which are nil where it does not run. Of one that is being restarted by others the engine
// may still name the process that has ended: it is asked again.
func (j *job) openSettled(ctx context.Context, name string) (c engine.Container, root *os.Root, err error) {
	for began := time.Now(); ; {
		if c, err = j.inspectSettled(ctx, name); err != nil || c.State != "running" {
			return c, nil, err
		}
		root, err = j.engine.OpenRoot(ctx, c)
		if err == nil || errors.Is(err, engine.ErrNotFound) || time.Since(began) > betweenLimit {
			return c, root, err
		}
		select {
		case <-ctx.Done():
			return c, nil, ended(ctx)
		case <-time.After(startPoll):
		}
	}
}

// inspectSettled gives a container that is being restarted the time to come up.
func (j *job) inspectSettled(ctx context.Context, name string) (engine.Container, error) {
	c, err := engine.Settle(ctx, func(ctx context.Context) (engine.Container, error) { return j.engine.Inspect(ctx, name) }, betweenLimit, downLimit, startPoll)
	if err != nil && ctx.Err() != nil {
		return c, ended(ctx)
	}
	return c, err
}

// readIn lets dpkg read in what one that was killed has left beside its database. Until some dpkg does, apt refuses to work there,
// though every package may be whole. Setting a selection that is set already is the smallest thing that does it.
func (j *job) readIn(ctx context.Context, t *target) error {
	updates, err := t.root.OpenFile("var/lib/dpkg/updates", os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look at dpkg's updates: %w", err)
	}
	left, err := updates.Readdirnames(1)
	updates.Close()
	if len(left) == 0 {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
	return j.haveRead(ctx, t)
}

// haveRead lets dpkg read in what there is, triggers too.
func (j *job) haveRead(ctx context.Context, t *target) error {
	own, _ := t.db.Package("dpkg")
	if err := j.dpkg(ctx, t, []string{"--set-selections"}, "dpkg "+own.Status.Want+"\n"); err != nil {
		return &unreadError{t.unreadByHand(j.cli), err}
	}
	return t.readPackages()
}

// lookAgain reads the two files and, where they are of interest, the packages as they are now.
func (t *target) lookAgain(ctx context.Context) error {
	root := t.root
	place, err := within(ctx, placeLimit, func() (preloaded.Place, error) { return preloaded.Look(root) })
	if t.seen.LibraryDamage = ""; err != nil {
		t.seen.LibraryDamage = err.Error()
	} else {
		t.seen.Library = place
	}
	if !t.dpkg {
		return nil
	}
	return t.readPackages()
}

// readPackages reads the dpkg database as it is now.
func (t *target) readPackages() (err error) {
	if t.db, err = deb.OpenDatabase(t.root); err != nil {
		return err
	}
	t.seen.Packages = t.db.Packages()
	dpkg, ok := t.db.Package("dpkg")
	if !ok {
		return errors.New("cannot tell its architecture: dpkg itself is not in its database")
	}
	t.seen.Architecture = dpkg.Architecture
	return nil
}

func (j *job) baseline(container string) string { return filepath.Join(j.dir, "baseline", container) }

// needed are the files that the containers' plans can ask for.
func needed(m patchset.Manifest, targets []*target) []patchset.Package {
	var need []patchset.Package
	for _, t := range targets {
		if t.seen.unfit() != nil {
			continue
		}
		for _, p := range wanted(m, t.seen) {
			if !slices.Contains(need, p) {
				need = append(need, p)
			}
		}
	}
	return need
}

// judge tells whose the packages are that the containers have, and compares the files of those that have the wanted version already with what that
// package holds.
func (j *job) judge(ctx context.Context, o Options, set Set, targets []*target) {
	var group errgroup.Group
	for _, t := range targets {
		if t.seen.unfit() != nil || !t.dpkg || !o.packages() {
			continue
		}
		t.known.Set = set.installed(t.seen)
		group.Go(func() error {
			t.seen.Judged = t.known.JudgeAll(t.db)
			sums := map[string]expectation{}
			if o.absent() {
				sums = keptSums(t.seen.Kept)
			} else {
				for _, p := range wanted(set.Manifest, t.seen) {
					sums[p.Name] = expectation{p.Version, set.Contents[p.SHA256].Md5sums}
				}
			}
			if err := foreign.NoPanic(func() error { return cmp.Or(t.compare(ctx, sums), t.lookForHollow(o)) }); err != nil {
				t.seen.Failure = &Failure{Step: "observe", Message: fmt.Sprintf("cannot check the files of %s: %v", t.seen.Name, err)}
			}
			return nil
		})
	}
	_ = group.Wait()
}

// expectation is what a package should be: its version, and its files' md5sums by path.
type expectation struct {
	version string
	sums    map[string]string
}

func keptSums(x *baseline.Index) map[string]expectation {
	sums := map[string]expectation{}
	if x != nil {
		for _, k := range x.Packages {
			sums[k.Name] = expectation{k.Version, k.Sums}
		}
	}
	return sums
}

func (t *target) compare(ctx context.Context, want map[string]expectation) error {
	t.seen.Problems = map[string][]deb.FileProblem{}
	for name, w := range want {
		have, ok := t.seen.find(name)
		if !ok || have.Version != w.version {
			continue
		}
		problems, err := t.db.VerifyFiles(ctx, have, w.sums)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			t.seen.Problems[name] = problems
		}
	}
	return nil
}
