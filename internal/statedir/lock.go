package statedir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/supervise"
)

// LockName is the file that is locked.
const LockName = "lock"

// lockPoll is how often a waiting run looks again: often enough that nobody notices.
const lockPoll = 100 * time.Millisecond

// Lock makes this the only run on the host, waiting until ctx ends at the longest. The kernel drops the lock with the process (flock(2)), so a
// killed run blocks nobody; of a process that cannot end the one that supervises it drops the lock. The caller calls unlock; waited tells
// it that what it saw before may be old.
func (f *Folder) Lock(ctx context.Context) (unlock func(), waited bool, err error) {
	file, err := f.root.OpenFile(LockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err == nil {
		if err = f.own(LockName, unix.S_IFREG); err != nil {
			file.Close()
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot lock this host: %w", err)
	}
	return take(ctx, file)
}

// take is Lock of a file that is open, which it closes in the end.
func take(ctx context.Context, file *os.File) (unlock func(), waited bool, err error) {
	if waited, err = wait(ctx, file); err != nil {
		file.Close()
		return nil, waited, err
	}
	// Who holds it is for the message below only; the lock itself counts.
	_ = file.Truncate(0)
	_, _ = fmt.Fprintf(file, "%d\n", os.Getpid())
	supervise.Lend(file)
	return func() {
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) // the supervising process has the file open, too
		file.Close()
	}, waited, nil
}

func wait(ctx context.Context, file *os.File) (waited bool, err error) {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return waited, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return waited, fmt.Errorf("cannot lock this host: %w", err)
		}
		waited = true
		select {
		case <-ctx.Done():
			holder, _ := io.ReadAll(io.LimitReader(file, 32))
			return waited, fmt.Errorf("cannot start: another run (process %s) is at work on this host and did not end in time", strings.TrimSpace(string(holder)))
		case <-time.After(lockPoll):
		}
	}
}

// Locked tells, for a run that changes nothing, whether another one is at work.
func (f *Folder) Locked() bool {
	file, _, err := f.Open(LockName)
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
