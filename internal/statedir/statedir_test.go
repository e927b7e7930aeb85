package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filled makes a folder as a run leaves it, beside one of somebody else's.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "lib", "nfslock")
	f, err := Make(dir)
	must(t, err)
	defer f.Close()
	must(t, f.Write("rpcbind.json", []byte("{}\n")))
	for _, name := range []string{"store", "baseline"} {
		below, err := f.MakeFolder(name)
		must(t, err)
		must(t, below.Write("a", []byte(name)))
		deeper, err := below.MakeFolder("cinder_volume")
		must(t, err)
		must(t, deeper.Write("index.json", []byte("{}")))
		deeper.Close()
		below.Close()
	}
	other := filepath.Join(filepath.Dir(dir), "other")
	must(t, os.Mkdir(other, 0o755))
	must(t, os.WriteFile(filepath.Join(other, "precious"), []byte("precious"), 0o644))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func precious(t *testing.T, dir string) {
	t.Helper()
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "other", "precious")); err != nil || string(text) != "precious" {
		t.Errorf("somebody else's file: %q, %v", text, err)
	}
}

func TestWhatARunLeavesIsOpened(t *testing.T) {
	dir := filled(t)
	f, err := Open(dir)
	must(t, err)
	defer f.Close()
	text, err := f.Read("rpcbind.json", 10)
	if string(text) != "{}\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := f.Read("rpcbind.json", 2); err == nil || !strings.Contains(err.Error(), "it has more than 2 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := f.Read("none", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := f.Read("store", 2); err == nil {
		t.Error("a folder was read")
	}
	for _, name := range []string{"", ".", "..", "store/a", "../other/precious", "/etc/passwd"} {
		_, err := f.Read(name, 100)
		_, err1 := f.Folder(name)
		_, err2 := f.Create(name)
		if err == nil || err1 == nil || err2 == nil || f.Remove(name) == nil || f.RemoveFolder(name) == nil || f.Rename("rpcbind.json", name) == nil {
			t.Errorf("%q was taken for an entry", name)
		}
	}
	below, err := f.Folder("baseline")
	must(t, err)
	defer below.Close()
	names, err := below.Names()
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "cinder_volume"}) || err != nil || below.Path() != filepath.Join(dir, "baseline") {
		t.Errorf("%q, %v", names, err)
	}
	for path, want := range map[string]fs.FileMode{"": 0o700, "store": 0o700, "store/a": 0o600, "rpcbind.json": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestNothingIsThereBeforeTheFirstRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nfslock")
	f, err := Open(dir)
	if f != nil || err != nil {
		t.Fatalf("%v, %v", f, err)
	}
	if _, err := f.Read("x", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := f.Folder("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if names, err := f.Names(); len(names) > 0 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	if f.Write("x", nil) == nil || f.Remove("x") != nil || f.RemoveFolder("x") != nil || f.Locked() || f.Close() != nil {
		t.Error("something can be done in it")
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was made")
	}
}

// TestAFolderThatOthersMayHaveWrittenIsRefused, whatever of it they may have written, for reading and for a change. Nothing is waited for.
func TestAFolderThatOthersMayHaveWrittenIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		root  bool
		want  string
	}{
		"another user's":      {func(t *testing.T, dir string) { must(t, os.Chown(dir, 65534, 65534)) }, true, ": it belongs to user 65534"},
		"the group may write": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o770)) }, false, ": others may write to it (mode 0770)"},
		"others may write":    {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777|os.ModeSticky)) }, false, ": others may write to it (mode 1777)"},
		"a file":              {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)); must(t, os.WriteFile(dir, nil, 0o600)) }, false, ": it is no folder"},
		"a pipe":              {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)); must(t, syscall.Mkfifo(dir, 0o600)) }, false, ": it is no folder"},
		"another user's link to it": {func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".real"))
			must(t, os.Symlink(dir+".real", dir))
			must(t, os.Lchown(dir, 65534, 65534))
		}, true, ": the link belongs to user 65534"},
		"a link to another user's": {func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".real"))
			must(t, os.Chown(dir+".real", 65534, 0))
			must(t, os.Symlink(dir+".real", dir))
		}, true, ": it belongs to user 65534"},
		"a file of another user's":     {func(t *testing.T, dir string) { must(t, os.Chown(dir+"/baseline/cinder_volume/index.json", 65534, 0)) }, true, ": baseline/cinder_volume/index.json in it: it belongs to user 65534"},
		"a folder of another user's":   {func(t *testing.T, dir string) { must(t, os.Chown(dir+"/store", 65534, 0)) }, true, ": store in it: it belongs to user 65534"},
		"a file that others may write": {func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/rpcbind.json", 0o602)) }, false, ": rpcbind.json in it: others may write to it (mode 0602)"},
		"a link for a folder":          {func(t *testing.T, dir string) { must(t, os.Symlink("../other", dir+"/journal")) }, false, ": journal in it: it is a symbolic link"},
		"a link for a container's":     {func(t *testing.T, dir string) { must(t, os.Symlink("../../other", dir+"/baseline/nova_libvirt")) }, false, ": baseline/nova_libvirt in it: it is a symbolic link"},
		"a link for a file": {func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/rpcbind.json"))
			must(t, os.Symlink("/etc/hostname", dir+"/rpcbind.json"))
		}, false, ": rpcbind.json in it: it is a symbolic link"},
		"a pipe for a file": {func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/rpcbind.json"))
			must(t, syscall.Mkfifo(dir+"/rpcbind.json", 0o600))
		}, false, ": rpcbind.json in it: it is neither a file nor a folder"},
		"a device for the lock":         {func(t *testing.T, dir string) { device(t, dir+"/lock") }, true, ": lock in it: it is neither a file nor a folder"},
		"something is mounted there":    {func(t *testing.T, dir string) { mount(t, dir+"/store", "tmpfs", "tmpfs", 0) }, true, ": store in it: something is mounted there"},
		"a folder of it mounted in it":  {func(t *testing.T, dir string) { mount(t, dir+"/store", dir+"/baseline", "", unix.MS_BIND) }, true, ": store in it: something is mounted there"},
		"a file is mounted over a file": {func(t *testing.T, dir string) { mount(t, dir+"/rpcbind.json", dir+"/store/a", "", unix.MS_BIND) }, true, ": rpcbind.json in it: something is mounted there"},
		"too deep":                      {func(t *testing.T, dir string) { must(t, os.MkdirAll(dir+strings.Repeat("/d", 12), 0o700)) }, false, "it is more than 8 folders deep"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			dir := filled(t)
			c.spoil(t, dir)
			for what, open := range map[string]func(string) (*Folder, error){"Open": Open, "Make": Make} {
				f, err := open(dir)
				if err == nil || !strings.HasPrefix(err.Error(), "cannot use "+dir+": ") || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "move it out of the way") {
					t.Errorf("%s: %v, want %q", what, err, c.want)
				}
				if f != nil {
					f.Close()
				}
			}
			precious(t, dir)
		})
	}
}

func device(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3); err != nil {
		t.Skipf("no device here: %v", err)
	}
}

func mount(t *testing.T, at, source, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, at, kind, flags, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

func TestALinkOfOurOwnAndAMountOfTheWholeWillDo(t *testing.T) {
	dir := filled(t)
	must(t, os.Rename(dir, dir+".real"))
	must(t, os.Symlink(dir+".real", dir))
	must(t, os.Chmod(dir+".real", 0o755))
	f, err := Make(dir)
	must(t, err)
	f.Close()
	if info, err := os.Stat(dir + ".real"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if os.Geteuid() != 0 {
		return
	}
	mount(t, dir+".real", "tmpfs", "tmpfs", 0)
	must(t, os.Chmod(dir+".real", 0o755))
	f, err = Make(dir)
	must(t, err)
	must(t, f.Write("x", []byte("x")))
	f.Close()
}

func TestAFileIsThereWholeOrAsBefore(t *testing.T) {
	dir := filled(t)
	f, err := Make(dir)
	must(t, err)
	defer f.Close()
	must(t, os.WriteFile(dir+"/rpcbind.json.part", []byte("of a run that was killed"), 0o600))
	file, err := f.Create("rpcbind.json")
	must(t, err)
	_, err = file.WriteString("new")
	must(t, err)
	if text, err := f.Read("rpcbind.json", 10); string(text) != "{}\n" {
		t.Errorf("%q, %v", text, err)
	}
	must(t, file.Close())
	if names, err := f.Names(); slices.Contains(names, "rpcbind.json.part") {
		t.Errorf("%q, %v", names, err)
	}
	file, err = f.Create("deb")
	must(t, err)
	_, err = file.WriteString("new")
	must(t, err)
	must(t, file.CommitAs("deb_0123"))
	must(t, file.Close())
	if text, err := f.Read("deb_0123", 10); string(text) != "new" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	journal, err := f.Append("deb_0123")
	must(t, err)
	_, err = journal.WriteString("er")
	must(t, errors.Join(err, journal.Sync(), journal.Close()))
	if text, err := f.Read("deb_0123", 10); string(text) != "newer" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestNoMoreIsRemovedThanWhatLiesThere: what was planted after the look, too, is not followed.
func TestNoMoreIsRemovedThanWhatLiesThere(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, dir string){
		"a link in the folder": func(t *testing.T, dir string) { must(t, os.Symlink("../../../other", dir+"/baseline/cinder_volume/x")) },
		"the folder is a link": func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir+"/baseline"))
			must(t, os.Symlink("../other", dir+"/baseline"))
		},
		"somebody else's folder is mounted in it": func(t *testing.T, dir string) {
			mount(t, dir+"/baseline/cinder_volume", filepath.Dir(dir)+"/other", "", unix.MS_BIND)
		},
		"somebody else's folder is mounted there": func(t *testing.T, dir string) {
			mount(t, dir+"/baseline", filepath.Dir(dir)+"/other", "", unix.MS_BIND)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			f, err := Make(dir)
			must(t, err)
			defer f.Close()
			plant(t, dir)
			if err := f.RemoveFolder("baseline"); err == nil {
				t.Error("it was removed")
			}
			precious(t, dir)
		})
	}
	dir := filled(t)
	f, err := Make(dir)
	must(t, err)
	defer f.Close()
	must(t, errors.Join(f.RemoveFolder("baseline"), f.RemoveFolder("baseline"), f.Remove("rpcbind.json"), f.Remove("rpcbind.json")))
	if names, err := f.Names(); !slices.Equal(names, []string{"store"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	precious(t, dir)
}

func TestLockKeepsTwoRunsApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nfslock")
	f, err := Make(dir)
	must(t, err)
	defer f.Close()
	unlock, _, err := f.Lock(t.Context())
	must(t, err)
	waited := make(chan error)
	go func() {
		unlock, late, err := f.Lock(t.Context())
		if err == nil && !late {
			err = errors.New("it does not say that it waited")
		}
		if err == nil {
			unlock()
		}
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("the second did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if !f.Locked() {
		t.Error("nobody is said to be at work")
	}
	unlock()
	must(t, <-waited)
	if f.Locked() {
		t.Error("somebody is said to be at work")
	}
	must(t, errors.Join(os.Remove(dir+"/lock"), syscall.Mkfifo(dir+"/lock", 0o600)))
	if _, _, err := f.Lock(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot lock this host: ") {
		t.Errorf("a pipe was locked: %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "nfslock")
	for i := range 200 {
		path := filepath.Join(dir, "store", strings.Repeat("x", i+1))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		f, err := Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
