package preload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What the patch `fallback` says is looked for by more than people: it has to be the same.
var warned = regexp.MustCompile(`^(\S+): warning: (.+): image locks are refused here \((.+)\); going on WITHOUT a lock, nothing keeps a second writer out$`)

// files opens n files, from descriptor 100 on, of which every lock is refused.
func files(n int) (script []string) {
	for i := range n {
		script = append(script, open(100+i, fmt.Sprintf("p%d.raw", i+1), readWriteCreate))
	}
	return append(script, refuse(100, 100+n-1, syscall.ENOLCK, lockCommands...))
}

func setsAll(n, kind int) (script []string) {
	for i := range n {
		script = append(script, lock{fd: 100 + i, cmd: ofdSetlk, kind: kind, start: 100, len: 1}.String())
	}
	return script
}

func TestWarnsOnceForEachFile(t *testing.T) {
	c := newCaller(t)
	_, said := c.answers("qemu-img", slices.Concat(files(2), setsAll(2, syscall.F_WRLCK), setsAll(2, syscall.F_RDLCK), setsAll(2, syscall.F_UNLCK), setsAll(2, syscall.F_WRLCK))...)
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if len(lines) != 2 {
		t.Fatalf("said %q", said)
	}
	for i, line := range lines {
		got := warned.FindStringSubmatch(line)
		if want := []string{line, "qemu-img", filepath.Join(c.dir, fmt.Sprintf("p%d.raw", i+1)), "No locks available"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The last 64 files are remembered. Of those before an unlock fails, as QEMU is told of a file that was never refused; none of it is an error of
// QEMU's.
func TestOfMoreThan64FilesTheFirstAreForgotten(t *testing.T) {
	c := newCaller(t)
	got, said := c.answers("qemu-img", slices.Concat(files(70), setsAll(70, syscall.F_WRLCK), setsAll(70, syscall.F_UNLCK))...)
	if n := strings.Count(said, "\n"); n != 70 {
		t.Errorf("%d warnings", n)
	}
	for i, answer := range got {
		if refused := strings.HasPrefix(answer, "-1 ENOLCK"); refused != (i >= 70 && i < 76) {
			t.Errorf("call %d: %s", i, answer)
		}
	}
}

func TestSaysWhatTheKernelSaid(t *testing.T) {
	for _, errno := range noLocks {
		c := newCaller(t)
		_, said := c.answers("qemu-img", open(100, "f", readWriteCreate), refuse(100, 100, errno, ofdSetlk), lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String())
		text := map[syscall.Errno]string{syscall.ENOLCK: "No locks available", syscall.EINVAL: "Invalid argument", syscall.ENOSYS: "Function not implemented", syscall.EOPNOTSUPP: "Operation not supported"}[errno]
		if got := warned.FindStringSubmatch(strings.TrimSpace(said)); got == nil || got[3] != text {
			t.Errorf("%v: said %q", errno, said)
		}
	}
}

// A tool's caller may take any word on stderr for a failure. An emulator's and a daemon's stderr is a log.
func TestWhoIsWarnedWhere(t *testing.T) {
	script := append(files(1), setsAll(1, syscall.F_WRLCK)...)
	for name, want := range map[string]map[string]bool{
		"qemu-img":           {"file": true, "terminal": true, "pipe": false, "socket": false, "closed": false},
		"qemu-nbd":           {"file": true, "terminal": true, "pipe": false, "socket": false},
		"qemu-system-x86_64": {"file": true, "terminal": true, "pipe": true, "socket": true, "closed": false},
		"libvirtd":           {"file": true, "pipe": true, "socket": true},
		"virtqemud":          {"pipe": true},
		"qemu-kvm":           {"pipe": true},
	} {
		for kind, want := range want {
			if got := saidInto(t, kind, name, nil, script); (got != "") != want || got != "" && !warned.MatchString(strings.TrimSpace(got)) {
				t.Errorf("%s: said %q into a %s", name, got, kind)
			}
		}
	}
	for _, value := range []string{"1", ""} {
		if got := saidInto(t, "pipe", "qemu-img", []string{"A=b", WarnVariable + "=" + value, "C=d"}, script); !warned.MatchString(strings.TrimSpace(got)) {
			t.Errorf("%s=%s: said %q", WarnVariable, value, got)
		}
	}
	if got := saidInto(t, "pipe", "qemu-img", []string{WarnVariable + "S=1"}, script); got != "" {
		t.Errorf("another variable: said %q", got)
	}
}

// saidInto returns what a program says on a stderr of that kind.
func saidInto(t *testing.T, kind, name string, env, script []string) string {
	t.Helper()
	c := newCaller(t)
	c.env = env
	var read, write *os.File
	var err error
	switch kind {
	case "file":
		_, said := c.answers(name, script...)
		return said
	case "pipe":
		read, write, err = os.Pipe()
	case "socket":
		var fds [2]int
		fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		read, write = os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	case "terminal":
		read, write, err = terminal()
	case "closed":
		// Closed is what a program finds that was started without one; Go always gives it something.
		program := c.program(name)
		cmd := exec.Command("sh", "-c", `exec 2>&-; exec "$0"`, program)
		cmd.Dir, cmd.Stdin, cmd.Env = c.dir, strings.NewReader(strings.Join(script, "\n")), []string{"LD_PRELOAD=" + c.library}
		if out, err := cmd.Output(); err != nil || string(out) != "0 1 0 100 1 same\n" {
			t.Errorf("%s without a stderr: %v, %q", name, err, out)
		}
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	c.stderr = write
	c.answers(name, script...)
	if kind == "terminal" { // a terminal of which the other side is closed tells nothing any more
		defer write.Close()
		if err := unix.SetNonblock(int(read.Fd()), true); err != nil {
			t.Fatal(err)
		}
	} else {
		write.Close()
	}
	buf := make([]byte, 4096)
	n, _ := read.Read(buf)
	return string(buf[:n])
}

func terminal() (read, write *os.File, err error) {
	read, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(read.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	write, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	return read, write, err
}

// A program that was started without a stderr may have an image as its descriptor 2: a word there would be a word in a guest's disk.
func TestDoesNotWriteIntoTheImage(t *testing.T) {
	for _, name := range []string{"qemu-img", "qemu-system-x86_64"} {
		c := newCaller(t)
		c.answers(name, open(2, "image", readWriteCreate), refuse(0, 9, syscall.ENOLCK, lockCommands...), lock{fd: 2, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String())
		if data, err := os.ReadFile(filepath.Join(c.dir, "image")); err != nil || len(data) > 0 {
			t.Errorf("%s wrote %q into the image, %v", name, data, err)
		}
	}
}

func TestHostileNamesOfFilesRuleNoTerminalAndForgeNoLine(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 200)+"/", 4)
	for name, want := range map[string]string{
		"a\x1b[2Jb":    "a?[2Jb",
		"a\x7f\x9bb":   "a??b",
		"é":            "??",
		long + "image": "",
	} {
		c := newCaller(t)
		if err := os.MkdirAll(filepath.Join(c.dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// The script takes no such names: the program finds the file open.
		_, said := c.answers("qemu-img", open(100, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), syscall.O_RDWR), refuse(100, 100, syscall.ENOLCK, ofdSetlk),
			lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String())
		got := warned.FindStringSubmatch(strings.TrimSuffix(said, "\n"))
		switch {
		case got == nil:
			t.Errorf("%q: said %q", name, said)
		case want != "" && got[2] != filepath.Join(c.dir, want):
			t.Errorf("%q: said %q", name, got[2])
		case want == "" && got[2] != path[:511]:
			t.Errorf("a long name: said %q", got[2])
		}
	}
}
