package statedir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

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
	return take(ctx, file)
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
