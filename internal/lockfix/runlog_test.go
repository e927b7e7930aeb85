package lockfix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// runLogLine is a line as the first version wrote it.
func runLogLine(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
}

// oldLibvirt and oldAPI are what the first version wrote of two containers.
var (
	oldLibvirt = Before{Name: "nova_libvirt", ID: "1", Restart: true, Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Replaced: true}}}
	oldAPI     = Before{Name: "cinder_api", ID: "2", Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Held: true, Replaced: true}}}
)

// runLog is the journal of a run of that version on two containers that died after these steps, each "container verb" or "container verb done".
func runLog(steps ...string) []byte {
	log := runLogLine(runLogFirst{Schema: 1, Process: 7, Began: journalStart, Containers: []Before{oldLibvirt, oldAPI}})
	for _, s := range steps {
		words := strings.Fields(s)
		start := journalStart
		log = append(log, runLogLine(runLogStep{Containers: strings.Split(words[0], ","), Verb: Verb(words[1]), Done: len(words) == 3, Start: &start})...)
	}
	return log
}

func TestRunLogTellsWhatWasBegun(t *testing.T) {
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
			name: "after a restart the start tells that it is not owed", steps: []string{"nova_libvirt install", "nova_libvirt install done", "nova_libvirt restart", "nova_libvirt restart done"},
			want: map[string][]Verb{"nova_libvirt": {Install, Restart}}, owed: &journalStart,
		},
		{name: "settled", steps: []string{"cinder_api install", "nova_libvirt install", "cinder_api,nova_libvirt settle"}},
		{
			name: "one of two settled", steps: []string{"cinder_api install", "nova_libvirt hold", "cinder_api settle"},
			want: map[string][]Verb{"nova_libvirt": {Hold}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			records, err := parseRunLog(runLog(test.steps...))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]Verb{}
			for _, b := range records {
				if len(b.Begun) > 0 {
					got[b.Name] = b.Begun
				}
				if b.Name == "nova_libvirt" && !cmp.Equal(b.Owed, test.owed) {
					t.Errorf("a restart is owed since %v, want %v", b.Owed, test.owed)
				}
				if b.Process != 7 || !b.Began.Equal(journalStart) {
					t.Errorf("%+v", b)
				}
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A power cut may end the file anywhere. The steps whose lines are whole are known, nothing is an error, and nothing is
// believed that was not written.
func TestRunLogCutOffAnywhereIsReadUpToThere(t *testing.T) {
	whole := runLog("cinder_api install", "nova_libvirt install", "nova_libvirt restart")
	for n := range whole {
		for _, zeros := range []int{0, 40} {
			records, err := parseRunLog(append(slices.Clone(whole[:n]), make([]byte, zeros)...))
			if err != nil {
				t.Fatalf("after %d bytes and %d zeros: %v", n, zeros, err)
			}
			steps := 0
			for _, b := range records {
				steps += len(b.Begun)
			}
			if want := max(0, bytes.Count(whole[:n], []byte("\n"))-1); steps != want {
				t.Fatalf("after %d bytes: %d steps, want %d", n, steps, want)
			}
		}
	}
}

func TestDamagedRunLogIsNotBelieved(t *testing.T) {
	whole := runLog("cinder_api install", "nova_libvirt install")
	for n := range len(whole) - 1 {
		damaged := slices.Clone(whole)
		damaged[n] ^= 1
		if _, err := parseRunLog(damaged); !errors.Is(err, errDamagedJournal) {
			t.Fatalf("byte %d (%q): %v", n, whole[n], err)
		}
	}
	for _, name := range []string{"", ".", "..", "../../etc", "/etc", "a/../..", "a//b", "a/", "x\x00"} {
		if _, err := parseRunLog(runLogLine(runLogFirst{Schema: 1, Containers: []Before{{Name: name, ID: "1"}}})); !errors.Is(err, errDamagedJournal) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParseRunLog(f *testing.F) {
	header := runLogLine(runLogFirst{Schema: 1, Containers: []Before{{Name: "cinder_api", ID: "2"}}})
	step := runLogLine(runLogStep{Containers: []string{"cinder_api"}, Verb: Install})
	f.Add(header)
	f.Add(slices.Concat(header, step))
	f.Add(slices.Concat(header, step, []byte{0, 0}))
	f.Add(slices.Concat(header, runLogLine(runLogStep{Containers: []string{"nova_api"}, Verb: Install})))
	f.Add(step)
	f.Add([]byte("00000000 \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := parseRunLog(data)
		if err != nil && records != nil {
			t.Error("an error, and records all the same")
		}
		for _, b := range records {
			if !folderName(b.Name) {
				t.Errorf("it names %q", b.Name)
			}
		}
	})
}

// However it came there: no journal takes more than its own size, or long.
func TestHostileRunLogIsReadWithinBounds(t *testing.T) {
	raw := func(text string) []byte {
		return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(text), castagnoli), text)
	}
	first := runLogLine(runLogFirst{Schema: 1, Containers: []Before{{Name: "cinder_api", ID: "2"}}})
	many := runLogFirst{Schema: 1}
	for i := range 10_000 {
		many.Containers = append(many.Containers, Before{Name: fmt.Sprint("c", i), ID: "1", Begun: []Verb{Install}})
	}
	for name, data := range map[string][]byte{
		"too long":          bytes.Repeat([]byte("x"), runLogLimit+1),
		"deep":              raw(`{"schema":1,"containers":` + strings.Repeat("[", 1<<20)),
		"many steps":        append(slices.Clone(first), bytes.Repeat(runLogLine(runLogStep{Containers: []string{"cinder_api"}, Verb: Install}), 20_000)...),
		"one step for all":  append(slices.Clone(first), runLogLine(runLogStep{Containers: slices.Repeat([]string{"cinder_api"}, 200_000), Verb: runLogSettle})...),
		"many containers":   runLogLine(many),
		"a huge number":     raw(`{"schema":1e999}`),
		"a negative schema": raw(`{"schema":-1}`),
		"null":              raw(`null`),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		records, err := parseRunLog(data)
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d records, %v, %v, %d KiB", name, len(records), err, took, used>>10)
		if err != nil && records != nil {
			t.Errorf("%s: an error, and records all the same", name)
		}
		if took > 2*time.Minute || used > 64<<20 {
			t.Errorf("%s: took %v and %d MiB", name, took, used>>20)
		}
	}
}

// asFirstVersion turns the records that a run left into that version's journal of the same.
func (w *world) asFirstVersion() {
	w.t.Helper()
	l := &journal{dir: filepath.Join(w.job().dir, "journal")}
	records, damaged, err := l.read()
	w.must(err)
	if len(records) == 0 || len(damaged) > 0 {
		w.t.Fatalf("%v, %v", records, damaged)
	}
	first := runLogFirst{Schema: 1, Process: 7, Began: journalStart}
	var steps []byte
	for _, b := range records {
		for _, v := range b.Begun {
			step := runLogLine(runLogStep{Containers: []string{b.Name}, Verb: v, Start: b.Owed})
			steps = append(steps, step...)
		}
		w.must(os.Remove(filepath.Join(l.dir, b.Name+recordSuffix)))
		b.Schema, b.Process, b.Began, b.Dpkg, b.Begun, b.Owed = 0, 0, time.Time{}, nil, nil, nil
		for i := range b.Packages {
			b.Packages[i].State = ""
		}
		first.Containers = append(first.Containers, b)
	}
	w.must(os.WriteFile(filepath.Join(l.dir, runLogName), append(runLogLine(first), steps...), 0o600))
}

// A host on which a run of the first version died: this version finishes or takes back what that one began.
func TestJournalThatTheFirstVersionLeftIsFinishedOrTakenBack(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	back := options()
	back.State = Absent
	for _, test := range []struct {
		name    string
		next    Options
		want    string
		patched []string
	}{
		{"the same again", options(), "is finished by this run", []string{"cinder_volume", "nova_libvirt"}},
		{"the way back", back, "is finished by this run", nil},
		{"one container only", only("nova_libvirt"), "is taken back by this run", []string{"nova_libvirt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := twoContainers(t)
			before := w.snapshot()
			w.stopIn("cinder_volume: dpkg --force", nil, options(), set, f)
			w.asFirstVersion()
			if r, err := w.run(test.next, ansible.Call{CheckMode: true}, set, f); err != nil || !strings.Contains(strings.Join(r.Warnings, "\n"), "(process 7) left it unfinished, its last step here was hold; would be") {
				t.Errorf("check mode: %v, %v", err, r.Warnings)
			}
			if _, err := os.Stat(filepath.Join(w.job().dir, "journal", runLogName)); err != nil {
				t.Error("check mode changed it")
			}
			r, err := w.run(test.next, ansible.Call{}, set, f)
			if err != nil || !strings.Contains(strings.Join(r.Warnings, "\n"), test.want) || journalLeft(w) {
				t.Fatalf("%v, %s, %v", err, statuses(r), r.Warnings)
			}
			for name := range w.boxes {
				want := stock
				if slices.Contains(test.patched, name) {
					want = patched
				}
				if got := w.program(name); got != want {
					t.Errorf("%s has %s", name, got)
				}
			}
			w.mustRun(back, Set{}, nil)
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A run that turned it into records and died before it had all of them, or before it removed it, is no loss.
func TestJournalOfTheFirstVersionIsTurnedIntoRecordsThoughARunDiesMeanwhile(t *testing.T) {
	w := twoContainers(t)
	j := w.job()
	j.journal = &journal{dir: filepath.Join(j.dir, "journal")}
	w.must(statedir.MakeFolder(j.journal.dir))
	w.must(os.WriteFile(filepath.Join(j.journal.dir, runLogName), runLog("cinder_api install", "nova_libvirt hold"), 0o600))
	done := oldAPI
	done.begin(Install, journalStart)
	w.must(j.journal.write(done))
	for range 2 {
		dead, warnings, err := j.findDead(false)
		if err != nil || len(warnings) > 0 || len(dead) != 2 || dead[0].Name != "cinder_api" || dead[1].Begun[0] != Hold {
			t.Fatalf("%+v, %v, %v", dead, warnings, err)
		}
		if _, err := os.Stat(filepath.Join(j.journal.dir, runLogName)); err == nil {
			t.Error("the old journal is still there")
		}
	}
}
