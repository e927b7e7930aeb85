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
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDiagnosis runs nfs_lock_info on containers of its own names, so that it needs no patch set and no place of the lab's.
func TestDiagnosis(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(here, "../../library/nfs_lock_info")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("run make build first: %v", err)
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	testscript.RunT(oneByOne{t}, testscript.Params{
		Dir: "testdata/info", RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
			env.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST"))
			env.Setenv("SOCKET", strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://"))
			env.Setenv("ROOT", filepath.Join(here, "../.."))
			env.Setenv("SECCOMP", filepath.Join(here, "lab/seccomp"))
			env.Setenv("GOCACHE", strings.TrimSpace(string(cache)))
			env.Setenv("HOME", os.Getenv("HOME"))
			paths, err := json.Marshal(many())
			env.Setenv("MANY", string(paths))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"diagnose": diagnose, "mount": mount, "proof": proof, "result": result, "in": in, "container": container},
	})
}

// many are the paths of the option --many.
func many() (paths []string) {
	for i := range 200 {
		paths = append(paths, fmt.Sprintf("/m/%d", i+1))
	}
	return paths
}

// container starts one for the time of the script: container NAME DOCKER'S OPTIONS… IMAGE COMMAND…. \n in an option is a line break,
// --many stands for two hundred mounts.
func container(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: container NAME OPTION… IMAGE COMMAND…")
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], `\n`, "\n")
	}
	if i := slices.Index(args, "--many"); i >= 0 {
		var options []string
		for _, path := range many() {
			options = append(options, "--tmpfs", path+":size=64k")
		}
		args = slices.Replace(args, i, i+1, options...)
	}
	docker := func(args ...string) ([]byte, error) {
		cmd := exec.Command("docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+ts.Getenv("DOCKER_HOST"))
		return cmd.CombinedOutput()
	}
	ts.Defer(func() { _, _ = docker("rm", "-f", args[0]) })
	if out, err := docker(append([]string{"run", "-d", "--network", "none", "--name"}, args...)...); err != nil {
		ts.Fatalf("cannot start %s: %v: %s", args[0], err, out)
	}
}

// diagnose runs the program as Ansible does: diagnose KEY=JSON….
func diagnose(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("nfs_lock_info", arguments(ts, "info.json", args))
	ended(ts, neg, err, []byte(ts.ReadFile("stdout")))
}

// mount looks up a value of one row of the last result and wants it to contain a text: mount CONTAINER PATH KEY TEXT. "! mount
// CONTAINER PATH" wants no such row.
func mount(ts *testscript.TestScript, neg bool, args []string) { row(ts, neg, "mounts", args) }

// proof does the same with the proofs.
func proof(ts *testscript.TestScript, neg bool, args []string) { row(ts, neg, "proofs", args) }

func row(ts *testscript.TestScript, neg bool, list string, args []string) {
	if neg != (len(args) == 2) || !neg && len(args) != 4 {
		ts.Fatalf("usage: mount or proof CONTAINER PATH KEY TEXT, or ! mount or proof CONTAINER PATH")
	}
	var r map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("result.json")), &r))
	var rows []map[string]any
	ts.Check(json.Unmarshal(r[list], &rows))
	path := strings.ReplaceAll(args[1], `\n`, "\n")
	for _, m := range rows {
		if m["container"] != args[0] || m["path"] != path {
			continue
		}
		if neg {
			ts.Fatalf("there is a row of %s in %s", path, args[0])
		}
		var at any = m
		for key := range strings.SplitSeq(args[2], ".") {
			inner, _ := at.(map[string]any)
			at = inner[key]
		}
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		ts.Check(enc.Encode(at))
		if !strings.Contains(text.String(), args[3]) {
			ts.Fatalf("%s of %s in %s is %s", args[2], path, args[0], text.String())
		}
		return
	}
	if !neg {
		ts.Fatalf("no row of %s in %s: %s", path, args[0], ts.ReadFile("result.json"))
	}
}
