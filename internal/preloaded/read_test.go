package preloaded

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

// tree is a container's root with what a test puts there.
func tree(t *testing.T, list *string, library []byte) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if list != nil {
		put(preload.List, []byte(*list))
	}
	if library != nil {
		put(preload.Library, library)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestRead(t *testing.T) {
	text := func(s string) *string { return &s }
	other := bytes.Clone(preload.Built)
	other[len(other)-1] ^= 1 // in the last section's header
	for _, test := range []struct {
		name    string
		list    *string
		library []byte
		want    State
		current bool
		others  []string
	}{
		{name: "nothing", want: None},
		{name: "ours", list: text(preload.Library + "\n"), library: preload.Built, want: Installed, current: true},
		{name: "without a line's end", list: text(preload.Library), library: preload.Built, want: Installed, current: true},
		{name: "beside others", list: text("/a.so:/b.so\t" + preload.Library + " # /c.so"), library: preload.Built, want: Installed, current: true, others: []string{"/a.so", "/b.so"}},
		{name: "named in a comment only", list: text("# " + preload.Library + "\n"), library: preload.Built, want: Unlisted, current: true},
		{name: "another build", list: text(preload.Library), library: other, want: Old},
		{name: "the list alone", list: text(preload.Library), want: Broken},
		{name: "cut", list: text(preload.Library), library: preload.Built[:len(preload.Built)/2], want: Broken},
		{name: "empty", list: text(preload.Library), library: []byte{}, want: Broken},
		{name: "no library", list: text(preload.Library), library: []byte("#!/bin/sh\n"), want: Broken},
		{name: "the file alone", library: preload.Built, want: Unlisted, current: true},
		{name: "somebody else's list", list: text("/usr/lib/other.so\n"), want: None, others: []string{"/usr/lib/other.so"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, root := tree(t, test.list, test.library)
			got, err := Read(root)
			if err != nil {
				t.Fatal(err)
			}
			if test.others == nil {
				test.others = []string{}
			}
			if diff := cmp.Diff(Seen{State: test.want, SHA256: got.SHA256, Current: test.current, Others: test.others}, got); diff != "" {
				t.Error(diff)
			}
			if (got.SHA256 == "") != (test.library == nil) {
				t.Errorf("its checksum is %q", got.SHA256)
			}
		})
	}
}

func TestReadFollowsNothingOut(t *testing.T) {
	dir, root := tree(t, nil, nil)
	outside := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(outside, []byte(preload.Library), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, preload.List)); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(root); err != nil || got.State != None {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadTakesAFolderForNothing(t *testing.T) {
	dir, root := tree(t, nil, nil)
	if err := os.MkdirAll(filepath.Join(dir, preload.List), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(root); err != nil || got.State != None {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadIsBounded(t *testing.T) {
	long := strings.Repeat("#", listLimit+1)
	_, root := tree(t, &long, nil)
	if _, err := Read(root); err == nil {
		t.Error("no error")
	}
}

func TestLoaded(t *testing.T) {
	proc := t.TempDir()
	for pid, maps := range map[int]string{
		1: "7f00-7f01 r-xp 00001000 00:3b 12 /usr/bin/qemu-system-x86_64\n7f02-7f03 r-xp 00001000 00:3b 13                  " + preload.Library + "\n",
		2: "7f00-7f01 r-xp 00001000 00:3b 12 /usr/bin/qemu-system-x86_64\n",
		3: "7f02-7f03 r-xp 00001000 00:3b 13 " + preload.Library + " (deleted)\n",
		4: "7f02-7f03 r-xp 00001000 00:3b 13 /srv/not-libnfslock.so\n7f02-7f03 rw-p 00000000 00:00 0 [heap]\n",
	} {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "maps"), []byte(maps), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, want := range map[int]bool{1: true, 2: false, 3: true, 4: false, 5: false} {
		if got, err := Loaded(t.Context(), proc, pid); err != nil || got != want {
			t.Errorf("%d: %v, %v", pid, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(preload.Library), preload.Built)
	f.Fuzz(func(t *testing.T, list, library []byte) {
		text := string(list)
		_, root := tree(t, &text, library)
		if got, err := Read(root); err == nil && got.Active() && len(library) == 0 {
			t.Errorf("%+v", got)
		}
	})
}
