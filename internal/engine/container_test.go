package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

func TestListHasStoppedContainersToo(t *testing.T) {
	e, _ := reach(
		t, enginetest.Container{ID: "0a", Name: "nova_libvirt"},
		enginetest.Container{ID: "0b", Name: "cinder_volume", State: "exited"},
	)
	got, err := e.List(t.Context())
	want := []Listed{{ID: "0a", Name: "nova_libvirt", State: "running"}, {ID: "0b", Name: "cinder_volume", State: "exited"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func TestInspectDescribesTheContainer(t *testing.T) {
	started := time.Date(2025, 3, 4, 5, 6, 7, 123456789, time.UTC)
	e, _ := reach(
		t, enginetest.Container{
			ID: "0a", Name: "nova_libvirt", Image: "kolla/nova-libvirt:2024.1", PID: 4711, StartedAt: started, ReadOnly: true,
			Health: []string{"CMD-SHELL", "virsh version --daemon"}, Env: []string{"KOLLA_SERVICE_NAME=nova-libvirt"},
		},
		enginetest.Container{ID: "0b", Name: "cinder_volume", State: "created"},
	)
	for name, want := range map[string]Container{
		"nova_libvirt": {
			ID: "0a", Name: "nova_libvirt", Image: "kolla/nova-libvirt:2024.1", State: "running", PID: 4711, StartedAt: started,
			ReadOnly: true, Health: []string{"/bin/sh", "-c", "virsh version --daemon"}, Env: []string{"KOLLA_SERVICE_NAME=nova-libvirt"},
		},
		"cinder_volume": {ID: "0b", Name: "cinder_volume", State: "created"},
	} {
		got, err := e.Inspect(t.Context(), name)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", name, err, diff)
		}
	}
}

func TestInspectOfAnAbsentContainerIsErrNotFound(t *testing.T) {
	e, _ := reach(t)
	_, err := e.Inspect(t.Context(), "nova_libvirt")
	if !errors.Is(err, ErrNotFound) || err.Error() != "cannot inspect nova_libvirt: no such container" {
		t.Errorf("got %v", err)
	}
}

func TestHealthCommand(t *testing.T) {
	for _, test := range []struct {
		name string
		test []string
		want []string
	}{
		{"none set", nil, nil},
		{"taken from the image", []string{}, nil},
		{"switched off", []string{"NONE"}, nil},
		{"switched off, with words behind", []string{"NONE", "true"}, nil},
		{"arguments", []string{"CMD", "healthcheck_port", "nova-compute", "5672"}, []string{"healthcheck_port", "nova-compute", "5672"}},
		{"a line for the shell", []string{"CMD-SHELL", "healthcheck_curl http://x || exit 1"}, []string{"/bin/sh", "-c", "healthcheck_curl http://x || exit 1"}},
		{"no command", []string{"CMD"}, nil},
		{"an unknown kind", []string{"CMD-NEW", "x"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, healthCommand(test.test)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRestartGivesTheGraceInSeconds(t *testing.T) {
	var asked string
	e, _ := reach(t, enginetest.Container{ID: "0a", Name: "nova_libvirt", Restart: func(_ *enginetest.Container, seconds string) { asked = seconds }})
	if err := e.Restart(t.Context(), "0a", time.Minute); err != nil || asked != "60" {
		t.Errorf("%q seconds, %v", asked, err)
	}
	if err := e.Restart(t.Context(), "0b", time.Minute); err == nil || !strings.HasPrefix(err.Error(), "cannot restart 0b: ") {
		t.Errorf("got %v", err)
	}
}

// own is a container whose first process is this test and whose files are therefore the host's.
func own() enginetest.Container {
	return enginetest.Container{ID: "0a", Name: "nova_libvirt", PID: os.Getpid(), StartedAt: time.Unix(1700000000, 5).UTC()}
}

func TestOpenRootOpensTheFilesOfTheFirstProcess(t *testing.T) {
	e, _ := reach(t, own())
	c, err := e.Inspect(t.Context(), "nova_libvirt")
	if err != nil {
		t.Fatal(err)
	}
	root, err := e.OpenRoot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if info, err := root.Stat("proc"); err != nil || !info.IsDir() {
		t.Errorf("%v", err)
	}
	if _, err := root.Stat("../etc"); err == nil {
		t.Error("it leads out")
	}
}

func TestOpenRootRefusesWhatMayBeAnotherContainersFiles(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*enginetest.Container)
		want   string
	}{
		{"restarted, and the PID was reused", func(c *enginetest.Container) { c.StartedAt = c.StartedAt.Add(time.Nanosecond) }, "it was restarted meanwhile"},
		{"restarted with another PID", func(c *enginetest.Container) { c.PID = 1 }, "it was restarted meanwhile"},
		{"stopped", func(c *enginetest.Container) { c.PID, c.State = 0, "exited" }, "it was restarted meanwhile"},
		{"recreated under another id", func(c *enginetest.Container) { c.ID = "0b" }, "no such container"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, server := reach(t, own())
			c, err := e.Inspect(t.Context(), "nova_libvirt")
			if err != nil {
				t.Fatal(err)
			}
			server.Edit("nova_libvirt", test.change)
			root, err := e.OpenRoot(t.Context(), c)
			if err == nil {
				root.Close()
				t.Fatal("opened")
			}
			if want := "cannot open the files of nova_libvirt: "; !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q", err)
			}
		})
	}
}

// Where the kernel says that the process is the container's, the engine need not be asked once more: each question takes as long as all else.
func TestOpenRootAsksTheEngineOnlyWhereControlGroupsDoNotTell(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, test := range []struct {
		name  string
		group string
		asked int // times, by Inspect and OpenRoot
	}{
		{"the container's own", id, 1},
		{"another container's", strings.Repeat("f", 64), 2},
		{"none", "nfslock-test", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			pid := inGroup(t, test.group)
			e, server := reach(t, enginetest.Container{ID: id, Name: "nova_libvirt", PID: pid, StartedAt: time.Unix(1700000000, 0).UTC()})
			c, err := e.Inspect(t.Context(), "nova_libvirt")
			if err != nil {
				t.Fatal(err)
			}
			root, err := e.OpenRoot(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			root.Close()
			asked := 0
			for _, path := range server.Paths() {
				if strings.Contains(path, "/containers/") {
					asked++
				}
			}
			if asked != test.asked {
				t.Errorf("%q", server.Paths())
			}
		})
	}
}

// inGroup starts a process in a control group of that name, in the first hierarchy in which root may make one: cgroups(7).
func inGroup(t *testing.T, name string) (pid int) {
	t.Helper()
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range []string{"", "pids", "systemd", "unified"} {
		group := filepath.Join("/sys/fs/cgroup", hierarchy, name)
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(group) })
		procs, err := os.OpenFile(filepath.Join(group, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			continue // no hierarchy, but the folder above
		}
		_, err = procs.WriteString(strconv.Itoa(sleep.Process.Pid))
		procs.Close()
		if err == nil {
			t.Cleanup(func() { _, _ = sleep.Process.Kill(), sleep.Wait() })
			return sleep.Process.Pid
		}
	}
	_, _ = sleep.Process.Kill(), sleep.Wait()
	t.Skip("needs root, and control groups that can be written")
	return 0
}

func TestOpenRootOfAContainerThatDoesNotRunSaysHowItIs(t *testing.T) {
	e, _ := reach(t)
	if _, err := e.OpenRoot(t.Context(), Container{Name: "cinder_api", State: "exited"}); err == nil || err.Error() != "cannot open the files of cinder_api: it is exited" {
		t.Errorf("got %v", err)
	}
	// No process has this number: pid_max ends at 2^22, proc(5).
	if _, err := e.OpenRoot(t.Context(), Container{Name: "cinder_api", State: "running", PID: 1 << 23}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestSeccomp(t *testing.T) {
	for _, test := range []struct {
		options []string
		want    string
	}{
		{nil, ""},
		{[]string{"label=disable", "apparmor=unconfined"}, ""},
		{[]string{"seccomp=builtin"}, ""},
		{[]string{"no-new-privileges", "seccomp=unconfined"}, "unconfined"},
		{[]string{"seccomp:unconfined"}, "unconfined"},
		{[]string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}, "custom"},
	} {
		if got := seccomp(test.options); got != test.want {
			t.Errorf("%q: %q", test.options, got)
		}
	}
}

// TestAStartIsKnownWhateverTheClocksSay: an engine's clock may have been set between two looks.
func TestAStartIsKnownWhateverTheClocksSay(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	before := Container{ID: "a", PID: 7, Start: 100, StartedAt: at}
	for name, c := range map[string]struct {
		now  Container
		same bool
	}{
		"nothing happened":                                              {before, true},
		"restarted, and the clock went back":                            {Container{ID: "a", PID: 8, Start: 900, StartedAt: at.Add(-time.Hour)}, false},
		"restarted, at the same time":                                   {Container{ID: "a", PID: 8, Start: 900, StartedAt: at}, false},
		"restarted, with the same number":                               {Container{ID: "a", PID: 7, Start: 900, StartedAt: at}, false},
		"restarted, and the number was another's when it was looked up": {Container{ID: "a", PID: 7, Start: 100, StartedAt: at.Add(-time.Hour)}, false},
		"it ended":  {Container{ID: "a", StartedAt: at}, false},
		"recreated": {Container{ID: "b", PID: 7, Start: 100, StartedAt: at}, false},
	} {
		if before.SameStart(c.now) != c.same || c.now.SameStart(before) != c.same {
			t.Errorf("%s: not %v", name, c.same)
		}
	}
}

// TestOneThatIsBetweenTwoStartsIsWaitedFor, and no end in the future or the past makes it longer.
func TestOneThatIsBetweenTwoStartsIsWaitedFor(t *testing.T) {
	const between, down, poll = 3 * time.Second, 25 * time.Second, 300 * time.Millisecond
	for name, c := range map[string]struct {
		state  string
		ended  time.Duration // before the first look
		runs   time.Duration // after it; 0 is never
		want   string
		waited time.Duration
	}{
		"it runs":                       {"running", time.Hour, 0, "running", 0},
		"it comes up":                   {"exited", time.Second, time.Second, "running", time.Second},
		"it ended just now and stays":   {"exited", time.Second, 0, "exited", 2 * time.Second},
		"it ended long ago":             {"exited", time.Hour, 0, "exited", 0},
		"it ended in the future":        {"exited", -time.Hour, 0, "exited", 0},
		"it ended a little ahead":       {"exited", -time.Second, 0, "exited", between},
		"it never ran":                  {"created", 1 << 62, 0, "created", 0},
		"it is restarted":               {"restarting", time.Hour, 11 * time.Second, "running", 11 * time.Second},
		"it is restarted for ever":      {"restarting", time.Second, 0, "restarting", down},
		"and its end is in the future":  {"restarting", -time.Hour, 0, "restarting", down},
		"and came up, with such an end": {"restarting", -time.Hour, 5 * time.Second, "running", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ended := began.Add(-c.ended)
				got, err := Settle(t.Context(), func(context.Context) (Container, error) {
					state := c.state
					if c.runs > 0 && time.Since(began) >= c.runs {
						state = "running"
					}
					return Container{State: state, EndedAt: ended}, nil
				}, between, down, poll)
				if took := time.Since(began); err != nil || got.State != c.want || took < c.waited || took > c.waited+poll {
					t.Errorf("%s after %v, %v", got.State, took, err)
				}
			})
		})
	}
}
