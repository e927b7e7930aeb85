package patchset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func packageOf(content []byte) Package {
	sum := sha256.Sum256(content)
	return Package{Name: "qemu-utils", File: "qemu-utils.deb", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// holds checks what the store gives for the package; nil content means that it is missing.
func holds(t *testing.T, s *Store, p Package, content []byte) {
	t.Helper()
	file, err := s.Open(p)
	if content == nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	if got, err := io.ReadAll(file); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes and %v, want %d", len(got), err, len(content))
	}
}

// tree lists the files below dir with their modes.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(name)
		files[strings.TrimPrefix(name, dir)] = fmt.Sprint(info.Mode())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAddedFilesAreThereWithPrivateModesWhateverTheUmask(t *testing.T) {
	content := bytes.Repeat([]byte("deb"), 100_000)
	p := packageOf(content)
	for _, mask := range []int{0, 0o022, 0o277} {
		t.Run(fmt.Sprintf("%04o", mask), func(t *testing.T) {
			dir := t.TempDir()
			from := write(t, filepath.Join(dir, "upload"), content)
			old := syscall.Umask(mask)
			defer syscall.Umask(old)
			s := openStore(t, filepath.Join(dir, "nfslock", "store"))
			holds(t, s, p, nil)
			if err := s.Add(t.Context(), p, from); err != nil {
				t.Fatal(err)
			}
			holds(t, s, p, content)
			want := map[string]string{"": "drwx------", "/store": "drwx------", "/store/" + p.SHA256 + ".deb": "-rw-------"}
			if diff := cmp.Diff(want, tree(t, filepath.Join(dir, "nfslock"))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got, err := os.ReadFile(from); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the source changed: %v", err)
			}
		})
	}
}

func TestOpeningAStoreClosesItToOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, sumA+".deb.X"+partSuffix), []byte("left by a killed run"))
	if s, err := OpenStore(dir, false); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
	if got := tree(t, dir); len(got) != 2 || got[""] != "drwxr-xr-x" {
		t.Errorf("opened for reading, and changed: %v", got)
	}
	openStore(t, dir)
	if diff := cmp.Diff(map[string]string{"": "drwx------"}, tree(t, dir)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAStoreThatDoesNotExistIsEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	s, err := OpenStore(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	p := packageOf([]byte("x"))
	holds(t, s, p, nil)
	if err, want := s.Add(t.Context(), p, write(t, filepath.Join(t.TempDir(), "x"), []byte("x"))), "cannot store qemu-utils: "+dir+" does not exist"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestAStoreOfSomebodyElseIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 1234, -1); err != nil {
		t.Fatal(err)
	}
	_, err := OpenStore(dir, true)
	if want := "cannot use store " + dir + ": it belongs to user 1234, not to 0"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAFileIsNoStore(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "store"), nil)
	for _, create := range []bool{false, true} {
		_, err := OpenStore(name, create)
		if want := "cannot open store " + name + ": not a directory"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := OpenStore(filepath.Join(name, "store"), true)
	if want := "cannot create store " + name + "/store: mkdir " + name + "/store: not a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestADamagedFileCountsAsMissingAndIsReplaced(t *testing.T) {
	content := []byte("a good package")
	p := packageOf(content)
	for name, damage := range map[string]func(t *testing.T, name string){
		"other bytes": func(t *testing.T, name string) { write(t, name, []byte("a bad package!")) },
		"cut off":     func(t *testing.T, name string) { write(t, name, content[:5]) },
		"longer":      func(t *testing.T, name string) { write(t, name, append(bytes.Clone(content), 'x')) },
		"link to the right bytes": func(t *testing.T, name string) {
			target := write(t, filepath.Join(t.TempDir(), "x"), content)
			if err := os.Symlink(target, name); err != nil {
				t.Fatal(err)
			}
		},
		"FIFO": func(t *testing.T, name string) {
			if err := syscall.Mkfifo(name, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			damage(t, filepath.Join(dir, p.SHA256+".deb"))
			holds(t, s, p, nil)
			if err := s.Add(t.Context(), p, write(t, filepath.Join(t.TempDir(), "x"), content)); err != nil {
				t.Fatal(err)
			}
			holds(t, s, p, content)
			if diff := cmp.Diff(map[string]string{"": "drwx------", "/" + p.SHA256 + ".deb": "-rw-------"}, tree(t, dir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestARefusedSourceLeavesNothing(t *testing.T) {
	content := []byte("a good package")
	p := packageOf(content)
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good"), content)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	s := openStore(t, store)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		add  func() error
		want string
	}{
		{"link", func() error { return s.Add(t.Context(), p, link) }, "cannot use " + link + " for qemu-utils: it is a symbolic link"},
		{"folder", func() error { return s.Add(t.Context(), p, dir) }, "cannot use " + dir + " for qemu-utils: it is no regular file"},
		{"FIFO", func() error { return s.Add(t.Context(), p, fifo) }, "cannot use " + fifo + " for qemu-utils: it is no regular file"},
		{"missing", func() error { return s.Add(t.Context(), p, good+"x") }, "cannot use " + good + "x for qemu-utils: no such file or directory"},
		{"size", func() error { return s.Add(t.Context(), p, write(t, filepath.Join(dir, "short"), content[:3])) }, "cannot use " + filepath.Join(dir, "short") + " for qemu-utils: it has 3 bytes, the manifest says 14"},
		{
			"checksum", func() error {
				return s.Add(t.Context(), p, write(t, filepath.Join(dir, "bad"), []byte("a bad package!")))
			},
			"cannot store qemu-utils in " + store + ": file qemu-utils.deb of package qemu-utils has sha256 " + packageOf([]byte("a bad package!")).SHA256 + ", the manifest says " + p.SHA256,
		},
		{"too long", func() error { return s.addFrom(t.Context(), p, io.MultiReader(bytes.NewReader(content), zeros{})) }, "cannot store qemu-utils in " + store + ": file qemu-utils.deb of package qemu-utils is longer than the 14 bytes in the manifest"},
		{"too short", func() error { return s.addFrom(t.Context(), p, bytes.NewReader(content[:3])) }, "cannot store qemu-utils in " + store + ": file qemu-utils.deb of package qemu-utils has 3 bytes, the manifest says 14"},
		{"broken source", func() error { return s.addFrom(t.Context(), p, broken{}) }, "cannot store qemu-utils in " + store + ": cannot read what is to be copied: connection lost"},
		{"cancelled", func() error { return s.Add(cancelled, p, good) }, "cannot store qemu-utils in " + store + ": context canceled"},
		{"name", func() error { return s.Add(t.Context(), Package{Name: "x", Size: 14, SHA256: "../x"}, good) }, `cannot name x in the store: sha256 is "../x", it must be 64 lower-case hex digits`},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.add()
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if diff := cmp.Diff(map[string]string{"": "drwx------"}, tree(t, store)); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(buf []byte) (int, error) { return len(buf), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestAFailedReplacementKeepsTheGoodFile(t *testing.T) {
	content := []byte("a good package")
	p := packageOf(content)
	s := openStore(t, t.TempDir())
	if err := s.addFrom(t.Context(), p, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := s.addFrom(t.Context(), p, broken{}); err == nil {
		t.Error("got no error")
	}
	holds(t, s, p, content)
}

func TestTwoAddsOfOneFileDoNotMix(t *testing.T) {
	content := bytes.Repeat([]byte("deb"), 300_000)
	p := packageOf(content)
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.addFrom(t.Context(), p, bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
			holds(t, s, p, content)
		})
	}
	wg.Wait()
}

func TestAFullDiskIsNamedWithTheBytesThatAreNeeded(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("cannot mount a small tmpfs (root with CAP_SYS_ADMIN can): %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := openStore(t, dir)
	content := make([]byte, 200_000)
	p := packageOf(content)
	err := s.addFrom(t.Context(), p, bytes.NewReader(content))
	if want := "cannot store qemu-utils in " + dir + ": no space left on device: it needs 200000 bytes, 65536 are free"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if diff := cmp.Diff(map[string]string{"": "drwx------"}, tree(t, dir)); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
	s.Close()
}

func TestAFolderGivesItsManifestAndRegularFiles(t *testing.T) {
	dir := t.TempDir()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	manifest := filepath.Join(dir, "manifest.yml")
	wrong := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}

	_, err = f.Manifest()
	wrong(err, "cannot read "+manifest+": no such file or directory")
	if err := syscall.Mkfifo(manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = f.Manifest()
	wrong(err, "cannot read "+manifest+": it is no regular file")
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	write(t, manifest, make([]byte, MaxManifestSize+1))
	_, err = f.Manifest()
	wrong(err, "cannot read "+manifest+": it has more than 1048576 bytes")
	write(t, manifest, []byte("schema: 1"))
	if data, err := f.Manifest(); err != nil || string(data) != "schema: 1" {
		t.Errorf("got %q, %v", data, err)
	}

	content := []byte("a package")
	p := packageOf(content)
	deb := filepath.Join(dir, p.File)
	_, err = f.Open(p)
	wrong(err, "cannot use "+deb+" for qemu-utils: no such file or directory")
	if err := os.Symlink(write(t, filepath.Join(t.TempDir(), "x"), content), deb); err != nil {
		t.Fatal(err)
	}
	_, err = f.Open(p)
	wrong(err, "cannot use "+deb+" for qemu-utils: path escapes from parent")
	if err := os.Remove(deb); err != nil {
		t.Fatal(err)
	}
	write(t, deb, []byte("another package"))
	_, err = f.Open(p)
	wrong(err, "cannot use "+deb+" for qemu-utils: it has 15 bytes, the manifest says 9")
	write(t, deb, content)
	file, err := f.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Verify(p, file); err != nil {
		t.Error(err)
	}
	_, err = OpenFolder(deb)
	wrong(err, "cannot open patch set "+deb+": not a directory")
}

func TestVerifyNamesBothChecksums(t *testing.T) {
	p := packageOf([]byte("right"))
	want := "file qemu-utils.deb of package qemu-utils has sha256 " + packageOf([]byte("wrong")).SHA256 + ", the manifest says " + p.SHA256
	if err := Verify(p, strings.NewReader("wrong")); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := Verify(p, broken{}); err == nil || err.Error() != "connection lost" {
		t.Errorf("got %v", err)
	}
}
