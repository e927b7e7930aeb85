package statedir

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestTakeLockKeepsTwoRunsApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nfslock")
	unlock, _, err := TakeLock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		unlock, late, err := TakeLock(t.Context(), dir)
		if err == nil && !late {
			err = errors.New("it does not say that it waited")
		}
		if err == nil {
			unlock()
		}
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("the second did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if !Locked(dir) {
		t.Error("nobody is said to be at work")
	}
	unlock()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}
