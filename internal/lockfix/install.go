package lockfix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// Inside the container, below its root. /var/lib belongs to root there, so no service user can get in between.
const (
	privateDir = "var/lib/nfslock"
	policyFile = "usr/sbin/policy-rc.d"
)

// policyText denies every start and stop that a maintainer script asks for, as invoke-rc.d(8) reads it. Its second line
// tells a later run that a killed one left it behind.
const policyText = "#!/bin/sh\n# nfslock: for the time of an install only\nexit 101\n"

const (
	dpkgTimeout = 10 * time.Minute // a real one takes seconds; a slow disk may take longer
	lockWait    = 2 * time.Minute  // for somebody else's dpkg
	lockLook    = 300 * time.Millisecond
	lostTries   = 4               // of a command whose engine or container goes away under it
	lostPause   = time.Second     // before it is looked for again
	dpkgGrace   = 2 * time.Minute // for a dpkg at work when the run is told to stop
	watchPoll   = 2 * time.Second
	verifyLimit = 5 * time.Minute
	outputShown = 2000 // bytes of dpkg's output in an error: its last lines have the reason
)

// deliver opens one package's verified file.
type deliver func(patchset.Package) (*os.File, error)

// install brings the packages into the container and proves that they are there, whole. Where the engine or the container
// went away under it, and both are back, it looks at what is there and tries once more. before is what dpkg had when the
// plan was made.
func (j *job) install(ctx context.Context, w *work, before []deb.Package, packages []patchset.Package, open deliver) error {
	for tries := 1; ; tries++ {
		err := j.installOnce(ctx, w, before, packages, open)
		if err == nil || ctx.Err() != nil || tries == lostTries {
			return err
		}
		lost, e := j.lostSight(ctx, w, err)
		if e != nil {
			return errors.Join(err, e)
		}
		if !lost {
			return err
		}
		if e := w.tidy(ctx); e != nil {
			return errors.Join(err, fail("install", "cannot try again in %s: %w", w.Name, e))
		}
		if w.verify(ctx, before, packages, open) == nil {
			return nil // dpkg does not end with its client
		}
	}
}

// lostSight tells whether an error came from losing the engine or the container, and follows the container where it is
// now.
func (j *job) lostSight(ctx context.Context, w *work, err error) (bool, error) {
	start, pid := w.StartedAt, w.PID
	if errors.Is(err, engine.ErrUnknown) {
		// An engine that is going down still answers for a moment after it has let its commands go.
		select {
		case <-ctx.Done():
		case <-time.After(lostPause):
		}
	}
	if e := j.reopen(ctx, w.target); e != nil {
		return true, fail("install", "cannot tell how dpkg ended in %s: %w", w.Name, e)
	}
	return errors.Is(err, engine.ErrUnknown) || w.PID != pid || !w.StartedAt.Equal(start), nil
}

// installOnce is one dpkg call for all packages, and what belongs around it.
func (j *job) installOnce(ctx context.Context, w *work, before []deb.Package, packages []patchset.Package, open deliver) (err error) {
	t := w.target
	if err := t.awaitDpkg(ctx); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := j.still(ctx, t); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := t.unmoved(before, packages); err != nil {
		return &stepError{"copy", err}
	}
	if err := j.journal.step(t.Name, Install, t.StartedAt); err != nil && !w.onTheWayBack {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := t.clean(); err != nil {
		return fail("copy", "cannot remove what an earlier run left in %s: %w", t.Name, err)
	}
	defer func() {
		e := j.still(context.WithoutCancel(ctx), t)
		if e == nil {
			e = t.clean()
		}
		if e != nil && err == nil {
			err = fail("clean", "cannot clean up in %s: %w", t.Name, e)
		}
		if err == nil {
			j.journal.done(t.Name, Install, t.StartedAt)
		}
	}()
	paths, err := t.copyIn(packages, open)
	if err != nil {
		return fail("copy", "cannot copy to %s: %w", t.Name, err)
	}
	if err := t.denyServices(); err != nil {
		return fail("copy", "cannot keep the packages of %s from starting services: %w", t.Name, err)
	}
	faultpoint.Hit("copied " + t.Name)
	w.begun = true
	if err := j.dpkg(ctx, t, append([]string{"--force-confdef", "--force-confold", "--install"}, paths...), ""); err != nil {
		return &stepError{"install", fmt.Errorf("cannot install %s in %s: %w", list(packages), t.Name, err)}
	}
	faultpoint.Hit("unpacked " + t.Name)
	return t.verify(ctx, before, packages, open)
}

// still proves that the root that is open is that of the container as it runs now. Through the root of one that was
// restarted files can be written and removed all the same, and the container does not see that: two mounts of one overlay
// keep what they know of it apart.
func (j *job) still(ctx context.Context, t *target) error {
	root, err := j.engine.OpenRoot(ctx, t.Container) // fails for one that does not run, or as another process
	if err != nil {
		return err
	}
	return root.Close()
}

// unmoved refuses to go on where somebody else's dpkg has changed these packages since the plan was made. Another try of ours
// may find the version that it installs.
func (t *target) unmoved(before []deb.Package, packages []patchset.Package) error {
	if err := t.readPackages(); err != nil {
		return fmt.Errorf("cannot look at %s: %w", t.Name, err)
	}
	for _, p := range packages {
		now, _ := t.seen.find(p.Name)
		then, _ := (Seen{Packages: before, Architecture: t.seen.Architecture}).find(p.Name)
		if now.Version != then.Version && now.Version != p.Version {
			return fmt.Errorf("cannot change %s: %s was %s when it was looked at and is %s now, so somebody else is at work there", t.Name, p.Name, describe(then), describe(now))
		}
	}
	return nil
}

func list(packages []patchset.Package) string {
	var names []string
	for _, p := range packages {
		names = append(names, p.Name+" "+p.Version)
	}
	return strings.Join(names, " and ")
}

// copyIn writes the files where the container's own processes see them: through its root folder in /proc, mounts and tmpfs
// included, where the engine's copy can land below a tmpfs. Each is then read again from there.
func (t *target) copyIn(packages []patchset.Package, open deliver) (paths []string, err error) {
	if err := t.root.Mkdir(privateDir, 0o700); err != nil {
		return nil, err
	}
	for _, p := range packages {
		name := privateDir + "/" + p.Name + ".deb"
		if err := t.copyFile(p, name, open); err != nil {
			return nil, fmt.Errorf("%s: %w", p.File, err)
		}
		paths = append(paths, "/"+name)
	}
	return paths, nil
}

func (t *target) copyFile(p patchset.Package, name string, open deliver) error {
	from, err := open(p)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	back, _, err := foreign.Open(t.root, name)
	if err != nil {
		return err
	}
	defer back.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, back); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return errors.New("it does not read as it was written")
	}
	return nil
}

// denyServices leaves a policy that is there already alone: it is the image's own, or ours from a run that was killed.
func (t *target) denyServices() error {
	file, err := t.root.OpenFile(policyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(policyText)
	return errors.Join(err, file.Chmod(0o755), file.Close()) // clean removes it also when it is only half written
}

// clean removes all that is ours from the container.
func (t *target) clean() error {
	ours, err := t.deniesServices()
	if ours {
		err = t.root.Remove(policyFile)
	}
	// What is not there is not to be removed from a filesystem that may be read-only.
	_, missing := t.root.Lstat(privateDir)
	if errors.Is(missing, fs.ErrNotExist) {
		return err
	}
	return errors.Join(err, t.root.RemoveAll(privateDir))
}

// deniesServices tells whether the container has our policy, or the beginning of it. A link or a long file is not ours.
func (t *target) deniesServices() (bool, error) {
	file, info, err := foreign.Open(t.root, policyFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, foreign.ErrNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	if info.Size() > int64(len(policyText)) {
		return false, nil
	}
	text, err := io.ReadAll(io.LimitReader(file, int64(len(policyText))))
	return err == nil && strings.HasPrefix(policyText, string(text)), err
}

// environment is all that dpkg and the maintainer scripts get: kolla's images put a virtual environment first in PATH, whose Python is
// not the distribution's. SYSTEMD_OFFLINE makes systemctl leave the running system alone: systemctl(1).
var environment = []string{
	"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
	"DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1",
}

// dpkg runs dpkg. While another dpkg or apt is at work there it waits, and never touches that one's lock.
func (j *job) dpkg(ctx context.Context, t *target, args []string, input string) error {
	command := engine.Command{Args: append(append(slices.Clone(environment), "dpkg"), args...), User: "0"}
	if input != "" {
		// Not through the engine: with live-restore a dpkg outlives it, waits for input for ever and holds its lock.
		script := `text=$1; shift; printf %s "$text" | exec "$@"`
		command.Args = append(append(slices.Clone(environment), "sh", "-c", script, "sh", input, "dpkg"), args...)
	}
	until := time.Now().Add(lockWait)
	for {
		if err := t.awaitDpkg(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("dpkg was not started: %w", ended(ctx))
		}
		out, err := j.execToEnd(ctx, t, command)
		if err != nil {
			return fmt.Errorf("dpkg: %w", err)
		}
		if out.ExitCode == 0 {
			return nil
		}
		// Somebody may have been quicker between the look and the start.
		if !strings.Contains(out.Output, "locked by another process") || time.Now().After(until) {
			return fmt.Errorf("dpkg ended with %d: %s", out.ExitCode, ending(out.Output))
		}
	}
}

// execToEnd does not leave a dpkg alone when the run is told to stop or its time is up: that one is given time to end. It
// gives up where the container stands still.
func (j *job) execToEnd(ctx context.Context, t *target, command engine.Command) (engine.Outcome, error) {
	run, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), dpkgTimeout, fmt.Errorf("dpkg did not end within %v", dpkgTimeout))
	defer cancel()
	run, giveUp := context.WithCancelCause(run)
	defer giveUp(nil)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-run.Done():
		case <-time.After(dpkgGrace):
			giveUp(fmt.Errorf("dpkg did not end within %v after the run was stopped", dpkgGrace))
		}
	})
	defer stop()
	was := t.Container // t may follow the container before the watch has ended
	go func() {
		if why := j.standsStill(run, was); why != "" {
			giveUp(fmt.Errorf("%s %s", was.Name, why))
		}
	}()
	out, err := j.engine.Exec(run, t.ID, command)
	if cause := context.Cause(run); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return out, err
}

// standsStill watches a container until ctx ends, or until it has not been running for downLimit, or runs as another
// process than the one in which the command was started, or is gone: then it says so. The engine itself may never do.
func (j *job) standsStill(ctx context.Context, was engine.Container) (why string) {
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(watchPoll):
		}
		c, err := j.engine.Inspect(ctx, was.ID)
		gone := errors.Is(err, engine.ErrNotFound)
		again := c.State == "running" && (c.PID != was.PID || !c.StartedAt.Equal(was.StartedAt))
		switch {
		case err != nil && !gone || c.State == "running" && !again:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case gone: // seen twice, this and the next: the engine has had time to say how the command ended
			return "was removed"
		case again:
			return "was restarted"
		case time.Since(since) > downLimit:
			return "is " + c.State
		}
	}
}

// ending is the last part of a program's output, from the beginning of a line.
func ending(output string) string {
	output = strings.TrimSpace(output)
	if len(output) > outputShown {
		output = output[len(output)-outputShown:]
		_, output, _ = strings.Cut(output, "\n")
	}
	return output
}

// awaitDpkg waits until no dpkg or apt holds its locks in the container. It only looks: fcntl(2), F_GETLK. The lock files
// are dpkg's lib/dpkg/dbmodify.c; a container without them has no dpkg at work.
func (t *target) awaitDpkg(ctx context.Context) error {
	until := time.Now().Add(lockWait)
	for {
		busy, err := t.dpkgBusy()
		if err != nil || !busy {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("another dpkg or apt has been at work in %s for %v", t.Name, lockWait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another dpkg or apt is at work in %s: %w", t.Name, ended(ctx))
		case <-time.After(lockLook):
		}
	}
}

func (t *target) dpkgBusy() (bool, error) {
	for _, name := range []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"} {
		file, _, err := foreign.OpenLinked(t.root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("cannot look at dpkg's lock: %w", err)
		}
		lock := syscall.Flock_t{Type: syscall.F_WRLCK}
		err = syscall.FcntlFlock(file.Fd(), syscall.F_GETLK, &lock)
		file.Close()
		if err != nil {
			return false, fmt.Errorf("cannot look at dpkg's lock: %w", err)
		}
		if lock.Type != syscall.F_UNLCK {
			return true, nil
		}
	}
	return false, nil
}

// verify trusts dpkg's exit code in nothing: state, version, every file, and the dependencies of all other packages. What
// dpkg has done is looked at also when the run is told to stop.
func (t *target) verify(ctx context.Context, before []deb.Package, packages []patchset.Package, open deliver) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyLimit)
	defer cancel()
	if err := t.readPackages(); err != nil {
		return fail("verify", "cannot verify %s: %w", t.Name, err)
	}
	var now []deb.Package
	for _, p := range packages {
		have, ok := t.seen.find(p.Name)
		if !ok || have.Version != p.Version || !whole(have) {
			return fail("verify", "cannot install %s in %s: dpkg succeeded, yet %s is there", p.Name+" "+p.Version, t.Name, describe(have))
		}
		now = append(now, have)
		sums, err := sumsOf(p, open)
		if err != nil {
			return fail("verify", "cannot verify %s: %w", t.Name, err)
		}
		problems, err := t.db.VerifyFiles(ctx, have, sums)
		if err != nil {
			return fail("verify", "cannot verify %s: %w", t.Name, err)
		}
		if len(problems) > 0 {
			return fail("verify", "cannot install %s in %s: dpkg succeeded, yet %s is %s", p.Name, t.Name, problems[0].Path, problems[0].Kind)
		}
	}
	broken, err := deb.NewlyUnmet(before, now)
	if err != nil {
		return fail("verify", "cannot verify %s: %w", t.Name, err)
	}
	if len(broken) > 0 {
		return fail("verify", "cannot leave %s so: apt would no longer work there: %s", t.Name, broken[0].String())
	}
	return nil
}

func sumsOf(p patchset.Package, open deliver) (map[string]string, error) {
	file, err := open(p)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	archive, err := deb.ReadArchive(file)
	return archive.Md5sums, err
}

// hold sets or removes dpkg's hold, which apt obeys: dpkg(1), --set-selections.
func (j *job) hold(ctx context.Context, w *work, names []string, verb Verb) error {
	t, selection := w.target, "install"
	if verb == Hold {
		selection = "hold"
	}
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintf(&lines, "%s %s\n", name, selection)
	}
	err := j.begin(w, verb, t.StartedAt)
	if err == nil {
		err = j.dpkg(ctx, t, []string{"--set-selections"}, lines.String())
		for tries := 1; err != nil && ctx.Err() == nil && tries < lostTries; tries++ {
			lost, e := j.lostSight(ctx, w, err)
			if e != nil || !lost {
				break
			}
			err = j.dpkg(ctx, t, []string{"--set-selections"}, lines.String()) // setting it twice does no harm
		}
	}
	if err == nil {
		err = j.reopen(ctx, t)
	}
	if err != nil {
		return fail("hold", "cannot set %s of %s in %s: %w", selection, strings.Join(names, ", "), t.Name, err)
	}
	for _, name := range names {
		if p, ok := t.seen.find(name); ok && p.Status.Want != selection {
			return fail("hold", "cannot set %s of %s in %s: dpkg succeeded, yet it says %s", selection, name, t.Name, p.Status.Want)
		}
	}
	j.journal.done(t.Name, verb, t.StartedAt)
	return nil
}

// stepError says in which step of the work on a container an error arose.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// ended says in the user's words why ctx ended: its cause. It still is what ctx.Err() is.
func ended(ctx context.Context) error { return &endedError{ctx.Err(), context.Cause(ctx)} }

type endedError struct{ err, cause error }

func (e *endedError) Error() string   { return e.cause.Error() }
func (e *endedError) Unwrap() []error { return []error{e.err, e.cause} }

func fail(step, format string, args ...any) error {
	return &stepError{step, fmt.Errorf(format, args...)}
}
