package lockprobe

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

var withLibrary = map[string]string{strings.TrimPrefix(preload.List, "/"): preload.Library + "\n", strings.TrimPrefix(preload.Library, "/"): string(preload.Built)}

// and has the files of both.
func and(a, b map[string]string) map[string]string {
	both := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for name, text := range m {
			both[name] = text
		}
	}
	return both
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

// The library counts whatever the packages are, but where those that count are patched, or there are none.
func TestTheLibraryCounts(t *testing.T) {
	dpkg := "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
	img := map[string]string{"usr/bin/qemu-img": "ELF"}
	edited := map[string]string{"usr/bin/qemu-img": "ELF…image locks are refused…"}
	stock, patched := stanza("qemu-utils", "install", oldVersion), stanza("qemu-utils", "hold", newVersion)
	rocky := map[string]string{"etc/os-release": "ID=rocky\nVERSION_ID=9\n"}
	kvm := map[string]string{"usr/libexec/qemu-kvm": elfOf("/lib64/ld-linux-x86-64.so.2"), "usr/sbin/virtqemud": elfOf("/lib64/ld-linux-x86-64.so.2")}
	alpine := and(rocky, map[string]string{"etc/os-release": "ID=alpine\nVERSION_ID=3.22\n", "usr/bin/qemu-img": elfOf("/lib/ld-musl-x86_64.so.1")})
	listOnly := map[string]string{strings.TrimPrefix(preload.List, "/"): preload.Library + "\n"}
	fileOnly := map[string]string{strings.TrimPrefix(preload.Library, "/"): string(preload.Built)}
	for _, test := range []struct {
		name   string
		status string
		files  map[string]string
		state  preloaded.State
		qemu   QEMU
		err    string
	}{
		{"without it", stock, img, preloaded.None, Stock, ""},
		{"stock packages", stock, and(img, withLibrary), preloaded.Installed, ByLibrary, ""},
		{"patched packages", patched, and(edited, withLibrary), preloaded.Installed, Patched, ""},
		{"patched in part", patched + stanza("qemu-system-x86", "install", oldVersion), and(listed(edited, "qemu-system-x86"), withLibrary), preloaded.Installed, ByLibrary, ""},
		{"no QEMU", "", withLibrary, preloaded.Installed, NoQEMU, ""},
		{"not listed", stock, and(img, fileOnly), preloaded.Unlisted, Stock, ""},
		{"listed and missing", stock, and(img, listOnly), preloaded.Broken, Stock, ""},
		{"rpm packages", "", and(and(kvm, rocky), withLibrary), preloaded.Installed, ByLibrary, ""},
		{"rpm packages without it", "", and(kvm, rocky), preloaded.None, "", "no Debian or Ubuntu; where locks are refused, the library is the way"},
		{"libvirt without QEMU", "", and(rocky, map[string]string{"usr/sbin/virtqemud": kvm["usr/sbin/virtqemud"]}), preloaded.None, NoQEMU, ""},
		{"programs that it is of no use to", "", and(alpine, withLibrary), preloaded.Installed, "", "the library is no use there: /usr/bin/qemu-img is not started by glibc"},
		{"rpm packages without QEMU", "", rocky, preloaded.None, NoQEMU, ""},
		{"a list that is far too long", stock, and(img, map[string]string{strings.TrimPrefix(preload.List, "/"): strings.Repeat("#", 1<<17)}), "", Stock, "cannot tell whether nova_libvirt has the library"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := view{name: "nova_libvirt", root: container(t, dpkg+test.status, test.files), row: Packages{Container: "nova_libvirt"}}
			errLibrary, errPackages := v.readLibrary(), v.readPackages(nil, nil)
			if got := fmt.Sprint(errLibrary, errPackages); test.err == "" && (errLibrary != nil || errPackages != nil) || !strings.Contains(got, test.err) {
				t.Errorf("error %s", got)
			}
			if v.row.Library.State != test.state || v.row.QEMU != test.qemu || test.state == preloaded.Installed && (!v.row.Library.Current || len(v.row.Library.SHA256) != 64) {
				t.Errorf("%s, %+v", v.row.QEMU, v.row.Library)
			}
		})
	}
}

// libvirt's settings are read where rpm brought it, too.
func TestLibvirtOfAnRPMImageIsJudged(t *testing.T) {
	v := view{name: "nova_libvirt", row: Packages{Container: "nova_libvirt"}, root: container(t, "", map[string]string{
		"etc/os-release": "ID=rocky\nVERSION_ID=9\n", "usr/libexec/qemu-kvm": elfOf("/lib64/ld-linux-x86-64.so.2"), "usr/sbin/virtqemud": "ELF",
	})}
	if err := v.readPackages(nil, nil); err == nil || v.libvirt == nil || !v.libvirt.OwnLocks || v.architecture == "" {
		t.Errorf("%v, %+v", err, v.libvirt)
	}
}

// With the library a refused lock, QEMU's or libvirt's own, keeps no guest from starting, once libvirt was started with it.
func TestWhetherAGuestStartsWithTheLibrary(t *testing.T) {
	l := libvirt.ReadLocks(container(t, "", nil), "11.3.0-3")
	both, onlyPOSIX := Probes{OFD: noLocks, POSIX: noLocks}, Probes{OFD: granted, POSIX: noLocks}
	for _, test := range []struct {
		name    string
		probes  Probes
		qemu    QEMU
		variant string
		library bool
		covered bool
		start   Start
		missing string
		fix     Fix
		text    string
	}{
		{"it is there", both, ByLibrary, "", true, true, Starts, "", FixNone, "Nothing keeps two writers of one image apart"},
		{"libvirt was started before it", both, ByLibrary, "", true, false, StartsNot, "restart nova_libvirt", FixPatch, "The command restarts nova_libvirt"},
		{"only libvirt's lock is refused", onlyPOSIX, ByLibrary, "", true, true, Starts, "", FixNone, "Nothing is to be done"},
		{"only libvirt's, and it was started before", onlyPOSIX, Stock, "", true, false, StartsNot, "restart nova_libvirt", FixPatch, "its libvirt was started before it"},
		{"beside patched packages", both, Patched, "fallback", true, true, Starts, "", FixNone, "with the library"},
		{"beside patched packages, libvirt was started before it", both, Patched, "fallback", true, false, StartsNot, "restart nova_libvirt", FixPatch, "The command restarts"},
		{"patched packages alone", both, Patched, "fallback", false, false, StartsNot, "libvirt takes", FixLibvirt, "Or put the library into nova_libvirt"},
		{"beside the classic edit", both, Patched, "disable_ofd", true, true, Starts, "", FixNone, "with the library"},
		{"taken away under a libvirt that has it", both, Stock, "", false, true, StartsNot, "QEMU takes locks", FixPatch, "put the library"},
	} {
		j := judge(Evidence{
			Container: "nova_libvirt", FSType: "fuse.store", Probes: test.probes, QEMU: test.qemu, Variant: test.variant, Library: test.library, Libvirt: &l, Covered: test.covered,
		})
		missing := strings.Join(j.Guests.Missing, "; ")
		if j.Guests.Start != test.start || (test.missing == "") != (missing == "") || !strings.Contains(missing, test.missing) || j.Cure.Fix != test.fix || !strings.Contains(j.Cure.Text, test.text) {
			t.Errorf("%s: %+v, %+v", test.name, j.Guests, j.Cure)
		}
		if j.Cure.Fix == FixPatch && j.Cure.Command != libraryCommand {
			t.Errorf("%s: %s", test.name, j.Cure.Command)
		}
		if says := strings.Contains(strings.Join(j.Evidence, "\n"), "has the library loaded"); says != test.covered {
			t.Errorf("%s: %q", test.name, j.Evidence)
		}
	}
}

// processes makes a /proc with some that are called name, of which the loaded ones have the library.
type process struct {
	name      string
	container string
	loaded    bool
}

func processes(t *testing.T, all ...process) string {
	t.Helper()
	proc := t.TempDir()
	for i, p := range all {
		dir := filepath.Join(proc, fmt.Sprint(100+i))
		maps := "7f00-7f01 r-xp 00000000 08:01 7 /usr/lib/x86_64-linux-gnu/libc.so.6\n"
		if p.loaded {
			maps += "7f02-7f03 r-xp 00000000 08:01 8 " + preload.Library + " (deleted)\n"
		}
		for name, text := range map[string]string{
			"comm": p.name + "\n", "status": "Name:\t" + p.name + "\nState:\tS (sleeping)\nNSpid:\t1\n", "cgroup": "0::/system.slice/docker-" + p.container + ".scope\n", "maps": maps,
		} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return proc
}

func TestLibvirtIsCoveredWhereItsDaemonHasTheLibrary(t *testing.T) {
	own, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, test := range []struct {
		name string
		all  []process
		want bool
	}{
		{"libvirtd has it", []process{{"libvirtd", own, true}}, true},
		{"virtqemud has it", []process{{"virtqemud", own, true}, {"virtlogd", own, false}}, true},
		{"it was started before", []process{{"libvirtd", own, false}}, false},
		{"one of two was", []process{{"libvirtd", own, true}, {"virtqemud", own, false}}, false},
		{"another container's has it", []process{{"libvirtd", other, true}}, false},
		{"another container's has not", []process{{"libvirtd", other, false}, {"libvirtd", own, true}}, true},
		{"none runs", nil, false},
	} {
		proc := processes(t, test.all...)
		found, err := host.Processes(proc, preloaded.Daemons...)
		if err != nil {
			t.Fatal(err)
		}
		v := &view{name: "nova_libvirt", Container: engine.Container{ID: own}, root: container(t, "", nil), libvirt: &libvirt.Locks{}}
		s := seen{views: []*view{{name: Host}, v}, processes: found}
		if warnings := (&machine{proc: proc}).findCovered(t.Context(), &s); len(warnings) > 0 || v.covered != test.want || s.libvirtLocks().Covered != test.want {
			t.Errorf("%s: %v, %q", test.name, v.covered, warnings)
		}
	}
}

// A process that hangs is told, and keeps the others from nothing.
func TestGuestsWithoutTheLibrary(t *testing.T) {
	proc := processes(t, process{name: "qemu-system-x86", loaded: true}, process{name: "qemu-system-x86"}, process{name: "qemu-system-x86"})
	hanging := filepath.Join(proc, "102", "maps")
	if err := os.Remove(hanging); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(hanging, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	found, err := (&machine{proc: proc}).without(ctx, []host.Guest{{PID: 100}, {PID: 101}, {PID: 102}, {PID: 999}})
	if err == nil || !strings.Contains(err.Error(), "process 102") || len(found) != 2 || found[0].PID != 101 {
		t.Errorf("%v, %+v", err, found)
	}
}

func TestTheLibraryThatIsLostIsDrift(t *testing.T) {
	put := preloaded.Put{ID: "aa", SHA256: strings.Repeat("0", 64)}
	row := func(id string, state preloaded.State, q QEMU) Packages {
		return Packages{Container: "nova_libvirt", ID: id, State: "running", QEMU: q, Library: Library{State: state}}
	}
	stopped := row("bb", "", Unknown)
	stopped.State = "exited"
	for _, test := range []struct {
		name string
		now  Packages
		want DriftKind
	}{
		{"as it was left", row("aa", preloaded.Installed, ByLibrary), ""},
		{"recreated", row("bb", preloaded.None, Stock), Recreated},
		{"recreated, of an rpm image", row("bb", preloaded.None, Unknown), Recreated},
		{"recreated, and bound by kolla", row("bb", preloaded.Bound, ByLibrary), ""},
		{"recreated, and put there again by hand", row("bb", preloaded.Old, ByLibrary), ""},
		{"recreated, and patched by now", row("bb", preloaded.None, Patched), ""},
		{"its line was taken away", row("aa", preloaded.Unlisted, Mixed), Lost},
		{"broken", row("aa", preloaded.Broken, Stock), Lost},
		{"not looked at", row("aa", "", Stock), ""},
		{"stopped", stopped, ""},
	} {
		d, ok := lostLibrary(put, test.now)
		if ok != (test.want != "") || ok && (d.Kind != test.want || d.What != "library" || !d.Counts || !strings.Contains(d.Message, "nfslock.kolla.fix")) {
			t.Errorf("%s: %v, %+v", test.name, ok, d)
		}
	}
	kept := &baseline.Index{ID: "aa", Suffix: "+nfslock1"}
	now := row("bb", preloaded.Installed, ByLibrary)
	if d, ok := drift("nova_libvirt", kept, &now); ok {
		t.Errorf("packages that nobody misses: %+v", d)
	}
}

// A damaged record is told beside all else.
func TestARecordThatCannotBeReadIsAWarning(t *testing.T) {
	r := emptyResult()
	_, err := preloaded.ReadRecord(etc(t, map[string]string{"library.json": "{"}))
	r.drift(seen{putError: err})
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "library.json") {
		t.Errorf("%q", r.Warnings)
	}
	r.Packages = []Packages{{Container: "nova_compute", ID: "bb", State: "running", QEMU: Stock, Library: Library{State: preloaded.None}}}
	r.drift(seen{put: preloaded.Record{Containers: map[string]preloaded.Put{"nova_compute": {ID: "aa"}, "gone": {ID: "cc"}}}})
	if len(r.Drift) != 1 || r.Drift[0].Container != "nova_compute" {
		t.Errorf("%+v", r.Drift)
	}
}

func TestFindingsOfLibraries(t *testing.T) {
	sum := strings.Repeat("0", 64)
	fine := []Mount{{Container: "c", Verdict: OK, Probes: all(granted)}}
	for _, test := range []struct {
		name    string
		library Library
		qemu    QEMU
		mounts  []Mount
		want    []FindingKind
	}{
		{"none", Library{State: preloaded.None}, Stock, fine, nil},
		{"ours, and needed", Library{State: preloaded.Installed, SHA256: sum, Current: true}, ByLibrary, []Mount{{Container: "c", Verdict: LocksRefused}}, nil},
		{"ours, and not needed", Library{State: preloaded.Installed, SHA256: sum, Current: true}, ByLibrary, fine, []FindingKind{PatchNotNeeded}},
		{"bound into each container", Library{State: preloaded.Bound, SHA256: sum, Current: true}, ByLibrary, fine, nil},
		{"another build", Library{State: preloaded.Old, SHA256: sum}, ByLibrary, nil, []FindingKind{LibraryDiffers}},
		{"another build, bound", Library{State: preloaded.Bound, SHA256: sum}, ByLibrary, nil, []FindingKind{LibraryDiffers}},
		{"missing", Library{State: preloaded.Broken}, Stock, nil, []FindingKind{LibraryBroken}},
		{"cut", Library{State: preloaded.Broken, SHA256: sum}, Stock, nil, []FindingKind{LibraryBroken}},
		{"not looked at", Library{}, Unknown, nil, nil},
	} {
		var got []FindingKind
		r := Result{Packages: []Packages{{Container: "c", QEMU: test.qemu, Library: test.library}}, Mounts: test.mounts}
		add := func(kind FindingKind, _ string, _ ...any) { got = append(got, kind) }
		r.findPatched(add)
		r.findLibraries(add)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}
