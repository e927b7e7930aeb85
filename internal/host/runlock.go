package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// LockName is the file in the modules' folder.
const LockName = "lock"

// lockPoll is how often a waiting run looks again: often enough that nobody notices.
const lockPoll = 100 * time.Millisecond

// TakeLock makes this the only run on the host, waiting until ctx ends at the longest. The kernel drops the lock with the
// process (flock(2)), so a killed run blocks nobody. The caller calls unlock; waited tells it that what it saw before may be
// old.
func TakeLock(ctx context.Context, dir string) (unlock func(), waited bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, waited, fmt.Errorf("cannot lock this host: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, LockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, waited, fmt.Errorf("cannot lock this host: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, waited, fmt.Errorf("cannot lock this host: %w", err)
		}
		waited = true
		select {
		case <-ctx.Done():
			holder, _ := io.ReadAll(io.LimitReader(file, 32))
			file.Close()
			return nil, waited, fmt.Errorf("cannot start: another run (process %s) is at work on this host and did not end in time", strings.TrimSpace(string(holder)))
		case <-time.After(lockPoll):
		}
	}
	// Who holds it is for the message above only; the lock itself counts.
	_ = file.Truncate(0)
	_, _ = fmt.Fprintf(file, "%d\n", os.Getpid())
	return func() { file.Close() }, waited, nil
}

// Locked tells, for check mode, whether a run is at work.
func Locked(dir string) bool {
	file, err := os.OpenFile(filepath.Join(dir, LockName), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
