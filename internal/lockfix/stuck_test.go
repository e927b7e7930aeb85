package lockfix

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

const blockFile = "usr/lib/block.so"

func block(version string) testDeb {
	return testDeb{name: "qemu-block-extra", version: version, files: map[string]string{blockFile: version}}
}

// threeContainers have both packages, and a third one that has triggers.
func threeContainers(t *testing.T) *world {
	w := newWorld(t)
	for _, name := range []string{"nova_libvirt", "cinder_api", "cinder_volume"} {
		w.add(name, tools(stock), block(stock), testDeb{name: "libc-bin", version: "2.36"})
	}
	return w
}

func bothPatched(t *testing.T) (Set, *files) { return folder(t, tools(patched), block(patched)) }

// wontGoBack makes cinder_volume one that can be brought neither on nor back, and runs into that.
func (w *world) wontGoBack(set Set, f *files) {
	w.t.Helper()
	w.boxes["cinder_volume"].faults.half = true
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || statuses(r) != "nova_libvirt rolled_back, cinder_api rolled_back, cinder_volume failed" || !journalLeft(w) {
		w.t.Fatalf("%v, %s", err, statuses(r))
	}
	w.calls = nil
}

func (w *world) touched(name string) bool {
	for _, call := range w.calls {
		if strings.HasPrefix(call, name+": ") {
			return true
		}
	}
	return false
}

// Whatever dpkg's exit code says, there and back.
func TestContainerThatIsAsItWasIsRolledBackWhateverDpkgSays(t *testing.T) {
	set, f := bothPatched(t)
	for _, test := range []struct {
		name   string
		faults faults
		back   string // the last install in cinder_volume: what was put back; empty: there was no second one
	}{
		{"a hook that fails after dpkg has done everything", faults{hook: true}, "qemu-block-extra.deb /var/lib/nfslock/qemu-utils.deb"},
		{"a file that nobody can replace, by chattr or a mount", faults{fixed: "usr/bin/qemu-img"}, "/var/lib/nfslock/qemu-block-extra.deb"},
		{"all of them", faults{fixed: "usr/bin/qemu-img", hook: true}, "/var/lib/nfslock/qemu-block-extra.deb"},
	} {
		for _, onError := range []string{OnErrorRollback, OnErrorKeep} {
			t.Run(test.name+", on_error "+onError, func(t *testing.T) {
				w := threeContainers(t)
				w.boxes["cinder_volume"].faults = test.faults
				before := w.snapshot()
				o := options()
				o.OnError = onError
				r, err := w.run(o, ansible.Call{}, set, f)
				if err == nil || strings.Contains(err.Error(), "cannot roll") {
					t.Errorf("error %v", err)
				}
				if onError == OnErrorKeep { // nothing is put back, and so only what changed nothing is as it was
					if want := "nova_libvirt patched, cinder_api patched, cinder_volume failed"; statuses(r) != want {
						t.Errorf("%s", statuses(r))
					}
					return
				}
				if statuses(r) != "nova_libvirt rolled_back, cinder_api rolled_back, cinder_volume rolled_back" || journalLeft(w) {
					t.Errorf("%s, journal left: %v", statuses(r), journalLeft(w))
				}
				if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
					t.Errorf("-before +after:\n%s", diff)
				}
				var installs []string
				for _, call := range w.calls {
					if strings.HasPrefix(call, "cinder_volume: ") && strings.Contains(call, "--install") {
						installs = append(installs, call)
					}
				}
				if len(installs) != 2 || !strings.HasSuffix(installs[1], "--install "+test.back) && !strings.HasSuffix(installs[1], test.back) {
					t.Errorf("what differs alone is put back: %q", installs)
				}
			})
		}
	}
}

func TestContainerInWhichDpkgDidNothingIsNotTouchedOnTheWayBack(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	installs := 0
	w.fail = func(call string) error {
		if strings.HasPrefix(call, "cinder_volume: dpkg --force") {
			installs++
			return errors.New("error executing hook '/bin/false', exit code 256")
		}
		return nil
	}
	before := w.snapshot()
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || installs != 1 || !strings.HasSuffix(statuses(r), "cinder_volume rolled_back") || journalLeft(w) {
		t.Errorf("%v, %d installs, %s", err, installs, statuses(r))
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// What a stuck container costs: itself, in the runs that are for it.
func TestStuckContainerIsAloneWithIt(t *testing.T) {
	set, f := bothPatched(t)
	back := options()
	back.State = Absent
	keep := options()
	keep.OnError = OnErrorKeep
	backOthers := only("nova_libvirt", "cinder_api")
	backOthers.State = Absent
	for _, test := range []struct {
		name string
		o    Options
		want string
		ends string // what the others have then
	}{
		{"one that is healthy", only("cinder_api"), "cinder_api patched", patched},
		{"all that are healthy", only("nova_libvirt", "cinder_api"), "nova_libvirt patched, cinder_api patched", patched},
		{"back, all that are healthy", backOthers, "nova_libvirt unchanged, cinder_api unchanged", stock},
		{"all, on_error rollback", options(), "nova_libvirt patched, cinder_api patched, cinder_volume failed", patched},
		{"all, on_error keep", keep, "nova_libvirt patched, cinder_api patched, cinder_volume failed", patched},
		{"all, back", back, "nova_libvirt unchanged, cinder_api unchanged, cinder_volume failed", stock},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := threeContainers(t)
			w.wontGoBack(set, f)
			asked := len(test.o.Containers) == 0
			check, err := w.run(test.o, ansible.Call{CheckMode: true}, set, f)
			if err != nil || asked != strings.Contains(strings.Join(check.Warnings, "\n"), "left it stuck: qemu-utils: ") {
				t.Errorf("check mode: %v, %v", err, check.Warnings)
			}
			for n := 1; n <= 2; n++ {
				r, err := w.run(test.o, ansible.Call{}, set, f)
				want := test.want
				if n == 2 {
					want = strings.ReplaceAll(strings.ReplaceAll(want, "patched", "unchanged"), "restored", "unchanged")
				}
				if statuses(r) != want || (err != nil) != asked {
					t.Fatalf("run %d: %v, %s", n, err, statuses(r))
				}
				if asked && (!strings.Contains(err.Error(), "killed") || strings.Contains(err.Error(), "nova_libvirt") || strings.Contains(err.Error(), "cinder_api")) {
					t.Errorf("run %d: %v", n, err)
				}
				if !asked && (len(r.Warnings) > 0 || w.touched("cinder_volume")) {
					t.Errorf("run %d: it was said once: %v; touched: %v", n, r.Warnings, w.touched("cinder_volume"))
				}
			}
			for _, name := range test.o.Containers {
				if got := w.program(name); !strings.HasSuffix(got, "\x00"+test.ends) {
					t.Errorf("%s has %q", name, got)
				}
			}
			// The cause is gone: the same run once more makes it whole, and nothing is remembered.
			w.boxes["cinder_volume"].faults = faults{}
			if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || journalLeft(w) || !strings.HasSuffix(statuses(r), "cinder_volume patched") {
				t.Errorf("%v, %s", err, statuses(r))
			}
			if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || r.Changed || len(r.Warnings) > 0 {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
}

// A healthy container that fails takes the healthy ones back with it, and what a stuck one does is no reason for that.
func TestStuckContainerThatComesOnDoesNotWaitForTheOthers(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	w.wontGoBack(set, f)
	w.boxes["cinder_volume"].faults = faults{}
	w.boxes["cinder_api"].faults.hook = true
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || statuses(r) != "nova_libvirt rolled_back, cinder_api rolled_back, cinder_volume rolled_back" || journalLeft(w) {
		t.Errorf("%v, %s", err, statuses(r))
	}
}

func TestStuckContainerThatIsMadeAnewOrRemovedIsForgotten(t *testing.T) {
	set, f := bothPatched(t)
	for _, how := range []string{"made anew", "removed"} {
		for _, o := range []Options{options(), only("nova_libvirt")} {
			w := threeContainers(t)
			w.wontGoBack(set, f)
			w.must(os.RemoveAll(w.boxes["cinder_volume"].root))
			delete(w.boxes, "cinder_volume")
			if how == "made anew" {
				w.add("cinder_volume", tools(stock), block(stock)).ID = strings.Repeat("f", 64)
			}
			if _, err := w.run(o, ansible.Call{}, set, f); err != nil || journalLeft(w) {
				t.Errorf("%s: %v, journal left: %v", how, err, journalLeft(w))
			}
			r, err := w.run(options(), ansible.Call{}, set, f)
			if err != nil || strings.Contains(strings.Join(r.Warnings, "\n"), "a run") {
				t.Errorf("%s: %v, %v", how, err, r.Warnings)
			}
		}
	}
}

// The commands that it says, here done by the test: the next run sees that all is as it was.
func TestStuckContainerThatWasMendedByHandIsWhole(t *testing.T) {
	set, f := bothPatched(t)
	for _, o := range []Options{options(), {State: Absent, Restart: RestartAuto, OnError: OnErrorRollback, Timeout: 60}} {
		w := threeContainers(t)
		b := w.boxes["cinder_volume"]
		w.must(b.hold("qemu-utils"))
		before := w.snapshot()
		b.faults.half = true
		r, err := w.run(options(), ansible.Call{}, set, f)
		if err == nil {
			t.Fatal("it did not fail")
		}
		hint := r.Containers[2].Error.Hint
		dir := w.job().baseline("cinder_volume")
		for _, want := range []string{
			"docker cp " + dir + "/qemu-utils_", ".deb cinder_volume:/root/qemu-utils.deb && ",
			"docker exec -u root cinder_volume dpkg --force-confdef --force-confold --install /root/qemu-utils.deb",
			"docker exec -u root cinder_volume rm /root/qemu-utils.deb && docker exec -u root cinder_volume apt-mark hold qemu-utils", "only this container is stuck",
		} {
			if !strings.Contains(hint, want) {
				t.Errorf("no %q in: %s", want, hint)
			}
		}
		b.faults = faults{}
		w.must(b.unpack(bytes.NewReader(tools(stock).bytes()), nil))
		w.must(b.hold("qemu-utils"))
		calls := len(w.calls)
		if o.State == Absent {
			if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || journalLeft(w) || len(w.calls) != calls {
				t.Errorf("%v, %s, %q", err, statuses(r), w.calls[calls:])
			}
			if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
				t.Error(diff)
			}
			continue
		}
		if r, err := w.run(o, ansible.Call{}, set, f); err != nil || journalLeft(w) {
			t.Errorf("%v, %s", err, statuses(r))
		}
	}
}

// Records beside dpkg's database make apt refuse to work there, though every package is as it was.
func TestRecordsThatDpkgCannotReadInAreSaidWithTheCommandsThatMendIt(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	before := w.snapshot()
	b := w.boxes["cinder_volume"]
	b.faults.records = true
	const remove = "docker exec -u root cinder_volume sh -c 'rm /var/lib/dpkg/updates/*'"
	for n := range 3 {
		r, err := w.run(options(), ansible.Call{}, set, f)
		if err == nil || !strings.Contains(err.Error(), "status-old") || !strings.HasSuffix(statuses(r), "cinder_volume failed") {
			t.Fatalf("%v, %s", err, statuses(r))
		}
		if hint := r.Containers[2].Error.Hint; !strings.Contains(hint, remove) {
			t.Errorf("run %d: %s", n, hint)
		}
		if n == 0 && !strings.Contains(err.Error(), "dpkg has left records in /var/lib/dpkg that it has not read in") {
			t.Errorf("%v", err)
		}
		if n > 0 && !strings.HasPrefix(statuses(r), "nova_libvirt patched, cinder_api patched") && !strings.HasPrefix(statuses(r), "nova_libvirt unchanged") {
			t.Errorf("run %d: %s", n, statuses(r))
		}
	}
	entries, err := os.ReadDir(filepath.Join(b.root, updates))
	w.must(err)
	for _, e := range entries {
		w.must(os.Remove(filepath.Join(b.root, updates, e.Name())))
	}
	back := options()
	back.State = Absent
	w.mustRun(back, Set{}, nil)
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" || journalLeft(w) {
		t.Error(diff)
	}
}

func TestRecordsThatDpkgCanReadInAreReadInOnTheWayBack(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	before := w.snapshot()
	b := w.boxes["cinder_volume"]
	w.fail = func(call string) error {
		if !strings.HasPrefix(call, "cinder_volume: dpkg --force") {
			return nil
		}
		w.fail = nil
		text, err := b.stanza("qemu-utils")
		return errors.Join(err, b.note("0000", strings.Replace(text, "ok installed", "reinstreq half-installed", 1)), b.note("0001", text), errors.New("killed"))
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.HasSuffix(statuses(r), "cinder_volume rolled_back") || journalLeft(w) {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// dpkg's own audit: a package that was never to be touched, and whose trigger failed.
func TestPackageThatDpkgDidNotFinishWithIsFinishedOrNamed(t *testing.T) {
	set, f := bothPatched(t)
	for _, mends := range []bool{true, false} {
		w := threeContainers(t)
		before := w.snapshot()
		b := w.boxes["cinder_volume"]
		b.faults.trigger = "libc-bin"
		w.fail = func(call string) error {
			if mends && strings.HasPrefix(call, "cinder_volume: ") && strings.Contains(call, "--configure") {
				b.faults.trigger = ""
			}
			return nil
		}
		r, err := w.run(options(), ansible.Call{}, set, f)
		row := r.Containers[2]
		if mends {
			if err == nil || row.Status != RolledBack || journalLeft(w) {
				t.Errorf("%v, %s", err, statuses(r))
			}
			if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
				t.Error(diff)
			}
			continue
		}
		if row.Status != Failed || !strings.Contains(row.Error.Message, "dpkg has not finished with libc-bin") ||
			!strings.Contains(row.Error.Hint, "docker exec -u root cinder_volume dpkg --force-confdef --force-confold --configure libc-bin") {
			t.Errorf("%+v", row.Error)
		}
	}
}

// One that was not finished before is as it was.
func TestPackageThatWasUnfinishedBeforeIsAsItWas(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	b := w.boxes["cinder_volume"]
	w.must(b.setState("libc-bin", "ok half-configured"))
	before := w.snapshot()
	b.faults = faults{trigger: "libc-bin", hook: true}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.HasSuffix(statuses(r), "cinder_volume rolled_back") || journalLeft(w) {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// A package that is to be replaced and is not whole, and that dpkg does not get to change, is as it was.
func TestUnfinishedPackageThatDpkgDidNotChangeIsAsItWas(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	b := w.boxes["cinder_volume"]
	w.must(b.setState("qemu-block-extra", "ok half-configured"))
	before := w.snapshot()
	b.faults.fixed = blockFile
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.HasSuffix(statuses(r), "cinder_volume rolled_back") || journalLeft(w) {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// A run that was killed left a container that nobody asks for and that does not go back either: it is said by the run that sees it, which does its own work all the
// same, and by none after it.
func TestWhatNobodyAskedForIsNoReasonToTakeTheOthersBack(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	w.stopIn("cinder_volume: dpkg --force", nil, only("cinder_volume"), set, f)
	w.boxes["cinder_volume"].faults.half = true
	r, err := w.run(only("nova_libvirt"), ansible.Call{}, set, f)
	if err == nil || statuses(r) != "nova_libvirt patched, cinder_volume failed" || !strings.Contains(err.Error(), "cannot roll cinder_volume back") {
		t.Fatalf("%v, %s", err, statuses(r))
	}
	w.calls = nil
	r, err = w.run(only("nova_libvirt"), ansible.Call{}, set, f)
	if err != nil || statuses(r) != "nova_libvirt unchanged" || len(r.Warnings) > 0 || w.touched("cinder_volume") {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
}

// One that cannot be looked into is not stuck: it is brought on when it can.
func TestContainerThatIsDownOnTheWayBackIsNotStuck(t *testing.T) {
	set, f := bothPatched(t)
	synctest.Test(t, func(t *testing.T) { // whose clock need not be waited for
		w := threeContainers(t)
		b := w.boxes["cinder_volume"]
		w.fail = func(call string) error {
			if strings.HasPrefix(call, "cinder_volume: dpkg --set") {
				b.State = "paused"
				return errors.New("killed")
			}
			return nil
		}
		o := options()
		o.Timeout = 900
		r, err := w.run(o, ansible.Call{}, set, f)
		if err == nil || !strings.HasSuffix(statuses(r), "cinder_volume failed") {
			t.Fatalf("%v, %s", err, statuses(r))
		}
		w.fail = nil
		b.State = "running"
		if r, err := w.run(only("nova_libvirt"), ansible.Call{}, set, f); err != nil || statuses(r) != "nova_libvirt patched, cinder_volume rolled_back" {
			t.Errorf("%v, %s", err, statuses(r))
		}
	})
}

// The library's place is taken by something else while the run is at work: that is in the way back, and what is not is put back.
func TestLibraryThatCannotBeTakenBackIsStuckAndSaid(t *testing.T) {
	w := kollaHost(t)
	name := "cinder_volume"
	list := filepath.Join(w.boxes[name].root, preload.List)
	w.stopAtOpen(libraryOptions())
	if !journalLeft(w) {
		t.Fatal("it did not stop")
	}
	for n := range w.boxes {
		if _, err := os.Stat(filepath.Join(w.boxes[n].root, preload.List)); err == nil {
			name, list = n, filepath.Join(w.boxes[n].root, preload.List)
		}
	}
	w.must(os.RemoveAll(list))
	w.must(os.Mkdir(list, 0o755))
	var others []string
	for n := range w.boxes {
		if n != name {
			others = append(others, n)
		}
	}
	o := libraryOptions()
	o.Containers = others
	r, err := w.run(o, ansible.Call{}, Set{}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot roll "+name+" back: the library's two files are not as they were") || strings.Count(statuses(r), "failed") != 1 {
		t.Fatalf("%v, %s", err, statuses(r))
	}
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || r.Changed || len(r.Warnings) > 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.must(os.Remove(list))
	if r, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil || journalLeft(w) {
		t.Errorf("%v, %s", err, statuses(r))
	}
}

// It is tried again by a run that is killed or told to stop: that does not make it one that others wait for.
func TestStuckContainerStaysAloneThoughARunDiesWhileItTriesItAgain(t *testing.T) {
	w := threeContainers(t)
	set, f := bothPatched(t)
	w.wontGoBack(set, f)
	w.stopIn("cinder_volume: dpkg --force", nil, options(), set, f)
	w.calls = nil
	r, err := w.run(only("nova_libvirt"), ansible.Call{}, set, f)
	if err != nil || w.touched("cinder_volume") || strings.Contains(statuses(r), "cinder_volume") {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
}

// Its packages are back, and it does not come up with them.
func TestContainerThatDoesNotComeUpAgainOnTheWayBackIsStuckAndSaid(t *testing.T) {
	set, f := bothPatched(t)
	synctest.Test(t, func(t *testing.T) {
		w := threeContainers(t)
		b := w.boxes["nova_libvirt"]
		b.unhealed = true
		w.restarted = func() { b.unwell = true }
		o := options()
		o.Timeout = 900
		r, err := w.run(o, ansible.Call{}, set, f)
		row := r.Containers[0]
		if err == nil || row.Status != Failed || !strings.Contains(row.Error.Message, "it was not started again with what was put back: ") ||
			!strings.Contains(row.Error.Hint, "run again: docker restart nova_libvirt;") || !strings.HasSuffix(w.program("nova_libvirt"), "\x00"+stock) {
			t.Errorf("%v, %+v", err, row.Error)
		}
		w.restarted, b.unwell = nil, false
		if r, err := w.run(only("cinder_api"), ansible.Call{}, set, f); err != nil || statuses(r) != "cinder_api patched" {
			t.Errorf("%v, %s", err, statuses(r))
		}
		w.calls = nil
		if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || journalLeft(w) || w.restarts() != 1 {
			t.Errorf("%v, %s, %d restarts", err, statuses(r), w.restarts())
		}
	})
}
