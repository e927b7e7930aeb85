package lockfix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
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
		faultpoint.Hit(string(Keep) + " " + w.Name)
		x := baseline.Index{ID: fresh.ID, Image: fresh.Image, Made: time.Now().UTC()}
		if fresh.Kept != nil && fresh.Kept.ID == fresh.ID {
			x.Packages = fresh.Kept.Packages
		}
		if _, err := baseline.Save(ctx, dir, x, w.root, names); err != nil {
			return nil, warnings, err
		}
	}
	if u, err = j.openUndo(w.Name); err != nil && len(warnings) == 0 {
		return nil, nil, err
	}
	return u, warnings, nil
}

// openUndo opens what a run kept for the way back of a container.
func (j *job) openUndo(container string) (u *undoSet, err error) {
	u = &undoSet{}
	u.index, u.folder, err = baseline.Open(j.undoFolder(container))
	return u, err
}

func (j *job) undoFolder(container string) string {
	return filepath.Join(j.journal.dir, undoName, container)
}

func (u *undoSet) close() {
	if u != nil && u.folder != nil {
		u.folder.Close()
	}
}

// rollBack brings containers in which something was begun back to what they were, the last first: all of them where one failed that the others go with,
// else those that failed alone.
func (j *job) rollBack(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	together := failed(all)
	for _, w := range slices.Backward(all) {
		if !w.begun || w.rolledBack || w.triedBack || w.err == nil && w.undoErr == nil && !together {
			continue
		}
		w.done = false
		j.takeBack(ctx, w)
	}
}

// seeBack looks at those that failed where nothing is to be taken back: one that is as it was found is rolled back all the same.
func (j *job) seeBack(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, w := range all {
		if w.err == nil || !w.begun || w.triedBack {
			continue
		}
		w.err = errors.Join(w.err, foreign.NoPanic(func() error {
			a, err := j.lookBack(ctx, w)
			if err != nil {
				return nil // as it was said already
			}
			a.restart = w.restarted || w.before.owesRestartBack(false, w.StartedAt)
			if w.triedBack, w.rolledBack = true, a.nothing(); !a.nothing() {
				w.left = j.byHand(ctx, w, a)
			}
			return nil
		}))
	}
}

// takeBack brings one container back.
func (j *job) takeBack(ctx context.Context, w *work) {
	err := foreign.NoPanic(func() error { return j.rollBackOne(ctx, w) })
	w.gone = errors.Is(err, engine.ErrNotFound) // with the container went what was begun in it
	w.triedBack = ctx.Err() == nil              // else once more, with a time of its own
	w.rolledBack = err == nil
	if w.undoErr = err; w.gone {
		w.undoErr = nil
	}
}

// rollBackOne looks what is not as it was found, puts that back and nothing else, and looks again: what is as it was is rolled back, whatever dpkg's exit codes
// said, and what is not is an error.
func (j *job) rollBackOne(ctx context.Context, w *work) error {
	a, err := j.lookBack(ctx, w)
	if err != nil {
		return err
	}
	w.onTheWayBack = true
	if a.restart = w.restarted || w.before.owesRestartBack(len(a.packages) > 0 || a.library != "", w.StartedAt); a.nothing() {
		return nil
	}
	_ = j.note(w, Undo)
	tried := j.putBack(ctx, w, a)
	left, err := j.lookBack(ctx, w)
	if err != nil {
		return errors.Join(err, tried)
	}
	switch {
	case !a.restart:
	case !left.nothing():
		left.restart = true
	default:
		if err := j.restartNow(ctx, w); err != nil {
			left.restart, tried = true, err
		}
	}
	if left.nothing() {
		faultpoint.Hit(string(Undo) + " " + w.Name + " done")
		return nil
	}
	return &stuckError{left, tried, j.byHand(ctx, w, left)}
}

// lookBack follows the container to where it is now and compares it with how it was found.
func (j *job) lookBack(ctx context.Context, w *work) (astray, error) {
	if err := j.reopen(ctx, w.target); err != nil {
		return astray{}, err
	}
	if w.undo == nil { // keeping failed before it was opened; what a dead run kept counts all the same
		w.undo, _ = j.openUndo(w.Name)
	}
	a, err := w.astrayFrom(ctx, w.before, w.undo)
	if err != nil {
		return a, fmt.Errorf("cannot compare it with how it was found: %w", err)
	}
	return a, nil
}

// owesRestartBack: programs are about to be put back after it was restarted with the others, or were, by a run that died before it restarted it.
func (b Before) owesRestartBack(programs bool, start time.Time) bool {
	owed := b.Owed != nil && start.Equal(*b.Owed) && slices.Contains(b.Begun, Undo)
	return slices.Contains(b.Begun, Restart) && (programs || owed)
}

// configure has dpkg finish with packages that it had finished with before.
func (j *job) configure(ctx context.Context, w *work, names []string) (err error) {
	if err := j.still(ctx, w.target); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.clean()) }()
	if err := w.denyServices(); err != nil {
		return err
	}
	err = j.dpkg(ctx, w.target, append([]string{"--force-confdef", "--force-confold", "--configure"}, names...), "")
	return errors.Join(err, w.readPackages())
}

// putBack tries each thing, also where another could not be put back. What comes of it is looked at, and the errors are only the reasons.
func (j *job) putBack(ctx context.Context, w *work, a astray) (all error) {
	try := func(what string, f func() error) {
		if err := f(); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", what, err))
		}
	}
	if a.unread {
		try("dpkg's records", func() error { return j.haveRead(ctx, w.target) })
	}
	names := slices.Sorted(maps.Keys(a.packages))
	kept := w.found(w.before, w.undo)
	for _, b := range w.before.Packages {
		if _, ok := kept.packages[b.Name]; !ok && slices.Contains(names, b.Name) {
			all = errors.Join(all, fmt.Errorf("%s %s is not kept on this host", b.Name, b.Version))
		}
	}
	if d := kept.delivery(names); len(d.packages) > 0 {
		try("the packages", func() error { return j.install(ctx, w, w.seen.Packages, d) })
	}
	if names := w.before.othersUnfinished(w.seen.Packages); len(names) > 0 {
		try("the other packages", func() error { return j.configure(ctx, w, names) })
	}
	for _, b := range w.before.Packages { // dpkg drops holds when it installs
		if now, ok := w.seen.find(b.Name); ok && b.Held != (now.Status.Want == "hold") {
			verb := Unhold
			if b.Held {
				verb = Hold
			}
			try("holds", func() error { return j.hold(ctx, w, []string{b.Name}, verb) })
		}
	}
	if b := w.before.Library; b != nil && a.library != "" {
		verb, files := back(*b)
		try("the library", func() error { return j.load(ctx, w, verb, files) })
	}
	return all
}

// stuckError is of a container that was looked at, and in which something could not be put back.
type stuckError struct {
	left   astray
	cause  error // nil where nothing could be tried
	byHand string
}

func (e *stuckError) Error() string {
	text := strings.Join(e.left.lines(), "; ")
	if e.cause != nil {
		text += ": " + strings.ReplaceAll(e.cause.Error(), "\n", "; ")
	}
	return text
}

func (e *stuckError) Unwrap() error { return e.cause }

// unreachedError says that a container could not be looked into, though it may be fine.
type unreachedError struct{ cause error }

func (e *unreachedError) Error() string { return fmt.Sprintf("cannot look into it: %v", e.cause) }
func (e *unreachedError) Unwrap() error { return e.cause }

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
			return &unreachedError{last}
		case <-time.After(startPoll):
		}
	}
}
