package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
	"github.com/nfslock/ansible-collection-kolla/internal/lockprobe"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts, and plugins/modules/nfs_lock_info.yml")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nfs_lock_info": main, "nfs_lock_info_panics": panics, lockprobe.ProbeName: main, processName: stay})
}

// panics is the module with a mistake in it, which shows after a second, beside the run.
func panics() {
	ansible.Main(spec, func(ctx context.Context, o lockprobe.Options, call ansible.Call) (lockprobe.Result, error) {
		time.AfterFunc(time.Second, func() { panic("no such mount") })
		return lockprobe.Run(ctx, o, call)
	})
}

// processName is what a container's first process is called.
const processName = "container-process"

// stay makes a folder this process's root, says so, and ends with the test.
func stay() {
	if err := errors.Join(syscall.Chroot(os.Getenv("ROOT")), os.Chdir("/")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestProgram runs the program as Ansible starts it, as far as that needs no containers. The rest is in tests/integration.
func TestProgram(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error { // an engine that takes every question and answers none
			mute, err := net.Listen("unix", filepath.Join(env.WorkDir, "mute.sock"))
			if err == nil {
				env.Defer(func() { mute.Close() })
			}
			return err
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}

// box starts a container's first process, and gives its number. Its root is a folder of the test's.
func box(t *testing.T, dir string) int {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Args[0] = processName
	cmd.Env = []string{"ROOT=" + dir}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		t.Fatalf("%q, %v", said, err)
	}
	return cmd.Process.Pid
}

// TestAContainerThatNeverAnswers has real ones, as far as the program sees: processes with roots of their own, over one of which a filesystem
// is mounted that never answers.
func TestAContainerThatNeverAnswers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const database = "var/lib/dpkg"
	var all []enginetest.Container
	for i, name := range []string{"nova_libvirt", "cinder_volume"} {
		dir := t.TempDir()
		for file, text := range map[string]string{
			"etc/os-release":     "ID=debian\nVERSION_CODENAME=bookworm\n",
			database + "/status": "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: qemu-utils\nStatus: install ok installed\nArchitecture: amd64\nSource: qemu\nVersion: 1:7.2\n",
		} {
			file = filepath.Join(dir, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		pid := box(t, dir)
		if name == "nova_libvirt" {
			silenttest.Mount(t, filepath.Join(dir, database))
		}
		all = append(all, enginetest.Container{ID: fmt.Sprintf("%064x", i+1), Name: name, PID: pid, Labels: map[string]string{"kolla_version": "20.0.0"}})
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/silent",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			server, err := enginetest.Listen(filepath.Join(env.WorkDir, "docker.sock"), enginetest.Engine{Version: "24.0.7", API: "1.43", Containers: all})
			if err == nil {
				env.Defer(func() { server.Close() })
			}
			return err
		},
	})
}
