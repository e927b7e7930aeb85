package lockprobe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// container is a tree of files as a Debian container has it.
func container(t *testing.T, status string, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n", "var/lib/dpkg/status": status}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// stanza is of the distribution's packages, and of ours as earlier releases made them: the program tells their variant.
func stanza(name, want, version string) string {
	source := "qemu"
	if version == newVersion {
		source += " (" + oldVersion + ")\nProvides: " + name + " (= " + oldVersion + "+b2)"
	}
	return bareStanza(name, want, version, "Source: "+source+"\n")
}

func bareStanza(name, want, version, fields string) string {
	return "Package: " + name + "\nStatus: " + want + " ok installed\nArchitecture: amd64\nVersion: " + version + "\n" + fields + "\n"
}

func grafted(name, version, variant, suffix string) string {
	return bareStanza(name, "install", version+suffix, "Source: qemu ("+version+")\nNfslock-Variant: "+variant+"\nNfslock-Suffix: "+suffix+"\nNfslock-Built-From: "+version+"\nNfslock-Stock: "+version+"+b2\n")
}

const (
	oldVersion = "1:7.2+dfsg-7+deb12u18"
	newVersion = oldVersion + "+nfslock1"
)

// listed are dpkg's lists of what some packages bring.
func listed(files map[string]string, packages ...string) map[string]string {
	all := map[string]string{}
	for name, text := range files {
		all[name] = text
	}
	bring := map[string]string{
		"qemu-system-x86": "/usr/bin/qemu-system-x86_64\n/usr/bin/qemu-system-i386\n/usr/bin/kvm\n",
		"qemu-system-arm": "/usr/bin/qemu-system-aarch64\n/usr/bin/qemu-system-arm\n",
		"qemu-system-ppc": "/usr/bin/qemu-system-ppc64\n",
	}
	for _, name := range packages {
		all["var/lib/dpkg/info/"+name+".list"] = "/.\n/usr\n/usr/bin\n" + bring[name]
	}
	return all
}

// What counts is what the container's own work uses, and nothing else.
func TestReadPackages(t *testing.T) {
	img := map[string]string{"usr/bin/qemu-img": "ELF…image locks are refused…"}
	edited := map[string]string{"usr/bin/qemu-img": "ELF…image locks are refused…", "usr/bin/qemu-system-x86_64": "ELF…image locks are refused…", "usr/bin/qemu-system-aarch64": "ELF"}
	plainFile := map[string]string{"usr/bin/qemu-img": "ELF"}
	const old, new = oldVersion, newVersion
	dpkg := "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
	utils := stanza("qemu-utils", "hold", new)
	emulator := func(word, version string) string { return stanza("qemu-system-"+word, "install", version) }
	all := []string{"qemu-system-x86", "qemu-system-arm", "qemu-system-ppc"}
	armDomain := map[string]string{"etc/libvirt/qemu/instance-1.xml": "<!-- made by libvirt -->\n<domain type='qemu'><devices><emulator>/usr/bin/qemu-system-aarch64</emulator></devices></domain>"}
	with := func(a, b map[string]string) map[string]string {
		both := map[string]string{}
		for _, m := range []map[string]string{a, b} {
			for name, text := range m {
				both[name] = text
			}
		}
		return both
	}
	early := &baseline.Index{ID: "1", Suffix: "+our1", Packages: []baseline.Kept{{Name: "qemu-utils", Version: old + "+b2"}}}
	made := &baseline.Index{ID: "1", Installed: []baseline.Installed{{Name: "qemu-utils", Version: old + "+site1", Graft: deb.Graft{Variant: "disable_ofd"}}}}
	tests := []struct {
		name      string
		container string
		status    string
		files     map[string]string
		guests    []host.Guest
		record    *baseline.Index
		qemu      QEMU
		variant   string
		rows      int
		others    string
	}{
		{"stock", "nova_compute", stanza("qemu-utils", "install", old) + stanza("qemu-block-extra", "install", old), plainFile, nil, nil, Stock, "", 2, "[]"},
		{"fallback", "nova_compute", utils + stanza("qemu-block-extra", "hold", new), img, nil, nil, Patched, "fallback", 2, "[]"},
		{"classic edit", "nova_compute", utils, plainFile, nil, nil, Patched, "disable_ofd", 1, "[]"},
		{"a suffix that the record of an earlier release knows", "nova_compute", stanza("qemu-utils", "hold", old+"+our1"), img, nil, early, Patched, "fallback", 1, "[]"},
		{"any suffix, and the fields", "nova_compute", grafted("qemu-utils", old, "fallback", "+acme1"), plainFile, nil, nil, Patched, "fallback", 1, "[]"},
		{"the fields tell the variant", "nova_compute", grafted("qemu-utils", old, "disable_ofd", "+acme1"), img, nil, nil, Patched, "disable_ofd", 1, "[]"},
		{"a variant that nobody knows", "nova_compute", grafted("qemu-utils", old, "<b>", "+acme1"), img, nil, nil, Patched, "fallback", 1, "[]"},
		{"one without locks beside one with", "nova_libvirt", grafted("qemu-utils", old, "fallback", "+a") + grafted("qemu-system-x86", old, "disable_ofd", "+b"), listed(img, all...), nil, nil, Patched, "disable_ofd", 2, "[]"},
		{"made by hand, and the record knows it", "nova_compute", bareStanza("qemu-utils", "install", old+"+site1", "Source: qemu\n"), plainFile, nil, made, Patched, "disable_ofd", 1, "[]"},
		{"made by hand, and nothing knows it but its program", "nova_compute", bareStanza("qemu-utils", "install", new, "Source: qemu\n"), img, nil, nil, Patched, "fallback", 1, "[]"},
		{"made by hand, and nothing knows it", "nova_compute", bareStanza("qemu-utils", "install", new, "Source: qemu\n"), plainFile, nil, nil, Stock, "", 1, "[]"},
		{"somebody else's suffix", "nova_compute", bareStanza("qemu-utils", "install", old+"+nfslock7.1", "Source: qemu\n"), plainFile, nil, nil, Stock, "", 1, "[]"},
		{"the guests' own is stock", "nova_libvirt", utils + emulator("x86", old), listed(img, all...), nil, nil, Mixed, "fallback", 2, "[]"},
		{"that of libguestfs is", "nova_compute", utils + emulator("x86", old), listed(img, all...), nil, nil, Mixed, "fallback", 2, "[]"},
		{"modules and data do not count", "nova_libvirt", utils + stanza("qemu-system-data", "install", old), img, nil, nil, Patched, "fallback", 2, "[]"},
		{"other architectures' do not", "nova_libvirt", utils + emulator("arm", old) + emulator("ppc", old) + emulator("x86", new), listed(edited, all...), nil, nil, Patched, "fallback", 4, "[arm ppc]"},
		{"nor do any where no guests are", "cinder_volume", utils + emulator("x86", old), listed(img, all...), nil, nil, Patched, "fallback", 2, "[x86]"},
		{"a further guest is defined", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), with(listed(edited, all...), armDomain), nil, nil, Mixed, "fallback", 3, "[]"},
		{"and its emulator is patched", "nova_libvirt", utils + emulator("arm", new) + emulator("ppc", old) + emulator("x86", new), with(listed(edited, all...), armDomain), nil, nil, Patched, "fallback", 4, "[ppc]"},
		{"a further guest runs", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), with(listed(edited, all...), map[string]string{"run/libvirt/qemu/arm.xml": ""}), []host.Guest{{Name: "arm", Program: "/usr/bin/qemu-system-arm"}}, nil, Mixed, "fallback", 3, "[]"},
		{"another container's guest runs", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), listed(edited, all...), []host.Guest{{Name: "other", Program: "/usr/bin/qemu-system-arm"}}, nil, Patched, "fallback", 3, "[arm]"},
		{"the tools are stock, others patched", "nova_libvirt", stanza("qemu-utils", "install", old) + emulator("arm", new), listed(plainFile, all...), nil, nil, Stock, "", 2, "[]"},
		{"only emulators that nobody is known to use", "zun_compute", emulator("ppc", old), listed(nil, all...), nil, nil, Stock, "", 1, "[]"},
		{"a program copied by hand", "nova_compute", stanza("qemu-utils", "install", old), img, nil, nil, Mixed, "fallback", 1, "[]"},
		{"no QEMU", "nova_compute", strings.ReplaceAll(stanza("nfs-common", "install", "1"), "Source: qemu\n", ""), nil, nil, nil, NoQEMU, "", 0, "[]"},
		{"removed", "nova_compute", "Package: qemu-utils\nStatus: deinstall ok config-files\nArchitecture: amd64\nSource: qemu\nVersion: 1\n\n", nil, nil, nil, NoQEMU, "", 0, "[]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := view{root: container(t, dpkg+test.status, test.files), row: Packages{Container: test.container}}
			v.ID = "1"
			if err := v.readPackages(test.record, test.guests); err != nil {
				t.Fatal(err)
			}
			p := v.row
			if wants := test.qemu == Stock || test.qemu == Mixed; wants != (len(p.Unpatched) > 0) {
				t.Errorf("unpatched: %v", p.Unpatched)
			}
			if wants := strings.Contains(test.name, "a further guest"); wants != (fmt.Sprint(p.UnpatchedFurther) == "[qemu-system-arm]") {
				t.Errorf("unpatched, of further guests: %v", p.UnpatchedFurther)
			}
			if p.QEMU != test.qemu || p.Variant != test.variant || len(p.Installed) != test.rows || p.Distribution != "debian bookworm" || fmt.Sprint(p.StockEmulators) != test.others {
				t.Errorf("%+v", p)
			}
		})
	}
}

// The marker may lie across two reads.
func TestContainsText(t *testing.T) {
	text := strings.Repeat("image locks ", 40000) + marker + "x"
	for _, r := range []struct {
		name string
		text string
		want bool
	}{{"there", text, true}, {"not there", strings.ReplaceAll(text, "refused", "refuse"), false}, {"empty", "", false}} {
		if got, err := containsText(iotest.HalfReader(strings.NewReader(r.text)), marker); got != r.want || err != nil {
			t.Errorf("%s: %v, %v", r.name, got, err)
		}
	}
	if got, err := containsText(iotest.OneByteReader(strings.NewReader("is "+marker)), marker); !got || err != nil {
		t.Errorf("byte by byte: %v, %v", got, err)
	}
}

func TestDrift(t *testing.T) {
	kept := &baseline.Index{ID: "aa", Suffix: "+nfslock1", Packages: []baseline.Kept{{Name: "qemu-utils", Version: oldVersion + "+b2"}}}
	whose := map[bool]baseline.Whose{true: baseline.Ours, false: baseline.Stock}
	row := func(id string, q QEMU, version string, patched bool) *Packages {
		return &Packages{Container: "cinder_volume", ID: id, State: "running", QEMU: q, Installed: []QEMUPacket{{Name: "qemu-utils", Version: version, Patched: patched, whose: whose[patched]}}}
	}
	stopped := row("aa", Unknown, "", false)
	stopped.State = "exited"
	doubtful := row("aa", Stock, newVersion, false)
	doubtful.Installed[0].whose = baseline.Doubtful
	for _, test := range []struct {
		name string
		now  *Packages
		want DriftKind // empty: none
		is   string
	}{
		{"as it was left", row("aa", Patched, newVersion, true), "", ""},
		{"recreated from its image", row("bb", Stock, oldVersion, false), Recreated, "bb"},
		{"recreated from a baked image", row("bb", Patched, newVersion, true), "", ""},
		{"installed again by hand", row("aa", Stock, oldVersion, false), Lost, "qemu-utils " + oldVersion},
		{"security update", row("aa", Stock, "1:7.2+dfsg-7+deb12u19", false), Superseded, "qemu-utils 1:7.2+dfsg-7+deb12u19"},
		{"nobody knows whose it is", doubtful, "", ""},
		{"stopped", stopped, "", ""},
		{"removed", nil, Gone, ""},
	} {
		d, ok := drift("cinder_volume", kept, test.now)
		if ok != (test.want != "") || ok && (d.Kind != test.want || d.Is != test.is || d.Message == "") {
			t.Errorf("%s: %v, %+v", test.name, ok, d)
		}
		// Never one that there never was, as that of the kept one's rebuild with the suffix.
		if was := "qemu-utils " + newVersion; (d.Kind == Lost || d.Kind == Superseded) && d.Was != was {
			t.Errorf("%s: it was %s", test.name, d.Was)
		}
	}
}

// Of two sets with suffixes of their own the last one is what was there; and a package of which nothing is kept is lost, too.
func TestDriftNamesWhatWasPutThereLast(t *testing.T) {
	record := &baseline.Index{ID: "aa", Suffix: "+site1"}
	record.Note(baseline.Installed{Name: "qemu-utils", Version: oldVersion + "+site1"}, baseline.Installed{Name: "qemu-utils", Version: oldVersion + "+ours2"})
	now := &Packages{ID: "aa", State: "running", QEMU: Stock, Installed: []QEMUPacket{{Name: "qemu-utils", Version: oldVersion + "+b2", whose: baseline.Stock}}, Unpatched: []string{"qemu-utils"}}
	if d, ok := drift("c", record, now); !ok || d.Kind != Lost || d.Was != "qemu-utils "+oldVersion+"+ours2" || !d.Counts {
		t.Errorf("%v, %+v", ok, d)
	}
}

func TestADoubtfulPackageIsAFinding(t *testing.T) {
	v := view{root: container(t, bareStanza("qemu-utils", "install", newVersion, "Source: qemu\n"), map[string]string{"usr/bin/qemu-img": "ELF"}), row: Packages{Container: "nova_compute"}}
	if err := v.readPackages(nil, nil); err != nil {
		t.Fatal(err)
	}
	r := Result{Packages: []Packages{v.row}}
	var got []string
	r.findPatched(func(kind FindingKind, format string, args ...any) {
		got = append(got, string(kind)+": "+fmt.Sprintf(format, args...))
	})
	want := "[doubtful_package: whose qemu-utils " + newVersion + " in nova_compute is cannot be told: its version looks like that of a patched one, and nothing else says so]"
	if fmt.Sprint(got) != want {
		t.Errorf("%q", got)
	}
}

// Of two packages that are stock again, the one that the container's work uses is told; one that it does not use is told as such.
func TestDriftTellsWhetherItCounts(t *testing.T) {
	kept := &baseline.Index{ID: "aa", Suffix: "+nfslock1", Packages: []baseline.Kept{{Name: "qemu-system-arm", Version: "1"}, {Name: "qemu-utils", Version: "1"}}}
	now := &Packages{ID: "aa", State: "running", QEMU: Patched, Installed: []QEMUPacket{{Name: "qemu-utils", Version: "1+nfslock1", Patched: true, whose: baseline.Ours}, {Name: "qemu-system-arm", Version: "1", whose: baseline.Stock}}}
	if d, ok := drift("nova_libvirt", kept, now); !ok || d.Counts || d.Is != "qemu-system-arm 1" {
		t.Errorf("%v, %+v", ok, d)
	}
	now.Installed[0] = QEMUPacket{Name: "qemu-utils", Version: "1", whose: baseline.Stock}
	now.Unpatched, now.QEMU = []string{"qemu-utils"}, Stock
	if d, ok := drift("nova_libvirt", kept, now); !ok || !d.Counts || d.Is != "qemu-utils 1" {
		t.Errorf("%v, %+v", ok, d)
	}
	if d, ok := drift("nova_libvirt", kept, nil); !ok || !d.Counts {
		t.Errorf("%v, %+v", ok, d)
	}
}

// What a process in a container prints is bounded, and no outcome of its own invention passes.
func TestHostileEvents(t *testing.T) {
	a := parseOutput("noise\n{\"at\":\"ofd\"}\n" + `{"kind":"ofd","probe":{"result":"<script>","detail":"x"}}` + "\n" + `{"kind":"posix","probe":{"result":"refused","errno":"` + strings.Repeat("E", 5000) + `"}}` + "\n" +
		`{"kind":"other","probe":{"result":"granted"}}` + "\n" + `{"at":"create","file":"../../etc/passwd"}` + "\n{")
	a.settle()
	if a.Probes.OFD.Result != NotTried || len(a.Probes.POSIX.Errno) != 1000 || a.file != "" {
		t.Errorf("%+v", a)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add("{\"at\":\"ofd\"}\n{\"kind\":\"ofd\",\"probe\":{\"result\":\"refused\",\"errno\":\"ENOLCK\"}}\n{\"at\":\"end\"}")
	f.Fuzz(func(t *testing.T, text string) {
		a := parseOutput(text)
		a.settle()
		for _, p := range []Probe{a.Probes.OFD, a.Probes.POSIX, a.Probes.Flock} {
			switch p.Result {
			case Granted, Refused, HeldBy, Hung, NotTried:
			default:
				t.Errorf("%q: %+v", text, p)
			}
		}
		if a.file != "" && !fileName.MatchString(a.file) {
			t.Errorf("file %q", a.file)
		}
		judge(Evidence{Probes: a.Probes, Problem: a.Problem, Hangs: a.Hangs})
	})
}
