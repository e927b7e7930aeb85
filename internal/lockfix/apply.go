package lockfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// work is one container's plan on its way through apply.
type work struct {
	*target
	plan    ContainerPlan
	touched bool // an install was begun
	err     error
	undone  error // of the way back, if that failed too
	back    bool  // it is as it was before
	rows    Row
}

func (w *work) step(verb Verb) (Step, bool) {
	i := slices.IndexFunc(w.plan.Steps, func(s Step) bool { return s.Verb == verb })
	if i < 0 {
		return Step{}, false
	}
	return w.plan.Steps[i], true
}

// apply carries the plans out: first everything that will be replaced is kept, in all containers; then the containers are worked on
// in parallel; then what has to be restarted is, one after the other. One that fails stops no other. With
// on_error: rollback all of them go back when one failed.
func (j *job) apply(ctx context.Context, o Options, set Set, f *files, all []*work) (warnings []string) {
	warnings = j.keepAll(ctx, set, all)
	if failed(all) {
		return warnings // nothing was changed in any container
	}
	j.each(all, func(w *work) error { return j.change(ctx, w, f) })
	if !failed(all) || o.OnError == OnErrorKeep {
		for _, w := range all {
			if w.err == nil {
				w.err = j.restart(ctx, w)
			}
		}
	}
	if failed(all) && o.OnError == OnErrorRollback {
		j.rollBack(ctx, all)
	} else if o.absent() {
		j.forgetAll(all)
	}
	return warnings
}

func failed(all []*work) bool {
	return slices.ContainsFunc(all, func(w *work) bool { return w.err != nil })
}

// each does f to every container that has not failed yet, all at once.
func (j *job) each(all []*work, f func(*work) error) {
	var group errgroup.Group
	for _, w := range all {
		if w.err != nil || len(w.plan.Steps) == 0 {
			continue
		}
		group.Go(func() error {
			w.err = f(w)
			return nil
		})
	}
	_ = group.Wait()
}

func (j *job) keepAll(ctx context.Context, set Set, all []*work) (warnings []string) {
	var mutex sync.Mutex
	j.each(all, func(w *work) error {
		s, ok := w.step(Keep)
		if !ok {
			return nil
		}
		said, err := keep(ctx, j.baseline(w.Name), w.seen, set.Suffix, w.root, s.Packages)
		if err != nil {
			return fail("keep", "cannot keep the packages of %s: %w", w.Name, err)
		}
		if w.seen.Kept, w.kept, err = readBaseline(j.baseline(w.Name)); err != nil {
			return fail("keep", "cannot keep the packages of %s: %w", w.Name, err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		warnings = append(warnings, said...)
		return nil
	})
	slices.Sort(warnings)
	return warnings
}

// change does the part of a plan that is inside the container.
func (j *job) change(ctx context.Context, w *work, f *files) error {
	if err := j.same(ctx, w); err != nil {
		return err
	}
	if s, ok := w.step(Install); ok {
		packages, open := w.plan.Files, deliver(nil)
		if len(packages) > 0 {
			open = f.open
		} else {
			packages, open = w.keptFiles(s.Packages)
		}
		w.touched = true
		if err := j.install(ctx, w.target, packages, open); err != nil {
			return err
		}
	}
	if s, ok := w.step(Hold); ok {
		if err := j.hold(ctx, w.target, s.Packages, "hold"); err != nil {
			return err
		}
	}
	if s, ok := w.step(Unhold); ok {
		return j.hold(ctx, w.target, s.Packages, "install")
	}
	return nil
}

// same makes sure that the container is still the one that was observed.
func (j *job) same(ctx context.Context, w *work) error {
	now, err := j.engine.Inspect(ctx, w.Name)
	if err != nil {
		return fail("install", "cannot change %s: %w", w.Name, err)
	}
	if now.ID != w.ID || now.PID != w.PID || now.State != "running" {
		return fail("install", "cannot change %s: it was recreated, restarted or stopped since it was looked at", w.Name)
	}
	return nil
}

// keptFiles are the named packages of the baseline.
func (w *work) keptFiles(names []string) ([]patchset.Package, deliver) {
	kept := map[string]KeptPackage{}
	var packages []patchset.Package
	if w.seen.Kept != nil {
		for _, k := range w.seen.Kept.Packages {
			if slices.Contains(names, k.Name) {
				kept[k.Name] = k
				packages = append(packages, k.file())
			}
		}
	}
	return packages, func(p patchset.Package) (*os.File, error) { return openKept(w.kept, kept[p.Name]) }
}

// rollBack brings every container that was touched back to the packages from before, the last first. It has its own
// deadline: often the end of the run's own is why it is needed.
func (j *job) rollBack(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, w := range slices.Backward(all) {
		if !w.touched {
			continue
		}
		if w.undone = j.undo(ctx, w); w.undone == nil {
			w.back = true
		}
	}
}

func (j *job) undo(ctx context.Context, w *work) error {
	if w.restarted() {
		if err := j.reopen(ctx, w); err != nil {
			return err
		}
	}
	s, _ := w.step(Install)
	var before []string
	for _, c := range w.plan.Changes {
		if slices.Contains(s.Packages, c.Name) {
			before = append(before, c.Name)
		}
	}
	packages, open := w.keptFiles(before)
	for _, c := range w.plan.Changes {
		i := slices.IndexFunc(packages, func(p patchset.Package) bool { return p.Name == c.Name })
		if slices.Contains(before, c.Name) && (i < 0 || packages[i].Version != c.Before) {
			return fmt.Errorf("cannot bring %s %s back: it is not kept on this host", c.Name, c.Before)
		}
	}
	if err := j.install(ctx, w.target, packages, open); err != nil {
		return err
	}
	for _, k := range w.seen.Kept.Packages {
		if have, ok := w.seen.find(k.Name); ok && (have.Status.Want == "hold") != k.Held {
			selection := map[bool]string{true: "hold", false: "install"}[k.Held]
			if err := j.hold(ctx, w.target, []string{k.Name}, selection); err != nil {
				return err
			}
		}
	}
	if w.restarted() {
		return j.restart(ctx, w)
	}
	return nil
}

// reopen follows a container through a restart of ours.
func (j *job) reopen(ctx context.Context, w *work) error {
	now, err := j.engine.Inspect(ctx, w.ID)
	if err != nil {
		return err
	}
	root, err := j.engine.OpenRoot(ctx, now)
	if err != nil {
		return err
	}
	w.root.Close()
	w.Container, w.root = now, root
	return w.readPackages()
}

func (j *job) forgetAll(all []*work) {
	for _, w := range all {
		if _, ok := w.step(Forget); ok && w.err == nil {
			w.err = forget(j.baseline(w.Name))
		}
	}
}

// failure turns what went wrong into the row's error. A failed way back is added, never put in place of the cause.
func (w *work) failure() *Failure {
	if w.err == nil {
		return nil
	}
	f := &Failure{Step: "apply", Message: w.err.Error(), Hint: hint(w.err)}
	var s *stepError
	if errors.As(w.err, &s) {
		f.Step = s.step
	}
	if w.undone != nil {
		f.Message += fmt.Sprintf("; and rolling back failed: %v", w.undone)
		f.Hint = "the packages from before are in /var/lib/nfslock/baseline/" + w.Name + "; run with state: absent, or install them by hand"
	}
	return f
}

func hint(err error) string {
	if errors.Is(err, engine.ErrUnknown) {
		return "run again: it looks at what is really there first"
	}
	return ""
}
