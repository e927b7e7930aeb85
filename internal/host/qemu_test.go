package host

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGuestName(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"as libvirt writes it", []string{"/usr/bin/qemu-system-x86_64", "-name", "guest=instance-0000002a,debug-threads=on", "-S"}, "instance-0000002a"},
		{"plain", []string{"qemu-system-x86_64", "-name", "web"}, "web"},
		{"plain, with a setting behind", []string{"qemu-system-x86_64", "-name", "web,process=web"}, "web"},
		{"two hyphens", []string{"qemu-system-x86_64", "--name", "guest=web"}, "web"},
		{"a comma in the name is doubled", []string{"qemu-kvm", "-name", "guest=a,,b,,,debug-threads=on"}, "a,b,"},
		{"a space", []string{"qemu-kvm", "-name", "guest=my web,debug-threads=on"}, "my web"},
		{"no such option", []string{"qemu-system-x86_64", "-S", "-nodefaults"}, ""},
		{"nothing behind the option", []string{"qemu-system-x86_64", "-name"}, ""},
		{"an empty name", []string{"qemu-system-x86_64", "-name", "", "-S"}, ""},
		{"no arguments", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := guestName(cmdline(test.args)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := guestName([]byte(strings.Join(test.args, "\x00"))); got != test.want {
				t.Errorf("without NUL at the end: got %q, want %q", got, test.want)
			}
		})
	}
}

// cmdline is /proc/PID/cmdline of these arguments: each ends with NUL.
func cmdline(args []string) []byte {
	var b []byte
	for _, arg := range args {
		b = append(append(b, arg...), 0)
	}
	return b
}

// world is a proc tree and the files that its processes run, in a temporary folder.
type world struct {
	t    *testing.T
	dir  string
	proc string
}

const hostNamespace = "mnt:[4026531841]"

func newWorld(t *testing.T) world {
	dir := t.TempDir()
	w := world{t, dir, filepath.Join(dir, "proc")}
	w.link(hostNamespace, "proc/self/ns/mnt")
	w.file("kernel", "proc/version")
	return w
}

func (w world) file(text, name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w world) link(target, name string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		w.t.Fatal(err)
	}
}

// process adds one; exe is what its link reads, a path below the world's folder.
func (w world) process(pid int, exe, namespace string, args ...string) {
	dir := "proc/" + strconv.Itoa(pid)
	w.link(filepath.Join(w.dir, exe), dir+"/exe")
	w.link(namespace, dir+"/ns/mnt")
	w.file(string(cmdline(args)), dir+"/cmdline")
}

func TestGuestsAreTheQEMUProcessesInOtherMountNamespaces(t *testing.T) {
	const container = "mnt:[4026532300]"
	w := newWorld(t)
	w.process(10, "usr/bin/qemu-system-x86_64", container, "qemu", "-name", "guest=one,debug-threads=on")
	w.process(11, "usr/libexec/qemu-kvm", container, "qemu-kvm", "-name", "two")
	w.process(12, "usr/bin/qemu-system-aarch64 (deleted)", container, "qemu")
	w.process(20, "usr/bin/qemu-system-x86_64", hostNamespace, "qemu", "-name", "the-hosts-own")
	w.process(21, "usr/bin/qemu-img", container, "qemu-img", "convert")
	w.process(22, "usr/sbin/libvirtd", container, "libvirtd", "-name", "qemu-system-x86_64")
	w.link(container, "proc/30/ns/mnt") // a kernel thread has no program
	w.link("/usr/bin/qemu-system-x86_64", "proc/31/exe")
	w.link("/usr/bin/qemu-system-x86_64", "proc/32/exe") // it ended before its arguments were read
	w.link(container, "proc/32/ns/mnt")
	w.link("/usr/bin/qemu-system-x86_64", "proc/tty/exe")
	got, err := Guests(w.proc)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Guest) int { return a.PID - b.PID })
	path := func(name string) string { return filepath.Join(w.dir, name) }
	want := []Guest{
		{PID: 10, Name: "one", exe: path("proc/10/exe"), Program: path("usr/bin/qemu-system-x86_64")},
		{PID: 11, Name: "two", exe: path("proc/11/exe"), Program: path("usr/libexec/qemu-kvm")},
		{PID: 12, exe: path("proc/12/exe"), Program: path("usr/bin/qemu-system-aarch64")},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Guest{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGuestsWithoutProcIsAnError(t *testing.T) {
	if _, err := Guests(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.HasPrefix(err.Error(), "cannot list processes: ") {
		t.Errorf("got %v", err)
	}
	if _, err := Guests(t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "cannot tell containers' processes from the host's: ") {
		t.Errorf("got %v", err)
	}
}

func TestStaleComparesProgramsByContent(t *testing.T) {
	for _, test := range []struct {
		name    string
		running string
		place   func(t *testing.T, path string) // puts the container's file in its place
		want    bool
	}{
		{"the same content in another file", "patched", write("patched"), false},
		{"other content of the same length", "stock...", write("patched."), true},
		{"other content of another length", "stock", write("patched"), true},
		{"no file", "stock", func(*testing.T, string) {}, true},
		{"a FIFO, which must not be waited for", "stock", func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"a folder", "stock", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"a link that leads out of the container", "stock", func(t *testing.T, path string) {
			if err := os.Symlink("/bin/sh", path); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.file(test.running, "usr/bin/qemu-system-x86_64 (deleted)")
			// A second guest of the same program is judged from what is known already.
			w.process(10, "usr/bin/qemu-system-x86_64 (deleted)", "mnt:[1]", "qemu", "-name", "one")
			w.process(11, "usr/bin/qemu-system-x86_64 (deleted)", "mnt:[1]", "qemu", "-name", "two")
			below := filepath.Join(t.TempDir(), "root")
			path := filepath.Join(below, w.dir, "usr/bin/qemu-system-x86_64")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			test.place(t, path)
			var want []string
			if test.want {
				want = []string{"one", "two"}
			}
			if diff := cmp.Diff(want, stale(t, w.proc, below)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func write(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStaleKnowsTheSameFileWithoutReadingIt(t *testing.T) {
	w := newWorld(t)
	// Sparse, and too large to be read within the test's time.
	big := w.file("", "usr/bin/qemu-system-x86_64")
	if err := os.Truncate(big, 1<<40); err != nil {
		t.Skipf("no file of a terabyte here: %v", err)
	}
	w.process(10, "usr/bin/qemu-system-x86_64", "mnt:[1]", "qemu", "-name", "one")
	if got := stale(t, w.proc, "/"); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestStaleLeavesOutAGuestThatEndedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.process(10, "usr/bin/qemu-system-x86_64", "mnt:[1]", "qemu", "-name", "one") // its program cannot be opened
	if got := stale(t, w.proc, t.TempDir()); got != nil {
		t.Errorf("got %v", got)
	}
}

// stale gives the names of the guests in proc whose program is another than that below dir.
func stale(t *testing.T, proc, dir string) []string {
	t.Helper()
	guests, err := Guests(proc)
	if err != nil || len(guests) == 0 {
		t.Fatalf("guests: %v, %v", guests, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found, err := Stale(guests, root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range found {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	return names
}

// TestARealProcessIsFoundAndBecomesStale takes /proc as it is: the link's text, " (deleted)" included, is the kernel's.
func TestARealProcessIsFoundAndBecomesStale(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a new mount namespace needs root")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("unshare (util-linux) is missing")
	}
	program := filepath.Join(t.TempDir(), "qemu-system-test")
	copyFile(t, "/bin/sleep", program)
	cmd := exec.Command(unshare, "--mount", program, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var endedBy error
	go func() {
		endedBy = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})

	var found []Guest
	for begin := time.Now(); len(found) == 0; time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			t.Skipf("a program named qemu-system-test in a new mount namespace does not run here: %v", endedBy)
		default:
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("it was not found")
		}
		guests, err := Guests("/proc")
		if err != nil {
			t.Fatal(err)
		}
		found = slices.DeleteFunc(guests, func(g Guest) bool { return g.PID != cmd.Process.Pid })
	}

	root, err := os.OpenRoot("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/root")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	check := func(when string, want int) {
		t.Helper()
		guests, err := Guests("/proc")
		if err != nil {
			t.Fatal(err)
		}
		guests = slices.DeleteFunc(guests, func(g Guest) bool { return g.PID != cmd.Process.Pid })
		stale, err := Stale(guests, root)
		if err != nil || len(guests) != 1 || len(stale) != want {
			t.Errorf("%s: %d guests, %d stale, want %d; %v", when, len(guests), len(stale), want, err)
		}
	}
	check("as it was started", 0)
	copyFile(t, "/bin/sleep", program+".new")
	rename(t, program+".new", program)
	check("replaced by the same content, as dpkg does", 0)
	copyFile(t, "/bin/sh", program+".new")
	rename(t, program+".new", program)
	check("replaced by another program", 1)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	check("removed", 1)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
