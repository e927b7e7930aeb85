package lockprobe

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

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

func stanza(name, want, version string) string {
	return "Package: " + name + "\nStatus: " + want + " ok installed\nArchitecture: amd64\nSource: qemu\nVersion: " + version + "\n\n"
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
	tests := []struct {
		name      string
		container string
		status    string
		files     map[string]string
		guests    []host.Guest
		suffix    string
		qemu      QEMU
		variant   string
		rows      int
		others    string
	}{
		{"stock", "nova_compute", stanza("qemu-utils", "install", old) + stanza("qemu-block-extra", "install", old), plainFile, nil, "", Stock, "", 2, "[]"},
		{"fallback", "nova_compute", utils + stanza("qemu-block-extra", "hold", new), img, nil, "", Patched, "fallback", 2, "[]"},
		{"classic edit", "nova_compute", utils, plainFile, nil, "", Patched, "disable_ofd", 1, "[]"},
		{"another suffix", "nova_compute", stanza("qemu-utils", "hold", old+"~our1"), img, nil, "~our1", Patched, "fallback", 1, "[]"},
		{"the guests' own is stock", "nova_libvirt", utils + emulator("x86", old), listed(img, all...), nil, "", Mixed, "fallback", 2, "[]"},
		{"that of libguestfs is", "nova_compute", utils + emulator("x86", old), listed(img, all...), nil, "", Mixed, "fallback", 2, "[]"},
		{"modules and data do not count", "nova_libvirt", utils + stanza("qemu-system-data", "install", old), img, nil, "", Patched, "fallback", 2, "[]"},
		{"other architectures' do not", "nova_libvirt", utils + emulator("arm", old) + emulator("ppc", old) + emulator("x86", new), listed(edited, all...), nil, "", Patched, "fallback", 4, "[arm ppc]"},
		{"nor do any where no guests are", "cinder_volume", utils + emulator("x86", old), listed(img, all...), nil, "", Patched, "fallback", 2, "[x86]"},
		{"a further guest is defined", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), with(listed(edited, all...), armDomain), nil, "", Mixed, "fallback", 3, "[]"},
		{"and its emulator is patched", "nova_libvirt", utils + emulator("arm", new) + emulator("ppc", old) + emulator("x86", new), with(listed(edited, all...), armDomain), nil, "", Patched, "fallback", 4, "[ppc]"},
		{"a further guest runs", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), with(listed(edited, all...), map[string]string{"run/libvirt/qemu/arm.xml": ""}), []host.Guest{{Name: "arm", Program: "/usr/bin/qemu-system-arm"}}, "", Mixed, "fallback", 3, "[]"},
		{"another container's guest runs", "nova_libvirt", utils + emulator("arm", old) + emulator("x86", new), listed(edited, all...), []host.Guest{{Name: "other", Program: "/usr/bin/qemu-system-arm"}}, "", Patched, "fallback", 3, "[arm]"},
		{"the tools are stock, others patched", "nova_libvirt", stanza("qemu-utils", "install", old) + emulator("arm", new), listed(plainFile, all...), nil, "", Stock, "", 2, "[]"},
		{"only emulators that nobody is known to use", "zun_compute", emulator("ppc", old), listed(nil, all...), nil, "", Stock, "", 1, "[]"},
		{"a program copied by hand", "nova_compute", stanza("qemu-utils", "install", old), img, nil, "", Mixed, "fallback", 1, "[]"},
		{"no QEMU", "nova_compute", strings.ReplaceAll(stanza("nfs-common", "install", "1"), "Source: qemu\n", ""), nil, nil, "", NoQEMU, "", 0, "[]"},
		{"removed", "nova_compute", "Package: qemu-utils\nStatus: deinstall ok config-files\nArchitecture: amd64\nSource: qemu\nVersion: 1\n\n", nil, nil, "", NoQEMU, "", 0, "[]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := view{root: container(t, dpkg+test.status, test.files), row: Packages{Container: test.container}}
			if err := v.readPackages(baseline{Suffix: test.suffix}, test.guests); err != nil {
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
	var kept baseline
	if err := json.Unmarshal([]byte(`{"schema":1,"id":"aa","suffix":"+nfslock1","packages":[{"name":"qemu-utils","version":"`+oldVersion+`"}]}`), &kept); err != nil {
		t.Fatal(err)
	}
	row := func(id string, q QEMU, version string, patched bool) *Packages {
		return &Packages{Container: "cinder_volume", ID: id, State: "running", QEMU: q, Installed: []QEMUPacket{{Name: "qemu-utils", Version: version, Patched: patched}}}
	}
	stopped := row("aa", Unknown, "", false)
	stopped.State = "exited"
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
		{"stopped", stopped, "", ""},
		{"removed", nil, Gone, ""},
	} {
		d, ok := drift("cinder_volume", kept, test.now)
		if ok != (test.want != "") || ok && (d.Kind != test.want || d.Is != test.is || d.Message == "") {
			t.Errorf("%s: %v, %+v", test.name, ok, d)
		}
	}
}

// Of two packages that are stock again, the one that the container's work uses is told; one that it does not use is told as such.
func TestDriftTellsWhetherItCounts(t *testing.T) {
	var kept baseline
	if err := json.Unmarshal([]byte(`{"schema":1,"id":"aa","suffix":"+nfslock1","packages":[{"name":"qemu-system-arm","version":"1"},{"name":"qemu-utils","version":"1"}]}`), &kept); err != nil {
		t.Fatal(err)
	}
	now := &Packages{ID: "aa", State: "running", QEMU: Patched, Installed: []QEMUPacket{{Name: "qemu-utils", Version: "1+nfslock1", Patched: true}, {Name: "qemu-system-arm", Version: "1"}}}
	if d, ok := drift("nova_libvirt", kept, now); !ok || d.Counts || d.Is != "qemu-system-arm 1" {
		t.Errorf("%v, %+v", ok, d)
	}
	now.Installed[0].Patched, now.Installed[0].Version, now.Unpatched, now.QEMU = false, "1", []string{"qemu-utils"}, Stock
	if d, ok := drift("nova_libvirt", kept, now); !ok || !d.Counts || d.Is != "qemu-utils 1" {
		t.Errorf("%v, %+v", ok, d)
	}
	if d, ok := drift("nova_libvirt", kept, nil); !ok || !d.Counts {
		t.Errorf("%v, %+v", ok, d)
	}
}

func TestBaselinesAreRead(t *testing.T) {
	dir := etc(t, map[string]string{
		"baseline/nova_compute/index.json": `{"schema":1,"id":"aa","image":"x","suffix":"+nfslock1","made":"2026-01-01T00:00:00Z","packages":[{"name":"qemu-utils","version":"1","held":false,"file":"f","size":1,"sha256":"s"}]}`,
		"baseline/cinder_volume/x.deb":     "",
		"baseline/cinder_api/index.json":   `{"schema":2}`,
	})
	all, err := readBaselines(dir)
	if err == nil || !strings.Contains(err.Error(), "in cinder_api: it has schema 2") {
		t.Errorf("%v", err)
	}
	if len(all) != 1 || all["nova_compute"].ID != "aa" || all["nova_compute"].Packages[0].Version != "1" {
		t.Errorf("%+v", all)
	}
	if all, err := readBaselines(t.TempDir()); all != nil || err != nil {
		t.Errorf("nothing kept: %v, %v", all, err)
	}
}

func FuzzParseBaseline(f *testing.F) {
	f.Add([]byte(`{"schema":1,"id":"aa","suffix":"+nfslock1","packages":[{"name":"qemu-utils","version":"1"}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		b, err := parseBaseline(strings.NewReader(string(data)))
		if err == nil {
			drift("c", b, &Packages{State: "running", ID: "aa", QEMU: Stock, Installed: []QEMUPacket{{Name: "qemu-utils", Version: "1"}}})
		}
	})
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
