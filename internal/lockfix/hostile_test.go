package lockfix

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// places are what a run reads or writes in a container, and what is above it.
var places = []string{
	"etc", "etc/os-release", "etc/dpkg/dpkg.cfg", "etc/dpkg/dpkg.cfg.d", "etc/dpkg/dpkg.cfg.d/docker", "tmp", "usr", "usr/bin", "usr/bin/qemu-img",
	"usr/lib", "usr/sbin", "usr/sbin/policy-rc.d", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/status", "var/lib/dpkg/updates",
	"var/lib/dpkg/updates/0001", "var/lib/dpkg/info", "var/lib/dpkg/info/qemu-utils.list", "var/lib/dpkg/info/qemu-utils.md5sums",
	"var/lib/dpkg/info/qemu-utils.postinst", "var/lib/dpkg/diversions", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/kolla",
	"var/lib/nfslock", "var/lib/nfslock/qemu-utils.deb",
}

// kinds are what may stand there instead.
var kinds = map[string]func(path, outside string) error{
	"absolute link": func(path, outside string) error { return os.Symlink(outside, path) },
	"relative link": func(path, outside string) error {
		return os.Symlink(strings.Repeat("../", 30)+strings.TrimPrefix(outside, "/"), path)
	},
	"pipe":   func(path, _ string) error { return syscall.Mkfifo(path, 0o644) },
	"device": func(path, _ string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o644, 1<<8|5) }, // zero: it has no end
	"folder": func(path, _ string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o755) },
	"file":   func(path, _ string) error { return os.WriteFile(path, []byte("x\n"), 0o644) },
	"sparse": func(path, _ string) error {
		return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
	},
}

// watch tells what happens to the files below dir.
func watch(t *testing.T, dir string) (events func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	drain := func() (n int) {
		for {
			got, err := unix.Read(fd, buf)
			if err != nil || got <= 0 {
				return n
			}
			n += got
		}
	}
	drain() // of the walk itself
	return drain
}

// Whatever stands where a run expects its own or dpkg's: nothing outside of the container is opened, nothing is waited for,
// and the run ends with a result.
func TestWhatIsPlantedInAContainerLeadsNowhere(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	back := options()
	back.State = Absent
	for _, place := range places {
		for kind, plant := range kinds {
			t.Run(place+"/"+kind, func(t *testing.T) {
				w := newWorld(t)
				w.add("outside", qemuUtils(patched))
				outside := w.boxes["outside"].root
				delete(w.boxes, "outside")
				w.must(os.MkdirAll(filepath.Join(outside, "var/lib/nfslock"), 0o755))
				w.must(os.WriteFile(filepath.Join(outside, policyFile), []byte(policyText), 0o755))
				b := w.add("cinder_volume", qemuUtils(stock))
				if strings.Contains(place, "dpkg.cfg") {
					w.must(os.MkdirAll(filepath.Join(b.root, "etc/dpkg/dpkg.cfg.d"), 0o755))
				}
				w.mustRun(options(), set, f)
				path := filepath.Join(b.root, place)
				w.must(os.RemoveAll(path))
				w.must(os.MkdirAll(filepath.Dir(path), 0o755))
				if err := plant(path, filepath.Join(outside, place)); err != nil {
					if errors.Is(err, syscall.EPERM) {
						t.Skip(err)
					}
					t.Fatal(err)
				}
				events := watch(t, outside)
				// The container's own dpkg is not what is tested, and the one of this world would follow the links.
				w.fail = func(string) error { return errors.New("no dpkg today") }
				begin := time.Now()
				for _, o := range []Options{options(), back, options()} {
					if r, err := w.run(o, ansible.Call{}, set, f); err != nil && strings.Contains(err.Error(), "internal error") || len(r.Containers) != 1 {
						t.Errorf("%v, %+v", err, r)
					}
				}
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				if n := events(); n > 0 {
					t.Errorf("something was done outside of the container: %d bytes of events", n)
				}
			})
		}
	}
}
