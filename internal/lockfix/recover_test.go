package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// stopAt is a run that is told to stop during its n-th call of dpkg, which comes to its end all the same. It tells whether
// the run came that far.
func (w *world) stopAt(n int, o Options, set Set, f *files) (Result, error, bool) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	count := 0
	w.fail = func(string) error {
		if count++; count == n {
			stop()
		}
		return nil
	}
	r, err := w.job().run(ctx, o, ansible.Call{}, set, f, Result{})
	w.fail = nil
	return r, err, count >= n
}

func journalLeft(w *world) bool {
	return (&journal{dir: filepath.Join(w.job().dir, "journal")}).exists()
}

func TestRunThatIsToldToStopIsFinishedOrTakenBackByTheNext(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	back := options()
	back.State = Absent
	one := options()
	one.Containers = []string{"nova_libvirt"}
	for _, test := range []struct {
		name    string
		next    Options
		want    string // one of them
		patched []string
	}{
		{"the same again", options(), "nova_libvirt patched", []string{"cinder_volume", "nova_libvirt"}},
		{"the way back", back, "nova_libvirt restored", nil},
		{"one container only", one, "cinder_volume rolled_back", []string{"nova_libvirt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := ""
			for n := 1; ; n++ {
				w := twoContainers(t)
				w.must(w.boxes["cinder_volume"].hold("qemu-utils"))
				before := w.snapshot()
				r, err, came := w.stopAt(n, options(), set, f)
				if !came {
					if n < 4 {
						t.Errorf("only %d calls", n)
					}
					break
				}
				if err != nil && strings.Contains(statuses(r), "rolled_back") {
					t.Errorf("call %d: a run that is told to stop begins nothing, no rollback either: %s", n, statuses(r))
				}
				stopped := err != nil
				if stopped != journalLeft(w) {
					t.Errorf("call %d: error %v, journal left: %v", n, err, journalLeft(w))
				}
				next, err := w.run(test.next, ansible.Call{}, set, f)
				if err != nil {
					t.Fatalf("call %d: the next run: %v", n, err)
				}
				seen += statuses(next) + "; "
				if journalLeft(w) {
					t.Errorf("call %d: the journal was not ended", n)
				}
				for name, b := range w.boxes {
					want := stock
					if slices.Contains(test.patched, name) || name == "cinder_volume" && !stopped && test.name == "one container only" {
						want = patched
					}
					if text, _ := os.ReadFile(filepath.Join(b.root, "usr/bin/qemu-img")); string(text) != "qemu-img "+want {
						t.Errorf("call %d: %s has %q, want %s", n, name, text, want)
					}
				}
				if again, err := w.run(test.next, ansible.Call{}, set, f); err != nil || again.Changed || len(again.Warnings) > 0 {
					t.Errorf("call %d: the run after that: %v, %+v", n, err, again)
				}
				w.mustRun(back, Set{}, nil)
				if diff := cmp.Diff(before, w.snapshot()); diff != "" {
					t.Errorf("call %d left a difference (-before +after):\n%s", n, diff)
				}
			}
			if !strings.Contains(seen, test.want) {
				t.Errorf("no run said %q: %s", test.want, seen)
			}
		})
	}
}

func TestDamagedJournalIsPutAsideAndSaid(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	if _, err, _ := w.stopAt(1, options(), set, f); err == nil {
		t.Fatal("it did not stop")
	}
	path := filepath.Join(w.job().dir, "journal", "cinder_volume.json")
	w.must(os.WriteFile(path, []byte(`{"schema":2,"name":"cinder_vol`), 0o600))
	w.must(os.WriteFile(filepath.Join(w.job().dir, "journal", runLogName), []byte("00000000 {}\n00000000 {}\n"), 0o600))
	left := filepath.Join(w.boxes["cinder_volume"].root, "usr/sbin/policy-rc.d")
	w.must(os.WriteFile(left, []byte(policyText), 0o755))

	check, err := w.run(options(), ansible.Call{CheckMode: true}, set, f)
	if err != nil || strings.Count(strings.Join(check.Warnings, "\n"), "it is damaged") != 2 {
		t.Errorf("check mode: %v, %v", err, check.Warnings)
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || strings.Count(strings.Join(r.Warnings, "\n"), "it is damaged") != 2 || journalLeft(w) {
		t.Errorf("%v, %v", err, r.Warnings)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what the dead run left in the container is still there")
	}
	for _, name := range []string{"cinder_volume.json", runLogName} {
		if _, err := os.Stat(filepath.Join(w.job().dir, "journal", name+damagedSuffix)); err != nil {
			t.Error(err)
		}
	}
}

func TestJournalOfANewerVersionStopsTheRun(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.must(statedir.MakeFolder(filepath.Join(w.job().dir, "journal")))
	w.must(os.WriteFile(filepath.Join(w.job().dir, "journal", "cinder_volume.json"), []byte(`{"schema":3}`), 0o600))
	if _, err := w.run(options(), ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "schema 3") || len(w.calls) > 0 {
		t.Errorf("%v, calls %v", err, w.calls)
	}
}

func TestContainerRecreatedSinceARunDiedIsANewOne(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	if _, err, _ := w.stopAt(1, options(), set, f); err == nil {
		t.Fatal("it did not stop")
	}
	for _, b := range w.boxes {
		b.ID = strings.Replace(b.ID, "0", "f", 1)
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], "was recreated since a run died") || journalLeft(w) {
		t.Errorf("%v, %v", err, r.Warnings)
	}
}

func TestCheckModeTellsWhatBecomesOfADeadRun(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	if _, err, _ := w.stopAt(1, options(), set, f); err == nil {
		t.Fatal("it did not stop")
	}
	before := w.snapshot()
	r, err := w.run(options(), ansible.Call{CheckMode: true}, set, f)
	if err != nil || len(r.Warnings) == 0 || !strings.Contains(strings.Join(r.Warnings, "\n"), "would be finished by this run") || !journalLeft(w) {
		t.Errorf("%v, %v", err, r.Warnings)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// stopIn is a run that is told to stop while the call of dpkg that begins so is at work, which comes to its end unless
// that is an error.
func (w *world) stopIn(call string, broken error, o Options, set Set, f *files) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	w.fail = func(c string) error {
		if !strings.HasPrefix(c, call) {
			return nil
		}
		stop()
		return broken
	}
	_, err := w.job().run(ctx, o, ansible.Call{}, set, f, Result{})
	w.fail = nil
	if err == nil || !journalLeft(w) {
		w.t.Fatalf("it did not stop in %q: %v", call, err)
	}
}

func only(names ...string) Options {
	o := options()
	o.Containers = names
	return o
}

func (w *world) program(container string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.boxes[container].root, "usr/bin/qemu-img"))
	w.must(err)
	return strings.TrimPrefix(string(text), "qemu-img ")
}

// block puts a file where the packages from before of a container are to be kept.
func (w *world) block(container string) {
	w.t.Helper()
	dir := w.job().baseline(container)
	w.must(os.RemoveAll(dir))
	w.must(statedir.MakeFolder(filepath.Dir(dir)))
	w.must(os.WriteFile(dir, nil, 0o600))
}

func TestWhatADeadRunBeganIsTakenBackThoughAnotherContainerCannotBegin(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.stopIn("cinder_volume: dpkg --force", nil, only("cinder_volume"), set, f)
	w.block("nova_libvirt")
	r, err := w.run(only("nova_libvirt"), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "cannot keep the packages of nova_libvirt") {
		t.Errorf("error %v", err)
	}
	if got := w.program("cinder_volume"); got != stock || !strings.Contains(statuses(r), "cinder_volume rolled_back") {
		t.Errorf("cinder_volume has %s: %s", got, statuses(r))
	}
	if journalLeft(w) {
		t.Error("the journal was not ended")
	}
}

func TestDamagedUndoFolderDoesNotKeepARunFromFinishing(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.stopIn("cinder_volume: dpkg --force", nil, options(), set, f)
	undo := filepath.Join(w.job().dir, "journal", undoName, "cinder_volume")
	w.must(statedir.MakeFolder(undo))
	w.must(os.WriteFile(filepath.Join(undo, baseline.IndexName), []byte("{"), 0o600))
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || journalLeft(w) || !strings.Contains(strings.Join(r.Warnings, "\n"), "cinder_volume: the packages that a dead run found") {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestRollbackWithoutWhatItNeedsSaysSo(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	for _, test := range []struct {
		name   string
		broken error // of the dpkg during which the first run dies
		want   string
	}{
		{"replaced", nil, "cannot roll cinder_volume back: qemu-utils: " + patched + " is there, and " + stock + " was: qemu-utils " + stock + " is not kept on this host"},
		{"not replaced", errors.New("killed"), "cinder_volume rolled_back"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := twoContainers(t)
			w.stopIn("cinder_volume: dpkg --force", test.broken, options(), set, f)
			w.block("cinder_volume")
			w.fail = func(call string) error {
				if strings.HasPrefix(call, "nova_libvirt: ") {
					return errors.New("the cause")
				}
				return nil
			}
			r, err := w.run(options(), ansible.Call{}, set, f)
			if err == nil || strings.Contains(err.Error(), "internal error") || !strings.Contains(err.Error()+statuses(r), test.want) {
				t.Errorf("error %v, %s", err, statuses(r))
			}
			if !journalLeft(w) && w.program("cinder_volume") != stock {
				t.Error("the journal was ended, though a container is not whole")
			}
		})
	}
}

// The second dead run was to replace one package more than the first, and died before it had kept that one.
func TestPackageThatTwoDeadRunsDidNotReachCanStillBeRolledBack(t *testing.T) {
	const newer = stock + "+nfslock2"
	block := func(version string) testDeb {
		return testDeb{name: "qemu-block-extra", version: version, files: map[string]string{"usr/lib/block.so": version}}
	}
	to2 := func(packages ...testDeb) (Set, *files) {
		set, f := folder(t, packages...)
		set.Suffix = "+nfslock2"
		for i := range set.Packages {
			set.Packages[i].BuiltFrom = stock
		}
		return set, f
	}
	w := newWorld(t)
	w.add("cinder_volume", qemuUtils(stock), block(stock))
	set, f := folder(t, qemuUtils(patched), block(patched))
	w.mustRun(options(), set, f)
	before := w.snapshot()
	set, f = to2(qemuUtils(newer))
	w.stopIn("cinder_volume: dpkg --force", nil, options(), set, f)
	set, f = to2(qemuUtils(newer), block(newer))
	inTheWay := filepath.Join(w.job().dir, "journal", undoName, "cinder_volume", "qemu-block-extra.deb.part")
	w.must(os.Mkdir(inTheWay, 0o700))
	o := options()
	o.OnError = OnErrorKeep
	if _, err := w.run(o, ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "cannot keep the packages") || !journalLeft(w) {
		t.Fatalf("error %v", err)
	}
	w.must(os.Remove(inTheWay))
	w.fail = func(call string) error {
		if strings.Contains(call, "--set-selections") {
			w.fail = nil
			return errors.New("the cause")
		}
		return nil
	}
	if r, err := w.run(options(), ansible.Call{}, set, f); err == nil || statuses(r) != "cinder_volume rolled_back" {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestContainerRecreatedWhileTheRunBeginsGetsNothingOfItsPredecessor(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.stopIn("cinder_volume: dpkg --force", nil, only("cinder_volume"), set, f)
	const newer = "1:7.2-8"
	w.listed = func() {
		old := w.boxes["cinder_volume"]
		w.must(os.RemoveAll(old.root))
		w.add("cinder_volume", qemuUtils(newer)).ID = strings.Repeat("f", 64)
	}
	o := only("nova_libvirt")
	o.OnError = OnErrorKeep
	r, err := w.run(o, ansible.Call{}, set, f)
	w.listed = nil
	if got := w.program("cinder_volume"); got != newer {
		t.Errorf("the new cinder_volume has %s: %v, %+v", got, err, r)
	}
	if err != nil || w.program("nova_libvirt") != patched || !strings.Contains(strings.Join(r.Warnings, "\n"), "recreated") {
		t.Errorf("%v, %+v", err, r.Warnings)
	}
	if r, err := w.run(o, ansible.Call{}, set, f); err != nil || journalLeft(w) {
		t.Errorf("the run after that: %v, %+v", err, r)
	}
}

func TestRunThatWaitedLooksForContainersAgain(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	unlock, _, err := statedir.TakeLock(t.Context(), w.job().dir)
	w.must(err)
	w.listed = func() {
		w.listed = nil
		w.boxes["cinder_volume"].ID = strings.Repeat("f", 64)
		w.boxes["cinder_backup"] = w.boxes["cinder_volume"]
		delete(w.boxes, "cinder_volume")
		w.boxes["cinder_backup"].Name = "cinder_backup"
		time.AfterFunc(3*100*time.Millisecond, unlock)
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || statuses(r) != "nova_libvirt patched, cinder_backup patched" {
		t.Errorf("%v, %s", err, statuses(r))
	}
}

func TestDeadRunIsFinishedThoughNoContainerOfKollasIsLeft(t *testing.T) {
	w := newWorld(t)
	w.add("my_cinder", qemuUtils(stock)).labels = nil
	set, f := folder(t, qemuUtils(patched))
	w.stopIn("my_cinder: dpkg --force", nil, only("my_cinder"), set, f)
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || w.program("my_cinder") != stock || journalLeft(w) {
		t.Errorf("%v, %+v", err, r)
	}
}

// The host's own hold on a package from the distribution is dropped by dpkg when it installs another one, and set again by
// the step after that.
func TestHoldThatADeadRunDroppedIsSetAgain(t *testing.T) {
	back := options()
	back.State = Absent
	loose := options()
	loose.Hold = false
	for _, test := range []struct {
		name  string
		begin func(w *world, set Set, f *files) // brings the host to where the run that dies begins
		dies  Options
		next  Options
	}{
		{"on the way back", func(w *world, set Set, f *files) { w.mustRun(options(), set, f) }, back, back},
		{"with hold: false", func(*world, Set, *files) {}, loose, loose},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := twoContainers(t)
			set, f := folder(t, qemuUtils(patched))
			w.must(w.boxes["cinder_volume"].hold("qemu-utils"))
			test.begin(w, set, f)
			w.stopIn("cinder_volume: dpkg --force", nil, test.dies, set, f)
			w.mustRun(test.next, set, f)
			text, err := os.ReadFile(filepath.Join(w.boxes["cinder_volume"].root, "var/lib/dpkg/status"))
			w.must(err)
			if !strings.Contains(string(text), "Status: hold ok installed") {
				t.Errorf("the operator's hold is lost:\n%s", text)
			}
			w.mustRun(back, Set{}, nil)
			if again, err := w.run(test.next, ansible.Call{}, set, f); err != nil || test.next.State == Absent && again.Changed {
				t.Errorf("the run after that: %v, %+v", err, again)
			}
		})
	}
}

func TestUnaskedContainerThatCannotBeReachedIsNotCalledRolledBack(t *testing.T) {
	w := twoContainers(t)
	w.add("cinder_api", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	w.stopIn("cinder_volume: dpkg --force", nil, only("cinder_volume"), set, f)
	w.boxes["cinder_volume"].State, w.boxes["cinder_api"].State = "paused", "paused"
	r, err := w.run(only("nova_libvirt", "cinder_api"), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(statuses(r), "cinder_volume skipped") || !strings.Contains(strings.Join(r.Warnings, "\n"), "that stays so: cannot work in cinder_volume") {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
	if !journalLeft(w) {
		t.Error("the journal was ended")
	}
}

// The run that puts a damaged journal aside may fail before it comes to all containers, and a journal may be lost.
func TestWhatADeadRunLeftIsRemovedThoughItsJournalIsLost(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	root := w.boxes["cinder_volume"].root
	left := []string{filepath.Join(root, policyFile), filepath.Join(root, privateDir)}
	w.must(os.WriteFile(left[0], []byte(policyText), 0o755))
	w.must(os.Mkdir(left[1], 0o700))
	w.must(os.WriteFile(filepath.Join(left[1], "qemu-utils.deb"), nil, 0o600))
	if r, err := w.run(options(), ansible.Call{CheckMode: true}, set, f); err != nil || r.Changed {
		t.Errorf("check mode: %v, %+v", err, r)
	}
	for _, path := range left {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("check mode removed it: %v", err)
		}
	}
	w.mustRun(options(), set, f)
	for _, path := range left {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

// What is removed in a container before an install would be this host's own folder.
func TestContainerWithTheHostsOwnFolderIsRefused(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	j := w.job()
	j.dir = filepath.Join(b.root, privateDir)
	r, err := j.run(t.Context(), options(), ansible.Call{}, set, f, Result{})
	if err == nil || !strings.Contains(err.Error(), "is mounted there") || len(w.calls) > 0 {
		t.Errorf("%v, %+v, %v", err, r, w.calls)
	}
}

// The world restarts a container under its run, in its n-th call of dpkg.
func TestContainerRestartedUnderARunIsFollowed(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	for n := 1; ; n++ {
		w := twoContainers(t)
		count := 0
		w.fail = func(call string) error {
			if count++; count != n {
				return nil
			}
			name, _, _ := strings.Cut(call, ":")
			b := w.boxes[name]
			b.StartedAt, b.PID = b.StartedAt.Add(time.Second), b.PID+100
			return errors.New("killed with the container")
		}
		r, err := w.run(options(), ansible.Call{}, set, f)
		if count < n {
			return
		}
		if err != nil || statuses(r) != "nova_libvirt patched, cinder_volume patched" {
			t.Errorf("call %d: %v, %s", n, err, statuses(r))
		}
		for path := range w.snapshot() {
			if strings.Contains(path, "nfslock") || strings.Contains(path, "policy-rc.d") {
				t.Errorf("call %d left behind: %s", n, path)
			}
		}
	}
}

func TestCommandInAContainerThatGoesAwayIsGivenUp(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(w *world, b *box)
		want   string
	}{
		{"removed", func(w *world, b *box) { delete(w.boxes, b.Name) }, "was removed"},
		{"restarted", func(_ *world, b *box) { b.PID++ }, "was restarted"},
		{"still there", func(*world, *box) {}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.add("cinder_volume")
			was := b.Container
			test.change(w, b)
			ctx, cancel := context.WithTimeout(t.Context(), 3*watchPoll)
			defer cancel()
			if got := w.job().standsStill(ctx, was); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWhatAKilledDpkgLeftIsReadIn(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	status, err := os.ReadFile(filepath.Join(b.root, "var/lib/dpkg/status"))
	w.must(err)
	stanza, _, _ := strings.Cut(string(status), "\n\n")
	w.must(os.WriteFile(filepath.Join(b.root, "var/lib/dpkg/updates/0000"), []byte(stanza+"\n"), 0o644))
	if _, err := w.run(options(), ansible.Call{CheckMode: true}, set, f); err != nil || len(w.calls) > 0 {
		t.Errorf("check mode: %v, %v", err, w.calls)
	}
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil || len(w.calls) != 1 || !strings.Contains(w.calls[0], "--set-selections") {
		t.Errorf("%v, %v", err, w.calls)
	}
}

// The engine names the process from before until it has seen it end: not a reason to fail.
func TestAContainerThatIsRestartedByOthersIsAskedAgain(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	tries := 0
	w.open = func(name string) error {
		if name != "cinder_volume" {
			return nil
		}
		if tries++; tries > 2 {
			return nil
		}
		return fmt.Errorf("open /proc/%d/root: %w", w.boxes[name].PID, fs.ErrNotExist)
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || statuses(r) != "nova_libvirt patched, cinder_volume patched" || tries < 3 {
		t.Errorf("%v, %s, %d tries", err, statuses(r), tries)
	}
}
