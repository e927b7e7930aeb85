package lockfix

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
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
		above := slices.ContainsFunc(places, func(other string) bool { return strings.HasPrefix(other, place+"/") })
		for kind, plant := range kinds {
			if above && !strings.HasSuffix(kind, "link") {
				continue // nothing below it is found then: the same for all
			}
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
				for _, o := range []Options{options(), back} {
					if r, err := w.run(o, ansible.Call{}, set, f); err != nil && strings.Contains(err.Error(), "internal error") || len(r.Containers) != 1 {
						t.Errorf("%v, %+v", err, r)
					}
				}
				if took := time.Since(begin); took > 2*time.Minute {
					t.Errorf("it took %v", took)
				}
				if n := events(); n > 0 {
					t.Errorf("something was done outside of the container: %d bytes of events", n)
				}
			})
		}
	}
}

// modes lists what is below dir with its mode, but for what lies below a folder of the name skip.
func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil {
			all[strings.TrimPrefix(path, dir)] = info.Mode()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatIsWrittenIsPrivateWhateverTheUmask(t *testing.T) {
	set1, f1 := folder(t, qemuUtils(patched))
	set2, f2 := folder(t, qemuUtils(stock+"+nfslock2"))
	set2.Suffix, set2.Packages[0].BuiltFrom = "+nfslock2", stock
	for _, mask := range []int{0, 0o022, 0o077} {
		t.Run(fmt.Sprintf("%03o", mask), func(t *testing.T) {
			w := newWorld(t)
			b := w.add("cinder_volume", qemuUtils(stock))
			defer syscall.Umask(syscall.Umask(mask))
			seen := map[string]bool{}
			w.fail = func(call string) error {
				for path, mode := range modes(t, w.job().dir) {
					seen[path] = true
					want := fs.FileMode(0o600)
					if mode.IsDir() {
						want = 0o700 | fs.ModeDir
					}
					if mode != want {
						t.Errorf("%s has %v", path, mode)
					}
				}
				if strings.Contains(call, "--install") {
					got := modes(t, filepath.Join(b.root, privateDir))
					if diff := cmp.Diff(map[string]fs.FileMode{"": 0o700 | fs.ModeDir, "/qemu-utils.deb": 0o600}, got); diff != "" {
						t.Error(diff)
					}
					if info, err := os.Stat(filepath.Join(b.root, policyFile)); err != nil || info.Mode() != 0o755 {
						t.Errorf("%s: %v, %v", policyFile, info.Mode(), err)
					}
				}
				return nil
			}
			w.mustRun(options(), set1, f1)
			w.mustRun(options(), set2, f2) // keeps what the first installed, beside the journal
			_ = w.fail("")
			for _, path := range []string{"", "/lock", "/journal", "/journal/cinder_volume.json", "/journal/undo/cinder_volume/index.json", "/baseline/cinder_volume/index.json"} {
				if !seen[path] {
					t.Errorf("%s was never there", path)
				}
			}
		})
	}
}

func TestStateFolderThatOthersCanWriteToIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	set, f := folder(t, qemuUtils(patched))
	for _, test := range []struct {
		name string
		make func(dir, elsewhere string) error
		want string // in the error; "" if it is used, and closed to others
	}{
		{"of somebody else", func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 1234, -1)) }, "it belongs to user 1234"},
		{"for everybody", func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }, "others may write to it"},
		{"for a group", func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) }, "others may write to it"},
		{"readable", func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) }, ""},
		{"a file", func(dir, _ string) error { return os.WriteFile(dir, nil, 0o600) }, "it is no folder"},
		{"a link of root's to root's", func(dir, elsewhere string) error { return os.Symlink(elsewhere, dir) }, ""},
		{
			"a link of somebody else's", func(dir, elsewhere string) error {
				return errors.Join(os.Symlink(elsewhere, dir), os.Lchown(dir, 1234, -1))
			}, "it belongs to user 1234",
		},
		{
			"a link to somebody else's", func(dir, elsewhere string) error {
				return errors.Join(os.Symlink(elsewhere, dir), os.Chown(elsewhere, 1234, -1))
			}, "it belongs to user 1234",
		},
		{"a link to nothing", func(dir, elsewhere string) error { return os.Symlink(elsewhere+"/absent", dir) }, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := twoContainers(t)
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			w.must(os.Mkdir(elsewhere, 0o755))
			w.must(test.make(w.job().dir, elsewhere))
			for _, call := range []ansible.Call{{CheckMode: true}, {}} {
				_, err := w.run(options(), call, set, f)
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("check mode %v: %v", call.CheckMode, err)
				}
			}
			if test.want != "" && len(w.calls) > 0 {
				t.Errorf("calls: %v", w.calls)
			}
			if info, err := os.Stat(w.job().dir); test.want == "" && (err != nil || info.Mode() != 0o700|fs.ModeDir) {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

// The folder is root's, yet a power cut, a hand or a restored backup may have left anything in it.
func TestHostileBaselineIsNotInstalled(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	evil := qemuUtils(stock)
	evil.files = map[string]string{"usr/bin/qemu-img": "evil"}
	sum := sha256.Sum256(evil.bytes())
	kept := func(name, file string) string {
		return fmt.Sprintf(`{"name":%q,"version":%q,"file":%q,"size":%d,"sha256":%q}`, name, stock, file, len(evil.bytes()), hex.EncodeToString(sum[:]))
	}
	index := func(id string, packages ...string) string {
		return fmt.Sprintf(`{"schema":1,"id":%q,"packages":[%s]}`, id, strings.Join(packages, ","))
	}
	for name, plant := range map[string]func(w *world, dir, id string) error{
		"a file elsewhere": func(_ *world, dir, id string) error {
			return writeFile(dir, index(id, kept("qemu-utils", "../../../evil.deb")))
		},
		"an absolute file": func(w *world, dir, id string) error {
			return writeFile(dir, index(id, kept("qemu-utils", w.dir+"/evil.deb")))
		},
		"a link to elsewhere": func(_ *world, dir, id string) error {
			return errors.Join(writeFile(dir, index(id, kept("qemu-utils", "x.deb"))), os.Symlink("../../../evil.deb", filepath.Join(dir, "x.deb")))
		},
		"a pipe": func(_ *world, dir, id string) error {
			return errors.Join(writeFile(dir, index(id, kept("qemu-utils", "x.deb"))), syscall.Mkfifo(filepath.Join(dir, "x.deb"), 0o600))
		},
		"a name that leads away": func(_ *world, dir, id string) error {
			return errors.Join(writeFile(dir, index(id, kept("../../usr/bin/x", "x.deb"))), os.WriteFile(filepath.Join(dir, "x.deb"), evil.bytes(), 0o600))
		},
		"another package's file": func(_ *world, dir, id string) error {
			other := testDeb{name: "qemu-other", version: stock}.bytes()
			sum := sha256.Sum256(other)
			line := fmt.Sprintf(`{"name":"qemu-utils","version":%q,"file":"x.deb","size":%d,"sha256":%q}`, stock, len(other), hex.EncodeToString(sum[:]))
			return errors.Join(writeFile(dir, index(id, line)), os.WriteFile(filepath.Join(dir, "x.deb"), other, 0o600))
		},
		"a negative size": func(_ *world, dir, id string) error {
			return writeFile(dir, index(id, `{"name":"qemu-utils","version":"1","file":"x.deb","size":-5,"sha256":""}`))
		},
		"huge": func(_ *world, dir, _ string) error { return os.Truncate(filepath.Join(dir, baseline.IndexName), 1<<40) },
		"deep": func(_ *world, dir, _ string) error { return writeFile(dir, `{"packages":`+strings.Repeat("[", 1<<19)) },
		"a link": func(w *world, dir, _ string) error {
			return errors.Join(os.Remove(filepath.Join(dir, baseline.IndexName)), os.Symlink(w.dir+"/evil.deb", filepath.Join(dir, baseline.IndexName)))
		},
		"an index pipe": func(_ *world, dir, _ string) error {
			return errors.Join(os.Remove(filepath.Join(dir, baseline.IndexName)), syscall.Mkfifo(filepath.Join(dir, baseline.IndexName), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b := w.add("cinder_volume", qemuUtils(stock))
			w.mustRun(options(), set, f)
			w.must(os.WriteFile(filepath.Join(w.dir, "evil.deb"), evil.bytes(), 0o600))
			w.must(plant(w, w.job().baseline("cinder_volume"), b.ID))
			before := w.snapshot()
			back := options()
			back.State = Absent
			begin := time.Now()
			r, err := w.run(back, ansible.Call{}, Set{}, nil)
			if got := w.program("cinder_volume"); got != patched || time.Since(begin) > 5*time.Second || err != nil && strings.Contains(err.Error(), "internal error") {
				t.Errorf("%s is there after %v: %v, %+v", got, time.Since(begin), err, r)
			}
			after := w.snapshot()
			delete(before, "cinder_volume/var/lib/dpkg/status") // a hold may go
			delete(after, "cinder_volume/var/lib/dpkg/status")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
			if r, err := w.run(options(), ansible.Call{}, set, f); err != nil {
				t.Errorf("a patch is stopped by it: %v, %+v", err, r)
			}
		})
	}
}

func writeFile(dir, text string) error {
	return os.WriteFile(filepath.Join(dir, baseline.IndexName), []byte(text), 0o600)
}

func TestPipesInTheStateFolderAreNotWaitedFor(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	for _, name := range []string{"lock", "journal/run.log", "journal/cinder_volume.json"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.add("cinder_volume", qemuUtils(stock))
			path := filepath.Join(w.job().dir, name)
			w.must(statedir.MakeFolder(filepath.Dir(path)))
			w.must(syscall.Mkfifo(path, 0o600))
			before := w.snapshot()
			begin := time.Now()
			for _, call := range []ansible.Call{{CheckMode: true}, {}} {
				if r, err := w.run(options(), call, set, f); err != nil {
					if diff := cmp.Diff(before, w.snapshot()); diff != "" || strings.Contains(err.Error(), "internal error") {
						t.Errorf("%v, %+v, %s", err, r, diff)
					}
				}
			}
			if took := time.Since(begin); took > 2*time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}
