package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// build makes the program, which starts itself again.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "nolocks")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	return program
}

// mount mounts a new folder for the time of the test.
func mount(t *testing.T, program string, options ...string) (folder, mountpoint string) {
	t.Helper()
	if fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil || os.Getuid() != 0 {
		t.Skipf("needs /dev/fuse, and root: %v", err)
	} else {
		unix.Close(fd)
	}
	top, err := os.MkdirTemp("", "nolocks") // not t.TempDir: other users have to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	folder, mountpoint = filepath.Join(top, "folder"), filepath.Join(top, "mountpoint")
	if err := errors.Join(os.Mkdir(folder, 0), os.Mkdir(mountpoint, 0o755), os.Chmod(folder, 0o777), os.Chmod(top, 0o755)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, append(options, folder, mountpoint, "filer:/volumes")...).CombinedOutput()
	if strings.Contains(string(out), "operation not permitted") {
		t.Skipf("cannot mount FUSE here: %s", out)
	}
	if err != nil || len(out) > 0 {
		t.Fatalf("cannot mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(mountpoint, unix.MNT_DETACH|unix.MNT_FORCE) }) // a test may have done so itself
	return folder, mountpoint
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// lock takes a lock of a kind without waiting. It asks who has one first, as QEMU does.
func lock(f *os.File, kind string) error {
	byte100 := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1}
	asked := byte100
	switch kind {
	case "ofd":
		return errors.Join(unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &asked), unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &byte100))
	case "posix":
		return errors.Join(unix.FcntlFlock(f.Fd(), unix.F_GETLK, &asked), unix.FcntlFlock(f.Fd(), unix.F_SETLK, &byte100))
	}
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func TestEveryLockIsRefused(t *testing.T) {
	_, mountpoint := mount(t, build(t))
	f := open(t, filepath.Join(mountpoint, "image"))
	for _, kind := range []string{"ofd", "posix", "flock"} {
		if err := lock(f, kind); !errors.Is(err, unix.ENOLCK) {
			t.Errorf("%s: %v, not ENOLCK", kind, err)
		}
	}
	unlock := unix.Flock_t{Type: unix.F_UNLCK, Start: 100, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unlock); err != nil {
		t.Errorf("an unlock: %v", err)
	}
}

func TestOnlyTheKindsThatWereNamedAreRefused(t *testing.T) {
	program := build(t)
	for _, c := range []struct{ refused, granted string }{{"flock", "ofd"}, {"fcntl", "flock"}} {
		t.Run(c.refused, func(t *testing.T) {
			folder, mountpoint := mount(t, program, "-kinds", c.refused, "-errno", "EOPNOTSUPP")
			f := open(t, filepath.Join(mountpoint, "image"))
			kind := strings.Replace(c.refused, "fcntl", "ofd", 1)
			if err := lock(f, kind); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("%s: %v, not EOPNOTSUPP", kind, err)
			}
			if err := lock(f, c.granted); err != nil {
				t.Errorf("%s: %v", c.granted, err)
			}
			if err := lock(open(t, filepath.Join(folder, "image")), c.granted); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("a second one in the folder: %v, not EAGAIN", err)
			}
		})
	}
}

func TestItPassesOnWhatIsNoLock(t *testing.T) {
	folder, mountpoint := mount(t, build(t))
	// As the user of a container: the file is his, with the mode that he asked for.
	cmd := exec.Command("sh", "-ec", "umask 002; mkdir d; echo written >d/image; mv d/image image; ln image second; rmdir d")
	cmd.Dir = mountpoint
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 42407, Gid: 42407}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range []string{filepath.Join(folder, "image"), filepath.Join(mountpoint, "second")} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 42407 || st.Gid != 42407 || st.Mode&0o7777 != 0o664 || st.Nlink != 2 {
			t.Errorf("%s: owner %d:%d, mode %o, %d links", path, st.Uid, st.Gid, st.Mode&0o7777, st.Nlink)
		}
	}
	// Past the host's cache, as Nova opens images.
	f, err := os.OpenFile(filepath.Join(mountpoint, "image"), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Pread(int(f.Fd()), page, 0); err != nil || string(page[:n]) != "written\n" {
		t.Errorf("it reads %q, %v", page[:n], err)
	}
	if err := unix.Fsetxattr(int(f.Fd()), "user.x", []byte("y"), 0); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("an extended attribute: %v, not EOPNOTSUPP", err)
	}
	if table, err := os.ReadFile("/proc/self/mounts"); err != nil || !strings.Contains(string(table), "filer:/volumes "+mountpoint+" fuse.nolocks ") {
		t.Errorf("it is not in the mount table: %v", err)
	}
}

func TestItEndsWhenItIsUnmounted(t *testing.T) {
	program := build(t)
	_, mountpoint := mount(t, program)
	if err := unix.Unmount(mountpoint, 0); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if exec.Command("pgrep", "-f", program).Run() != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("it still runs after ten seconds")
}

func TestWhatCannotBeMountedIsSaid(t *testing.T) {
	program := build(t)
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"no such error", "it is one of EACCES, EINVAL, EIO, ENOLCK", []string{"-errno", "ENOTHING", "/", "/nowhere", "x"}},
		{"no such kind", `the kinds are fcntl and flock`, []string{"-kinds", "posix", "/", "/nowhere", "x"}},
		{"no such folder", "cannot open /nowhere", []string{"/nowhere", "/nowhere", "x"}},
		{"no such mountpoint", "cannot mount at /nowhere", []string{"/", "/nowhere", "x"}},
		{"too few words", "FOLDER, MOUNTPOINT and SOURCE are wanted", []string{"/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.Command(program, c.args...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v, not %q: %s", err, c.want, out)
			}
		})
	}
}
