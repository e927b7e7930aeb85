package lockfix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// loopDisk is a filesystem in a file: a copy of that is what a disk has after a power cut.
type loopDisk struct {
	t          testing.TB
	kind       string
	image, dir string
	cuts       int
	layers     string // of a container's root, if it is an overlay
	root       string
}

func newLoopDisk(t testing.TB, kind string, size int64) *loopDisk {
	t.Helper()
	d := &loopDisk{t: t, kind: kind, image: filepath.Join(t.TempDir(), "disk"), dir: t.TempDir()}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	if _, err := exec.LookPath("mkfs." + kind); err != nil {
		t.Skipf("mkfs.%s is not installed", kind)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, size); err != nil {
		t.Fatal(err)
	}
	d.command("mkfs."+kind, "-q", d.image)
	if out, err := exec.Command("losetup", "--find", "--show", d.image).CombinedOutput(); err != nil {
		t.Skipf("no loop device can be had: %v: %s", err, out)
	} else {
		d.command("losetup", "--detach", strings.TrimSpace(string(out)))
	}
	d.mount()
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", "--recursive", d.dir).Run() })
	return d
}

func (d *loopDisk) command(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// The filesystem's own intervals (5 and 30 s) are far longer than a run of the fake world.
func (d *loopDisk) mount() {
	d.t.Helper()
	// A namespace of somebody else's may still have the filesystem of before, and XFS mounts none with the same name beside it.
	options := map[string]string{"ext4": "loop,commit=60", "xfs": "loop,nouuid"}[d.kind]
	d.command("mount", "-o", options, d.image, d.dir)
	if d.layers != "" {
		d.command("mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", d.layers), "overlay", d.root)
	}
}

func (d *loopDisk) unmount() {
	d.t.Helper()
	if d.layers != "" {
		d.umount(d.root)
	}
	d.umount(d.dir)
}

// umount tries again: a program that another test starts at this moment has this one's files open until it is executed.
func (d *loopDisk) umount(dir string) {
	d.t.Helper()
	for range 50 {
		if exec.Command("umount", dir).Run() == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	d.command("umount", dir)
}

// layered makes a container's root of two layers, as an engine does: what is there is its image, and the run finds it on the disk.
func (d *loopDisk) layered(root string) {
	d.t.Helper()
	layers := root + ".layers"
	for _, name := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(layers, name), 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := errors.Join(os.Rename(root, filepath.Join(layers, "lower")), os.Mkdir(root, 0o755)); err != nil {
		d.t.Fatal(err)
	}
	d.umount(d.dir)
	d.layers, d.root = layers, root
	d.mount()
}

// settle writes all to the disk that came there before the test begins.
func (d *loopDisk) settle() {
	d.t.Helper()
	folder, err := os.Open(d.dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(folder.Fd())), folder.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// cut is the disk as the power finds it at this moment.
func (d *loopDisk) cut() (image string) {
	d.t.Helper()
	d.cuts++
	image = fmt.Sprintf("%s.%d", d.image, d.cuts)
	d.command("cp", "--sparse=always", d.image, image)
	return image
}

// comeUp is the machine with that disk.
func (d *loopDisk) comeUp(image string) {
	d.t.Helper()
	d.unmount()
	if err := os.Rename(image, d.image); err != nil {
		d.t.Fatal(err)
	}
	d.mount()
}

// onLoopDisk moves the world there, before anything is in it.
func (w *world) onLoopDisk(kind string) *loopDisk {
	d := newLoopDisk(w.t, kind, 320<<20) // XFS takes none below 300 MiB
	w.dir = d.dir
	return d
}

// booted: with the machine the containers start anew.
func (w *world) booted() {
	for _, b := range w.boxes {
		b.StartedAt, b.PID = b.StartedAt.Add(time.Second), b.PID+100
	}
}

// cutCase is a run during which the power goes.
type cutCase struct {
	name   string
	before func(w *world, set Set, f *files) // brings the host to where the run begins
	run    func() Options
	fails  string // the call that fails, so that the run goes back
}

func absentOptions() Options {
	o := options()
	o.State = Absent
	return o
}

var cutCases = []cutCase{
	{name: "present", run: options},
	{name: "absent", before: func(w *world, set Set, f *files) { w.mustRun(options(), set, f) }, run: absentOptions},
	{name: "rollback", run: options, fails: "cinder_volume: dpkg --set-selections"},
	{name: "library", run: libraryOptions},
	{name: "library absent", before: func(w *world, set Set, f *files) { w.mustRun(libraryOptions(), set, f) }, run: withoutLibrary},
}

// eachCutCase has a fresh world on a disk, in which this run is the next.
func eachCutCase(t *testing.T, do func(t *testing.T, c cutCase, w *world, d *loopDisk, set Set, f *files)) {
	for _, kind := range []string{"ext4", "xfs"} {
		for care, how := range map[disk]string{safe: "safe", unsafe: "force-unsafe-io"} {
			for _, c := range cutCases {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, how, c.name), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					d := w.onLoopDisk(kind)
					b := w.add("cinder_volume", tools(stock))
					b.disk = care
					d.layered(b.root)
					set, f := folder(t, newModule(patched))
					if c.before != nil {
						c.before(w, set, f)
					}
					d.settle()
					do(t, c, w, d, set, f)
				})
			}
		}
	}
}

// newModule has a file that the former version has not: what is new and what is replaced fare differently.
func newModule(version string) testDeb {
	d := tools(version)
	d.files["usr/lib/qemu/block-new.so"] = "a module of " + version
	return d
}

// failing is the world in which the case's call fails.
func (w *world) failing(c cutCase, also func(call string)) {
	w.fail = func(call string) error {
		also(call)
		if c.fails != "" && strings.HasPrefix(call, c.fails) {
			return errors.New("broken")
		}
		return nil
	}
}

func (w *world) runCase(c cutCase, set Set, f *files) {
	w.t.Helper()
	if _, err := w.run(c.run(), ansible.Call{}, set, f); (err != nil) != (c.fails != "") {
		w.t.Fatal(err)
	}
	w.fail = nil
}

// TestWhatARunSaysIsOnTheDiskWhenItSaysIt: the power goes the moment the run has ended, and what it left is there, to the byte.
func TestWhatARunSaysIsOnTheDiskWhenItSaysIt(t *testing.T) {
	eachCutCase(t, func(t *testing.T, c cutCase, w *world, d *loopDisk, set Set, f *files) {
		w.failing(c, func(string) {})
		w.runCase(c, set, f)
		cut, told := d.cut(), w.snapshot()
		d.comeUp(cut)
		if diff := cmp.Diff(told, w.snapshot()); diff != "" {
			t.Errorf("the disk lacks what the run left (-told +disk):\n%s", diff)
		}
		if journalLeft(w) {
			t.Error("the journal of the run is back")
		}
		w.booted()
		if c.fails != "" {
			return
		}
		if r, err := w.run(c.run(), ansible.Call{}, set, f); err != nil || r.Changed {
			t.Errorf("the next run: %v, %+v", err, r)
		}
	})
}

// TestPowerCutInARunIsMendedByTheNext: the power goes at each call of the run.
func TestPowerCutInARunIsMendedByTheNext(t *testing.T) {
	eachCutCase(t, func(t *testing.T, c cutCase, w *world, d *loopDisk, set Set, f *files) {
		type moment struct{ call, image string }
		var cuts []moment
		hit := func(call string) { cuts = append(cuts, moment{call, d.cut()}) }
		w.failing(c, hit)
		w.open = func(name string) error { hit(name + ": look"); return nil }
		w.runCase(c, set, f)
		w.open = nil
		if c.fails != "" { // the next run does not fail
			w.mustRun(c.run(), set, f)
		}
		want := w.snapshot()
		for i, cut := range cuts {
			d.comeUp(cut.image)
			w.booted()
			if r, err := w.run(c.run(), ansible.Call{}, set, f); err != nil {
				t.Fatalf("call %d, %s: the next run: %v, %+v", i+1, cut.call, err, r)
			}
			if diff := cmp.Diff(want, w.snapshot()); diff != "" {
				t.Errorf("call %d, %s: not whole (-want +got):\n%s", i+1, cut.call, diff)
			}
			if journalLeft(w) {
				t.Errorf("call %d, %s: the journal was not ended", i+1, cut.call)
			}
		}
	})
}

// TestWhatScriptsWroteIsOnTheDiskToo: maintainer scripts and triggers sync nothing.
func TestWhatScriptsWroteIsOnTheDiskToo(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.onLoopDisk(kind)
			b := w.add("cinder_volume", tools(stock))
			b.disk = unsafe
			w.must(os.MkdirAll(filepath.Join(b.root, "var/lib/systemd"), 0o755))
			d.layered(b.root)
			set, f := folder(t, tools(patched))
			d.settle()
			written := []string{"etc/ld.so.cache", "var/lib/systemd/enabled/qemu.service", "etc/systemd/system/multi-user.target.wants/qemu.service"}
			w.fail = func(call string) error {
				if strings.Contains(call, "--install") {
					for _, name := range written {
						w.must(os.MkdirAll(filepath.Join(b.root, filepath.Dir(name)), 0o755))
						w.must(os.WriteFile(filepath.Join(b.root, name), []byte("of a script"), 0o644))
					}
				}
				return nil
			}
			w.mustRun(options(), set, f)
			d.comeUp(d.cut())
			for _, name := range written {
				if text, err := os.ReadFile(filepath.Join(b.root, name)); err != nil || string(text) != "of a script" {
					t.Errorf("%s: %v, %q", name, err, text)
				}
			}
		})
	}
}

// TestContainerThatCannotBeSyncedIsNotDone: the journal keeps it for the next run.
func TestContainerThatCannotBeSyncedIsNotDone(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	list := filepath.Join(w.boxes["cinder_volume"].root, "var/lib/dpkg/info/qemu-utils.list")
	w.fail = func(call string) error {
		if strings.HasPrefix(call, "cinder_volume: dpkg --set-selections") {
			w.must(os.WriteFile(list, []byte("/usr/../..\n"), 0o644))
		}
		return nil
	}
	r, err := w.run(options(), ansible.Call{}, set, f)
	said := "cannot tell that what was done in cinder_volume is on the disk"
	if err == nil || !strings.Contains(err.Error(), said) || statuses(r) != "nova_libvirt patched, cinder_volume failed" {
		t.Errorf("%v, %s", err, statuses(r))
	}
	if !journalLeft(w) {
		t.Error("the journal was ended")
	}
	w.fail = nil
	w.must(os.WriteFile(list, []byte("/usr/bin/qemu-img\n"), 0o644))
	if w.mustRun(options(), set, f); journalLeft(w) {
		t.Error("the next run left the journal")
	}
}

// TestRunWithoutChangeSyncsNothing: it would fail, as these files are closed.
func TestRunWithoutChangeSyncsNothing(t *testing.T) {
	for _, steps := range [][]Step{nil, {{Verb: Install}}} {
		root, err := os.OpenRoot(t.TempDir())
		must(t, errors.Join(err, root.Close()))
		w := &work{target: &target{root: root, dpkg: true}, plan: ContainerPlan{Steps: steps}, before: Before{Packages: []BeforePackage{{}}}, done: true}
		newWorld(t).job().putOnDisk(t.Context(), []*work{w}, time.Now())
		if w.done != (len(steps) == 0) || (w.err == nil) != w.done {
			t.Errorf("%d steps: done is %v, the error %v", len(steps), w.done, w.err)
		}
	}
}

// qemu is a package of QEMU's source.
func qemu(version string) testDeb {
	d := qemuUtils(version)
	d.fields = "Source: qemu\n"
	return d
}

// TestAbsentSeesThatADistributionsProgramIsEmpty: nothing is kept, and the versions are right.
func TestAbsentSeesThatADistributionsProgramIsEmpty(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"nova_libvirt", "cinder_volume"} {
		w.add(name, qemu(stock))
	}
	if r, err := w.run(absentOptions(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "nova_libvirt unchanged, cinder_volume unchanged" {
		t.Fatalf("while all is whole: %v, %s", err, statuses(r))
	}
	program := filepath.Join(w.boxes["cinder_volume"].root, "usr/bin/qemu-img")
	w.must(os.Truncate(program, 0))
	for _, check := range []bool{true, false} {
		r, err := w.run(absentOptions(), ansible.Call{CheckMode: check}, Set{}, nil)
		if err == nil || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" {
			t.Fatalf("check mode %v: %v, %s", check, err, statuses(r))
		}
		said := []string{"cannot call cinder_volume as it was", "qemu-utils: /usr/bin/qemu-img is empty", "recreate", "--reinstall qemu-utils=" + stock}
		for _, want := range said {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
	}
}

// TestAbsentMendsWhatItKeeps: there the checksums are compared, though the version is right already.
func TestAbsentMendsWhatItKeeps(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemu(stock))
	set, f := folder(t, qemu(patched))
	before := w.snapshot()
	w.mustRun(options(), set, f)
	w.must(b.unpack(strings.NewReader(string(qemu(stock).bytes())), nil)) // by hand
	w.must(os.Truncate(filepath.Join(b.root, "usr/bin/qemu-img"), 0))
	if r, err := w.run(absentOptions(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" {
		t.Fatalf("%v, %s", err, statuses(r))
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

// TestEmptyProgramBesideThoseThatAreBroughtBackIsSaid: what can be taken back is.
func TestEmptyProgramBesideThoseThatAreBroughtBackIsSaid(t *testing.T) {
	w := newWorld(t)
	other := testDeb{name: "qemu-system-x86", version: stock, fields: "Source: qemu\n", files: map[string]string{"usr/bin/qemu-system-x86_64": "an emulator"}}
	b := w.add("cinder_volume", qemu(stock), other)
	set, f := folder(t, qemu(patched))
	w.mustRun(options(), set, f)
	w.must(os.Truncate(filepath.Join(b.root, "usr/bin/qemu-system-x86_64"), 0))
	r, err := w.run(absentOptions(), ansible.Call{}, Set{}, nil)
	if err != nil || statuses(r) != "cinder_volume restored" || !strings.Contains(strings.Join(r.Warnings, "\n"), "/usr/bin/qemu-system-x86_64 is empty") {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
	if r, err := w.run(absentOptions(), ansible.Call{}, Set{}, nil); err == nil {
		t.Errorf("the next run: %s", statuses(r))
	}
}

// TestEmptyProgramOfOursIsNoMatterOnTheWayBack: it is replaced.
func TestEmptyProgramOfOursIsNoMatterOnTheWayBack(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemu(stock))
	set, f := folder(t, qemu(patched))
	w.mustRun(options(), set, f)
	w.must(os.Truncate(filepath.Join(b.root, "usr/bin/qemu-img"), 0))
	if r, err := w.run(absentOptions(), ansible.Call{}, Set{}, nil); err != nil || statuses(r) != "cinder_volume restored" || len(r.Warnings) > 0 {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
}

// TestLibraryGoesThoughAProgramIsEmpty: the one does not wait for the other.
func TestLibraryGoesThoughAProgramIsEmpty(t *testing.T) {
	w := newWorld(t)
	d := tools(stock)
	d.fields = "Source: qemu\n"
	d.files["usr/bin/qemu-io"] = "qemu-io"
	b := w.add("cinder_volume", d)
	w.mustRun(libraryOptions(), Set{}, nil)
	w.must(os.Truncate(filepath.Join(b.root, "usr/bin/qemu-io"), 0))
	o := absentOptions()
	o.PatchSet, o.RemoteSrc = "", false
	r, err := w.run(o, ansible.Call{}, Set{}, nil)
	if err != nil || statuses(r) != "cinder_volume restored" || !strings.Contains(strings.Join(r.Warnings, "\n"), "/usr/bin/qemu-io is empty") {
		t.Errorf("%v, %s, %v", err, statuses(r), r.Warnings)
	}
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err == nil {
		t.Errorf("the next run: %s", statuses(r))
	}
}

// TestPresentMendsAnEmptyProgramOfOurs: versions alone say that all is in order.
func TestPresentMendsAnEmptyProgramOfOurs(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemu(stock))
	set, f := folder(t, qemu(patched))
	w.mustRun(options(), set, f)
	w.must(os.Truncate(filepath.Join(b.root, "usr/bin/qemu-img"), 0))
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || statuses(r) != "cinder_volume patched" || w.program("cinder_volume") != patched {
		t.Errorf("%v, %s", err, statuses(r))
	}
}

// TestWhatDpkgItselfWroteIsOnTheDisk: the real one, with force-unsafe-io and without, and a script that writes.
func TestWhatDpkgItselfWroteIsOnTheDisk(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("there is no dpkg here")
	}
	for _, kind := range []string{"ext4", "xfs"} {
		for _, force := range []string{"--force-unsafe-io", "--no-force-unsafe-io"} {
			t.Run(kind+"/"+force, func(t *testing.T) {
				t.Parallel()
				d := newLoopDisk(t, kind, 320<<20)
				container := filepath.Join(d.dir, "cinder_volume")
				install := func(version, file string) {
					built := buildDeb(t, version, file)
					d.command("dpkg", "--root="+container, force, "--force-script-chrootless,not-root,bad-path", "--log=/dev/null", "--install", built)
				}
				for _, name := range []string{"status", "available", "info/format"} {
					must(t, os.MkdirAll(filepath.Join(container, "var/lib/dpkg", filepath.Dir(name)), 0o755))
					must(t, os.WriteFile(filepath.Join(container, "var/lib/dpkg", name), []byte(map[string]string{"info/format": "1\n"}[name]), 0o644))
				}
				must(t, os.MkdirAll(filepath.Join(container, "var/lib/dpkg/updates"), 0o755))
				must(t, os.MkdirAll(filepath.Join(container, "etc"), 0o755))
				install("1", "former")
				d.layered(container)
				d.settle()
				install("2", "new")
				root, err := os.OpenRoot(container)
				must(t, err)
				s := syncing{root: root, now: time.Now(), age: time.Minute, files: map[string]bool{}, folders: map[string]bool{}}
				must(t, errors.Join(s.addPackages([]deb.Package{{Name: "qemu-utils"}}), s.sync(), root.Close()))
				cut, told := d.cut(), tree(t, container)
				d.comeUp(cut)
				if diff := cmp.Diff(told, tree(t, container)); diff != "" {
					t.Errorf("the disk lacks what dpkg left (-dpkg +disk):\n%s", diff)
				}
				if told["usr/lib/qemu/new.so"] == "" || told["etc/written"] == "" || told["usr/lib/qemu/former.so"] != "" {
					t.Errorf("dpkg did not do what it was to do: %v", told)
				}
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// buildDeb makes a package of a program that each version replaces, a library of its own, and a script.
func buildDeb(t *testing.T, version, file string) string {
	t.Helper()
	dir := t.TempDir()
	text := strings.Repeat("of version "+version+"\n", 1000)
	for name, text := range map[string]string{
		"usr/bin/qemu-img": text, "usr/lib/qemu/" + file + ".so": text,
		"DEBIAN/control":  "Package: qemu-utils\nVersion: " + version + "\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: a test\n",
		"DEBIAN/md5sums":  "0123456789abcdef0123456789abcdef  usr/bin/qemu-img\n",
		"DEBIAN/postinst": "#!/bin/sh\nset -e\necho " + version + " >\"$DPKG_ROOT/etc/written\"\n",
	} {
		must(t, os.MkdirAll(filepath.Join(dir, "tree", filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "tree", name), []byte(text), 0o755))
	}
	built := filepath.Join(dir, "qemu-utils.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", filepath.Join(dir, "tree"), built).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return built
}

// tree is every file below a folder, by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(text)
		return err
	}))
	return all
}
