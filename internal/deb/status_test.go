package deb

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatusFieldsAreRead(t *testing.T) {
	const text = `
Package: qemu-utils
Status: hold ok installed
Priority: optional
Architecture: amd64
Multi-Arch: foreign
Source: qemu
Version: 1:7.2+dfsg-7+deb12u18+b3
Provides: qemu-utils (= 1:7.2)
Depends: libc6 (>= 2.36),
 libaio1
Pre-Depends: x
Breaks: a (<< 1)
Conffiles:
 /etc/a 00112233445566778899aabbccddeeff
Conflicts: b
Description: short
 long
 .
 Package: not a field


Package: qemu-block-extra
status: deinstall reinstreq half-installed
Source: other (1:7.2-1)
Version: 2
Architecture: all

Package: selected
`
	got, err := ParseStatus(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{
		{
			Name: "qemu-utils", Architecture: "amd64", Version: "1:7.2+dfsg-7+deb12u18+b3",
			Source: "qemu", SourceVersion: "1:7.2+dfsg-7+deb12u18", MultiArch: "foreign",
			Status:   Status{"hold", "ok", "installed"},
			Provides: "qemu-utils (= 1:7.2)", Depends: "libc6 (>= 2.36),\n libaio1", PreDepends: "x", Breaks: "a (<< 1)", Conflicts: "b",
		},
		{
			Name: "qemu-block-extra", Architecture: "all", Version: "2", Source: "other", SourceVersion: "1:7.2-1",
			Status: Status{"deinstall", "reinstreq", "half-installed"},
		},
		{Name: "selected", Source: "selected", Status: Status{"unknown", "ok", "not-installed"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatusHasDpkgsShortForm(t *testing.T) {
	for want, status := range map[string]Status{
		"ii":  {"install", "ok", "installed"},
		"hi":  {"hold", "ok", "installed"},
		"iF":  {"install", "ok", "half-configured"},
		"iHR": {"install", "reinstreq", "half-installed"},
		"rc":  {"deinstall", "ok", "config-files"},
		"pn":  {"purge", "ok", "not-installed"},
		"un":  {"unknown", "ok", "not-installed"},
		"iU":  {"install", "ok", "unpacked"},
		"it":  {"install", "ok", "triggers-pending"},
		"iW":  {"install", "ok", "triggers-awaited"},
		"":    {},
	} {
		if got := status.String(); got != want {
			t.Errorf("%v is %q, want %q", status, got, want)
		}
	}
}

func TestSourceVersionIsWithoutRebuild(t *testing.T) {
	for version, want := range map[string]string{
		"1:7.2+dfsg-7+deb12u18+b3":  "1:7.2+dfsg-7+deb12u18",
		"1.0-1+b12":                 "1.0-1",
		"1.0-1+b":                   "1.0-1+b",
		"1.0-1+b1x":                 "1.0-1+b1x",
		"1.0-1":                     "1.0-1",
		"1.0+b1-1":                  "1.0+b1-1",
		"1:7.2-7+b3+nfslock1":       "1:7.2-7+b3+nfslock1",
		"1:8.2.2+ds-0ubuntu1.4+b10": "1:8.2.2+ds-0ubuntu1.4",
	} {
		if got := WithoutRebuild(version); got != want {
			t.Errorf("%s gives %s, want %s", version, got, want)
		}
	}
}

func TestDamagedStatusIsRefused(t *testing.T) {
	const good = "Package: a\nStatus: install ok installed\n"
	for name, text := range map[string]string{
		"no package":           "Version: 1\n",
		"path as name":         "Package: ../../etc\n",
		"hidden name":          "Package: .a\n",
		"path as architecture": "Package: a\nArchitecture: ../x\n",
		"two names":            "Package: a\nPackage: b\n",
		"empty then full":      "Package: a\nDepends:\nDepends: b\n",
		"two words of status":  "Package: a\nStatus: install installed\n",
		"unknown state":        "Package: a\nStatus: install ok broken\n",
		"cut off":              good + "\nPackage: b\nStat",
		"cut off in a line":    good + "Version: 1",
		"no colon":             good + "Version 1\n",
		"continues nothing":    " x\n" + good,
		"option":               "-Package: a\n",
		"space in a name":      "Pack age: a\n",
		"html":                 "<html>\n",
	} {
		if got, err := ParseStatus(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// endless gives the same bytes for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func TestEndlessStatusTakesBoundedMemory(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"one line":      io.MultiReader(strings.NewReader("Package: a\nDescription: "), endless("x")),
		"one stanza":    io.MultiReader(strings.NewReader("Package: a\n"), endless("X: y\n")),
		"many packages": endless("Package: a\n\n"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := eachStanza(r, func([]byte) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		if used > 8<<20 {
			t.Errorf("%s: took %d bytes", name, used)
		}
	}
}

// TestStanzasMayLieAcrossReads reads one byte at a time, and in chunks around the buffer's size.
func TestStanzasMayLieAcrossReads(t *testing.T) {
	var text strings.Builder
	var want []string
	for i := range 120 {
		stanza := "Package: p\nDescription: " + strings.Repeat("x", i*i*7%70_000) + "\n"
		want = append(want, stanza)
		text.WriteString(stanza + strings.Repeat("\n", 1+i%3))
	}
	for name, r := range map[string]io.Reader{
		"whole":   strings.NewReader(text.String()),
		"at once": bytes.NewBufferString(text.String()),
		"by byte": byteReader{strings.NewReader(text.String())},
	} {
		var got []string
		if err := eachStanza(r, func(raw []byte) error { got = append(got, string(raw)); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %.400s", name, diff)
		}
	}
}

type byteReader struct{ r io.Reader }

func (b byteReader) Read(p []byte) (int, error) { return b.r.Read(p[:1]) }

// TestStatusOfThisMachineIsReadAsDpkgReadsIt compares with dpkg-query. Both read a copy: other tests may install packages meanwhile.
func TestStatusOfThisMachineIsReadAsDpkgReadsIt(t *testing.T) {
	status, err := os.ReadFile("/" + statusFile)
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "status"), status, 0o644); err != nil {
		t.Fatal(err)
	}
	want := run(t, "dpkg-query", "--admindir", dir, "--show", "--showformat=${Package} ${Version} ${Architecture} ${db:Status-Abbrev} ${source:Package} ${source:Version}\n")
	packages, err := ParseStatus(bytes.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, p := range packages {
		got[strings.Join([]string{p.Name, p.Version, p.Architecture, p.Status.String(), p.Source, p.SourceVersion}, " ")] = true
	}
	for line := range strings.Lines(want) {
		if fields := strings.Join(strings.Fields(line), " "); !got[fields] {
			t.Errorf("dpkg has %s", fields)
		}
	}
	if len(packages) < 50 {
		t.Errorf("only %d packages", len(packages))
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nDepends: x,\n y\n"))
	f.Add([]byte("\n\nPackage: a\nSource: b (1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		packages, err := ParseStatus(bytes.NewReader(text))
		if err != nil {
			return
		}
		slow, err := ParseStatus(byteReader{bytes.NewReader(text)})
		if diff := cmp.Diff(packages, slow); diff != "" || err != nil {
			t.Errorf("read byte by byte: %v %s", err, diff)
		}
		for _, p := range packages {
			if !safeName(p.Name) || strings.ContainsAny(p.Name+p.Architecture, "/\n ") || p.Status == (Status{}) {
				t.Errorf("%+v", p)
			}
		}
	})
}

func BenchmarkParseStatus(b *testing.B) {
	text, err := os.ReadFile("/" + statusFile)
	if err != nil {
		b.Skip(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStatus(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

// Small stanzas take far more memory than their text has.
func TestManyPackagesTakeBoundedMemoryAndTime(t *testing.T) {
	many := func(n, from int) string {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "Package: a%d\n\n", from+i)
		}
		return text.String()
	}
	updates := map[string]string{statusFile: many(10, 0)}
	for i := range maxUpdates + 1 {
		updates[fmt.Sprintf("%s/%04d", updatesDir, i)] = "Package: a1\nStatus: install ok installed\n"
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  string // in the error
	}{
		"in the status file": {map[string]string{statusFile: many(2_000_000, 0)}, "stanza 100001: there are more packages"},
		"in one record":      {map[string]string{statusFile: many(1000, 0), updatesDir + "/0001": many(100_000, 1000)}, "stanza 2: there are more packages"},
		"in many records":    {updates, "more than 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t, test.files)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			begin := time.Now()
			_, err := OpenDatabase(root)
			took := time.Since(begin)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v", err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 || took > 2*time.Minute {
				t.Errorf("took %d MiB and %v", used>>20, took)
			}
		})
	}
}
