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
	outputShown = 2000 // bytes of dpkg's output in an error: its last lines have the reason
)

// deliver opens one package's verified file.
type deliver func(patchset.Package) (*os.File, error)

// install brings the packages into the container with one dpkg call and proves that they are there, whole. begun is
// called when it may have changed something.
func (j *job) install(ctx context.Context, t *target, packages []patchset.Package, open deliver, begun func()) (err error) {
	if err := t.awaitDpkg(ctx); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := t.root.RemoveAll(privateDir); err != nil {
		return fail("copy", "cannot remove what an earlier run left in %s: %w", t.Name, err)
	}
	defer func() {
		if e := t.clean(); e != nil && err == nil {
			err = fail("clean", "cannot clean up in %s: %w", t.Name, e)
		}
	}()
	paths, err := t.copyIn(packages, open)
	if err != nil {
		return fail("copy", "cannot copy to %s: %w", t.Name, err)
	}
	if err := t.denyServices(); err != nil {
		return fail("copy", "cannot keep the packages of %s from starting services: %w", t.Name, err)
	}
	before := t.seen.Packages
	begun()
	err = j.dpkg(ctx, t, append([]string{"--force-confdef", "--force-confold", "--install"}, paths...), "")
	if errors.Is(err, engine.ErrUnknown) {
		// dpkg does not end with its client. When it has ended, what it did is what counts.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockWait)
		defer cancel()
		if e := t.awaitDpkg(after); e != nil {
			err = errors.Join(err, e)
		} else if t.verify(after, before, packages, open) == nil {
			return ctx.Err()
		}
	}
	if err != nil {
		return &stepError{"install", fmt.Errorf("cannot install %s in %s: %w", list(packages), t.Name, err)}
	}
	return t.verify(ctx, before, packages, open)
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
	back, err := t.root.Open(name)
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
	policy, err := t.root.ReadFile(policyFile)
	if err == nil && strings.HasPrefix(policyText, string(policy)) {
		err = t.root.Remove(policyFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, t.root.RemoveAll(privateDir))
}

// environment is all that dpkg and the maintainer scripts get: kolla's images put a virtual environment first in PATH, whose Python is
// not the distribution's. SYSTEMD_OFFLINE makes systemctl leave the running system alone: systemctl(1).
var environment = []string{
	"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
	"DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1",
}

// dpkg runs dpkg. While another dpkg or apt is at work there it waits, and never touches that one's lock.
func (j *job) dpkg(ctx context.Context, t *target, args []string, stdin string) error {
	ctx, cancel := context.WithTimeout(ctx, dpkgTimeout)
	defer cancel()
	command := engine.Command{Args: append(append(slices.Clone(environment), "dpkg"), args...), User: "0", Stdin: stdin}
	until := time.Now().Add(lockWait)
	for {
		if err := t.awaitDpkg(ctx); err != nil {
			return err
		}
		out, err := j.engine.Exec(ctx, t.ID, command)
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
			return fmt.Errorf("another dpkg or apt is at work in %s: %w", t.Name, ctx.Err())
		case <-time.After(lockLook):
		}
	}
}

func (t *target) dpkgBusy() (bool, error) {
	for _, name := range []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"} {
		file, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
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

// verify trusts dpkg's exit code in nothing: state, version, every file, and the dependencies of all other packages.
func (t *target) verify(ctx context.Context, before []deb.Package, packages []patchset.Package, open deliver) error {
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
func (j *job) hold(ctx context.Context, t *target, names []string, selection string) error {
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintf(&lines, "%s %s\n", name, selection)
	}
	err := j.dpkg(ctx, t, []string{"--set-selections"}, lines.String())
	if err == nil {
		err = t.readPackages()
	}
	if err != nil {
		return fail("hold", "cannot set %s of %s in %s: %w", selection, strings.Join(names, ", "), t.Name, err)
	}
	for _, name := range names {
		if p, ok := t.seen.find(name); ok && p.Status.Want != selection {
			return fail("hold", "cannot set %s of %s in %s: dpkg succeeded, yet it says %s", selection, name, t.Name, p.Status.Want)
		}
	}
	return nil
}

// stepError says in which step of the work on a container an error arose.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func fail(step, format string, args ...any) error {
	return &stepError{step, fmt.Errorf(format, args...)}
}
