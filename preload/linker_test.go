package preload

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A root is a folder that programs take for the root, with this machine's libraries and an /etc of its own.
type root struct {
	t   *testing.T
	dir string
}

func newRoot(t *testing.T) *root {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a root folder with an /etc/ld.so.preload of its own")
	}
	newCaller(t) // a compiler
	r := &root{t, t.TempDir()}
	if err := os.Chmod(filepath.Dir(r.dir), 0o755); err != nil { // for the users that programs run as
		t.Fatal(err)
	}
	for _, dir := range []string{"etc", "tmp", "proc", "host", "usr/lib/nfslock"} {
		r.check(os.MkdirAll(filepath.Join(r.dir, dir), 0o755))
	}
	r.check(os.Chmod(filepath.Join(r.dir, "tmp"), 0o777))
	// The libraries by their files, since /usr/lib has to be a folder of its own here.
	for _, pattern := range []string{"/lib*/ld-linux*.so*", "/lib/*/ld-linux*.so*", "/lib/*-linux-gnu/libc.so.6", "/lib*/libc.so.6"} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			data, err := os.ReadFile(path)
			r.check(err)
			r.write(path, data, 0o755)
		}
	}
	r.install(read(t, filepath.Join("built", runtime.GOARCH, Name)), 0o644)
	r.list(Library + "\n")
	program, err := compiled()
	r.check(err)
	r.write("/tmp/qemu-img", program, 0o755)
	return r
}

func (r *root) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *root) write(path string, data []byte, mode os.FileMode) {
	r.t.Helper()
	path = filepath.Join(r.dir, path)
	r.check(os.MkdirAll(filepath.Dir(path), 0o755))
	_ = os.RemoveAll(path)
	r.check(os.WriteFile(path, data, mode))
	r.check(os.Chmod(path, mode))
}

func (r *root) install(library []byte, mode os.FileMode) { r.write(Library, library, mode) }
func (r *root) list(text string)                         { r.write(List, []byte(text), 0o644) }

// run runs a program of the root as a user; the script is the one of testdata/calls.c. It returns both outputs.
func (r *root) run(uid uint32, program string, script ...string) (out, said string, err error) {
	r.t.Helper()
	// /proc, by which the library knows the program, in a mount namespace of its own.
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", `mount -t proc proc "$1/proc" && exec chroot --userspec="$2:$2" "$1" "$3"`, "-", r.dir, fmt.Sprint(uid), program)
	cmd.Stdin = strings.NewReader(strings.Join(script, "\n"))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	var stdout strings.Builder
	stderr, e := os.Create(filepath.Join(r.t.TempDir(), "stderr"))
	r.check(e)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	err = cmd.Run()
	return stdout.String(), string(read(r.t, stderr.Name())), err
}

var refusedLock = []string{open(100, "/tmp/image", readWriteCreate), refuse(100, 100, syscall.ENOLCK, ofdSetlk), lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String()}

const (
	grantedAnswer = "0 1 0 0 0 same\n"
	refusedAnswer = "-1 error 37 1 0 0 0 same\n" // ENOLCK
)

// What the dynamic linker says of a library that it cannot load. It says so in every program, and goes on.
var linkerSays = regexp.MustCompile(`^ERROR: ld\.so: object '(\S+)' from /etc/ld\.so\.preload cannot be preloaded \((.+)\): ignored\.$`)

// Nothing that may become of the two files keeps a program from starting. What is said then, and what not, is why the library comes first and goes last.
func TestWhateverBecomesOfTheTwoFilesProgramsStart(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	r := newRoot(t)
	library := r.path(Library)
	for _, c := range []struct {
		name    string
		do      func()
		uid     uint32
		granted bool
		says    string // the linker's words in brackets
	}{
		{"as it should be", func() {}, 0, true, ""},
		{"as it should be, for a user", func() {}, 42436, true, ""},
		{"missing", func() { r.check(os.Remove(library)) }, 0, false, "cannot open shared object file"},
		{"not for everybody", func() { r.check(os.Chmod(library, 0o600)) }, 42436, false, "cannot open shared object file"},
		{"not for everybody, for root", func() { r.check(os.Chmod(library, 0o600)) }, 0, true, ""},
		{"in a folder that is not for everybody", func() { r.check(os.Chmod(filepath.Dir(library), 0o700)) }, 42436, false, "cannot open shared object file"},
		{"of another architecture", func() { r.install(read(t, filepath.Join("built", other, Name)), 0o644) }, 0, false, "cannot open shared object file"},
		{"empty", func() { r.install(nil, 0o644) }, 0, false, "file too short"},
		{"no library", func() { r.install([]byte(strings.Repeat("no library\n", 100)), 0o644) }, 0, false, "invalid ELF header"},
		{"a folder", func() { r.check(os.Remove(library)); r.check(os.Mkdir(library, 0o755)) }, 0, false, "cannot read file data"},
		{"cut short", func() { r.install(read(t, filepath.Join("built", runtime.GOARCH, Name))[:100], 0o644) }, 0, false, "cannot read file data"},
		{"the list names it twice", func() { r.list(Library + "\n" + Library + "\n") }, 0, true, ""},
		{"the list has a comment, blanks and no line end", func() { r.list("# ours\n   " + Library) }, 0, true, ""},
		{"the list is empty", func() { r.list("") }, 0, false, ""},
		{"the list is a folder", func() { r.check(os.Remove(r.path(List))); r.check(os.Mkdir(r.path(List), 0o755)) }, 0, false, ""},
		{"the list is root's alone", func() { r.check(os.Chmod(r.path(List), 0o600)) }, 42436, false, ""},
		{"there is no list", func() { r.check(os.Remove(r.path(List))) }, 0, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.install(read(t, filepath.Join("built", runtime.GOARCH, Name)), 0o644)
			r.check(os.Chmod(filepath.Dir(library), 0o755))
			r.list(Library + "\n")
			_ = os.Remove(r.path("/tmp/image"))
			c.do()
			out, said, err := r.run(c.uid, "/tmp/qemu-img", refusedLock...)
			want := map[bool]string{true: grantedAnswer, false: refusedAnswer}[c.granted]
			if err != nil || out != want {
				t.Errorf("%v, answers %q, want %q", err, out, want)
			}
			var linker []string
			for line := range strings.Lines(said) {
				if m := linkerSays.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
					linker = append(linker, m[2])
				} else if !c.granted || !warned.MatchString(strings.TrimSpace(line)) {
					t.Errorf("said %q", line)
				}
			}
			if got := strings.Join(linker, ", "); !strings.HasPrefix(got, c.says) || (got == "") != (c.says == "") {
				t.Errorf("the linker said %q, want %q", got, c.says)
			}
			t.Logf("stderr: %q", said)
		})
	}
}

func (r *root) path(path string) string { return filepath.Join(r.dir, path) }

// The one state of the two files in which no program starts: the linker believes the headers of a library and reads beyond its end. So it is never
// written where it lies, and the list waits until it is on disk.
func TestALibraryCutInTheMiddleKillsEveryProgram(t *testing.T) {
	r := newRoot(t)
	whole := read(t, filepath.Join("built", runtime.GOARCH, Name))
	var said []string
	for n := 512; n < len(whole); n += 512 {
		r.install(whole[:n], 0o644)
		_ = os.Remove(r.path("/tmp/image"))
		_, _, err := r.run(0, "/tmp/qemu-img", refusedLock...)
		said = append(said, fmt.Sprint(n, ": ", err))
	}
	text := strings.Join(said, ", ")
	if !strings.Contains(text, "signal: ") {
		t.Errorf("no program died, and the documents say that they do: %s", text)
	}
	t.Log(text)
}

// The linker loads the list's libraries into setuid programs too.
func TestASetuidProgramIsLeftAlone(t *testing.T) {
	r := newRoot(t)
	r.check(os.Chown(r.path("/tmp/qemu-img"), 42437, 42437))
	if out, _, err := r.run(42436, "/tmp/qemu-img", refusedLock...); err != nil || out != grantedAnswer {
		t.Errorf("without the mode: %v, %q", err, out)
	}
	r.check(os.Remove(r.path("/tmp/image")))
	r.check(os.Chmod(r.path("/tmp/qemu-img"), 0o755|os.ModeSetuid))
	if out, _, err := r.run(42436, "/tmp/qemu-img", refusedLock...); err != nil || out != refusedAnswer {
		t.Errorf("%v, %q", err, out)
	}
}

func TestAStaticProgramIsLeftAlone(t *testing.T) {
	r := newRoot(t)
	if out, err := exec.Command("gcc", "-std=gnu11", "-static", "-pthread", "-o", r.path("/tmp/qemu-img"), "testdata/calls.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(r.path("/tmp/qemu-img"))
	r.check(err)
	defer f.Close()
	if f.Section(".interp") != nil {
		t.Fatal("not static")
	}
	r.list("/no/such/library.so\n")
	if out, said, err := r.run(0, "/tmp/qemu-img", refusedLock...); err != nil || out != refusedAnswer || said != "" {
		t.Errorf("%v, %q, said %q", err, out, said)
	}
}
