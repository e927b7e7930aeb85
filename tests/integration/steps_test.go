//go:build lab

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stepsLab is two containers, one of which is restarted at the end, and the program built with named moments at which it
// dies.
type stepsLab struct {
	t       *testing.T
	program string
	set     string
	env     []string
}

var stepsContainers = []string{"nova_libvirt", "cinder_volume"}

func newStepsLab(t *testing.T) *stepsLab {
	l := &stepsLab{t: t, program: filepath.Join(t.TempDir(), "nfs_lock_fix"), set: os.Getenv("NFSLOCK_PATCH_SET"), env: os.Environ()}
	if l.set == "" {
		t.Fatal("no patch set: start this through tests/integration/run.sh")
	}
	l.must("go", "build", "-tags", "faultpoints", "-o", l.program, "../../modules/nfs_lock_fix")
	l.env = append(l.env, "SET="+l.set)
	l.must("lab/engine.sh", "beside") // these tests stop it
	export := l.must("lab/engine.sh", "env")
	host := strings.TrimPrefix(strings.TrimSpace(export), "export DOCKER_HOST=")
	l.env = append(l.env, "DOCKER_HOST="+host)
	l.must("lab/up.sh", "--locks", "fine", "--only", strings.Join(stepsContainers, ","), "--restart", "unless-stopped")
	t.Cleanup(func() { l.must("lab/down.sh") })
	return l
}

func (l *stepsLab) must(name string, args ...string) string {
	l.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = l.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *stepsLab) present() map[string]any { return map[string]any{"patch_set": l.set, "remote_src": true} }

func (l *stepsLab) absent() map[string]any { return map[string]any{"state": "absent"} }

// run starts the program with these arguments and further environment. It returns nil when it was killed.
func (l *stepsLab) run(args map[string]any, env ...string) map[string]any {
	l.t.Helper()
	for _, e := range slices.Backward(l.env) {
		if socket, ok := strings.CutPrefix(e, "DOCKER_HOST=unix://"); ok {
			args["engine_socket"] = socket
			break
		}
	}
	data, err := json.Marshal(args)
	if err != nil {
		l.t.Fatal(err)
	}
	file := filepath.Join(l.t.TempDir(), "args.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(l.program, file)
	cmd.Env = append(l.env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err = cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return nil
	}
	var result map[string]any
	if e := json.Unmarshal(out.Bytes(), &result); e != nil {
		l.t.Fatalf("%v, %v: %s", err, e, out.Bytes())
	}
	return result
}

// well runs the program and wants it to succeed.
func (l *stepsLab) well(args map[string]any) map[string]any {
	l.t.Helper()
	r := l.run(args)
	if r["failed"] != false {
		text, _ := json.MarshalIndent(r, "", " ")
		l.t.Fatalf("failed: %s", text)
	}
	return r
}

// points are the moments of a run, each once, in order.
func (l *stepsLab) points(args map[string]any) []string {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "points")
	l.run(args, "NFSLOCK_POINTS="+file)
	text, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if p := strings.TrimSpace(line); !slices.Contains(points, p) {
			points = append(points, p)
		}
	}
	return points
}

func (l *stepsLab) whole(state string) {
	l.t.Helper()
	l.must("testdata/bin/whole", append([]string{state}, stepsContainers...)...)
}

func (l *stepsLab) restartContainers() {
	l.must("docker", append([]string{"restart", "-t", "1"}, stepsContainers...)...)
}

func (l *stepsLab) restartEngine() {
	l.must("lab/engine.sh", "stop")
	l.must("lab/engine.sh", "start")
	for range 100 {
		if n := strings.Count(l.must("docker", "ps", "-q", "--filter", "status=running"), "\n"); n == len(stepsContainers) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.t.Fatal("the containers do not come back with the engine")
}

// failing prepares the next install in cinder_volume to fail in its postinst.
func (l *stepsLab) failing() {
	l.must("docker", "exec", "-u", "root", "cinder_volume", "sh", "-c", "echo 'exit 1' >/root/qemu-utils.postinst")
}

// TestEveryStep kills the program at each of its steps, alone, with a restart of the containers, and with a restart of the
// engine, on the way there, on the way back, and while it rolls back. One more run has to make the host whole.
func TestEveryStep(t *testing.T) {
	l := newStepsLab(t)
	scripted := l.scripted()
	for _, way := range []struct {
		name string
		args func() map[string]any // of the run that dies
		from string                // the host's state before
		set  func()                // brings it there
		next func() map[string]any // of the run after it
		to   string
	}{
		{"present", l.present, "old", func() {}, l.present, "new"},
		{"present, then absent", l.present, "old", func() {}, l.absent, "old"},
		{"absent", l.absent, "new", func() { l.well(l.present()) }, l.absent, "old"},
		{"absent, then present", l.absent, "new", func() { l.well(l.present()) }, l.present, "new"},
		{"rollback", scripted, "old", l.failing, l.present, "new"},
		{"rollback, then absent", scripted, "old", l.failing, l.absent, "old"},
	} {
		way.set()
		points := l.points(way.args())
		if len(points) < 10 {
			t.Fatalf("%s: only %v", way.name, points)
		}
		l.well(l.absent())
		l.whole("old")
		for i, point := range points {
			for k, fault := range []struct {
				name string
				make func()
			}{{"kill", func() {}}, {"container restart", l.restartContainers}, {"engine restart", l.restartEngine}} {
				if k > 0 && (strings.Contains(way.name, "then") || i > 0 && twin(point, points[:i])) {
					continue // the same step in the other container, or the same state on another way
				}
				t.Run(fmt.Sprintf("%s/%s/%s", way.name, point, fault.name), func(t *testing.T) {
					outer := l.t
					l.t = t
					defer func() { l.t = outer }()
					way.set()
					if r := l.run(way.args(), "NFSLOCK_DIE_AT="+point); r != nil {
						t.Fatalf("it did not come to %q: %v", point, r["msg"])
					}
					fault.make()
					l.well(way.next())
					l.whole(way.to)
					if r := l.well(way.next()); r["changed"] != false {
						t.Errorf("the run after that changed something: %v", r["msg"])
					}
					if way.to == "new" {
						l.well(l.absent())
					}
				})
				if t.Failed() {
					return // the host is not as the next case needs it
				}
			}
		}
	}
	l.whole("old")
}

// twin: an earlier point is the same step in the other container.
func twin(point string, earlier []string) bool {
	step := func(p string) string {
		for _, c := range stepsContainers {
			p = strings.ReplaceAll(p, c, "")
		}
		return p
	}
	return slices.ContainsFunc(earlier, func(p string) bool { return step(p) == step(point) })
}

// scripted is a set whose package fails where failing has prepared that.
func (l *stepsLab) scripted() func() map[string]any {
	work := l.t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(here, "testdata/bin/copy-set"), "scripted")
	cmd.Dir, cmd.Env = work, l.env
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("copy-set: %v\n%s", err, out)
	}
	return func() map[string]any {
		return map[string]any{"patch_set": filepath.Join(work, "scripted"), "remote_src": true}
	}
}
