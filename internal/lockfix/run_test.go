package lockfix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
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
		engine: w, dir: filepath.Join(w.dir, "state"), proc: "/proc",
		units: units{
			exists:  func(context.Context, string) (bool, error) { return false, nil },
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

func TestPatchThenUnchangedThenBack(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()

	check, err := w.run(options(), ansible.Call{CheckMode: true, Diff: true}, set, f)
	if err != nil || !check.Changed || statuses(check) != "nova_libvirt patched, cinder_volume patched" || len(check.Diff) != 2 {
		t.Fatalf("check mode: %v, %+v", err, check)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" || len(w.calls) > 0 {
		t.Fatalf("check mode changed something: %v\n%s", w.calls, diff)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state")); err == nil {
		t.Fatal("check mode made the state folder")
	}

	r, err := w.run(options(), ansible.Call{Diff: true}, set, f)
	if err != nil || !r.Changed || statuses(r) != statuses(check) {
		t.Fatalf("first run: %v, %+v", err, r)
	}
	if diff := cmp.Diff(check.Diff, r.Diff); diff != "" {
		t.Errorf("check mode promised another diff (-promised +done):\n%s", diff)
	}
	want := []Change{{Name: "qemu-utils", Before: stock, After: patched, Wanted: patched}}
	if diff := cmp.Diff(want, r.Containers[1].Packages); diff != "" {
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
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("absent left a difference (-before +after):\n%s", diff)
	}
	if twice, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || twice.Changed {
		t.Errorf("absent twice: %v, %+v", err, twice)
	}
}

func TestFailureInAnyCallRollsTheHostBack(t *testing.T) {
	for n := range 4 { // two installs, two holds
		w := twoContainers(t)
		set, f := folder(t, qemuUtils(patched))
		before := w.snapshot()
		count := 0
		w.fail = func(string) error {
			if count++; count == n+1 {
				return errors.New("no space left on device")
			}
			return nil
		}
		r, err := w.run(options(), ansible.Call{}, set, f)
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("call %d: error %v", n, err)
		}
		if diff := cmp.Diff(before, w.snapshot()); diff != "" {
			t.Errorf("call %d left a difference (-before +after):\n%s", n, diff)
		}
		if r.Changed || strings.Contains(statuses(r), "patched") {
			t.Errorf("call %d: %+v", n, r)
		}
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
	if err == nil || statuses(r) != "nova_libvirt patched, cinder_volume failed" || !r.Changed {
		t.Fatalf("%v, %+v", err, r)
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

func TestPausedContainerStopsTheHostBeforeAnythingIsCopied(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	w.boxes["cinder_volume"].State = "paused"
	before := w.snapshot()
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "cannot work in cinder_volume: it is paused") || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
		t.Fatalf("%v, %+v", err, r)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
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

func TestASecondRunWaitsForTheFirstWithALimit(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	unlock, err := takeLock(t.Context(), w.job().dir)
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
