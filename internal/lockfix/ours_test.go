package lockfix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// kind is how a set's packages tell that they are ours.
type kind string

const (
	fields kind = "fields" // as the recipe writes them
	shape  kind = "shape"  // as that of earlier releases did
	bare   kind = "bare"   // made by hand: nothing but the version
)

var allKinds = []kind{fields, shape, bare}

// rebuild is a package of a set, made from one of the distribution's.
func rebuild(k kind, of testDeb, suffix string) testDeb {
	source := deb.WithoutRebuild(of.version)
	p := of
	p.version, p.files = source+suffix, map[string]string{}
	for path, text := range of.files {
		p.files[path] = text + " rebuilt, " + suffix
	}
	p.fields = fmt.Sprintf("Source: qemu (%s)\nProvides: %s (= %s)\n", source, of.name, of.version)
	switch k {
	case fields:
		p.fields += fmt.Sprintf("Nfslock-Variant: fallback\nNfslock-Suffix: %s\nNfslock-Built-From: %s\nNfslock-Stock: %s\n", suffix, source, of.version)
	case bare:
		p.fields = "Source: qemu\n"
	case shape:
	}
	return p
}

// setOf is a set of such packages.
func setOf(t *testing.T, k kind, suffix string, of ...testDeb) (Set, *files) {
	t.Helper()
	var packages []testDeb
	for _, p := range of {
		packages = append(packages, rebuild(k, p, suffix))
	}
	set, f := folder(t, packages...)
	set.Suffix = suffix
	for i := range set.Packages {
		set.Packages[i].BuiltFrom = deb.WithoutRebuild(of[i].version)
		if k == fields {
			set.Packages[i].Stock = of[i].version
		}
	}
	return set, f
}

func utils(version string) testDeb {
	p := qemuUtils(version)
	p.fields = "Source: qemu\n"
	if source := deb.WithoutRebuild(version); source != version {
		p.fields = "Source: qemu (" + source + ")\n"
	}
	return p
}

func blockExtra(version string) testDeb {
	p := utils(version)
	p.name, p.files = "qemu-block-extra", map[string]string{"usr/lib/block.so": "block " + version}
	return p
}

// kept is what the host keeps of a container, with its record.
func (w *world) kept(name string) *baseline.Index {
	w.t.Helper()
	x, root, err := baseline.Open(w.job().baseline(name))
	w.must(err)
	if x != nil {
		root.Close()
	}
	return x
}

func toAbsent() Options {
	o := options()
	o.State = Absent
	return o
}

const rebuiltStock = stock + "+b2"

// Suffixes are free: whatever comes after what, the first one's baseline stays, and absent brings it back to the byte.
func TestSetsWithAnySuffixOneAfterAnotherKeepTheDistributionsPackages(t *testing.T) {
	for _, k := range allKinds {
		for _, suffixes := range [][]string{{"+site1"}, {"+site1", "+ours2"}, {"+site1", "+ours2", "+third"}, {"+site1", "+ours2", "+site1"}, {"+site1", "+nfslock1", "+z"}} {
			t.Run(fmt.Sprint(k, suffixes), func(t *testing.T) {
				w := newWorld(t)
				w.add("nova_libvirt", utils(rebuiltStock), blockExtra(rebuiltStock))
				w.add("cinder_volume", utils(rebuiltStock), blockExtra(rebuiltStock))
				before := w.snapshot()
				for _, suffix := range suffixes {
					set, f := setOf(t, k, suffix, utils(rebuiltStock), blockExtra(rebuiltStock))
					if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || statuses(r) != "nova_libvirt patched, cinder_volume patched" {
						t.Fatalf("%s: %v, %+v", suffix, err, r)
					}
					if again, err := w.run(options(), ansible.Call{}, set, f); err != nil || again.Changed || len(again.Warnings) > 0 {
						t.Errorf("%s again: %v, %+v", suffix, err, again)
					}
					x := w.kept("cinder_volume")
					if len(x.Packages) != 2 || x.Packages[0].Version != rebuiltStock || x.Packages[1].Version != rebuiltStock || x.Packages[0].BuiltFrom != stock {
						t.Fatalf("%s: %+v is kept", suffix, x.Packages)
					}
					if x.Put("qemu-utils") != stock+suffix || x.Suffix != suffixes[0] {
						t.Errorf("%s: the record says %s, %s", suffix, x.Put("qemu-utils"), x.Suffix)
					}
				}
				if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "nova_libvirt restored, cinder_volume restored" {
					t.Fatalf("absent: %v, %+v", err, r)
				}
				if diff := cmp.Diff(before, w.snapshot()); diff != "" {
					t.Errorf("-before +after:\n%s", diff)
				}
				if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || r.Changed || w.kept("cinder_volume") != nil {
					t.Errorf("absent again: %v, %+v", err, r)
				}
			})
		}
	}
}

// The state folder is gone, or the package came with the image: absent says what is missing and what to do, and in check mode too.
func TestAbsentNeverSaysUnchangedWhileAPackageOfOursIsThere(t *testing.T) {
	for _, k := range []kind{fields, shape} {
		for _, status := range []string{"install ok installed", "hold ok installed", "install reinstreq half-installed", "install ok half-configured", "install ok unpacked"} {
			w := newWorld(t)
			b := w.add("cinder_volume", rebuild(k, utils(rebuiltStock), "+acme1"), blockExtra(rebuiltStock))
			w.must(b.edit("qemu-utils", func(s string) string { return strings.Replace(s, "install ok installed", status, 1) }))
			before := w.snapshot()
			for _, check := range []bool{true, false} {
				r, err := w.run(toAbsent(), ansible.Call{CheckMode: check}, Set{}, nil)
				if err == nil || statuses(r) != "cinder_volume failed" || r.Changed || !strings.Contains(err.Error(), stock+"+acme1: the package from before is not kept on this host") ||
					!strings.Contains(r.Containers[0].Error.Hint, "apt-get install --allow-downgrades --allow-change-held-packages qemu-utils="+rebuiltStock) {
					t.Errorf("%s %s, check mode %t: %v, %+v", k, status, check, err, r)
				}
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("%s %s: %s", k, status, diff)
			}
			// What the way out says, done by hand.
			w.must(b.unpack(bytes.NewReader(utils(rebuiltStock).bytes()), nil))
			if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || r.Changed {
				t.Errorf("%s %s, after the way out: %v, %+v", k, status, err, r)
			}
		}
	}
}

// One has a way back, the other has none: nothing is restored by halves, and what is kept stays until there is a way.
func TestAbsentForgetsNothingWhileOnePackageHasNoWayBack(t *testing.T) {
	for _, k := range []kind{fields, shape} {
		w := newWorld(t)
		b := w.add("cinder_volume", utils(stock), rebuild(k, blockExtra(stock), "+acme1"))
		set, f := setOf(t, k, "+site1", utils(stock))
		w.mustRun(options(), set, f)
		r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil)
		if err == nil || statuses(r) != "cinder_volume failed" || !strings.Contains(err.Error(), "qemu-block-extra "+stock+"+acme1: the package from before is not kept") || len(w.calls) > 0 {
			t.Errorf("%s: %v, %+v, %v", k, err, r, w.calls)
		}
		if x := w.kept("cinder_volume"); len(x.Packages) != 1 {
			t.Errorf("%s: %+v", k, x)
		}
		w.must(b.unpack(bytes.NewReader(blockExtra(stock).bytes()), nil))
		if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" || w.program("cinder_volume") != stock {
			t.Errorf("%s: %v, %+v", k, err, r)
		}
	}
}

// Somebody installs a package of ours while absent is at work.
func TestWhatIsKeptIsNotForgottenWhenAPackageOfOursComesMeanwhile(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", utils(stock), blockExtra(stock))
	set, f := setOf(t, fields, "+site1", utils(stock))
	w.mustRun(options(), set, f)
	w.fail = func(call string) error {
		if !strings.Contains(call, "--install") {
			w.must(b.unpack(bytes.NewReader(rebuild(fields, blockExtra(stock), "+acme1").bytes()), nil))
		}
		return nil
	}
	r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot forget the packages from before of cinder_volume: qemu-block-extra "+stock+"+acme1 is there") || strings.Contains(statuses(r), "restored") {
		t.Errorf("%v, %+v", err, r)
	}
	if x := w.kept("cinder_volume"); x == nil || len(x.Packages) != 1 {
		t.Errorf("kept: %+v", x)
	}
}

// What came between the look and the keeping is not kept for absent.
func TestOnlyTheDistributionsIsEverPacked(t *testing.T) {
	for _, k := range allKinds {
		w := newWorld(t)
		p := rebuild(k, utils(stock), "+site1")
		b := w.add("cinder_volume", p)
		root, err := os.OpenRoot(b.root)
		w.must(err)
		defer root.Close()
		archive, err := deb.ReadArchive(bytes.NewReader(p.bytes()))
		w.must(err)
		set := []baseline.Installed{{Name: p.name, Version: p.version, Sum: baseline.Sum(archive.Md5sums)}}
		dir := w.job().baseline("cinder_volume")
		_, err = baseline.Known{ID: b.ID, Set: set}.Keep(t.Context(), dir, baseline.Index{ID: b.ID}, root, []string{"qemu-utils"})
		if err == nil || !strings.Contains(err.Error(), "cannot keep qemu-utils "+stock+"+site1: it is not the distribution's") {
			t.Errorf("%s: %v", k, err)
		}
		if x := w.kept("cinder_volume"); x != nil {
			t.Errorf("%s: %+v", k, x)
		}
	}
}

// An image was made of a patched container, or with packages of its own. The way back that the predecessor left is kept on, also through a further set.
func TestARecreatedContainerWithPackagesOfOursHasTheWayBackOfItsPredecessor(t *testing.T) {
	for _, k := range allKinds {
		for _, again := range []bool{false, true} {
			w := newWorld(t)
			w.add("cinder_volume", utils(rebuiltStock))
			before := w.snapshot()
			set, f := setOf(t, k, "+site1", utils(rebuiltStock))
			w.mustRun(options(), set, f)
			w.must(os.RemoveAll(w.boxes["cinder_volume"].root))
			w.add("cinder_volume", rebuild(k, utils(rebuiltStock), "+site1")).ID = "recreated"
			if again {
				set, f := setOf(t, k, "+ours2", utils(rebuiltStock))
				w.mustRun(options(), set, f)
				if x := w.kept("cinder_volume"); x.ID != "recreated" || len(x.Packages) != 1 || x.Packages[0].Version != rebuiltStock {
					t.Fatalf("%s: %+v", k, x)
				}
			}
			if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
				t.Errorf("%s, again %t: %v, %+v", k, again, err, r)
			}
			after := w.snapshot()
			if diff := cmp.Diff(before["cinder_volume/usr/bin/qemu-img"], after["cinder_volume/usr/bin/qemu-img"]); diff != "" {
				t.Errorf("%s, again %t: %s", k, again, diff)
			}
		}
	}
}

// What an earlier release wrote down, which knows no checksums and the last suffix only, leads back all the same.
func TestTheRecordOfAnEarlierReleaseLeadsBack(t *testing.T) {
	for _, k := range allKinds {
		for _, suffixes := range [][]string{{"+site1"}, {"+site1", "+ours2"}} {
			w := newWorld(t)
			w.add("cinder_volume", utils(rebuiltStock))
			before := w.snapshot()
			for i, suffix := range suffixes {
				set, f := setOf(t, k, suffix, utils(rebuiltStock))
				w.mustRun(options(), set, f)
				if i == 0 {
					w.forgetNews("cinder_volume")
				}
			}
			if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
				t.Errorf("%s %v: %v, %+v", k, suffixes, err, r)
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("%s %v: %s", k, suffixes, diff)
			}
		}
	}
}

// forgetNews makes an index one of an earlier release.
func (w *world) forgetNews(name string) {
	w.t.Helper()
	file := filepath.Join(w.job().baseline(name), baseline.IndexName)
	text, err := os.ReadFile(file)
	w.must(err)
	var x map[string]any
	w.must(json.Unmarshal(text, &x))
	delete(x, "installed")
	for _, k := range x["packages"].([]any) {
		delete(k.(map[string]any), "built_from")
	}
	text, err = json.Marshal(x)
	w.must(err)
	w.must(os.WriteFile(file, text, 0o600))
}

// A run is killed after dpkg and its journal is lost: what it installed is known, for it was written down before.
func TestWhatIsInstalledIsWrittenDownBefore(t *testing.T) {
	w := newWorld(t)
	w.add("cinder_volume", utils(stock))
	before := w.snapshot()
	set, f := setOf(t, bare, "+site1", utils(stock))
	w.stopIn("cinder_volume: dpkg --force", nil, options(), set, f)
	w.must(os.RemoveAll(filepath.Join(w.job().dir, "journal")))
	if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
		t.Errorf("%v, %+v", err, r)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// A record that keeps nothing, as of a container whose image has packages of ours, is one: a further run goes on with it.
func TestARecordThatKeepsNothingIsOne(t *testing.T) {
	for _, k := range []kind{fields, shape} {
		w := newWorld(t)
		b := w.add("cinder_volume", rebuild(k, utils(stock), "+acme1"))
		for _, suffix := range []string{"+site1", "+ours2"} {
			set, f := setOf(t, k, suffix, utils(stock))
			w.mustRun(options(), set, f)
			if x := w.kept("cinder_volume"); x == nil || len(x.Packages) != 0 || x.Put("qemu-utils") != stock+suffix {
				t.Errorf("%s %s: %+v", k, suffix, x)
			}
		}
		if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err == nil || statuses(r) != "cinder_volume failed" {
			t.Errorf("%s: %v, %+v", k, err, r)
		}
		b.State = "exited"
		if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err == nil || statuses(r) != "cinder_volume failed" {
			t.Errorf("%s, stopped: %v, %+v", k, err, r)
		}
		b.State = "running"
		w.must(b.unpack(bytes.NewReader(utils(stock).bytes()), nil))
		if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume unchanged" || w.kept("cinder_volume") != nil {
			t.Errorf("%s, after the way out: %v, %+v", k, err, r)
		}
	}
}

// The index is damaged: a set that has something to install does not take what it named with it.
func TestADamagedIndexKeepsWhatItNamed(t *testing.T) {
	w := newWorld(t)
	w.add("cinder_volume", utils(stock))
	set, f := setOf(t, fields, "+site1", utils(stock))
	w.mustRun(options(), set, f)
	file := w.kept("cinder_volume").Packages[0].File
	w.must(os.WriteFile(filepath.Join(w.job().baseline("cinder_volume"), baseline.IndexName), []byte("{"), 0o600))
	set, f = setOf(t, fields, "+ours2", utils(stock))
	w.mustRun(options(), set, f)
	var names []string
	w.must(filepath.WalkDir(w.job().baseline("cinder_volume"), func(_ string, d fs.DirEntry, err error) error {
		names = append(names, d.Name())
		return err
	}))
	if !slices.Contains(names, file) || len(w.kept("cinder_volume").Packages) != 0 {
		t.Errorf("%v", names)
	}
	if r, err := w.run(toAbsent(), ansible.Call{}, Set{}, nil); err == nil || !strings.Contains(err.Error(), "the package from before is not kept") {
		t.Errorf("%v, %+v", err, r)
	}
}

// What nobody knows and nobody keeps is left, and the error says how to go on.
func TestWhatIsDoubtfulIsNotReplaced(t *testing.T) {
	w := newWorld(t)
	w.add("cinder_volume", rebuild(bare, utils(stock), "+nfslock1"))
	before := w.snapshot()
	set, f := setOf(t, fields, "+site1", utils(stock))
	for _, allow := range []bool{false, true} {
		o := options()
		o.AllowVersionChange = allow
		r, err := w.run(o, ansible.Call{}, set, f)
		if err == nil || !strings.Contains(err.Error(), "cannot replace packages in cinder_volume that nobody could bring back: qemu-utils "+stock+"+nfslock1") ||
			!strings.Contains(r.Containers[0].Error.Hint, "apt-cache policy qemu-utils") {
			t.Errorf("%v, %+v", err, r)
		}
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// With the library packages are nobody's business: what would cost time is not read.
func TestTheLibraryJudgesNoPackages(t *testing.T) {
	w := newWorld(t)
	w.add("cinder_volume", rebuild(fields, utils(stock), "+acme1"))
	o := options()
	o.Method, o.PatchSet = MethodLibrary, ""
	j := w.job()
	targets := j.observe(t.Context(), []string{"cinder_volume"}, sight{asked: []string{"cinder_volume"}, packages: o.packages(), library: true})
	j.judge(t.Context(), o, Set{}, targets)
	if s := targets[0].seen; s.Judged != nil || s.Packages != nil {
		t.Errorf("%v", slices.Collect(maps.Keys(s.Judged)))
	}
	targets[0].close()
}
