package preloaded

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

// container is a tree with the folders that each has, and with what is there before.
func container(t *testing.T, list, library []byte) (string, *os.Root) {
	t.Helper()
	dir, root := tree(t, nil, nil)
	for _, folder := range []string{"etc", "usr/lib"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if list != nil {
		plant(t, dir, listName, func(path string) error { return os.WriteFile(path, list, 0o640) })
	}
	if library != nil {
		plant(t, dir, libraryName, func(path string) error { return os.WriteFile(path, library, 0o644) })
	}
	return dir, root
}

// contents is all that is there, with modes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := []byte{}
		if info.Mode().IsRegular() {
			text, err = os.ReadFile(path)
		}
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%v %q", info.Mode(), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func look(t *testing.T, root *os.Root) Place {
	t.Helper()
	p, err := Look(root)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var befores = []struct {
	name          string
	list, library []byte
	exact         bool // absent brings back just this
}{
	{"nothing", nil, nil, true},
	{"another's list", []byte("/usr/lib/other.so\n"), nil, true},
	{"another's list without a line's end", []byte("/usr/lib/other.so"), nil, true},
	{"an empty list", []byte{}, nil, true},
	{"the library alone", nil, preload.Built, false},
	{"another build, listed", []byte(preload.Library + "\n"), append(bytes.Clone(preload.Built), 0), false},
	{"one that is cut, listed", []byte("/a.so\n" + preload.Library + "\n"), preload.Built[:999], false},
	{"the list alone", []byte(preload.Library + "\n"), nil, false},
	{"installed", []byte(preload.Library + "\n"), preload.Built, false},
}

// At every moment, on the way there, on the way back and back to what was found: a list names no library that is missing or cut, unless it did before.
func TestNoMomentHasAListWithoutItsLibrary(t *testing.T) {
	for _, before := range befores {
		t.Run(before.name, func(t *testing.T) {
			dir, root := container(t, before.list, before.library)
			first := look(t, root)
			sound := first.State != Broken
			check := func(moment string) {
				now := look(t, root)
				if now.State == Broken && sound {
					t.Errorf("at %q: %+v", moment, now.Seen)
				}
				sound = now.State != Broken
				for _, other := range first.Others {
					if !strings.Contains(string(now.List.data()), other) {
						t.Errorf("at %q %s is gone", moment, other)
					}
				}
			}
			was := contents(t, dir)
			for _, want := range []Files{first.Present(), first.Sound(), first.Present(), look(t, root).Files.Present().Absent()} {
				if err := Write(root, want, check); err != nil {
					t.Fatal(err)
				}
				check("the end")
				if now := look(t, root); now.Needs(want) {
					t.Errorf("got %+v, want %+v", now, want)
				}
				moments := 0
				if err := Write(root, want, func(string) { moments++ }); err != nil || moments > 0 {
					t.Errorf("the same again: %v, %d moments", err, moments)
				}
			}
			if diff := cmp.Diff(was, contents(t, dir)); before.exact && diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
			if now := look(t, root); now.State != None || now.Folder {
				t.Errorf("left: %+v", now)
			}
		})
	}
}

func TestRollbackBringsBackWhatWasFound(t *testing.T) {
	for _, before := range befores {
		dir, root := container(t, before.list, before.library)
		first, was := look(t, root), contents(t, dir)
		for _, want := range []Files{first.Present(), first.Absent(), first.Sound()} {
			if err := Write(root, want, func(string) {}); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(was, contents(t, dir)); diff != "" && first.State != Broken {
			t.Errorf("%s: -before +after:\n%s", before.name, diff)
		}
		if now := look(t, root); first.State == Broken && now.State != None {
			t.Errorf("%s: nothing goes back to a broken state: %+v", before.name, now.Seen)
		}
	}
}

func TestWriteRefusesAListWithoutItsLibrary(t *testing.T) {
	dir, root := container(t, nil, nil)
	was := contents(t, dir)
	list := &File{Data: []byte(preload.Library), Mode: 0o644}
	for _, library := range []*File{nil, {Data: preload.Built[:99], Mode: 0o644}} {
		if err := Write(root, Files{List: list, Library: library}, func(string) {}); err == nil {
			t.Error("no error")
		}
	}
	if diff := cmp.Diff(was, contents(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatOthersHaveInTheFolderStays(t *testing.T) {
	dir, root := container(t, nil, nil)
	plant(t, dir, folderName+"/other", func(path string) error { return os.WriteFile(path, nil, 0o600) })
	was := contents(t, dir)
	for _, want := range []Files{look(t, root).Present(), look(t, root).Absent()} {
		if err := Write(root, want, func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(was, contents(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestAFolderThatARunLeftClosedIsOpened(t *testing.T) {
	dir, root := container(t, nil, nil)
	if err := os.Mkdir(filepath.Join(dir, folderName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(root, look(t, root).Present(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir)["/"+folderName]; !strings.HasPrefix(got, "drwxr-xr-x") {
		t.Error(got)
	}
}

func TestTidyRemovesWhatAKilledRunLeft(t *testing.T) {
	dir, root := container(t, nil, nil)
	was := contents(t, dir)
	plant(t, dir, listPart, func(path string) error { return os.WriteFile(path, []byte("half"), 0o600) })
	plant(t, dir, libraryPart, func(path string) error { return os.WriteFile(path, []byte("half"), 0o600) })
	if left, err := Tidy(root); err != nil || !left {
		t.Fatal(left, err)
	}
	if left, err := Tidy(root); err != nil || left {
		t.Error(left, err)
	}
	if err := os.Remove(filepath.Join(dir, folderName)); err != nil { // it is the plan that takes an empty one back
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, contents(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// What a hostile container has at these places is refused with its name, before anything is written.
func TestHostilePlacesAreRefused(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	folder := func(path string) error { return os.Mkdir(path, 0o755) }
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o644) }
	for _, test := range []struct {
		name string
		make func(string) error
		want string
	}{
		{listName, link(secret), "/etc/ld.so.preload is a symbolic link, and not a file"},
		{listName, link("other"), "/etc/ld.so.preload is a symbolic link, and not a file"},
		{listName, folder, "/etc/ld.so.preload is a folder, and not a file"},
		{listName, pipe, "/etc/ld.so.preload is a pipe, socket or device, and not a file"},
		{folderName, link(filepath.Dir(secret)), "/usr/lib/nfslock is a symbolic link, and not a folder"},
		{folderName, link("../bin"), "/usr/lib/nfslock is a symbolic link, and not a folder"},
		{folderName, pipe, "/usr/lib/nfslock is a pipe, socket or device, and not a folder"},
		{libraryName, link("/usr/lib/libc.so.6"), "/usr/lib/nfslock/libnfslock.so is a symbolic link, and not a file"},
		{libraryName, folder, "/usr/lib/nfslock/libnfslock.so is a folder, and not a file"},
		{"usr/lib", link("/lib"), "/usr/lib is a symbolic link, and not a folder"},
		{"etc", link("usr"), "/etc is a symbolic link, and not a folder"},
	} {
		t.Run(test.want, func(t *testing.T) {
			dir, root := tree(t, nil, nil)
			for _, name := range []string{"etc", "usr/lib"} {
				if name != test.name {
					if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			plant(t, dir, test.name, test.make)
			if p := look(t, root); p.Refusal != test.want {
				t.Errorf("%+v", p)
			}
		})
	}
	dir, root := tree(t, nil, nil)
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p := look(t, root); p.Refusal != "it has no folder /usr" {
		t.Errorf("%+v", p)
	}
}

// Each of these is planted between the look and the writing: nothing is followed out, and nothing outside changes.
func TestHostileLinksThatComeLaterLeadNowhere(t *testing.T) {
	outside := t.TempDir()
	was := contents(t, outside)
	for _, name := range []string{listPart, libraryPart, folderName, listName, libraryName} {
		dir, root := container(t, nil, nil)
		want := look(t, root).Present()
		plant(t, dir, name, func(path string) error { return os.Symlink(filepath.Join(outside, "planted"), path) })
		_ = Write(root, want, func(string) {})
		if diff := cmp.Diff(was, contents(t, outside)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if data, err := os.ReadFile(filepath.Join(dir, listName)); err == nil && strings.Contains(string(data), preload.Library) {
			if p := look(t, root); p.State != Installed {
				t.Errorf("%s: %+v", name, p.Seen)
			}
		}
	}
}
