package lockfix

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

func libraryOptions() Options {
	o := options()
	o.PatchSet, o.RemoteSrc, o.Method = "", false, MethodLibrary
	return o
}

func withoutLibrary() Options {
	o := libraryOptions()
	o.State = Absent
	return o
}

// elfOf is as much of a program as is looked at: its header, and its interpreter.
func elfOf(interpreter string) string {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	size := uint64(len(interpreter) + 1)
	_ = binary.Write(&b, binary.LittleEndian, header)
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Flags: 4, Off: 120, Filesz: size, Memsz: size, Align: 1})
	return b.String() + interpreter + "\x00"
}

// tools is a package whose program is one.
func tools(version string) testDeb {
	d := qemuUtils(version)
	d.files["usr/bin/qemu-img"] = elfOf("/lib64/ld-linux-x86-64.so.2") + version
	return d
}

// kollaHost has a container of each distribution, one where guests run, one that has no QEMU, and somebody else's preloaded library.
func kollaHost(t *testing.T) *world {
	w := newWorld(t)
	for _, name := range []string{"nova_libvirt", "cinder_volume", "glance_api", "cinder_api"} {
		b := w.add(name, tools(stock))
		w.must(os.MkdirAll(filepath.Join(b.root, "usr/lib"), 0o755))
	}
	w.boxes["glance_api"].rpm()
	w.must(os.Remove(filepath.Join(w.boxes["cinder_api"].root, "usr/bin/qemu-img")))
	w.must(os.WriteFile(filepath.Join(w.boxes["cinder_volume"].root, preload.List), []byte("/usr/lib/other.so"), 0o644))
	w.libvirt(w.boxes["nova_libvirt"])
	return w
}

// libvirt gives the container a process.
func (w *world) libvirt(b *box) {
	b.daemon = 5000
	w.process(b, b.daemon, "libvirtd", "/usr/sbin/libvirtd")
}

// process is one that was started in a container just now, with what the list names then.
func (w *world) process(b *box, pid int, name, program string) {
	dir := filepath.Join(w.proc, fmt.Sprint(pid))
	w.must(os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	maps := "7f00-7f01 r-xp 00001000 00:3b 12 " + program + "\n"
	root, err := os.OpenRoot(b.root)
	w.must(err)
	defer root.Close()
	if s, err := preloaded.Read(root); err == nil && s.Active() {
		maps += "7f02-7f03 r-xp 00001000 00:3b 13 " + preload.Library + "\n"
	}
	for file, text := range map[string]string{
		"comm": name + "\n", "status": "Name:\t" + name + "\nState:\tS (sleeping)\nNSpid:\t5\n", "cgroup": "0::/docker/" + b.ID + "\n", "maps": maps,
		"cmdline": program + "\x00-name\x00guest=instance-1\x00",
	} {
		w.must(os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	w.must(os.Symlink("mnt:[2]", filepath.Join(dir, "ns", "mnt")))
	w.must(os.Symlink(filepath.Join(b.root, program), filepath.Join(dir, "exe")))
}

func (w *world) state(name string) preloaded.State {
	root, err := os.OpenRoot(w.boxes[name].root)
	w.must(err)
	defer root.Close()
	s, err := preloaded.Read(root)
	w.must(err)
	return s.State
}

func TestLibraryComesAndGoes(t *testing.T) {
	w := kollaHost(t)
	before := w.snapshot()
	check, err := w.run(libraryOptions(), ansible.Call{CheckMode: true, Diff: true}, Set{}, nil)
	want := "nova_libvirt patched, cinder_api skipped, cinder_volume patched, glance_api patched"
	if err != nil || !check.Changed || statuses(check) != want || len(check.Diff) != 3 {
		t.Fatalf("check mode: %v, %+v", err, check)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" || len(w.calls) > 0 {
		t.Fatalf("check mode changed something: %v\n%s", w.calls, diff)
	}
	r, err := w.run(libraryOptions(), ansible.Call{Diff: true}, Set{}, nil)
	if err != nil || !r.Changed || statuses(r) != want || r.Msg != "3 patched, 1 skipped" {
		t.Fatalf("first run: %v, %+v", err, r)
	}
	if diff := cmp.Diff(check.Diff, r.Diff); diff != "" {
		t.Errorf("check mode promised another diff (-promised +done):\n%s", diff)
	}
	if got := r.Containers[2].Library; *got != (LibraryRow{preloaded.None, preloaded.Installed, preloaded.Installed}) {
		t.Errorf("%+v", got)
	}
	if got, want := fmt.Sprint(w.calls), "[nova_libvirt: restart]"; got != want {
		t.Errorf("calls %s", got)
	}
	record, err := preloaded.ReadRecord(w.job().dir)
	if err != nil || len(record.Containers) != 3 || record.Containers["glance_api"].ID != w.boxes["glance_api"].ID {
		t.Errorf("%v, %+v", err, record)
	}
	again, err := w.run(libraryOptions(), ansible.Call{Diff: true}, Set{}, nil)
	if err != nil || again.Changed || len(again.Warnings) > 0 || len(again.Diff) > 0 || len(w.calls) > 1 {
		t.Errorf("second run: %v, %+v", err, again)
	}
	back, err := w.run(withoutLibrary(), ansible.Call{}, Set{}, nil)
	if err != nil || statuses(back) != "nova_libvirt restored, cinder_api unchanged, cinder_volume restored, glance_api restored" || !back.Containers[0].Restarted {
		t.Fatalf("absent: %v, %+v", err, back)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("absent left a difference (-before +after):\n%s", diff)
	}
	if record, err := preloaded.ReadRecord(w.job().dir); err != nil || len(record.Containers) > 0 {
		t.Errorf("%v, %+v", err, record)
	}
	if twice, err := w.run(withoutLibrary(), ansible.Call{}, Set{}, nil); err != nil || twice.Changed {
		t.Errorf("absent twice: %v, %+v", err, twice)
	}
}

// Each is taken back as it was asked for, and both in one run with one restart where nothing was said.
func TestPackagesAndLibraryTogether(t *testing.T) {
	set, f := folder(t, tools(patched))
	packages := options()
	packages.Method = MethodPackages
	for _, test := range []struct {
		name, method     string
		version          string
		state            preloaded.State
		restored, absent string
	}{
		{"both", "", stock, preloaded.None, "nova_libvirt restored", ""},
		{"the library", MethodLibrary, patched, preloaded.None, "nova_libvirt restored", ""},
		{"the packages", MethodPackages, stock, preloaded.Installed, "nova_libvirt restored", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.add("nova_libvirt", tools(stock))
			w.must(os.MkdirAll(filepath.Join(b.root, "usr/lib"), 0o755))
			w.libvirt(b)
			w.mustRun(packages, set, f)
			if r, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "harmless") {
				t.Fatalf("%v, %+v", err, r)
			}
			for _, o := range []Options{packages, libraryOptions()} {
				if r, err := w.run(o, ansible.Call{}, set, f); err != nil || r.Changed || r.Containers[0].Library.After != preloaded.Installed {
					t.Errorf("again with %s: %v, %+v", o.Method, err, r)
				}
			}
			w.calls = nil
			o := withoutLibrary()
			o.Method = test.method
			if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || statuses(r) != test.restored {
				t.Fatalf("%v, %+v", err, r)
			}
			if now, _ := os.ReadFile(filepath.Join(b.root, "usr/bin/qemu-img")); !strings.HasSuffix(string(now), "\x00"+test.version) || w.state("nova_libvirt") != test.state {
				t.Errorf("it has %q, and the library is %s", now[len(now)-20:], w.state("nova_libvirt"))
			}
			if w.restarts() != 1 {
				t.Errorf("calls %v", w.calls)
			}
		})
	}
}

func TestARestartThatIsOwedToTheLibrary(t *testing.T) {
	w := kollaHost(t)
	o := libraryOptions()
	o.Restart = RestartNever
	if r, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil || w.restarts() > 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "libvirtd (process 5000) runs without the library") {
		t.Fatalf("%v, %+v", err, r)
	}
	r, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil)
	if err != nil || !r.Changed || !r.Containers[0].Restarted || w.restarts() != 1 || r.Containers[0].Status != Unchanged {
		t.Errorf("%v, %+v", err, r)
	}
	if again, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil || again.Changed || w.restarts() != 1 {
		t.Errorf("%v, %+v", err, again)
	}
}

// A libvirtd that comes up without the library is an error, and all goes back.
func TestALibvirtThatDoesNotLoadItIsNoSuccess(t *testing.T) {
	w := kollaHost(t)
	before := w.snapshot()
	w.boxes["nova_libvirt"].daemon = 0 // the next one is not this world's
	_, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot get the library into or out of libvirtd in nova_libvirt") {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestGuestsWithoutTheLibraryAreNamed(t *testing.T) {
	w := kollaHost(t)
	b := w.boxes["nova_libvirt"]
	program := filepath.Join(b.root, "usr/bin/qemu-system-x86_64")
	w.must(os.WriteFile(program, []byte(elfOf("/lib64/ld-linux-x86-64.so.2")), 0o755))
	w.must(os.MkdirAll(filepath.Dir(b.root+program), 0o755)) // a process of this world knows its program by the whole path
	w.must(os.Link(program, b.root+program))
	w.process(b, 6000, "qemu-system-x86", "/usr/bin/qemu-system-x86_64")
	r, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil)
	if err != nil || fmt.Sprint(r.Containers[0].StaleQEMU) != "[{6000 instance-1}]" {
		t.Fatalf("%v, %+v", err, r)
	}
	w.must(os.RemoveAll(filepath.Join(w.proc, "6000")))
	w.process(b, 6001, "qemu-system-x86", "/usr/bin/qemu-system-x86_64")
	if r, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil || len(r.Containers[0].StaleQEMU) > 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

// The engine loses a container at any moment of the run: it is done all the same, or all is as before.
func TestLibraryIsWholeWhateverFails(t *testing.T) {
	for _, way := range []struct {
		name    string
		o       Options
		prepare bool
	}{{"present", libraryOptions(), false}, {"absent", withoutLibrary(), true}} {
		t.Run(way.name, func(t *testing.T) {
			for n := 1; ; n++ {
				w := kollaHost(t)
				if way.prepare {
					w.mustRun(libraryOptions(), Set{}, nil)
				}
				before := w.snapshot()
				count, after := 0, map[string]string(nil)
				w.open = func(string) error {
					if count++; count >= n && count < n+3 {
						return errors.New("it went away")
					}
					return nil
				}
				_, err := w.run(way.o, ansible.Call{}, Set{}, nil)
				w.open = nil
				if after = w.snapshot(); err != nil {
					if diff := cmp.Diff(before, after); diff != "" {
						t.Errorf("call %d: %v (-before +after):\n%s", n, err, diff)
					}
				} else if cmp.Equal(before, after) {
					t.Errorf("call %d: no error, and nothing was done", n)
				}
				if journalLeft(w) {
					t.Errorf("call %d left the journal", n)
				}
				if count < n {
					return
				}
			}
		})
	}
}

// A run of one method that was told to stop is finished or taken back by one of the other.
func TestLibraryRunThatDiedIsTakenBackByOneWithPackages(t *testing.T) {
	set, f := folder(t, tools(patched))
	w := kollaHost(t)
	before := w.snapshot()
	one := libraryOptions()
	one.Containers = []string{"cinder_volume"}
	w.stopAtOpen(one)
	if !journalLeft(w) {
		t.Fatal("it came to its end")
	}
	packages := options()
	packages.Containers = []string{"cinder_volume"}
	r, err := w.run(packages, ansible.Call{}, set, f)
	if err != nil || w.state("cinder_volume") != preloaded.None || statuses(r) != "cinder_volume patched" {
		t.Fatalf("%v, %+v", err, r)
	}
	packages.State, packages.Method = Absent, MethodPackages
	w.mustRun(packages, Set{}, nil)
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestPackagesRunThatDiedIsTakenBackByOneWithTheLibrary(t *testing.T) {
	set, f := folder(t, tools(patched))
	w := kollaHost(t)
	before := w.snapshot()
	one := options()
	one.Containers = []string{"cinder_volume"}
	if _, err, came := w.stopAt(1, one, set, f); !came || err == nil {
		t.Fatalf("%v, %v", came, err)
	}
	o := libraryOptions()
	o.Containers = one.Containers
	r, err := w.run(o, ansible.Call{}, Set{}, nil)
	if now, _ := os.ReadFile(filepath.Join(w.boxes["cinder_volume"].root, "usr/bin/qemu-img")); err != nil || w.state("cinder_volume") != preloaded.Installed || !strings.HasSuffix(string(now), "\x00"+stock) {
		t.Fatalf("%v, %+v", err, r)
	}
	o.State, o.Method = Absent, ""
	w.mustRun(o, Set{}, nil)
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

// stopAtOpen is a run that is told to stop once the list names the library.
func (w *world) stopAtOpen(o Options) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	w.open = func(name string) error {
		if text, _ := os.ReadFile(filepath.Join(w.dir, name, preload.List)); ctx.Err() == nil && strings.Contains(string(text), preload.Library) {
			stop()
			return ctx.Err()
		}
		return nil
	}
	_, _ = w.job().run(ctx, o, ansible.Call{}, Set{}, nil, Result{})
	w.open = nil
}

// What is planted at the library's places, or on the way: nothing outside is touched, nothing is waited for, and the container is refused by name.
func TestHostileLibraryPlaces(t *testing.T) {
	for _, place := range []string{"etc", "etc/ld.so.preload", "etc/ld.so.preload.nfslock-part", "usr", "usr/bin/qemu-img", "usr/lib", "usr/lib/nfslock", "usr/lib/nfslock/libnfslock.so", "usr/lib/nfslock/libnfslock.so.part"} {
		for kind, plant := range kinds {
			t.Run(place+"/"+kind, func(t *testing.T) {
				w := kollaHost(t)
				w.mustRun(libraryOptions(), Set{}, nil)
				outside := filepath.Join(w.t.TempDir(), "outside")
				w.copyTree(w.boxes["cinder_volume"].root, outside)
				path := filepath.Join(w.boxes["cinder_volume"].root, place)
				w.must(os.RemoveAll(path))
				if err := plant(path, filepath.Join(outside, place)); err != nil {
					if errors.Is(err, os.ErrPermission) {
						t.Skip(err)
					}
					t.Fatal(err)
				}
				events := watch(t, outside)
				begin := time.Now()
				for _, o := range []Options{libraryOptions(), withoutLibrary()} {
					if _, err := w.run(o, ansible.Call{}, Set{}, nil); err != nil && (strings.Contains(err.Error(), "internal error") || !strings.Contains(err.Error(), "cinder_volume")) {
						t.Error(err)
					}
				}
				if took := time.Since(begin); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if n := events(); n > 0 {
					t.Errorf("something was done outside of the container: %d bytes of events", n)
				}
			})
		}
	}
}
