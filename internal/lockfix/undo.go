package lockfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// undoTimeout bounds the way back of a whole host. It is not part of the run's own time, whose end is often the reason.
const undoTimeout = 15 * time.Minute

// undoSet are the packages as they were when the run began, patched ones too. It is kept for the time of the run, apart
// from the baseline, which holds the distribution's packages until they are wanted back.
type undoSet struct {
	folder  *os.Root
	index   *Baseline
	missing []string // packages that were not whole: there is no former state to go back to
}

// keepUndo keeps what the install will replace. What the baseline holds of the very same state need not be kept twice.
func (j *job) keepUndo(ctx context.Context, w *work, packages []string) (*undoSet, error) {
	u := &undoSet{}
	var names []string
	for _, name := range packages {
		have, _ := w.plan.Seen.find(name)
		switch {
		case w.seen.keeps(have):
		case whole(have):
			names = append(names, name)
		default:
			u.missing = append(u.missing, name)
		}
	}
	if len(names) == 0 {
		return u, nil
	}
	dir := j.undoDir(w.Name)
	if err := forget(dir); err != nil {
		return nil, err
	}
	fresh := w.seen
	fresh.Kept = nil
	if _, err := keep(ctx, dir, fresh, "", w.root, names); err != nil {
		return nil, err
	}
	var err error
	u.index, u.folder, err = openBaseline(dir)
	return u, err
}

func (j *job) undoDir(container string) string { return filepath.Join(j.dir, "undo", container) }

// dropUndo removes what was kept for the time of the run, unless a way back failed: then it is what is left to go by.
func (j *job) dropUndo(all []*work) {
	for _, w := range all {
		if w.undo != nil && w.undo.folder != nil {
			w.undo.folder.Close()
		}
		if w.undoErr == nil {
			_ = forget(j.undoDir(w.Name)) // the next run removes it
		}
	}
	_ = os.Remove(filepath.Join(j.dir, "undo")) // only when it is empty
}

// rollBack brings every container in which something was begun back to what it was, the last first.
func (j *job) rollBack(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, w := range slices.Backward(all) {
		if w.begun {
			w.undoErr = noPanic(func() error { return j.rollBackOne(ctx, w) })
			w.rolledBack = w.undoErr == nil
		}
	}
}

func (j *job) rollBackOne(ctx context.Context, w *work) error {
	if err := j.reopen(ctx, w.target); err != nil {
		return err
	}
	if s, ok := w.step(Install); ok {
		packages, open, err := w.undo.files(w, s.Packages)
		if err != nil {
			return err
		}
		if err := j.install(ctx, w.target, packages, open, func() {}); err != nil {
			return err
		}
	}
	for _, c := range w.plan.Changes {
		before, _ := w.plan.Seen.find(c.Name)
		now, ok := w.seen.find(c.Name)
		if held := before.Status.Want == "hold"; ok && held != (now.Status.Want == "hold") {
			if err := j.hold(ctx, w.target, []string{c.Name}, selection(held)); err != nil {
				return err
			}
		}
	}
	if w.restarted {
		return j.restart(ctx, w)
	}
	return nil
}

// files are the packages as they were, each from the run's own folder or from the baseline.
func (u *undoSet) files(w *work, names []string) ([]patchset.Package, deliver, error) {
	if len(u.missing) > 0 {
		return nil, nil, fmt.Errorf("%v was not whole before either", u.missing)
	}
	kept := map[string]KeptPackage{}
	from := map[string]*os.Root{}
	add := func(b *Baseline, root *os.Root) {
		if b == nil {
			return
		}
		for _, k := range b.Packages {
			if before, ok := w.plan.Seen.find(k.Name); ok && before.Version == k.Version {
				kept[k.Name], from[k.Name] = k, root
			}
		}
	}
	add(w.seen.Kept, w.kept)
	add(u.index, u.folder)
	var packages []patchset.Package
	for _, name := range names {
		k, ok := kept[name]
		if !ok {
			return nil, nil, fmt.Errorf("%s is not kept on this host", name)
		}
		packages = append(packages, k.file())
	}
	return packages, func(p patchset.Package) (*os.File, error) { return openKept(from[p.Name], kept[p.Name]) }, nil
}

// reopen follows a container through a restart, ours or another's, and reads its packages again. It waits while the
// container is between a stop and a start.
func (j *job) reopen(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	last := errors.New("it does not run")
	for {
		now, err := j.engine.Inspect(ctx, t.ID)
		switch {
		case err != nil && ctx.Err() == nil:
			last = err
		case err == nil && now.State != "running":
			last = fmt.Errorf("it is %s", now.State)
		case err == nil && now.PID == t.PID && now.StartedAt.Equal(t.StartedAt):
			return t.readPackages()
		case err == nil:
			root, err := j.engine.OpenRoot(ctx, now)
			if err == nil {
				t.root.Close()
				name := t.Name
				t.Container, t.root = now, root
				t.Name = name
				return t.readPackages()
			}
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot look into %s: %w", t.Name, last)
		case <-time.After(startPoll):
		}
	}
}
