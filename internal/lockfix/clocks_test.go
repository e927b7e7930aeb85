package lockfix

import (
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// quick runs, and fails the test where the run waited for a time that the engine named.
func (w *world) quick(o Options, set Set, f *files) (Result, error) {
	w.t.Helper()
	began := time.Now()
	r, err := w.run(o, ansible.Call{}, set, f)
	if took := time.Since(began); took > 10*time.Second {
		w.t.Errorf("it took %v", took)
	}
	return r, err
}

// The engine's clock was ahead when nova_libvirt was started, and has been set back since.
func TestLibvirtThatWasStartedInTheFutureIsRestartedOnce(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 20 * 365 * 24 * time.Hour} {
		w := twoContainers(t)
		set, f := folder(t, qemuUtils(patched))
		w.boxes["nova_libvirt"].StartedAt, w.clock = time.Now().Add(ahead), -ahead
		r, err := w.quick(options(), set, f)
		if err != nil || statuses(r) != "nova_libvirt patched, cinder_volume patched" || w.restarts() != 1 {
			t.Errorf("%v ahead: %v, %s, %d restarts", ahead, err, statuses(r), w.restarts())
		}
	}
}

func TestStoppedContainerThatEndedInTheFutureIsNotWaitedFor(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, 20 * 365 * 24 * time.Hour} {
		w := twoContainers(t)
		set, f := folder(t, qemuUtils(patched))
		b := w.boxes["cinder_volume"]
		b.State, b.EndedAt = "exited", time.Now().Add(ahead)
		if r, err := w.quick(options(), set, f); err != nil || statuses(r) != "nova_libvirt patched, cinder_volume skipped" {
			t.Errorf("%v ahead: %v, %s", ahead, err, statuses(r))
		}
	}
}

// A run died between the install and the restart. Whether that is still owed is told by the start that it knew, wherever the clocks were then and are now.
func TestRecordFromTheFutureOrThePastOwesARestartUntilItIsStarted(t *testing.T) {
	for _, at := range []time.Time{time.Now().Add(20 * 365 * 24 * time.Hour), time.Unix(1, 1)} {
		for _, since := range []time.Duration{0, -time.Hour, time.Hour} {
			w := newWorld(t)
			b := w.add("nova_libvirt", qemuUtils(stock))
			b.StartedAt = at
			set, f := folder(t, qemuUtils(patched))
			w.stopIn("nova_libvirt: dpkg --set", nil, options(), set, f)
			want := 1
			if since != 0 {
				b.StartedAt, b.PID, want = at.Add(since), b.PID+100, 0
			}
			if r, err := w.quick(options(), set, f); err != nil || w.restarts() != want || w.program("nova_libvirt") != patched {
				t.Errorf("started at %v, again %v later: %d restarts, want %d: %v, %s", at, since, w.restarts(), want, err, statuses(r))
			}
		}
	}
}
