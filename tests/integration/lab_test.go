//go:build lab

// Package integration runs the shipped program on a real engine, with real containers and really rebuilt packages. Each
// script in testdata/script is one behaviour; it gets five fresh containers. run.sh prepares what is needed.
package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts")

// oneByOne runs the scripts in order: the containers' names are kolla's, so there is one set of them.
type oneByOne struct{ *testing.T }

func (oneByOne) Parallel() {}

func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

func (o oneByOne) Verbose() bool { return testing.Verbose() }

func TestScripts(t *testing.T) {
	set := os.Getenv("NFSLOCK_PATCH_SET")
	if set == "" {
		t.Fatal("no patch set: start this through tests/integration/run.sh")
	}
	scripts(t, "testdata/script", set, "bookworm")
}

// TestHostProfile patches the programs of running guests in containers with all packages that kolla's have.
func TestHostProfile(t *testing.T) {
	set := os.Getenv("NFSLOCK_HOST_SET")
	if set == "" {
		t.Skip("no patch set of the profile host: tests/integration/host-profile.sh builds one, in about ten minutes")
	}
	scripts(t, "testdata/host", set, os.Getenv("NFSLOCK_RELEASE"))
}

// TestReleases patches containers of each release that one patch set holds.
func TestReleases(t *testing.T) {
	set := os.Getenv("NFSLOCK_RELEASES_SET")
	if set == "" {
		t.Skip("no patch set of several releases: tests/integration/releases.sh builds one, in about ten minutes")
	}
	for _, release := range strings.Fields(os.Getenv("NFSLOCK_RELEASE")) {
		t.Run(release, func(t *testing.T) { scripts(t, "testdata/release", set, release) })
	}
	t.Run("together", func(t *testing.T) { scripts(t, "testdata/releases", set, "") })
}

// TestArm64 runs the arm64 program on an arm64 container, on a machine of another architecture.
func TestArm64(t *testing.T) {
	set := os.Getenv("NFSLOCK_ARM64_SET")
	if set == "" {
		t.Skip("no patch set for arm64 and amd64: tests/integration/arm64.sh builds one, and readies the machine")
	}
	scripts(t, "testdata/arm64", set, os.Getenv("NFSLOCK_RELEASE"))
}

// scripts runs those in a folder with a patch set. $RELEASE is that of the containers. The program is this checkout's, unless
// NFSLOCK_PROGRAMS names another folder.
func scripts(t *testing.T, dir, set, release string) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(here, "../../library/nfs_lock_fix")
	if folder := os.Getenv("NFSLOCK_PROGRAMS"); folder != "" {
		program = filepath.Join(folder, "nfs_lock_fix")
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("run make build first: %v", err)
	}
	testscript.RunT(oneByOne{t}, testscript.Params{
		Dir: dir, UpdateScripts: *update, RequireExplicitExec: true, Condition: conditions,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(program)+":"+filepath.Join(here, "lab")+":"+filepath.Join(here, "testdata/bin")+":"+os.Getenv("PATH"))
			env.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST"))
			env.Setenv("SOCKET", strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://"))
			env.Setenv("NFSLOCK_CACHE", os.Getenv("NFSLOCK_CACHE"))
			env.Setenv("XDG_CACHE_HOME", os.Getenv("XDG_CACHE_HOME"))
			env.Setenv("HOME", os.Getenv("HOME"))
			env.Setenv("SET", set)
			env.Setenv("RELEASE", release)
			env.Values[runs{}] = map[string]*run{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"module": module, "result": result, "in": in, "diagnose": diagnose, "mount": mount, "proof": proof,
			"begin": begin, "end": end, "killed": killed, "until": until, "small": small, "private-engine": privateEngine,
		},
	})
}

// module runs the program as Ansible does: module KEY=JSON…; "module present" and "module absent" are the usual arguments.
// "! module" wants it to fail.
func module(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("nfs_lock_fix", arguments(ts, "args.json", args))
	ended(ts, neg, err, []byte(ts.ReadFile("stdout")))
}

// arguments writes the program's arguments into a file.
func arguments(ts *testscript.TestScript, name string, args []string) (file string) {
	given := map[string]any{}
	if s := ts.Getenv("SOCKET"); s != "" {
		given["engine_socket"] = s
	}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch {
		case arg == "present":
			given["patch_set"], given["remote_src"] = ts.Getenv("SET"), true
		case arg == "absent":
			given["state"] = "absent"
		case !ok:
			ts.Fatalf("no argument: %s", arg)
		default:
			var v any
			if json.Unmarshal([]byte(value), &v) != nil {
				v = value
			}
			given[key] = v
		}
	}
	data, err := json.Marshal(given)
	ts.Check(err)
	file = ts.MkAbs(name)
	ts.Check(os.WriteFile(file, data, 0o600))
	return file
}

// ended keeps the result for the command result and compares how the program ended with what was wanted.
func ended(ts *testscript.TestScript, neg bool, err error, out []byte) {
	ts.Check(os.WriteFile(ts.MkAbs("result.json"), out, 0o600))
	var r map[string]any
	if e := json.Unmarshal(out, &r); e != nil {
		ts.Fatalf("the program did not print one JSON object: %v", e)
	}
	if failed := r["failed"] == true; failed != neg || failed != (err != nil) {
		ts.Fatalf("failed is %v, exit %v, %v was wanted: %v", failed, err, neg, r["msg"])
	}
}

// result looks up a value of the last result by its path and wants it to contain a text: result
// containers.cinder_volume.status patched. A list's element is named by its name. "! result" wants it not to.
func result(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: result PATH TEXT")
	}
	var at any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("result.json")), &at))
	for _, key := range strings.Split(args[0], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[key]
		case []any:
			at = nil
			for i, e := range v {
				if m, ok := e.(map[string]any); ok && (m["name"] == key || fmt.Sprint(i) == key) {
					at = e
				}
			}
		default:
			at = nil
		}
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	ts.Check(enc.Encode(at))
	got := strings.Trim(strings.TrimSpace(text.String()), `"`)
	got = strings.NewReplacer(`\"`, `"`, `\n`, "\n").Replace(got)
	if strings.Contains(got, args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

// in runs a shell line as root in a container: in cinder_volume 'dpkg -V qemu-utils'.
func in(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: in CONTAINER LINE")
	}
	cmd := exec.Command("docker", "exec", "-u", "root", args[0], "bash", "-c", args[1])
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+ts.Getenv("DOCKER_HOST"))
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	ts.Check(os.WriteFile(ts.MkAbs("output"), out, 0o600))
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// run is a program that works in the background.
type run struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

type runs struct{} // the key of a script's map of them, by name

// begin starts the program, to be met later by its name: begin NAME present…
func begin(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: begin NAME ARGUMENT…")
	}
	program, err := exec.LookPath(filepath.Join("../../library", "nfs_lock_fix"))
	ts.Check(err)
	r := &run{cmd: exec.Command(program, arguments(ts, args[0]+".json", args[1:]))}
	r.cmd.Stdout = &r.out
	ts.Check(r.cmd.Start())
	ts.Value(runs{}).(map[string]*run)[args[0]] = r
	ts.Defer(func() { _ = r.cmd.Process.Kill() }) // one that has ended takes no harm
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pid"), fmt.Append(nil, r.cmd.Process.Pid), 0o600))
}

func begun(ts *testscript.TestScript, args []string) *run {
	if len(args) == 1 {
		if r := ts.Value(runs{}).(map[string]*run)[args[0]]; r != nil {
			return r
		}
	}
	ts.Fatalf("name a run that was begun")
	return nil
}

// end waits for a run that was begun: end NAME. "! end" wants it to fail.
func end(ts *testscript.TestScript, neg bool, args []string) {
	r := begun(ts, args)
	err := r.cmd.Wait()
	ts.Logf("%s", r.out.Bytes())
	ended(ts, neg, err, r.out.Bytes())
}

// killed kills a run that was begun, with the signal that cannot be caught.
func killed(ts *testscript.TestScript, _ bool, args []string) {
	r := begun(ts, args)
	ts.Check(r.cmd.Process.Kill())
	if err := r.cmd.Wait(); err == nil || r.out.Len() > 0 {
		ts.Fatalf("it had ended before it was killed: %s", r.out.Bytes())
	}
}

// until waits until a shell line is true in a container: until cinder_volume '[ -e /tmp/x ]'.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: until CONTAINER LINE")
	}
	in(ts, false, []string{args[0], "for i in {1..300}; do if " + args[1] + "; then exit 0; fi; sleep 0.1; done; echo not in 30 s; exit 1"})
}

// small puts a file system of so many bytes over a folder of the host for the time of the script: small /var/lib/nfslock/store 1m.
func small(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: small FOLDER SIZE")
	}
	ts.Check(os.MkdirAll(args[0], 0o700))
	ts.Check(syscall.Mount("nfslock-lab", args[0], "tmpfs", 0, "size="+args[1]+",mode=0700"))
	ts.Defer(func() { _ = syscall.Unmount(args[0], syscall.MNT_DETACH) })
}

// privateEngine makes the rest of the script use an engine that may be stopped: the lab's own. Where the tests use the
// machine's, one is started beside it; the condition [private-engine] tells whether that works.
func privateEngine(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 0 || neg {
		ts.Fatalf("usage: private-engine")
	}
	export, err := exec.Command("lab/engine.sh", "env").Output()
	ts.Check(err)
	host, ok := strings.CutPrefix(strings.TrimSpace(string(export)), "export DOCKER_HOST=")
	if !ok {
		ts.Fatalf("no private engine runs")
	}
	ts.Setenv("DOCKER_HOST", host)
	ts.Setenv("SOCKET", strings.TrimPrefix(host, "unix://"))
	ts.Defer(func() {
		steps := []string{"engine.sh start", "engine.sh live-restore no"}
		if host != os.Getenv("DOCKER_HOST") {
			steps = append(steps, "down.sh", "engine.sh down")
		}
		for _, step := range steps {
			words := strings.Fields(step)
			cmd := exec.Command("lab/"+words[0], words[1:]...)
			cmd.Env = append(os.Environ(), "DOCKER_HOST="+host)
			if out, err := cmd.CombinedOutput(); err != nil {
				ts.Logf("%s: %v\n%s", step, err, out)
			}
		}
	})
}

func conditions(name string) (bool, error) {
	if name != "private-engine" {
		return false, fmt.Errorf("no such condition: %s", name)
	}
	return exec.Command("lab/engine.sh", "beside").Run() == nil, nil
}
