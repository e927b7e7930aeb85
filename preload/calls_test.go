package preload

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Commands of fcntl(2), from include/uapi/asm-generic/fcntl.h.
const (
	getlk, setlk, setlkw          = 5, 6, 7
	ofdGetlk, ofdSetlk, ofdSetlkw = 36, 37, 38
)

var lockCommands = []int{getlk, setlk, setlkw, ofdGetlk, ofdSetlk, ofdSetlkw}

// compiled is testdata/calls.c, compiled once. Go programs call the kernel and not the C library, so the calls are made by one in C.
var compiled = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "nfslock-preload-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "calls")
	if out, err := exec.Command("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, "testdata/calls.c").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot compile testdata/calls.c: %w: %s", err, out)
	}
	return os.ReadFile(program)
})

// A caller is a program of a name that makes calls, in a folder of its own.
type caller struct {
	t       *testing.T
	dir     string
	library string   // none if empty
	env     []string // more of the environment
	stderr  *os.File // nil: a file, of which answers returns the text
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		if os.Getenv("NFSLOCK_COMPILER") == "required" {
			t.Fatal("there is no C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev)")
		}
		t.Skip("there is no C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev)")
	}
	if _, err := compiled(); err != nil {
		t.Fatal(err)
	}
	library, err := filepath.Abs(filepath.Join("built", runtime.GOARCH, Name))
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, dir: t.TempDir(), library: library}
}

// program puts the compiled program there under a name.
func (c *caller) program(name string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	data, err := compiled()
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return path
}

// answers runs the script under the program's name and returns a line for each call that answers something, and what was said on stderr.
func (c *caller) answers(name string, script ...string) (lines []string, said string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program(name))
	cmd.WaitDelay = time.Second // who holds a lock for it has its output open
	cmd.Dir = c.dir
	cmd.Stdin = strings.NewReader(strings.Join(script, "\n") + "\n")
	cmd.Env = append([]string{"LC_ALL=C", "LD_PRELOAD=" + c.library}, c.env...)
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr := c.stderr
	if stderr == nil {
		f, err := os.Create(filepath.Join(c.t.TempDir(), "stderr"))
		if err != nil {
			c.t.Fatal(err)
		}
		defer f.Close()
		stderr = f
	}
	cmd.Stderr = stderr
	err := cmd.Run()
	if c.stderr == nil {
		data, err := os.ReadFile(stderr.Name())
		if err != nil {
			c.t.Fatal(err)
		}
		said = string(data)
	}
	if err != nil {
		c.t.Fatalf("%s: %v: %s", name, err, said)
	}
	text := errorNumber.ReplaceAllStringFunc(strings.TrimSuffix(out.String(), "\n"), func(found string) string {
		number, _ := strconv.Atoi(errorNumber.FindStringSubmatch(found)[1])
		return unix.ErrnoName(syscall.Errno(number))
	})
	return strings.Split(text, "\n"), said
}

var errorNumber = regexp.MustCompile(`error (\d+)`)

// A lock is one call with a struct flock.
type lock struct {
	fd, cmd, kind, whence int
	start, len            int64
	pid                   int
	name                  string // lock64: glibc's other name
}

func (l lock) String() string {
	return fmt.Sprintf("%s %d %d %d %d %d %d %d", cmp.Or(l.name, "lock"), l.fd, l.cmd, l.kind, l.whence, l.start, l.len, l.pid)
}

// refuse is the line that has the kernel refuse the commands through the descriptors low to high.
func refuse(low, high int, errno syscall.Errno, commands ...int) string {
	var lines []string
	for _, cmd := range commands {
		lines = append(lines, fmt.Sprintf("refuse %d %d %d %d", low, high, cmd, errno))
	}
	return strings.Join(lines, "\n")
}

const readWriteCreate = syscall.O_RDWR | syscall.O_CREAT

func open(fd int, path string, flags int) string {
	return fmt.Sprintf("open %d %s %d", fd, path, flags)
}
