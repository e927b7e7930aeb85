package patchset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const contentA = "a package"

var packageA = Package{Name: "a", File: "a.deb", Size: int64(len(contentA)), SHA256: Digest([]byte(contentA))}

// partOf opens the store anew, as the next run does, and the part in it.
func partOf(t *testing.T, dir string, p Package) (*Store, *Part) {
	t.Helper()
	s, err := OpenStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	part, err := s.Part(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { part.Close() })
	return s, part
}

func TestWhatHasComeOutlastsTheRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	p := packageA
	_, first := partOf(t, dir, p)
	if _, err := first.Write([]byte(contentA[:2])); err != nil {
		t.Fatal(err)
	}
	if err := first.Commit(); err == nil || !strings.Contains(err.Error(), "has 2 bytes") {
		t.Fatalf("half a file was taken: %v", err)
	}
	s, second := partOf(t, dir, p)
	if second.Size() != 2 {
		t.Fatalf("the second run begins at %d", second.Size())
	}
	if n, err := second.Write([]byte(contentA)); err == nil || n != 0 {
		t.Fatalf("more bytes than the manifest says were written: %d, %v", n, err)
	}
	if _, err := second.Write([]byte(contentA[2:])); err != nil {
		t.Fatal(err)
	}
	if err := second.Commit(); err != nil {
		t.Fatal(err)
	}
	file, err := s.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+partSuffix)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWrongPartNeverGetsAPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	p := packageA
	_, part := partOf(t, dir, p)
	if _, err := part.Write([]byte(strings.Repeat("x", len(contentA)))); err != nil {
		t.Fatal(err)
	}
	if err := part.Commit(); !errors.Is(err, ErrOtherContent) {
		t.Fatalf("%v", err)
	}
	if err := part.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte(contentA)); err != nil {
		t.Fatal(err)
	}
	if err := part.Commit(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestHostileFilesInThePartsPlace(t *testing.T) {
	p := packageA
	for name, put := range map[string]func(path string) error{
		"too long":  func(path string) error { return os.WriteFile(path, []byte(contentA+"x"), 0o600) },
		"a folder":  func(path string) error { return os.MkdirAll(filepath.Join(path, "in"), 0o700) },
		"a link":    func(path string) error { return os.Symlink("other", path) },
		"a way out": func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := put(filepath.Join(dir, p.SHA256+".deb.part")); err != nil {
			t.Fatal(err)
		}
		_, part := partOf(t, dir, p)
		if part.Size() != 0 {
			t.Errorf("%s: %d bytes of it are believed", name, part.Size())
		}
		if info, err := os.Lstat(filepath.Join(dir, p.SHA256+".deb.part")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, p.SHA256+".deb.part"), []byte(contentA[:2]))
	s, err := OpenStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Part(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("reading what has come does not end with the run: %v", err)
	}
	if err := s.Keep(nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a part of a set that is gone stays: %v", left)
	}
}
