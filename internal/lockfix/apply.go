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
	plan       ContainerPlan
	undo       *undoSet
	begun      bool  // something in it may have changed
	done       bool  // all steps are done
	restarted  bool  // or may have been
	healthy    bool  // its health test passed before anything was changed
	err        error // what went wrong
	undoErr    error // what went wrong on the way back
	rolledBack bool  // it is as it was before
}

func (w *work) step(verb Verb) (Step, bool) {
	i := slices.IndexFunc(w.plan.Steps, func(s Step) bool { return s.Verb == verb })
	if i < 0 {
		return Step{}, false
	}
	return w.plan.Steps[i], true
}

// apply carries the plans out: first everything that will be replaced is kept, in all containers; then the containers
// are worked on in parallel; then what has to be restarted is, one after the other. One that fails stops no other. With
// on_error: rollback all of them go back when one failed.
func (j *job) apply(ctx context.Context, o Options, set Set, f *files, all []*work) (warnings []string) {
	defer j.dropUndo(all)
	warnings = j.keepAll(ctx, set, all)
	if failed(all) && o.OnError == OnErrorRollback {
		return warnings // nothing was changed in any container
	}
	j.each(all, func(w *work) error { return j.change(ctx, w, f) })
	for _, w := range all {
		if w.err == nil && (!failed(all) || o.OnError == OnErrorKeep) {
			w.err = j.restart(ctx, w)
			w.done = w.err == nil
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

// each does f to every container that has something to be done and has not failed yet, all at once.
func (j *job) each(all []*work, f func(*work) error) {
	var group errgroup.Group
	for _, w := range all {
		if w.err != nil || len(w.plan.Steps) == 0 {
			continue
		}
		group.Go(func() error {
			w.err = noPanic(func() error { return f(w) })
			return nil
		})
	}
	_ = group.Wait()
}

func (j *job) keepAll(ctx context.Context, set Set, all []*work) (warnings []string) {
	var mutex sync.Mutex
	j.each(all, func(w *work) error {
		said, err := j.keepOne(ctx, set, w)
		if err != nil {
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

func (j *job) keepOne(ctx context.Context, set Set, w *work) (warnings []string, err error) {
	if s, ok := w.step(Keep); ok {
		if warnings, err = keep(ctx, j.baseline(w.Name), w.seen, set.Suffix, w.root, s.Packages); err != nil {
			return nil, err
		}
		if w.kept != nil {
			w.kept.Close()
		}
		if w.seen.Kept, w.kept, err = openBaseline(j.baseline(w.Name)); err != nil {
			return nil, err
		}
	}
	if s, ok := w.step(Install); ok {
		w.undo, err = j.keepUndo(ctx, w, s.Packages)
	}
	return warnings, err
}

// change does the part of a plan that is inside the container.
func (j *job) change(ctx context.Context, w *work, f *files) error {
	now, err := j.engine.Inspect(ctx, w.ID)
	if err != nil {
		return fail("install", "cannot change %s: %w", w.Name, err)
	}
	if now.PID != w.PID || now.State != "running" {
		return fail("install", "cannot change %s: it was restarted or stopped since it was looked at", w.Name)
	}
	if _, ok := w.step(Restart); ok {
		w.healthy = j.health(ctx, now) == nil
	}
	begun := func() { w.begun = true }
	if s, ok := w.step(Install); ok {
		packages, open := w.plan.Files, deliver(nil)
		if len(packages) > 0 {
			open = f.open
		} else {
			packages, open = w.keptFiles(s.Packages)
		}
		if err := j.install(ctx, w.target, packages, open, begun); err != nil {
			return err
		}
	}
	for _, verb := range []Verb{Hold, Unhold} {
		if s, ok := w.step(verb); ok {
			begun()
			if err := j.hold(ctx, w.target, s.Packages, selection(verb == Hold)); err != nil {
				return err
			}
		}
	}
	return nil
}

// selection is dpkg's word: dpkg(1), --set-selections.
func selection(held bool) string {
	if held {
		return "hold"
	}
	return "install"
}

// keptFiles are the named packages of the baseline.
func (w *work) keptFiles(names []string) ([]patchset.Package, deliver) {
	kept := map[string]KeptPackage{}
	var packages []patchset.Package
	for _, k := range w.seen.Kept.Packages {
		if slices.Contains(names, k.Name) {
			kept[k.Name] = k
			packages = append(packages, k.file())
		}
	}
	return packages, func(p patchset.Package) (*os.File, error) { return openKept(w.kept, kept[p.Name]) }
}

func (j *job) forgetAll(all []*work) {
	for _, w := range all {
		if _, ok := w.step(Forget); ok && w.err == nil {
			w.err = forget(j.baseline(w.Name))
		}
	}
}

// failure turns what went wrong into the row's error. A failed way back is added, never put in place of the cause.
func (w *work) failure(baseline string) *Failure {
	if w.err == nil && w.undoErr == nil {
		return nil
	}
	f := &Failure{Step: "rollback"}
	var s *stepError
	if w.err != nil {
		f.Step, f.Message = "apply", w.err.Error()
	}
	if errors.As(w.err, &s) {
		f.Step = s.step
	}
	if errors.Is(w.err, engine.ErrUnknown) {
		f.Hint = "run again: it looks at what is really there first"
	}
	if w.undoErr != nil {
		if f.Message != "" {
			f.Message += "; and "
		}
		f.Message += fmt.Sprintf("cannot roll %s back: %v", w.Name, w.undoErr)
		f.Hint = "it is between two states: run again; what this host keeps of its packages is in " + baseline
	}
	return f
}
