package preload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The library of the other architecture is run by QEMU's user emulation. The refusals are this machine's kernel's: an emulated program's fcntl
// becomes one of the emulator's, which has inherited them.
func TestTheArm64LibraryUnderAnEmulator(t *testing.T) {
	const compiler, emulator, libraries = "aarch64-linux-gnu-gcc", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"
	if runtime.GOARCH != "amd64" {
		t.Skip("this machine is not amd64: an arm64 one runs the other tests with that library")
	}
	for _, need := range []string{compiler, emulator} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("there is no %s (Debian, Ubuntu: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)", need)
		}
	}
	c := newCaller(t)
	library, err := filepath.Abs(filepath.Join("built/arm64", Name))
	if err != nil {
		t.Fatal(err)
	}
	run := func(name, library string, script ...string) (lines []string, said string) {
		program := filepath.Join(c.dir, name)
		if out, err := exec.Command(compiler, "-std=gnu11", "-O1", "-pthread", "-o", program, "testdata/calls.c").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c.library = ""
		text := fmt.Sprintf("#!/bin/sh\nexec %s -L %s -E LD_PRELOAD=%s %s\n", emulator, libraries, library, program)
		for file, text := range map[string]string{"run": text, "script": strings.Join(script, "\n")} {
			if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		refusals := []string{refuse(100, 199, syscall.ENOLCK, lockCommands...), refuse(200, 299, syscall.EINVAL, lockCommands...), refuse(300, 399, syscall.EIO, lockCommands...)}
		return c.answers("native", append(refusals, "exec ./run script")...)
	}
	set := func(fd, kind int) string { return lock{fd: fd, cmd: ofdSetlk, kind: kind, len: 1}.String() }
	script := []string{
		open(10, "f", readWriteCreate), open(100, "g", readWriteCreate), open(200, "h", readWriteCreate), open(300, "i", readWriteCreate),
		set(10, syscall.F_WRLCK), "dup 10 101", set(101, syscall.F_UNLCK),
		set(100, syscall.F_WRLCK), set(100, syscall.F_UNLCK), lock{fd: 100, cmd: ofdGetlk, kind: syscall.F_WRLCK}.String(),
		set(200, syscall.F_WRLCK), lock{fd: 200, cmd: setlkw, kind: syscall.F_WRLCK, name: "lock64"}.String(), lock{fd: 200, cmd: setlk, kind: 7}.String(),
		set(300, syscall.F_WRLCK), "int 10 1 0", "threads 8 100", "fork", set(100, syscall.F_WRLCK), "/",
	}
	want := []string{
		"0 1 0 0 1 same", "-1 ENOLCK 2 0 0 1 same",
		"0 1 0 0 1 same", "0 2 0 0 1 same", "0 2 0 0 0 same",
		"0 1 0 0 1 same", "0 1 0 0 0 same", "-1 EINVAL 7 0 0 0 same",
		"-1 EIO 1 0 0 1 same", "0", "8000 granted", "0 1 0 0 1 same",
	}
	got, said := run("qemu-img", library, script...)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\nwant %q", got, want)
	}
	if strings.Count(said, "\n") != 2 || !strings.Contains(said, "qemu-img: warning: "+filepath.Join(c.dir, "g")+": image locks are refused here (No locks available)") {
		t.Errorf("said %q", said)
	}
	// In another program, as without it.
	with, said := run("cat", library, script...)
	without, _ := run("cat", "", script...)
	if strings.Join(with, "\n") != strings.Join(without, "\n") || said != "" || with[2] != "-1 ENOLCK 1 0 0 1 same" {
		t.Errorf("%q\nwithout %q, said %q", with, without, said)
	}
}
