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
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(here, "../../library/nfs_lock_fix")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("run make build first: %v", err)
	}
	testscript.RunT(oneByOne{t}, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(program)+":"+filepath.Join(here, "lab")+":"+filepath.Join(here, "testdata/bin")+":"+os.Getenv("PATH"))
			env.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST"))
			env.Setenv("SOCKET", strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://"))
			env.Setenv("SET", set)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"module": module, "result": result, "in": in},
	})
}

// module runs the program as Ansible does: module KEY=JSON…; "module present" and "module absent" are the usual arguments.
// "! module" wants it to fail.
func module(ts *testscript.TestScript, neg bool, args []string) {
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
	file := ts.MkAbs("args.json")
	ts.Check(os.WriteFile(file, data, 0o600))
	err = ts.Exec("nfs_lock_fix", file)
	out := ts.ReadFile("stdout")
	ts.Check(os.WriteFile(ts.MkAbs("result.json"), []byte(out), 0o600))
	var r map[string]any
	if e := json.Unmarshal([]byte(out), &r); e != nil {
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
