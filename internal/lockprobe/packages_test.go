package lockprobe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
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

func TestReadPackages(t *testing.T) {
	edited := map[string]string{"usr/bin/qemu-img": "ELF…image locks are refused…"}
	plainFile := map[string]string{"usr/bin/qemu-img": "ELF"}
	tests := []struct {
		name    string
		status  string
		files   map[string]string
		suffix  string
		qemu    QEMU
		variant string
		rows    int
	}{
		{"stock", stanza("qemu-utils", "install", oldVersion) + stanza("qemu-block-extra", "install", oldVersion), plainFile, "", Stock, "", 2},
		{"fallback", stanza("qemu-utils", "hold", newVersion) + stanza("qemu-block-extra", "hold", newVersion), edited, "", Patched, "fallback", 2},
		{"classic edit", stanza("qemu-utils", "hold", newVersion), plainFile, "", Patched, "disable_ofd", 1},
		{"another suffix", stanza("qemu-utils", "hold", oldVersion+"~our1"), edited, "~our1", Patched, "fallback", 1},
		{"the guests' own is stock", stanza("qemu-utils", "hold", newVersion) + stanza("qemu-system-x86", "install", oldVersion), edited, "", Mixed, "fallback", 2},
		{"modules and data do not count", stanza("qemu-utils", "hold", newVersion) + stanza("qemu-system-data", "install", oldVersion), edited, "", Patched, "fallback", 2},
		{"a program copied by hand", stanza("qemu-utils", "install", oldVersion), edited, "", Mixed, "fallback", 1},
		{"no QEMU", strings.ReplaceAll(stanza("nfs-common", "install", "1"), "Source: qemu\n", ""), nil, "", NoQEMU, "", 0},
		{"removed", "Package: qemu-utils\nStatus: deinstall ok config-files\nArchitecture: amd64\nSource: qemu\nVersion: 1\n\n", nil, "", NoQEMU, "", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := Packages{}
			if err := p.readPackages(container(t, test.status, test.files), baseline{Suffix: test.suffix}); err != nil {
				t.Fatal(err)
			}
			if p.QEMU != test.qemu || p.Variant != test.variant || len(p.Installed) != test.rows || p.Distribution != "debian bookworm" {
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
