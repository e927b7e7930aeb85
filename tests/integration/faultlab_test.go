//go:build lab

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faultLab is some containers that come back with their engine, and the program built with named moments at which it dies.
type faultLab struct {
	t          *testing.T
	containers []string
	program    string
	set        string
	env        []string
}

// commandLimit is for every command of the tests: a hang is a finding, not a lost night.
const commandLimit = 2 * time.Minute

func newFaultLab(t *testing.T, containers ...string) *faultLab {
	l := &faultLab{t: t, containers: containers, program: filepath.Join(t.TempDir(), "nfs_lock_fix"), set: os.Getenv("NFSLOCK_PATCH_SET"), env: os.Environ()}
	if l.set == "" {
		t.Fatal("no patch set: start this through tests/integration/run.sh")
	}
	l.must("go", "build", "-tags", "faultpoints", "-o", l.program, "../../modules/nfs_lock_fix")
	l.env = append(l.env, "SET="+l.set)
	l.must("lab/engine.sh", "beside") // these tests stop it
	export := l.must("lab/engine.sh", "env")
	host := strings.TrimPrefix(strings.TrimSpace(export), "export DOCKER_HOST=")
	l.env = append(l.env, "DOCKER_HOST="+host)
	l.must("lab/up.sh", "--locks", "fine", "--only", strings.Join(l.containers, ","), "--restart", "unless-stopped")
	t.Cleanup(func() { l.must("lab/down.sh") })
	if slices.Contains(l.containers, "nova_libvirt") {
		l.must("docker", append([]string{"exec", "-u", "root", "nova_libvirt", "apt-get", "-y", "remove"}, furtherEmulators...)...)
	}
	return l
}

// furtherEmulators are not needed for what is tried here. A libvirtd whose QEMU was changed asks each emulator anew when it is started: with these, eight
// seconds at each step.
var furtherEmulators = []string{"qemu-system-arm", "qemu-system-mips", "qemu-system-misc", "qemu-system-ppc", "qemu-system-sparc"}

func (l *faultLab) must(name string, args ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = l.env
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *faultLab) present() map[string]any {
	return map[string]any{"patch_set": l.set, "remote_src": true}
}

func (l *faultLab) absent() map[string]any { return map[string]any{"state": "absent"} }

func (l *faultLab) library() map[string]any { return map[string]any{"method": "library"} }

func (l *faultLab) withoutLibrary() map[string]any {
	return map[string]any{"method": "library", "state": "absent"}
}

// prepare is the program with these arguments and further environment.
func (l *faultLab) prepare(args map[string]any, env ...string) (*exec.Cmd, *bytes.Buffer) {
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
	cmd.Env = slices.Concat(l.env, env)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd, out
}

func (l *faultLab) start(args map[string]any) (*exec.Cmd, *bytes.Buffer) {
	l.t.Helper()
	cmd, out := l.prepare(args)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	return cmd, out
}

// run starts the program with these arguments and further environment. It returns nil when it was killed.
func (l *faultLab) run(args map[string]any, env ...string) map[string]any {
	l.t.Helper()
	cmd, out := l.prepare(args, env...)
	err := cmd.Run()
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
func (l *faultLab) well(args map[string]any) map[string]any {
	l.t.Helper()
	r := l.run(args)
	if r["failed"] != false {
		text, _ := json.MarshalIndent(r, "", " ")
		l.t.Fatalf("failed: %s", text)
	}
	return r
}

// points are the moments of a run, each once, in order.
func (l *faultLab) points(args map[string]any) []string {
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

// whole is what is owed after any fault and one more run.
func (l *faultLab) whole(state string) {
	l.t.Helper()
	if text, err := l.tryWhole(state); err != nil {
		l.t.Fatalf("not whole: %s", text)
	}
}

func (l *faultLab) tryWhole(state string) (string, error) {
	cmd := exec.Command("testdata/bin/whole", append([]string{state}, l.containers...)...)
	cmd.Env = l.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (l *faultLab) restartContainers() {
	l.must("docker", append([]string{"restart", "-t", "1"}, l.containers...)...)
}

func (l *faultLab) restartEngine() {
	l.must("lab/engine.sh", "stop")
	l.must("lab/engine.sh", "start")
	for range 100 {
		if n := strings.Count(l.must("docker", "ps", "-q", "--filter", "status=running"), "\n"); n == len(l.containers) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.t.Fatal("the containers do not come back with the engine")
}

// failing prepares the next install in cinder_volume to fail in its postinst.
func (l *faultLab) failing() {
	l.must("docker", "exec", "-u", "root", "cinder_volume", "sh", "-c", "echo 'exit 1' >/root/qemu-utils.postinst")
}

// scripted is a set whose package fails where failing has prepared that.
func (l *faultLab) scripted() func() map[string]any {
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
