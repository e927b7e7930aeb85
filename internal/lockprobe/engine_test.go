package lockprobe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// world is an engine whose containers are this test's own process, and so see what the host sees.
type world struct {
	names   map[string]string
	err     error // of the list
	stuck   bool  // it never answers
	seccomp string
	state   string // running, if empty
	gone    bool   // the container is removed while it is looked at
}

// List has containers of kolla's, but for those whose names begin with other.
func (w world) List(ctx context.Context) (all []engine.Listed, err error) {
	if w.stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, id := range w.names {
		l := engine.Listed{ID: id, Name: name, State: cmp.Or(w.state, "running")}
		if !strings.HasPrefix(name, "other") {
			l.Labels = map[string]string{"kolla_version": "20.0.0"}
		}
		all = append(all, l)
	}
	return all, w.err
}

func (w world) Inspect(_ context.Context, name string) (engine.Container, error) {
	if w.gone {
		return engine.Container{}, fmt.Errorf("cannot inspect %s: %w", name, engine.ErrNotFound)
	}
	c := engine.Container{ID: w.names[name], Name: name, State: "running", PID: os.Getpid(), Seccomp: w.seccomp}
	if w.state != "" {
		c.State, c.PID = w.state, 0
	}
	return c, nil
}

func (world) OpenRoot(context.Context, engine.Container) (*os.Root, error) { return os.OpenRoot("/") }

func (world) Exec(context.Context, string, engine.Command) (engine.Outcome, error) {
	return engine.Outcome{}, errors.New("no command is to be run here")
}

func with(t *testing.T, w world) (*machine, Options) {
	t.Helper()
	o := quick
	o.Paths = []string{t.TempDir()}
	return &machine{engine: w, proc: "/proc", dir: t.TempDir(), caller: well(), try: start}, o
}

// A container and the host that see the same spot have a row each, and it is tried once.
func TestContainersAndTheHostHaveRowsOfTheirOwn(t *testing.T) {
	m, o := with(t, world{names: map[string]string{"nova_compute": "aa", "cinder_volume": "bb", "other": "cc"}})
	tries := make(chan string, 100)
	m.try = func(ctx context.Context, root *os.File, device string, tk task) attempt {
		tries <- string(tk.Path)
		return start(ctx, root, device, tk)
	}
	r := report(t, m, o)
	var got []string
	for _, row := range r.Mounts {
		if row.Path == o.Paths[0] {
			got = append(got, row.Container+" "+row.Probed+" "+string(row.Verdict))
		}
	}
	if want := "[host outside ok nova_compute with host ok cinder_volume with host ok]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	close(tries)
	n := 0
	for p := range tries {
		if p == o.Paths[0] {
			n++
		}
	}
	if n != 1 || len(r.Packages) != 2 || r.Packages[0].Container != "nova_compute" {
		t.Errorf("tried %d times; %+v", n, r.Packages)
	}
}

// Whatever the engine does, the host's own mounts are judged; only what the user named must be seen.
func TestAnEngineThatFails(t *testing.T) {
	for _, w := range []world{{err: errors.New("cannot list containers: it is broken")}, {stuck: true}} {
		m, o := with(t, w)
		began := time.Now()
		r := report(t, m, o)
		if len(r.Mounts) == 0 || r.Mounts[0].Verdict != OK || r.Engine.Error == "" || time.Since(began) > 30*time.Second {
			t.Errorf("%+v: %+v", w, r)
		}
		o.Containers = []string{"nova_compute"}
		result := emptyResult()
		if err := m.run(t.Context(), o, &result); err == nil {
			t.Errorf("%+v: no error", w)
		}
	}
}

func TestContainersThatCannotBeLookedAt(t *testing.T) {
	one := map[string]string{"nova_compute": "aa"}
	for _, test := range []struct {
		name  string
		world world
		state string
		says  string // in the row's error or a finding
	}{
		{"stopped", world{names: one, state: "exited"}, "exited", "nova_compute is exited, so nothing could be tried in it"},
		{"paused", world{names: one, state: "paused"}, "paused", "nova_compute is paused"},
		{"removed just now", world{names: one, gone: true}, "", "cannot inspect nova_compute"},
	} {
		m, o := with(t, test.world)
		r := report(t, m, o)
		if len(r.Packages) != 1 || r.Packages[0].QEMU != Unknown || r.Packages[0].State != test.state || r.Verdict != OK {
			t.Errorf("%s: %+v, %s", test.name, r.Packages, r.Verdict)
		}
		if text := fmt.Sprint(r.Packages, r.Findings); !strings.Contains(text, test.says) {
			t.Errorf("%s: %s", test.name, text)
		}
	}
	m, o := with(t, world{names: one})
	o.Containers = []string{"cinder_volume"}
	r := emptyResult()
	if err := m.run(t.Context(), o, &r); err == nil || err.Error() != `cannot find container "cinder_volume" on this host` {
		t.Errorf("%v", err)
	}
}

func TestAHostThatIsNoKollaHost(t *testing.T) {
	m, o := with(t, world{names: map[string]string{"other_web": "aa"}})
	o.Paths = nil
	r := report(t, m, o)
	if r.Verdict != OK || !strings.Contains(r.Msg, "no kolla container and no NFS mount") {
		t.Errorf("%s: %s", r.Verdict, r.Msg)
	}
}

func TestARunWhoseTimeIsUpSaysSo(t *testing.T) {
	m, o := with(t, world{names: map[string]string{}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := emptyResult()
	err := m.run(ctx, o, &r)
	if !errors.Is(err, context.Canceled) || len(r.Mounts) == 0 || r.Mounts[0].Verdict != Unclear || !strings.Contains(r.Mounts[0].Reason, "time is up") {
		t.Errorf("%v, %+v", err, r.Mounts)
	}
}
