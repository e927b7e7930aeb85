package lockfix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// refuses is what dpkg would stop at before it unpacks, or in the middle, in this world's containers.
func (b *box) refuses(args []string) error {
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(b.root, name))
		return string(text)
	}
	for line := range strings.Lines(read("var/lib/dpkg/statoverride")) {
		if user, _, _ := strings.Cut(line, " "); !strings.Contains("\n"+read("etc/passwd"), "\n"+user+":") {
			return fmt.Errorf("unknown system user '%s' in statoverride file", user)
		}
	}
	settings := read("etc/dpkg/dpkg.cfg")
	if strings.Contains(settings, "no-act\n") {
		return errors.New("nothing was done, and this is called success")
	}
	root, err := os.OpenRoot(b.root)
	if err != nil {
		return err
	}
	defer root.Close()
	db, err := deb.OpenDatabase(root)
	if err != nil {
		return err
	}
	for _, name := range args[slices.Index(args, "--install")+1:] {
		f, err := os.Open(b.root + name)
		if err != nil {
			return err
		}
		archive, err := deb.ReadArchive(f)
		f.Close()
		if err != nil {
			return nil // unpack says what is the matter
		}
		p := archive.Package
		for clause := range strings.SplitSeq(p.Depends, ", ") {
			if name, _, _ := strings.Cut(clause, " "); name != "" && !db.Installed(name) {
				return fmt.Errorf("dependency problems prevent configuration of %s: it depends on %s", p.Name, name)
			}
		}
		have, _ := db.Package(p.Name)
		older := false
		if have.Version != "" {
			order, err := deb.CompareVersions(p.Version, have.Version)
			older = err == nil && order < 0
		}
		if older && strings.Contains(settings, "refuse-downgrade\n") && !slices.Contains(args, "--force-downgrade") {
			return fmt.Errorf("will not downgrade %s", p.Name)
		}
		for path := range archive.Md5sums {
			if slices.Contains(b.mounted, "/"+path) {
				return fmt.Errorf("unable to make backup link of './%s' before installing new version: Invalid cross-device link", path)
			}
		}
	}
	return nil
}

// link is perl with one of the two commands for hard links.
func (b *box) link(args []string) string {
	b.trials = append(b.trials, strings.Join(args[1:], " "))
	var out strings.Builder
	for _, file := range args[1:] {
		errno := 0
		if b.noLinks {
			errno = 18
		} else if !strings.Contains(args[0], "unlink") {
			errno = 17
		}
		fmt.Fprintf(&out, "%d %s\n", errno, file)
	}
	return out.String()
}

// mount lets something be mounted in a container.
func (w *world) mount(b *box, path, options string) {
	w.t.Helper()
	b.mounted = append(b.mounted, path)
	dir := filepath.Join(w.proc, fmt.Sprint(b.PID))
	w.must(os.MkdirAll(dir, 0o755))
	f, err := os.OpenFile(filepath.Join(dir, "mountinfo"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	w.must(err)
	_, err = fmt.Fprintf(f, "40 1 8:1 / %s %s - ext4 /dev/sda1 rw\n", path, options)
	w.must(errors.Join(err, f.Close()))
}

func (w *world) unmount(b *box) {
	w.t.Helper()
	b.mounted = nil
	w.must(os.RemoveAll(filepath.Join(w.proc, fmt.Sprint(b.PID))))
}

func (w *world) write(b *box, name, text string) {
	w.t.Helper()
	name = filepath.Join(b.root, name)
	w.must(os.MkdirAll(filepath.Dir(name), 0o755))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o755)
	w.must(err)
	_, err = f.WriteString(text)
	w.must(errors.Join(err, f.Close()))
}

// iscsi is what dependentUtils depends on.
var iscsi = testDeb{name: "libiscsi7", version: "1"}

func dependentUtils(version string) testDeb {
	p := qemuUtils(version)
	p.fields = "Depends: libiscsi7\n"
	return p
}

// TestWhatDpkgWouldRefuseIsFoundBeforeAnythingIsBegun has each thing that the world's dpkg stops at: check mode says the same as a run, and neither begins
// anything, in the other container neither. Then it is mended, and the run does all.
func TestWhatDpkgWouldRefuseIsFoundBeforeAnythingIsBegun(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  func(w *world, b *box)
		mend   func(w *world, b *box)
		want   string
		hint   string
		passes bool // dpkg does it all the same
	}{
		{
			name:  "hard links refused",
			fault: func(_ *world, b *box) { b.noLinks, b.Seccomp = true, "custom" },
			mend:  func(_ *world, b *box) { b.noLinks = false },
			want:  "/var/lib/dpkg/status: no hard link can be made of it (invalid cross-device link)", hint: "seccomp",
		},
		{
			name:  "an override of a user that is not there",
			fault: func(w *world, b *box) { w.write(b, "var/lib/dpkg/statoverride", "messagebus root 4754 /x\n") },
			mend: func(w *world, b *box) {
				w.write(b, "etc/passwd", "messagebus:x:1:1:::\n")
				w.write(b, "etc/group", "root:x:0:\n")
			},
			want: `/var/lib/dpkg/statoverride:1: there is no user "messagebus"`, hint: "dpkg-statoverride --remove /x",
		},
		{
			name:  "a mount over a file",
			fault: func(w *world, b *box) { w.mount(b, "/usr/bin/qemu-img", "ro") },
			mend:  (*world).unmount,
			want:  "qemu-utils: /usr/bin/qemu-img: something is mounted there", hint: "volumes",
		},
		{
			name:  "a mount over a folder with programs",
			fault: func(w *world, b *box) { w.mount(b, "/usr/bin", "rw") },
			mend:  (*world).unmount,
			want:  "cannot patch cinder_volume: dpkg can put the packages there, and what runs would not be theirs: qemu-utils: /usr/bin/qemu-img: it is in what is mounted at /usr/bin", hint: "image", passes: true,
		},
		{
			name: "a dependency that was removed",
			fault: func(w *world, b *box) {
				w.must(b.edit("libiscsi7", restate("install ok installed", "deinstall ok config-files")))
			},
			mend: func(w *world, b *box) {
				w.must(b.edit("libiscsi7", restate("deinstall ok config-files", "install ok installed")))
			},
			want: "qemu-utils 1:7.2-7+nfslock1 Depends libiscsi7: nothing meets it", hint: "apt-get -f install",
		},
		{
			name:  "a dependency that is half configured",
			fault: func(w *world, b *box) { w.must(b.edit("libiscsi7", restate("ok installed", "ok half-configured"))) },
			mend:  func(w *world, b *box) { w.must(b.edit("libiscsi7", restate("ok half-configured", "ok installed"))) },
			want:  "libiscsi7 is half-configured: dpkg does not configure the package", hint: "apt-get -f install",
		},
		{
			name:  "a configuration with which dpkg does nothing",
			fault: func(w *world, b *box) { w.write(b, "etc/dpkg/dpkg.cfg", "no-act\n") },
			mend: func(w *world, b *box) {
				w.must(os.WriteFile(filepath.Join(b.root, "etc/dpkg/dpkg.cfg"), []byte(footprint), 0o644))
			},
			want: "/etc/dpkg/dpkg.cfg:2: no-act makes dpkg do nothing", hint: "take that line out",
		},
		{
			name: "a diversion with another program in its place",
			fault: func(w *world, b *box) {
				w.write(b, "var/lib/dpkg/diversions", "/usr/bin/qemu-img\n/usr/bin/qemu-img.distrib\n:\n")
				w.must(os.Rename(filepath.Join(b.root, "usr/bin/qemu-img"), filepath.Join(b.root, "usr/bin/qemu-img.distrib")))
				w.write(b, "usr/bin/qemu-img", "ELF")
			},
			mend: func(w *world, b *box) {
				w.must(os.Remove(filepath.Join(b.root, "var/lib/dpkg/diversions")))
				w.must(os.Rename(filepath.Join(b.root, "usr/bin/qemu-img.distrib"), filepath.Join(b.root, "usr/bin/qemu-img")))
			},
			want: "qemu-utils: /usr/bin/qemu-img: it is diverted to /usr/bin/qemu-img.distrib, and what runs is another program", hint: "dpkg-divert", passes: true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.add("nova_libvirt", dependentUtils(stock), iscsi)
			b := w.add("cinder_volume", dependentUtils(stock), iscsi)
			set, f := folder(t, dependentUtils(patched))
			test.fault(w, b)
			before := w.snapshot()
			for _, check := range []bool{true, false, true, false} {
				r, err := w.run(options(), ansible.Call{CheckMode: check}, set, f)
				if err == nil || statuses(r) != "nova_libvirt unchanged, cinder_volume failed" || r.Changed {
					t.Fatalf("check %v: %v, %+v", check, err, r)
				}
				e := r.Containers[1].Error
				if e.Step != "plan" || !strings.Contains(e.Message, test.want) || !strings.Contains(e.Hint, test.hint) {
					t.Errorf("check %v: %+v", check, *e)
				}
				if _, err := os.Stat(w.job().baseline("cinder_volume")); len(w.calls) > 0 || err == nil || journalLeft(w) {
					t.Errorf("check %v: something was begun: %v", check, w.calls)
				}
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
			w.write(b, "tmp.deb", string(dependentUtils(patched).bytes()))
			err := b.dpkg(engine.Command{Args: []string{"dpkg", "--install", "/tmp.deb"}})
			if (err == nil) != test.passes {
				t.Errorf("dpkg says: %v", err)
			}
			w.must(os.Remove(filepath.Join(b.root, "tmp.deb")))
			if test.passes {
				return
			}
			test.mend(w, b)
			if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || statuses(r) != "nova_libvirt patched, cinder_volume patched" {
				t.Errorf("mended: %v, %+v", err, r)
			}
		})
	}
}

func restate(from, to string) func(string) string {
	return func(stanza string) string { return strings.Replace(stanza, from, to, 1) }
}

// TestWhatDpkgIsConfiguredAgainstIsSetAsideAndSaid: with refuse-downgrade a patched container had no way back.
func TestWhatDpkgIsConfiguredAgainstIsSetAsideAndSaid(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	w.write(b, "etc/dpkg/dpkg.cfg", "refuse-downgrade\nforce-confnew\npost-invoke=\"touch /x\"\n")
	set, f := folder(t, qemuUtils(patched))
	before := w.snapshot()
	back := options()
	back.State = Absent
	for _, step := range []struct {
		o   Options
		set Set
		f   *files
	}{{options(), set, f}, {back, Set{}, nil}} {
		for _, check := range []bool{true, false} {
			r, err := w.run(step.o, ansible.Call{CheckMode: check}, step.set, step.f)
			said := strings.Join(r.Warnings, "\n")
			if err != nil || !strings.Contains(said, "--force-downgrade --refuse-confnew") || !strings.Contains(said, `"touch /x" (post-invoke, /etc/dpkg/dpkg.cfg:4)`) {
				t.Fatalf("%s, check %v: %v, %s", step.o.State, check, err, said)
			}
		}
	}
	for _, call := range w.calls {
		if strings.Contains(call, "--install") && !strings.Contains(call, "--force-confold --force-downgrade --refuse-confnew --") {
			t.Error(call)
		}
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || len(r.Warnings) != 2 {
		t.Fatalf("%v, %v", err, r.Warnings)
	}
	if r, err := w.run(options(), ansible.Call{}, set, f); err != nil || len(r.Warnings) > 0 {
		t.Errorf("nothing is installed, and yet it is said: %v, %v", err, r.Warnings)
	}
	// A rollback is such a call, too.
	w.mustRun(back, Set{}, nil)
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
}

func TestAPackageThatDpkgWouldPassOverIsNotCalledMended(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	w.write(b, "etc/dpkg/dpkg.cfg", "skip-same-version\n")
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	w.must(os.WriteFile(filepath.Join(b.root, "usr/bin/qemu-img"), []byte("altered"), 0o755))
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "/etc/dpkg/dpkg.cfg:2: it makes dpkg pass over a package in the version that is there") || len(w.calls) > 0 {
		t.Errorf("%v, %+v, %v", err, r, w.calls)
	}
}

// TestHardLinksAreTriedOnlyWhereDpkgIsToWork: each trial is a call of the engine, and check mode makes no link.
func TestHardLinksAreTriedOnlyWhereDpkgIsToWork(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	libvirt, volume := w.boxes["nova_libvirt"], w.boxes["cinder_volume"]
	libvirt.Seccomp = "custom"
	left := []string{"usr/bin/qemu-img.nfslock-link", "var/lib/dpkg/status.nfslock-link"}
	for _, name := range left {
		w.write(volume, name, "")
	}
	tried := func(o Options, check bool, set Set, f *files) string {
		libvirt.trials, volume.trials = nil, nil
		if _, err := w.run(o, ansible.Call{CheckMode: check}, set, f); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(libvirt.trials, volume.trials)
	}
	const status, all = "/var/lib/dpkg/status", "/var/lib/dpkg/status /usr/bin/qemu-img"
	back, library := options(), libraryOptions()
	back.State = Absent
	for _, test := range []struct {
		name string
		got  func() string
		want string
	}{
		{"check mode", func() string { return tried(options(), true, set, f) }, "[" + status + "] []"},
		{"the library", func() string { return tried(library, false, Set{}, nil) }, "[] []"},
		{"an install", func() string { return tried(options(), false, set, f) }, "[" + all + "] [" + all + "]"},
		{"nothing to do", func() string { return tried(options(), false, set, f) }, "[] []"},
		{"a hold", func() string {
			w.must(volume.edit("qemu-utils", restate("hold ok", "install ok")))
			return tried(options(), false, set, f)
		}, "[] [" + status + "]"},
		{"the way back", func() string { return tried(back, false, Set{}, nil) }, "[" + all + "] [" + all + "]"},
	} {
		if got := test.got(); got != test.want {
			t.Errorf("%s: %s", test.name, got)
		}
	}
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(volume.root, name)); err == nil {
			t.Errorf("what a trial that was killed left is still there: %s", name)
		}
	}
}

// TestAHoldThatDpkgCannotSetIsFoundBefore: it writes its status as an install does.
func TestAHoldThatDpkgCannotSetIsFoundBefore(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	w.must(b.edit("qemu-utils", restate("hold ok", "install ok")))
	b.noLinks = true
	if r, err := w.run(options(), ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "no hard link can be made") || len(w.calls) > 0 || journalLeft(w) {
		t.Errorf("%v, %+v, %v", err, r, w.calls)
	}
	b.noLinks = false
	w.write(b, "etc/dpkg/dpkg.cfg", "no-act\n")
	if r, err := w.run(options(), ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "no-act") || len(w.calls) > 0 || journalLeft(w) {
		t.Errorf("%v, %+v, %v", err, r, w.calls)
	}
}

// TestAWayBackThatDpkgWouldRefuseIsNotBegun: a run died in the container, and since then dpkg can do nothing there. It is stuck: said once to runs that are
// for others, and to each that is for it; nobody waits for it but the first one.
func TestAWayBackThatDpkgWouldRefuseIsNotBegun(t *testing.T) {
	set, f := folder(t, qemuUtils(patched))
	back := options()
	back.State = Absent
	for _, test := range []struct {
		name string
		o    Options
		set  Set
		f    *files
		fail bool
		want string // the next time
		then string // when it is mended
	}{
		{"nobody asks for it", only("nova_libvirt"), set, f, false, "nova_libvirt unchanged", "nova_libvirt unchanged"},
		{"it is to be patched", options(), set, f, true, "nova_libvirt unchanged, cinder_volume failed", "nova_libvirt unchanged, cinder_volume patched"},
		{"it is to be restored", back, Set{}, nil, true, "nova_libvirt restored, cinder_volume failed", "nova_libvirt unchanged, cinder_volume restored"},
		{"the library is to come", libraryOptions(), Set{}, nil, true, "nova_libvirt skipped, cinder_volume failed", "nova_libvirt skipped, cinder_volume patched"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := twoContainers(t)
			w.mustRun(only("nova_libvirt"), set, f)
			b := w.boxes["cinder_volume"]
			w.stopIn("cinder_volume: dpkg --force", nil, only("cinder_volume"), set, f)
			w.must(b.edit("qemu-utils", restate("install ok installed", "install ok half-configured")))
			w.mount(b, "/usr/bin/qemu-img", "rw")
			before := w.snapshot()
			w.calls = nil
			says := func(said string) bool {
				return strings.Contains(said, "/usr/bin/qemu-img: something is mounted there") && strings.Contains(said, "take that mount out")
			}
			for _, check := range []bool{true, true, false} {
				r, err := w.run(test.o, ansible.Call{CheckMode: check}, test.set, test.f)
				said := fmt.Sprint(err, r.Warnings)
				if (err != nil) != test.fail || !says(said) || !strings.Contains(said, "left it unfinished") {
					t.Fatalf("check %v: %s: %s", check, statuses(r), said)
				}
				if !journalLeft(w) || len(w.calls) > 0 {
					t.Errorf("check %v: %s: %v", check, statuses(r), w.calls)
				}
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
			record := filepath.Join(w.job().dir, "journal", "cinder_volume.json")
			first, err := os.ReadFile(record)
			if err != nil || !says(string(first)) {
				t.Errorf("%v, %s", err, first)
			}
			for range 2 {
				r, err := w.run(test.o, ansible.Call{}, test.set, test.f)
				said := fmt.Sprint(err, r.Warnings)
				if (err != nil) != test.fail || says(said) != test.fail || strings.Contains(said, "left it stuck") != test.fail || w.touched("cinder_volume") {
					t.Errorf("the next time: %s: %s: %v", statuses(r), said, w.calls)
				}
				if again := strings.Replace(statuses(r), "nova_libvirt unchanged", "nova_libvirt restored", 1); statuses(r) != test.want && again != test.want {
					t.Errorf("the next time: %s", statuses(r))
				}
			}
			if now, err := os.ReadFile(record); err != nil || string(now) != string(first) {
				t.Errorf("it is written again: %v, %s", err, now)
			}
			w.unmount(b)
			r, err := w.run(test.o, ansible.Call{}, test.set, test.f)
			if err != nil || journalLeft(w) == test.fail || statuses(r) != test.then {
				t.Errorf("mended: %v, %+v", err, r)
			}
			if test.fail {
				return
			}
			if r, err := w.run(only("cinder_volume"), ansible.Call{}, set, f); err != nil || journalLeft(w) || statuses(r) != "cinder_volume patched" {
				t.Errorf("mended, and asked for: %v, %+v", err, r)
			}
		})
	}
}

func TestWhatRunsInsteadIsOnlyNotedOnTheWayBack(t *testing.T) {
	w := newWorld(t)
	b := w.add("cinder_volume", qemuUtils(stock))
	set, f := folder(t, qemuUtils(patched))
	w.mustRun(options(), set, f)
	w.mount(b, "/usr/bin", "rw")
	if _, err := w.run(options(), ansible.Call{}, set, f); err == nil || !strings.Contains(err.Error(), "cannot patch cinder_volume") {
		t.Errorf("it is patched already, and what runs is another program: %v", err)
	}
	o := options()
	o.State = Absent
	r, err := w.run(o, ansible.Call{}, Set{}, nil)
	if err != nil || statuses(r) != "cinder_volume restored" || !strings.Contains(strings.Join(r.Warnings, "\n"), "/usr/bin/qemu-img: it is in what is mounted at /usr/bin") {
		t.Errorf("%v, %+v", err, r)
	}
}
