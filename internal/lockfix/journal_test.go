package lockfix

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var journalStart = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// writeJournal is a run of two containers that died after these steps, each "container verb" or "container verb done".
func writeJournal(t *testing.T, steps ...string) *journal {
	t.Helper()
	l := &journal{dir: filepath.Join(t.TempDir(), "state", "journal")}
	t.Cleanup(l.close)
	if err := l.begin([]Before{
		{Name: "nova_libvirt", ID: "1", Restart: true, Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Replaced: true}}},
		{Name: "cinder_api", ID: "2", Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Held: true, Replaced: true}}},
	}, Present); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		words := strings.Fields(s)
		var err error
		switch {
		case words[1] == "settle":
			err = l.settle(strings.Split(words[0], ","))
		case len(words) == 3:
			l.done(words[0], Verb(words[1]), journalStart.Add(time.Minute))
		default:
			err = l.step(words[0], Verb(words[1]), journalStart)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestJournalTellsWhatWasBegun(t *testing.T) {
	later := journalStart.Add(time.Minute)
	for _, test := range []struct {
		name  string
		steps []string
		want  map[string][]Verb
		owed  *time.Time
	}{
		{name: "nothing"},
		{name: "packages were kept only", steps: []string{"cinder_api keep", "cinder_api keep done"}},
		{name: "an install", steps: []string{"cinder_api keep", "cinder_api install"}, want: map[string][]Verb{"cinder_api": {Install}}},
		{
			name: "an install before a restart owes it", steps: []string{"nova_libvirt install"},
			want: map[string][]Verb{"nova_libvirt": {Install}}, owed: &journalStart,
		},
		{
			name: "the container's start counts that it had after the install", steps: []string{"nova_libvirt install", "nova_libvirt install done", "nova_libvirt restart"},
			want: map[string][]Verb{"nova_libvirt": {Install, Restart}}, owed: &later,
		},
		{
			name: "a restart that is done is not owed", steps: []string{"nova_libvirt install", "nova_libvirt restart", "nova_libvirt restart done"},
			want: map[string][]Verb{"nova_libvirt": {Install, Restart}},
		},
		{name: "settled", steps: []string{"cinder_api install", "nova_libvirt install", "cinder_api,nova_libvirt settle"}},
		{
			name: "one of two settled", steps: []string{"cinder_api install", "nova_libvirt hold", "cinder_api settle"},
			want: map[string][]Verb{"nova_libvirt": {Hold}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dead, err := writeJournal(t, test.steps...).read()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]Verb{}
			for _, b := range dead.open() {
				got[b.Name] = b.Begun
				if b.Name == "nova_libvirt" && !cmp.Equal(b.Owed, test.owed) {
					t.Errorf("a restart is owed since %v, want %v", b.Owed, test.owed)
				}
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJournalIsRemovedAtTheEnd(t *testing.T) {
	l := writeJournal(t, "cinder_api install")
	if err := os.MkdirAll(filepath.Join(l.dir, undoName, "cinder_api"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.end(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(l.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if dead, err := l.read(); dead != nil || err != nil {
		t.Errorf("%v, %v", dead, err)
	}
}

// A power cut may end the file anywhere. The steps whose lines are whole are known, nothing is an error, and nothing is
// believed that was not written.
func TestJournalCutOffAnywhereIsReadUpToThere(t *testing.T) {
	l := writeJournal(t, "cinder_api install", "nova_libvirt install", "nova_libvirt restart")
	whole, err := os.ReadFile(filepath.Join(l.dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		for _, zeros := range []int{0, 40} {
			cut := append(slices.Clone(whole[:n]), make([]byte, zeros)...)
			dead, err := parseJournal(cut)
			if err != nil {
				t.Fatalf("after %d bytes and %d zeros: %v", n, zeros, err)
			}
			steps := 0
			for _, b := range dead.open() {
				steps += len(b.Begun)
			}
			if want := max(0, bytes.Count(whole[:n], []byte("\n"))-1); steps != want {
				t.Fatalf("after %d bytes: %d steps, want %d", n, steps, want)
			}
		}
	}
}

func TestDamagedJournalIsNotBelieved(t *testing.T) {
	l := writeJournal(t, "cinder_api install", "nova_libvirt install")
	whole, err := os.ReadFile(filepath.Join(l.dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 {
		damaged := slices.Clone(whole)
		damaged[n] ^= 1
		if _, err := parseJournal(damaged); !errors.Is(err, errDamagedJournal) {
			t.Fatalf("byte %d (%q): %v", n, whole[n], err)
		}
	}
}

func TestJournalOfAnotherVersionIsRefused(t *testing.T) {
	line, err := journalLine(map[string]any{"schema": 2, "containers": "in another form"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseJournal(line)
	if err == nil || errors.Is(err, errDamagedJournal) || !strings.Contains(err.Error(), "schema 2") {
		t.Errorf("%v", err)
	}
}

func FuzzParseJournal(f *testing.F) {
	header, _ := journalLine(journalRun{Schema: 1, Containers: []Before{{Name: "cinder_api", ID: "2"}}})
	step, _ := journalLine(journalStep{Containers: []string{"cinder_api"}, Verb: Install})
	stranger, _ := journalLine(journalStep{Containers: []string{"nova_api"}, Verb: Install})
	f.Add(header)
	f.Add(slices.Concat(header, step))
	f.Add(slices.Concat(header, step, []byte{0, 0}))
	f.Add(slices.Concat(header, stranger))
	f.Add(step)
	f.Add([]byte("00000000 \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dead, err := parseJournal(data)
		if err != nil {
			return
		}
		for _, b := range dead.open() {
			if len(b.Begun) == 0 {
				t.Errorf("%s is open, though nothing was begun in it", b.Name)
			}
		}
	})
}

// A write that a full disk cuts off leaves the beginning of a line. What is written behind it once there is room again
// must not make the whole journal unreadable.
func TestJournalOnAFullDiskStaysReadable(t *testing.T) {
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
	defer l.close()
	if err := l.begin([]Before{{Name: "cinder_api", ID: "2"}}, Present); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	steps := 0
	for err := error(nil); err == nil && steps < 1000; steps++ {
		err = l.step("cinder_api", Hold, journalStart)
	}
	if steps < 2 || steps == 1000 {
		t.Fatalf("the disk was full after %d steps", steps)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := l.step("cinder_api", Undo, journalStart); err != nil {
		t.Fatal(err)
	}
	dead, err := l.read()
	if err != nil || len(dead.open()) != 1 {
		t.Fatalf("%v, %+v", err, dead)
	}
	if begun := dead.open()[0].Begun; len(begun) != steps || begun[len(begun)-1] != Undo {
		t.Errorf("%d steps, the last %q, of %d", len(begun), begun[len(begun)-1], steps)
	}
}

// Names become names of folders, which are removed.
func TestJournalThatNamesNoContainerIsNotBelieved(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../../etc", "/etc", "a/../..", "a//b", "a/", "x\x00"} {
		line, err := journalLine(journalRun{Schema: journalSchema, Containers: []Before{{Name: name, ID: "1"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseJournal(line); !errors.Is(err, errDamagedJournal) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// However it came there: no journal takes more than its own size, or long.
func TestHostileJournalIsReadWithinBounds(t *testing.T) {
	line := func(v any) []byte {
		text, err := journalLine(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	raw := func(text string) []byte {
		return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(text), castagnoli), text)
	}
	first := line(journalRun{Schema: journalSchema, Containers: []Before{{Name: "cinder_api", ID: "2"}}})
	many := journalRun{Schema: journalSchema}
	for i := range 10_000 {
		many.Containers = append(many.Containers, Before{Name: fmt.Sprint("c", i), ID: "1", Begun: []Verb{Install}})
	}
	for name, data := range map[string][]byte{
		"too long":          bytes.Repeat([]byte("x"), journalLimit+1),
		"deep":              raw(`{"schema":1,"containers":` + strings.Repeat("[", 1<<20)),
		"many steps":        append(slices.Clone(first), bytes.Repeat(line(journalStep{Containers: []string{"cinder_api"}, Verb: Install}), 20_000)...),
		"one step for all":  append(slices.Clone(first), line(journalStep{Containers: slices.Repeat([]string{"cinder_api"}, 200_000), Verb: Settle})...),
		"many containers":   line(many),
		"a huge number":     raw(`{"schema":1e999}`),
		"a negative schema": raw(`{"schema":-1}`),
		"null":              raw(`null`),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		dead, err := parseJournal(data)
		open := len(dead.open())
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d open, %v, %v, %d KiB", name, open, err, took, used>>10)
		if err != nil && dead != nil {
			t.Errorf("%s: an error, and a journal all the same", name)
		}
		if took > 2*time.Minute || used > 64<<20 {
			t.Errorf("%s: took %v and %d MiB", name, took, used>>20)
		}
	}
}
