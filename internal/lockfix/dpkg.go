package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

const (
	dpkgTimeout = 10 * time.Minute // a real one takes seconds; a slow disk may take longer
	lockWait    = 2 * time.Minute  // for somebody else's dpkg
	lockLook    = 300 * time.Millisecond
	dpkgGrace   = 2 * time.Minute // for a dpkg at work when the run is told to stop
	watchPoll   = 2 * time.Second
	outputShown = 2000 // bytes of dpkg's output in an error: its last lines have the reason
)

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is all that dpkg and the maintainer scripts get: kolla's images put a virtual environment first in PATH, whose Python is
// not the distribution's. SYSTEMD_OFFLINE makes systemctl leave the running system alone: systemctl(1).
var environment = []string{
	"/usr/bin/env", "-i", "PATH=" + searchPath, "HOME=/root", "LC_ALL=C.UTF-8",
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
		again := c.State == "running" && !c.SameStart(was)
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
