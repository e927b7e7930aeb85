package lockfix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// work is one container's plan on its way through apply.
type work struct {
	*target
	plan         ContainerPlan
	before       Before // what a rollback brings back
	undo         *undoSet
	begun        bool // something in it may have changed, by this run or a dead one
	gone         bool // it was removed or recreated meanwhile
	done         bool // all steps are done
	onTheWayBack bool
	restarted    bool   // or may have been
	healthy      bool   // its health test passed before anything was changed
	err          error  // what went wrong
	undoErr      error  // what went wrong on the way back
	triedBack    bool   // the way back was gone to its end
	rolledBack   bool   // it is as it was before
	left         string // what to do where nothing is to be taken back
	recorded     bool   // it has a record in the journal
}

func (w *work) step(verb Verb) (Step, bool) { return w.plan.step(verb) }

// whole: nothing is left to be done in it, nor to be taken back.
func (w *work) whole() bool {
	return w.done || w.rolledBack || w.gone || !w.begun && w.seen.Dead == nil
}

// stuck: it was seen that it is neither as it was nor as it should be, and it will not get there by itself.
func (w *work) stuck() bool {
	var unreached *unreachedError
	var down *downError
	err := cmp.Or(w.undoErr, w.err)
	return err != nil && w.triedBack && !errors.As(err, &unreached) && !errors.As(err, &down)
}

// alone: what becomes of it keeps no other container from anything. Nobody asked for it, or it is stuck since an earlier run.
func (s Seen) alone() bool { return s.Unasked || s.Dead != nil && s.Dead.Stuck != "" }

// apply carries the plans out: first the journal says what is to be done and everything that will be replaced is kept, in
// all containers; then the containers are worked on in parallel; then what has to be restarted is, one after the other. One
// that fails stops no other. With on_error: rollback all of them go back when one failed. When the run is told to stop,
// what is at work is waited for and the rest is left to the next run.
func (j *job) apply(ctx context.Context, o Options, set Set, f *files, all []*work) (warnings []string) {
	began := time.Now()
	for _, w := range all {
		w.before = w.plan.before()
		w.begun = w.seen.Dead != nil && w.active()
	}
	warnings = j.keepAll(ctx, set, all)
	begin := !failed(all) || o.OnError == OnErrorKeep
	j.each(all, func(w *work) error {
		if w.plan.Back {
			j.takeBack(ctx, w)
			return nil
		}
		if !begin {
			return nil
		}
		return j.change(ctx, w, f)
	})
	for _, w := range all {
		fit := w.plan.Failure == nil && w.plan.Stays == "" && !w.plan.Back
		if w.err == nil && fit && (!failed(all) || o.OnError == OnErrorKeep) {
			if w.err = j.restart(ctx, w); w.err == nil {
				w.err = j.verifyLoaded(ctx, w)
			}
			if _, ok := w.step(Forget); ok && w.err == nil {
				w.err = j.mayForget(ctx, w)
			}
			w.done = w.err == nil
		}
	}
	stopped := errors.Is(ctx.Err(), context.Canceled)
	switch {
	case stopped:
	case o.OnError == OnErrorRollback:
		j.rollBack(ctx, all)
	default:
		j.seeBack(ctx, all)
	}
	j.putOnDisk(ctx, all, began)
	if err := errors.Join(j.settle(all, stopped), j.endOnDisk(all)); err != nil {
		warnings = append(warnings, err.Error())
	}
	return warnings
}

// begin notes a step that changes the container at once.
func (j *job) begin(w *work, verb Verb) error {
	if err := j.note(w, verb); err != nil {
		return err
	}
	w.begun = true
	return nil
}

// failed: one that the others go with.
func failed(all []*work) bool {
	return slices.ContainsFunc(all, func(w *work) bool { return w.err != nil && !w.seen.alone() })
}

// active: there is something to be done, or to be brought to its end.
func (w *work) active() bool {
	return len(w.plan.Steps) > 0 || w.plan.Back || w.seen.Dead != nil && w.plan.Failure == nil && w.plan.Stays == ""
}

// each does f to every active container that has not failed yet, all at once.
func (j *job) each(all []*work, f func(*work) error) {
	var group errgroup.Group
	for _, w := range all {
		if w.err != nil || !w.active() {
			continue
		}
		group.Go(func() error {
			w.err = foreign.NoPanic(func() error { return f(w) })
			return nil
		})
	}
	_ = group.Wait()
}

func (j *job) keepAll(ctx context.Context, set Set, all []*work) (warnings []string) {
	var mutex sync.Mutex
	j.each(all, func(w *work) error {
		if err := j.open(w); err != nil {
			return &stepError{"journal", err}
		}
		if w.plan.Back { // what there is to go back to was kept before
			return nil
		}
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
	if len(w.plan.Files) > 0 {
		if warnings, err = j.record(ctx, set, w); err != nil {
			return nil, err
		}
	}
	var said []string
	w.undo, said, err = j.keepUndo(ctx, w)
	return append(warnings, said...), err
}

// mayForget refuses to forget what is kept while anything in the container is not the distribution's, as it is by now.
func (j *job) mayForget(ctx context.Context, w *work) error {
	if err := j.reopen(ctx, w.target); err != nil {
		return fail("forget", "cannot tell whether the packages from before of %s are needed: %w", w.Name, err)
	}
	var left []string
	all := w.known.JudgeAll(w.db)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if is := all[name]; is.Whose != baseline.Stock {
			left = append(left, name+" "+is.Package.Version)
		}
	}
	if len(left) > 0 {
		return fail("forget", "cannot forget the packages from before of %s: %s is there and not the distribution's, so somebody else is at work there",
			w.Name, strings.Join(left, " and "))
	}
	return nil
}

// record writes down what is about to be installed of a set, and keeps what it replaces. Without it a package that was made by hand would not be known
// as ours afterwards.
func (j *job) record(ctx context.Context, set Set, w *work) (warnings []string, err error) {
	dir := j.baseline(w.Name)
	x := w.known.Record(w.seen.Image, set.Suffix, w.seen.Judged)
	for _, i := range w.known.Set {
		if slices.ContainsFunc(w.plan.Files, func(p patchset.Package) bool { return p.Name == i.Name }) {
			x.Note(i)
		}
	}
	if s, ok := w.step(Keep); ok {
		faultpoint.Hit(string(Keep) + " " + w.Name)
		warnings, err = w.known.Keep(ctx, dir, x, w.root, s.Packages)
	} else {
		err = x.Write(dir)
	}
	if err != nil {
		return nil, err
	}
	if w.kept != nil {
		w.kept.Close()
	}
	w.seen.Kept, w.kept, err = baseline.Open(dir)
	return w.named(warnings), err
}

// named puts the container's name in front of what is said of it.
func (t *target) named(warnings []string) []string {
	for i := range warnings {
		warnings[i] = t.Name + ": " + warnings[i]
	}
	return warnings
}

// change does the part of a plan that is inside the container.
func (j *job) change(ctx context.Context, w *work, f *files) error {
	if err := j.reopen(ctx, w.target); err != nil {
		return fail("install", "cannot change %s: %w", w.Name, err)
	}
	if _, ok := w.step(Restart); ok {
		w.healthy = j.health(ctx, w.Container) == nil
	}
	if s, ok := w.step(Install); ok {
		d, err := w.sources(s.Packages, f)
		if err == nil && len(d.packages) > 0 {
			err = j.install(ctx, w, w.plan.Seen.Packages, d)
		}
		if err != nil {
			return err
		}
	}
	for _, verb := range []Verb{Hold, Unhold} {
		if s, ok := w.step(verb); ok {
			if err := j.hold(ctx, w, s.Packages, verb); err != nil {
				return err
			}
		}
	}
	if s, ok := w.plan.libraryStep(); ok {
		return j.load(ctx, w, s.Verb, w.plan.Library)
	}
	return nil
}

// sources are the files that are to be installed: of the patch set, of the baseline, or of what a dead run found.
func (w *work) sources(names []string, f *files) (delivery, error) {
	switch {
	case w.plan.PackagesBack:
		d := w.found(w.before, w.undo).delivery(names)
		if len(d.packages) < len(names) {
			return d, fail("plan", "cannot bring the packages of %s back to what they were: this host does not keep all of %s", w.Name, strings.Join(names, ", "))
		}
		return d, nil
	case len(w.plan.Files) > 0:
		return delivery{packages: w.plan.Files, open: f.open}, nil
	}
	return w.keptFiles(names), nil
}

// keptFiles are the named packages of the baseline.
func (w *work) keptFiles(names []string) delivery {
	kept, from := map[string]baseline.Kept{}, map[string]*os.Root{}
	var packages []patchset.Package
	for _, k := range w.seen.Kept.Packages {
		if slices.Contains(names, k.Name) {
			kept[k.Name], from[k.Name] = k, w.kept
			packages = append(packages, k.Deb())
		}
	}
	return keptDelivery(packages, kept, from)
}

// keptDelivery is of kept packages, each in the folder that it is kept in.
func keptDelivery(packages []patchset.Package, kept map[string]baseline.Kept, from map[string]*os.Root) delivery {
	d := delivery{
		packages: packages, excluded: map[string][]deb.Excluded{},
		open: func(p patchset.Package) (*os.File, error) { return kept[p.Name].Open(from[p.Name]) },
	}
	for _, p := range packages {
		d.excluded[p.Name] = kept[p.Name].Excluded
	}
	return d
}

// failure turns what went wrong into the row's error. A failed way back is added, never put in place of the cause.
func (w *work) failure(baseline string) *Failure {
	if w.err == nil && w.undoErr == nil {
		return nil
	}
	f := &Failure{Step: "rollback"}
	var s *stepError
	var down *downError
	if w.err != nil {
		f.Step, f.Message = "apply", w.err.Error()
	}
	if errors.As(w.err, &s) {
		f.Step = s.step
	}
	switch {
	case errors.Is(w.err, context.Canceled) && w.begun && !w.rolledBack:
		f.Hint = "the run was told to stop; the next one finishes what was begun, or takes it back"
	case errors.Is(w.err, engine.ErrNotFound):
		f.Hint = "it was removed or recreated meanwhile; run again"
	case errors.Is(w.err, engine.ErrUnknown) && !w.rolledBack:
		f.Hint = "run again: it looks at what is really there first"
	}
	if w.undoErr != nil && !errors.As(w.undoErr, &down) {
		errors.As(w.err, &down)
	}
	var stuck *stuckError
	switch {
	case w.undoErr != nil:
		if f.Message != "" {
			f.Message += "; and "
		}
		f.Message += fmt.Sprintf("cannot roll %s back: %v", w.Name, w.undoErr)
		f.Hint = "it is between two states: run again; what this host keeps of its packages is in " + baseline
		if errors.As(w.undoErr, &stuck) {
			f.Hint = stuck.byHand
		}
	case w.left != "":
		f.Hint = "it was left so, as on_error is keep: " + w.left
	}
	if down != nil && !w.rolledBack {
		f.Hint = fmt.Sprintf("it is %s: start or unpause it, then run again, which finishes what was begun or takes it back", down.state)
	}
	return f
}
