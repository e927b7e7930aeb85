package lockfix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

const (
	stock   = "1:7.2-7"
	patched = "1:7.2-7+nfslock1"
)

func options() Options {
	return Options{State: Present, PatchSet: "/set", RemoteSrc: true, Restart: RestartAuto, Hold: true, OnError: OnErrorRollback, Timeout: 60}
}

// host is a job on the world, whose state folder is the test's own.
func (w *world) job() *job {
	return &job{
		engine: w, dir: filepath.Join(w.dir, "state"), proc: w.proc,
		units: units{
			runs:    func(context.Context, string) (bool, error) { return false, nil },
			restart: func(context.Context, string, time.Duration) error { return errors.New("no systemd here") },
		},
	}
}

func (w *world) run(o Options, call ansible.Call, set Set, f *files) (Result, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), o.limit())
	defer cancel()
	return w.job().run(ctx, o, call, set, f, Result{})
}

func statuses(r Result) string {
	var parts []string
	for _, row := range r.Containers {
		parts = append(parts, row.Name+" "+string(row.Status))
	}
	return strings.Join(parts, ", ")
}

func twoContainers(t *testing.T) *world {
	w := newWorld(t)
	w.add("nova_libvirt", qemuUtils(stock))
	w.add("cinder_volume", qemuUtils(stock))
	return w
}

// TestWhatWasLeftOutIsNotBroughtBack: the container's rules for documentation change between the patch and the way back.
func TestWhatWasLeftOutIsNotBroughtBack(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(b.root, "etc/dpkg/dpkg.cfg")
	w.must(os.WriteFile(rules, nil, 0o644))
	o := options()
	o.State = Absent
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
		t.Fatalf("absent: %v, %+v", err, r)
	}
	w.must(os.WriteFile(rules, []byte(footprint), 0o644))
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("absent left a difference (-before +after):\n%s", diff)
	}
}

// TestBaselineOfAnOlderVersionIsBroughtBack: it has no placeholders, so dpkg's list lacks what was left out.
func TestBaselineOfAnOlderVersionIsBroughtBack(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Fatal(err)
	}
	older := testDeb{name: "qemu-utils", version: stock, files: map[string]string{"usr/bin/qemu-img": "qemu-img " + stock}}.bytes()
	index, root, err := baseline.Open(w.job().baseline("cinder_volume"))
	w.must(err)
	defer root.Close()
	k := &index.Packages[0]
	if len(k.Excluded) != 1 {
		t.Fatalf("left out: %v", k.Excluded)
	}
	sum := sha256.Sum256(older)
	k.Excluded, k.SHA256, k.Size = nil, hex.EncodeToString(sum[:]), int64(len(older))
	w.must(root.WriteFile(k.File, older, 0o600))
	text, err := json.Marshal(index)
	w.must(err)
	w.must(root.WriteFile(baseline.IndexName, text, 0o600))
	o := options()
	o.State = Absent
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
		t.Fatalf("absent: %v, %+v", err, r)
	}
	list, err := os.ReadFile(filepath.Join(b.root, "var/lib/dpkg/info/qemu-utils.list"))
	if err != nil || strings.Contains(string(list), "changelog") {
		t.Errorf("%v: %s", err, list)
	}
}

func TestPatchThenUnchangedThenBack(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()

	check, err := w.run(options(), ansible.Call{CheckMode: true, Diff: true}, set, f)
	if err != nil || !check.Changed || statuses(check) != "nova_libvirt patched, cinder_volume patched" || len(check.Diff) != 2 {
		t.Fatalf("check mode: %v, %+v", err, check)
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" || len(w.calls) > 0 {
		t.Fatalf("check mode changed something: %v\n%s", w.calls, diff)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state")); err == nil {
		t.Fatal("check mode made the state folder")
	}

	r, err := w.run(options(), ansible.Call{Diff: true}, set, f)
	if err != nil || !r.Changed || statuses(r) != statuses(check) {
		t.Fatalf("first run: %v, %+v", err, r)
	}
	if diff := gocmp.Diff(check.Diff, r.Diff); diff != "" {
		t.Errorf("check mode promised another diff (-promised +done):\n%s", diff)
	}
	want := []Change{{Name: "qemu-utils", Before: stock, After: patched, Wanted: patched}}
	if diff := gocmp.Diff(want, r.Containers[1].Packages); diff != "" {
		t.Error(diff)
	}
	if !r.Containers[0].Restarted || r.Containers[1].Restarted {
		t.Errorf("nova_libvirt alone is to be restarted: %+v", r.Containers)
	}
	for path := range w.snapshot() {
		if strings.Contains(path, "nfslock") || strings.Contains(path, "policy-rc.d") {
			t.Errorf("left behind: %s", path)
		}
	}

	calls := len(w.calls)
	again, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || again.Changed || statuses(again) != "nova_libvirt unchanged, cinder_volume unchanged" || len(w.calls) != calls {
		t.Fatalf("second run: %v, %+v, %v", err, again, w.calls[calls:])
	}

	o := options()
	o.State = Absent
	back, err := w.run(o, ansible.Call{}, Set{}, nil)
	if err != nil || !back.Changed || statuses(back) != "nova_libvirt restored, cinder_volume restored" {
		t.Fatalf("absent: %v, %+v", err, back)
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("absent left a difference (-before +after):\n%s", diff)
	}
	if twice, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || twice.Changed {
		t.Errorf("absent twice: %v, %+v", err, twice)
	}
}

// Whatever a run finds and wants to do, a failure in any of its calls of dpkg brings the host back to what it was.
func TestFailureInAnyCallRollsTheHostBack(t *testing.T) {
	set1, f1 := folder(t, qemuUtils(patched))
	set2, f2 := folder(t, qemuUtils(stock+"+nfslock2"))
	set2.Suffix, set2.Packages[0].BuiltFrom = "+nfslock2", stock
	back := options()
	back.State = Absent
	for _, test := range []struct {
		name    string
		prepare func(w *world)
		o       Options
		set     Set
		f       *files
	}{
		{name: "from stock", o: options(), set: set1, f: f1},
		{
			name: "from stock that the operator holds", o: options(), set: set1, f: f1,
			prepare: func(w *world) { w.must(w.boxes["cinder_volume"].hold("qemu-utils")) },
		},
		{
			name: "from an older patch", o: options(), set: set2, f: f2,
			prepare: func(w *world) { w.mustRun(options(), set1, f1) },
		},
		{
			name: "from an altered file", o: options(), set: set1, f: f1,
			prepare: func(w *world) {
				w.mustRun(options(), set1, f1)
				w.must(os.WriteFile(filepath.Join(w.boxes["cinder_volume"].root, "usr/bin/qemu-img"), []byte("altered"), 0o755))
			},
		},
		{
			name: "on the way back", o: back,
			prepare: func(w *world) { w.mustRun(options(), set1, f1) },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				w := twoContainers(t)
				if test.prepare != nil {
					test.prepare(w)
				}
				before := w.snapshot()
				count := 0
				w.fail = func(string) error {
					if count++; count == n {
						return errors.New("no space left on device")
					}
					return nil
				}
				r, err := w.run(test.o, ansible.Call{Diff: true}, test.set, test.f)
				if count < n {
					if n < 3 || err != nil {
						t.Errorf("only %d calls, error %v", count, err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "no space left on device") {
					t.Errorf("call %d: error %v", n, err)
				}
				after := w.snapshot()
				if test.name == "from an altered file" {
					// A repacked package says of its files what they are, not what they were once.
					const sums = "cinder_volume/var/lib/dpkg/info/qemu-utils.md5sums"
					after[sums] = before[sums]
				}
				if diff := gocmp.Diff(before, after); diff != "" {
					t.Errorf("call %d left a difference (-before +after):\n%s", n, diff)
				}
				if strings.Contains(statuses(r), "patched") || strings.Contains(statuses(r), "restored") || r.Changed != (w.restarts() > 0) {
					t.Errorf("call %d: changed %v, %s", n, r.Changed, statuses(r))
				}
				if _, err := os.Stat(filepath.Join(w.job().dir, "undo")); err == nil {
					t.Errorf("call %d left the undo folder behind", n)
				}
			}
		})
	}
}

func (w *world) mustRun(o Options, set Set, f *files) {
	w.t.Helper()
	if _, err := w.run(o, ansible.Call{}, set, f); err != nil {
		w.t.Fatal(err)
	}
	w.calls = nil
}

func (w *world) restarts() (n int) {
	for _, call := range w.calls {
		if strings.HasSuffix(call, ": restart") {
			n++
		}
	}
	return n
}

func TestFailedRollbackIsReportedBesideItsCause(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	installs := 0
	w.fail = func(call string) error {
		if strings.HasPrefix(call, "cinder_volume: dpkg --force") {
			if installs++; installs == 2 {
				return errors.New("the way back is broken")
			}
		}
		if strings.HasPrefix(call, "nova_libvirt: dpkg --set") {
			return errors.New("the cause")
		}
		return nil
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "the cause") || !strings.Contains(err.Error(), "cannot roll cinder_volume back") || !strings.Contains(err.Error(), "the way back is broken") {
		t.Errorf("error %v", err)
	}
	if !strings.HasSuffix(statuses(r), "cinder_volume failed") || !r.Changed || r.Containers[1].Packages[0].After != patched {
		t.Errorf("%+v", r)
	}
}

func TestHalfReplacedPackageNeverBecomesTheBaseline(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	b := w.boxes["cinder_volume"]
	w.mustRun(options(), set, f)
	o := options()
	o.State = Absent
	w.mustRun(o, Set{}, nil)
	w.mustRun(options(), set, f)
	// dpkg was killed while it unpacked: the version still is the former one, the file is the new one already.
	w.must(b.edit("qemu-utils", func(s string) string {
		return strings.NewReplacer("install ok installed", "install reinstreq half-installed", "hold ok installed", "install reinstreq half-installed", patched, stock).Replace(s)
	}))
	w.mustRun(options(), set, f)
	w.mustRun(o, Set{}, nil)
	if text, _ := os.ReadFile(filepath.Join(b.root, "usr/bin/qemu-img")); string(text) != "qemu-img "+stock {
		t.Errorf("what was kept is %q", text)
	}
}

func TestDamagedBaselineDoesNotStopAPatch(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	w.must(os.WriteFile(filepath.Join(w.job().baseline("cinder_volume"), baseline.IndexName), []byte("{"), 0o600))
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || len(r.Warnings) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	o := options()
	o.State = Absent
	r, err := w.run(o, ansible.Call{}, Set{}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot restore cinder_volume") || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
		t.Errorf("%v, %+v", err, r)
	}
}

// What is not known as ours once it is installed is not installed.
func TestASetWhosePackagesLackTheFieldsOfItsManifestIsRefused(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	set.Packages[0].Stock = stock
	before := w.snapshot()
	_, err := w.run(options(), ansible.Call{}, set, f)
	if want := "cannot use qemu-utils.deb: the field Nfslock-Variant is missing, by which it is known as ours once it is installed: build the set again"; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestPanicInOneContainerIsAnError(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()
	first := true
	w.fail = func(string) error {
		if first {
			first = false
			panic("a bug")
		}
		return nil
	}
	if _, err := w.run(options(), ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("error %v", err)
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestOnErrorKeepLeavesTheOthersPatched(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.fail = func(call string) error {
		if strings.HasPrefix(call, "cinder_volume: dpkg --force") {
			return errors.New("broken")
		}
		return nil
	}
	o := options()
	o.OnError = OnErrorKeep
	r, err := w.run(o, ansible.Call{}, set, f)
	if err == nil || statuses(r) != "nova_libvirt patched, cinder_volume rolled_back" || !r.Changed || journalLeft(w) {
		t.Fatalf("%v, %+v", err, r) // its dpkg changed nothing
	}
}

func TestAlteredFileIsInstalledAgain(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.boxes["cinder_volume"].root, "usr/bin/qemu-img")
	w.must(os.WriteFile(file, []byte("something else"), 0o755))
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || statuses(r) != "nova_libvirt unchanged, cinder_volume patched" {
		t.Fatalf("%v, %+v", err, r)
	}
	if text, _ := os.ReadFile(file); string(text) != "qemu-img "+patched {
		t.Errorf("the file is %q", text)
	}
	o := options()
	o.State = Absent
	if _, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil {
		t.Errorf("the packages from before are gone: %v", err)
	}
	if text, _ := os.ReadFile(file); string(text) != "qemu-img "+stock {
		t.Errorf("after absent the file is %q", text)
	}
}

func TestUnhealthyAfterRestartRollsBack(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.boxes["nova_libvirt"].unhealed = true
	o := options()
	o.Timeout = 2
	r, err := w.run(o, ansible.Call{}, set, f)
	if w.restarts() != 2 {
		t.Errorf("%d restarts, there should be one with each set of packages", w.restarts())
	}
	if err == nil || statuses(r) != "nova_libvirt rolled_back, cinder_volume rolled_back" {
		t.Fatalf("%v, %s", err, statuses(r))
	}
}

// kolla-ansible leaves the tests out where enable_container_healthchecks is off.
func TestWithoutAHealthTestLibvirtIsAsked(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.boxes["nova_libvirt"].Health, w.boxes["nova_libvirt"].unhealed = nil, true
	o := options()
	o.Timeout = 2
	r, err := w.run(o, ansible.Call{}, set, f)
	if err == nil || statuses(r) != "nova_libvirt rolled_back, cinder_volume rolled_back" {
		t.Fatalf("%v, %s", err, statuses(r))
	}
}

func TestUnhealthyBeforeIsNoFailureAfter(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.boxes["nova_libvirt"].unwell, w.boxes["nova_libvirt"].unhealed = true, true
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || !r.Containers[0].Restarted {
		t.Fatalf("%v, %+v", err, r)
	}
}

// Somebody stopped a container: that keeps no other from being patched, and is said.
func TestAStoppedContainerDoesNotStopTheHost(t *testing.T) {
	w := twoContainers(t)
	b := w.boxes["cinder_volume"]
	b.State, b.EndedAt = "exited", time.Now().Add(-time.Minute)
	set, f := folder(t, qemuUtils(patched))
	const warning = "cinder_volume is exited: it was passed over and keeps its packages; start it and run again"
	for _, check := range []bool{true, false} {
		r, err := w.run(options(), ansible.Call{CheckMode: check}, set, f)
		if err != nil || statuses(r) != "nova_libvirt patched, cinder_volume skipped" || fmt.Sprint(r.Warnings) != "["+warning+"]" || r.Containers[1].Reason != "it is exited" {
			t.Fatalf("check mode %v: %v, %+v", check, err, r)
		}
	}
	if w.program("nova_libvirt") != patched {
		t.Error("nova_libvirt is not patched")
	}
	// It is patched when it runs again, and then missed when it is to be taken back and does not.
	b.State = "running"
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || statuses(r) != "nova_libvirt unchanged, cinder_volume patched" {
		t.Fatalf("%v, %+v", err, r)
	}
	b.State = "exited"
	o := options()
	o.State = Absent
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err == nil || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
		t.Errorf("%v, %+v", err, r)
	}
	// Whoever names it wants it.
	o = options()
	o.Containers = []string{"cinder_volume"}
	if r, err := w.run(o, ansible.Call{}, set, f); err == nil || statuses(r) != "cinder_volume failed" {
		t.Errorf("%v, %+v", err, r)
	}
}

// One that its unit starts again within seconds is not meant to be stopped.
func TestAContainerThatComesBackIsNotPassedOver(t *testing.T) {
	w := twoContainers(t)
	b := w.boxes["cinder_volume"]
	b.State, b.EndedAt = "exited", time.Now().Add(-10*time.Second)
	set, f := folder(t, qemuUtils(patched))
	j := w.job()
	j.units.runs = func(_ context.Context, unit string) (bool, error) {
		return unit == "kolla-cinder_volume-container.service", nil
	}
	r, err := j.run(t.Context(), options(), ansible.Call{}, set, f, Result{})
	if err == nil || !strings.Contains(err.Error(), "it is exited, and its unit is about to start it") || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestPausedContainerStopsTheHostBeforeAnythingIsCopied(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.boxes["cinder_volume"].State = "paused"
	before := w.snapshot()
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "cannot work in cinder_volume: it is paused") || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
		t.Fatalf("%v, %+v", err, r)
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestNamedContainerMustExist(t *testing.T) {
	w := twoContainers(t)
	o := options()
	o.Containers = []string{"nova_compute"}
	if _, err := w.run(o, ansible.Call{}, Set{}, &files{}); err == nil || err.Error() != `cannot find container "nova_compute" on this host` {
		t.Error(err)
	}
}

func TestHostWithoutKollaIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	r, err := w.run(options(), ansible.Call{}, Set{}, &files{})
	if err != nil || r.Changed || r.Msg == "" {
		t.Errorf("%v, %+v", err, r)
	}
}

// Whatever of kolla's has QEMU is patched and taken back like the six; what has none, is not kolla's or does not run is none of ours.
func TestCarriersAreFoundByWhatIsInThem(t *testing.T) {
	w := twoContainers(t)
	w.add("glance_api", qemuUtils(stock))
	w.add("magnum", qemuUtils(stock))
	w.add("keystone")
	w.add("web", qemuUtils(stock)).labels = nil
	w.add("ironic_conductor", qemuUtils(stock)).State = "exited"
	w.add("rocky").rpm()
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()
	r, err := w.run(options(), ansible.Call{}, set, f)
	if want := "nova_libvirt patched, cinder_volume patched, glance_api patched, magnum patched"; err != nil || statuses(r) != want || len(r.Warnings) > 0 {
		t.Fatalf("%v, %s, %q", err, statuses(r), r.Warnings)
	}
	if w.program("glance_api") != patched || w.program("web") != stock || w.program("ironic_conductor") != stock {
		t.Error("the wrong ones are patched")
	}

	// What was patched is known from then on, whether it runs or not: it cannot be taken back meanwhile.
	w.boxes["glance_api"].State = "exited"
	back := options()
	back.State = Absent
	if r, err := w.run(back, ansible.Call{}, Set{}, nil); err == nil || !strings.Contains(err.Error(), "cannot work in glance_api: it is exited") {
		t.Errorf("%v, %s", err, statuses(r))
	}
	w.boxes["glance_api"].State = "running"
	if r, err := w.run(back, ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "nova_libvirt restored, cinder_volume restored, glance_api restored, magnum restored" {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if diff := gocmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

// A container in which it cannot be told is no reason to stop the others, and is said: its QEMU may be left stock.
func TestAContainerThatCannotBeLookedIntoIsSaid(t *testing.T) {
	w := twoContainers(t)
	w.add("glance_api", qemuUtils(stock))
	w.open = func(name string) error {
		if name == "glance_api" {
			return errors.New("it was restarted meanwhile")
		}
		return nil
	}
	set, f := folder(t, qemuUtils(patched))
	r, err := w.run(options(), ansible.Call{}, set, f)
	if want := "[cannot tell whether glance_api has QEMU, so it was left out: it was restarted meanwhile]"; err != nil || fmt.Sprint(r.Warnings) != want || statuses(r) != "nova_libvirt patched, cinder_volume patched" {
		t.Errorf("%v, %s, %q", err, statuses(r), r.Warnings)
	}
	delete(w.boxes, "nova_libvirt")
	delete(w.boxes, "cinder_volume")
	r, err = w.run(options(), ansible.Call{}, set, f)
	if err != nil || r.Msg != nothingHere || len(r.Warnings) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestASecondRunWaitsForTheFirstWithALimit(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	unlock, _, err := statedir.TakeLock(t.Context(), w.job().dir)
	w.must(err)
	o := options()
	o.Timeout = 1
	if _, err := w.run(o, ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("error %v", err)
	}
	unlock()
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Error(err)
	}
}

func TestLinkPlantedInTheContainerLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	outside := filepath.Join(w.dir, "outside")
	w.must(os.Mkdir(outside, 0o755))
	w.must(os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600))
	w.must(os.Symlink(outside, filepath.Join(b.root, "var/lib/nfslock")))
	set, f := folder(t, qemuUtils(patched))
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Errorf("followed the link out of the container: %v", err)
	}
}

// TestPackagesOfContainersThatAreGone: destroy took the container; the way back names what is left of it, and leaves it alone.
func TestPackagesOfContainersThatAreGone(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	if _, err := w.run(options(), ansible.Call{}, set, f); err != nil {
		t.Fatal(err)
	}
	o := options()
	o.State = Absent
	for _, name := range []string{"cinder_volume", "nova_libvirt"} {
		delete(w.boxes, name)
		r, err := w.run(o, ansible.Call{}, Set{}, nil)
		if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `does not have: "cinder_volume". `) {
			t.Errorf("without %s: %v, %+v", name, err, r)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state/baseline/cinder_volume/index.json")); err != nil {
		t.Error(err)
	}
}
