package preloaded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	want := Record{Schema: 1, Containers: map[string]Put{"nova_compute": {ID: "0c", SHA256: "ab"}, "nova_libvirt": {ID: "1c", SHA256: "cd"}}}
	for range 2 { // over the former one, too
		if err := WriteRecord(dir, Record{Containers: want.Containers}); err != nil {
			t.Fatal(err)
		}
		got, err := ReadRecord(dir)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		// What a killed run has left is in nobody's way, and not followed.
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, recordName+".part")); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteRecord(dir, want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(dir, recordName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	delete(want.Containers, "nova_compute")
	delete(want.Containers, "nova_libvirt")
	if err := WriteRecord(dir, want); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := WriteRecord(dir, want); err != nil {
		t.Errorf("nothing to forget: %v", err)
	}
}

func TestNoRecordIsAnEmptyOne(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		r, err := ReadRecord(dir)
		if err != nil || r.Containers == nil || len(r.Containers) > 0 {
			t.Errorf("%v, %v", r, err)
		}
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "empty": "", "a list": "[]", "another schema": `{"schema": 2}`, "no schema": "{}", "a map of texts": `{"schema":1,"containers":{"a":"b"}}`,
		"too long": `{"schema":1}` + strings.Repeat(" ", recordLimit),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadRecord(dir)
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, recordName)) || r.Containers == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, recordName), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(dir); err == nil {
		t.Error("a pipe was read")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"schema":1,"containers":{"nova_libvirt":{"id":"1c","sha256":"cd"}}}`))
	f.Add([]byte(`{"schema":1,"containers":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, recordName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadRecord(dir)
		if r.Containers == nil {
			t.Error("no map")
		}
		if err != nil {
			return
		}
		if err := WriteRecord(dir, r); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadRecord(dir); err != nil || cmp.Diff(r, again) != "" {
			t.Errorf("%v: %v, then %v", err, r, again)
		}
	})
}
