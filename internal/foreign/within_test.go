package foreign

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
)

func TestWithinGivesWhatIsFound(t *testing.T) {
	got, err := Within(t.Context(), func() (string, error) { return "found", nil })
	if got != "found" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	boom := errors.New("boom")
	if _, err := Within(t.Context(), func() (string, error) { return "", boom }); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	if _, err := Within(t.Context(), func() (string, error) { panic("boom") }); err == nil || !strings.Contains(err.Error(), "internal error, please report it: boom\n") {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Within(ended, func() (string, error) { t.Error("it looked"); return "", nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type late struct{ closed atomic.Bool }

func (l *late) Close() error {
	l.closed.Store(true)
	return nil
}

func TestWhatComesTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("there was no answer within 1s"))
		defer cancel()
		l := &late{}
		got, err := Within(ctx, func() (*late, error) {
			time.Sleep(time.Minute)
			return l, nil
		})
		if got != nil || !errors.Is(err, ErrNoAnswer) || err.Error() != "a filesystem there does not answer (there was no answer within 1s)" {
			t.Errorf("%v, %v", got, err)
		}
		time.Sleep(2 * time.Minute)
		if !l.closed.Load() {
			t.Error("it was left open")
		}
	})
}

// TestAFilesystemThatNeverAnswersKeepsNobodyWaiting, though the thread that asked it waits until it is gone.
func TestAFilesystemThatNeverAnswersKeepsNobodyWaiting(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.MkdirAll("var/lib/dpkg", 0o755); err != nil {
		t.Fatal(err)
	}
	silenttest.Mount(t, dir+"/var/lib/dpkg")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = Within(ctx, func() (int, error) { // bare calls only: see silenttest
		return 0, unix.Access(dir+"/var/lib/dpkg/status", unix.F_OK)
	})
	if !errors.Is(err, ErrNoAnswer) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
