package lockfix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

var journalStart = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func newJournal(t *testing.T) *journal {
	return &journal{dir: filepath.Join(t.TempDir(), "state", "journal")}
}

func (l *journal) mustWrite(t *testing.T, records ...Before) {
	t.Helper()
	for _, b := range records {
		if err := l.write(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordTellsWhatWasBegun(t *testing.T) {
	later := journalStart.Add(time.Minute)
	for _, test := range []struct {
		name    string
		restart bool
		steps   []Verb
		owed    *time.Time
	}{
		{name: "nothing"},
		{name: "an install", steps: []Verb{Install}},
		{name: "an install before a restart owes it", restart: true, steps: []Verb{Install}, owed: &journalStart},
		{name: "the library, too", restart: true, steps: []Verb{Load}, owed: &journalStart},
		{name: "a hold alone does not", restart: true, steps: []Verb{Hold}},
		{name: "the last one counts", restart: true, steps: []Verb{Install, Load}, owed: &later},
		{name: "what is put back after a restart owes one", steps: []Verb{Install, Restart, Undo}, owed: &later},
		{name: "and before it none", steps: []Verb{Install, Undo}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := Before{Name: "nova_libvirt", ID: "1", Restart: test.restart, Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, State: "ok installed", Whole: true, Replaced: true}}}
			for i, v := range test.steps {
				start := journalStart
				if i > 0 {
					start = later
				}
				b.begin(v, start)
			}
			l := newJournal(t)
			l.mustWrite(t, Before{Name: "cinder_api", ID: "2"}, b)
			got, damaged, err := l.read()
			if err != nil || len(damaged) > 0 || len(got) != 2 {
				t.Fatalf("%v, %v, %+v", err, damaged, got)
			}
			b.Schema, b.Owed = journalSchema, test.owed
			if diff := cmp.Diff(b, got[1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEndedRecordLeavesNothing(t *testing.T) {
	l := newJournal(t)
	l.mustWrite(t, Before{Name: "cinder_api", ID: "2"}, Before{Name: "nova_libvirt", ID: "1"})
	for _, name := range []string{"cinder_api", "nova_libvirt"} {
		if err := os.MkdirAll(filepath.Join(l.dir, undoName, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.end("cinder_api"); err != nil {
		t.Fatal(err)
	}
	if got, _, err := l.read(); err != nil || len(got) != 1 || got[0].Name != "nova_libvirt" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, undoName, "nova_libvirt")); err != nil {
		t.Error(err)
	}
	if err := l.end("nova_libvirt"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(l.dir); len(left) > 0 || l.exists() {
		t.Errorf("left behind: %v", left)
	}
}

// The former record stays until the new one is there whole: what a power cut or a full disk leaves beside it means nothing.
func TestRecordIsReplacedWhole(t *testing.T) {
	l := newJournal(t)
	l.mustWrite(t, Before{Name: "cinder_api", ID: "2"})
	part := filepath.Join(l.dir, "cinder_api"+recordSuffix+statedir.PartSuffix)
	if err := os.WriteFile(part, []byte(`{"schema":2,"na`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, damaged, err := l.read()
	if err != nil || len(damaged) > 0 || len(got) != 1 {
		t.Fatalf("%v, %v, %v", got, damaged, err)
	}
	if err := l.sweep(got); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(part); err == nil {
		t.Error("it is still there")
	}
}

func TestDamagedRecordIsNotBelieved(t *testing.T) {
	l := newJournal(t)
	good := Before{Name: "cinder_api", ID: "2", Begun: []Verb{Install}}
	l.mustWrite(t, good)
	whole, err := os.ReadFile(filepath.Join(l.dir, "cinder_api.json"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if _, err := parseRecord("cinder_api", whole[:n]); !errors.Is(err, errDamagedJournal) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	if b, err := parseRecord("cinder_api", whole); err != nil || b.ID != "2" {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := parseRecord("cinder_volume", whole); !errors.Is(err, errDamagedJournal) {
		t.Errorf("another container's: %v", err)
	}
}

func TestRecordOfAnotherVersionIsRefused(t *testing.T) {
	_, err := parseRecord("cinder_api", []byte(`{"schema": 3, "name": {"in": "another form"}}`))
	if err == nil || errors.Is(err, errDamagedJournal) || !strings.Contains(err.Error(), "schema 3") {
		t.Errorf("%v", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"schema":2,"name":"cinder_api","id":"2","packages":[{"name":"qemu-utils","version":"1","whole":true}],"begun":["install"]}`))
	f.Add([]byte(`{"schema":2,"name":"cinder_api","library":{"list":{"data":"AA=="}},"owed":"2026-05-04T03:02:01Z","stuck":"x"}`))
	f.Add([]byte(`{"schema":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := parseRecord("cinder_api", data); err == nil && b.Name != "cinder_api" {
			t.Errorf("it is of %q", b.Name)
		}
	})
}

// Once there is room again everything goes on, and the record is that from before until then.
func TestRecordOnAFullDiskStaysReadable(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Skipf("cannot mount a small tmpfs (root with CAP_SYS_ADMIN can): %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	l := &journal{dir: filepath.Join(dir, "journal")}
	b := Before{Name: "cinder_api", ID: "2"}
	l.mustWrite(t, b)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	b.begin(Install, journalStart)
	if err := l.write(b); err == nil {
		t.Fatal("it was written to a full disk")
	}
	if got, damaged, err := l.read(); err != nil || len(damaged) > 0 || len(got) != 1 || len(got[0].Begun) != 0 {
		t.Fatalf("%v, %v, %+v", err, damaged, got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.mustWrite(t, b)
	if got, _, err := l.read(); err != nil || len(got) != 1 || len(got[0].Begun) != 1 {
		t.Errorf("%v, %+v", err, got)
	}
}

// Names become names of folders, which are removed.
func TestRecordThatNamesNoContainerIsNotBelieved(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../../etc", "/etc", "a/b", "a/", "x\x00"} {
		if _, err := parseRecord(name, fmt.Appendf(nil, `{"schema":2,"name":%q}`, name)); !errors.Is(err, errDamagedJournal) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// However it came there: no journal takes more than its own size, or long.
func TestHostileRecordIsReadWithinBounds(t *testing.T) {
	l := newJournal(t)
	if err := statedir.MakeFolder(l.dir); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"too long":          bytes.Repeat([]byte(" "), recordLimit+1),
		"deep":              []byte(`{"schema":2,"packages":` + strings.Repeat("[", 1<<20)),
		"many packages":     []byte(`{"schema":2,"name":"x","packages":[{}` + strings.Repeat(",{}", 1<<18) + `]}`),
		"a huge number":     []byte(`{"schema":1e999}`),
		"a negative schema": []byte(`{"schema":-1}`),
		"null":              []byte(`null`),
	} {
		path := filepath.Join(l.dir, "x.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		records, damaged, err := l.read()
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d records, %v, %v, %v, %d KiB", name, len(records), damaged, err, took, used>>10)
		if (len(records) == 0) == (name == "many packages") || err != nil {
			t.Errorf("%s: %d records, %v", name, len(records), err)
		}
		if took > 2*time.Minute || used > 96<<20 {
			t.Errorf("%s: took %v and %d MiB", name, took, used>>20)
		}
	}
}

// A library that fits a container fits its record.
func TestRecordHoldsTheLargestLibrary(t *testing.T) {
	big := &preloaded.File{Data: make([]byte, 256<<10), Mode: 0o644}
	l := newJournal(t)
	l.mustWrite(t, Before{Name: "cinder_api", ID: "2", Library: &preloaded.Files{List: &preloaded.File{Data: make([]byte, 64<<10)}, Library: big}})
	if got, damaged, err := l.read(); err != nil || len(damaged) > 0 || len(got) != 1 || !got[0].Library.Library.Equal(big) {
		t.Errorf("%v, %v", damaged, err)
	}
}
