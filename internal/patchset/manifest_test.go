package patchset

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// good is a manifest as tests change it; the number of each line is in the wanted errors.
const good = `schema: 1
variant: fallback
suffix: +nfslock1
packages:
  - name: qemu-utils
    version: 1:7.2+dfsg-7+deb12u18+nfslock1
    built_from: 1:7.2+dfsg-7+deb12u18
    distribution: debian
    release: bookworm
    architecture: amd64
    file: qemu-utils_7.2+dfsg-7+deb12u18+nfslock1_amd64.deb
    size: 1295208
    sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
  - name: qemu-system-data
    version: 1:7.2+dfsg-7+deb12u18+nfslock1
    built_from: 1:7.2+dfsg-7+deb12u18
    distribution: debian
    release: bookworm
    architecture: all
    file: qemu-system-data_7.2+dfsg-7+deb12u18+nfslock1_all.deb
    size: 2
    sha256: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
  - name: qemu-utils
    version: 1:8.2.2+ds-0ubuntu1.10+nfslock1
    built_from: 1:8.2.2+ds-0ubuntu1.10
    distribution: ubuntu
    release: noble
    architecture: arm64
    file: qemu-utils_8.2.2_arm64.deb
    size: 3
    sha256: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
`

func parse(t *testing.T, text string) Manifest {
	t.Helper()
	m, err := ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAManifestIsReadAsItIsWritten(t *testing.T) {
	m := parse(t, good)
	want := Package{
		Name: "qemu-utils", Version: "1:7.2+dfsg-7+deb12u18+nfslock1", BuiltFrom: "1:7.2+dfsg-7+deb12u18",
		Distribution: "debian", Release: "bookworm", Architecture: "amd64",
		File: "qemu-utils_7.2+dfsg-7+deb12u18+nfslock1_amd64.deb", Size: 1295208, SHA256: sumA,
	}
	if diff := cmp.Diff(want, m.Packages[0]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if m.Schema != 1 || m.Variant != "fallback" || m.Suffix != "+nfslock1" || len(m.Packages) != 3 {
		t.Errorf("got %+v", m)
	}
}

func TestPackagesAreChosenByPlatform(t *testing.T) {
	m := parse(t, good)
	for _, test := range []struct{ distribution, release, architecture, want string }{
		{"debian", "bookworm", "amd64", "qemu-utils qemu-system-data"},
		{"debian", "bookworm", "arm64", "qemu-system-data"}, // architecture all
		{"ubuntu", "noble", "arm64", "qemu-utils"},
		{"ubuntu", "noble", "amd64", ""},
		{"ubuntu", "bookworm", "amd64", ""},
	} {
		var names []string
		for _, p := range m.For(test.distribution, test.release, test.architecture) {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%s %s %s: got %q, want %q", test.distribution, test.release, test.architecture, got, test.want)
		}
	}
	want := []string{"debian bookworm all", "debian bookworm amd64", "ubuntu noble arm64"}
	if got := m.Platforms(); !slices.Equal(got, want) {
		t.Errorf("platforms: got %q, want %q", got, want)
	}
}

func TestNumbersThatAreTextStayText(t *testing.T) {
	m := parse(t, strings.NewReplacer("release: noble", "release: 24.10", "1:8.2.2+ds-0ubuntu1.10", "1.10").Replace(good))
	if p := m.Packages[2]; p.Release != "24.10" || p.BuiltFrom != "1.10" || p.Version != "1.10+nfslock1" {
		t.Errorf("got %+v", p)
	}
}

func TestWhatIsWrongIsNamedByLineAndPackage(t *testing.T) {
	_, list, _ := strings.Cut(good, "packages:")
	packages := "packages:" + list
	for _, test := range []struct{ name, old, new, want string }{
		{"schema", "schema: 1", "schema: 2", `manifest line 1: this program reads schema 1, the manifest says 2: update the collection`},
		{"schema and all that comes with it", "schema: 1", "format: deb\nschema: 2", `manifest line 2: this program reads schema 1, the manifest says 2: update the collection`},
		{"schema text", "schema: 1", "schema: '1'", `manifest line 1: schema is "1", it must be a whole number`},
		{"schema list", "schema: 1", "schema: [1]", `manifest line 1: schema must be a whole number`},
		{"no schema", "schema: 1\n", "", `manifest line 1: schema is missing`},
		{"unknown key", "variant:", "author: me\nvariant:", `manifest line 2: unknown key "author"`},
		{"merge key", "variant:", "<<: {}\nvariant:", `manifest line 2: unknown key "<<"`},
		{"key twice", "variant:", "schema: 1\nvariant:", `manifest line 2: schema is given twice`},
		{"variant", "variant: fallback", "variant: Fallback", `manifest line 2: variant is "Fallback", it must be fallback or disable_ofd`},
		{"suffix", "suffix: +nfslock1", "suffix: ~nfslock1", `manifest line 3: suffix is "~nfslock1", it must be a plus sign and then letters, digits or . + ~`},
		{"suffix with hyphen", "suffix: +nfslock1", "suffix: +nfs-lock", `manifest line 3: suffix is "+nfs-lock", it must be a plus sign and then letters, digits or . + ~`},
		{"bare suffix", "suffix: +nfslock1", "suffix: +", `manifest line 3: suffix is "+", it must be a plus sign and then letters, digits or . + ~`},
		{"no packages key", packages, "", `manifest line 1: packages is missing`},
		{"null packages", packages, "packages:\n", `manifest line 4: packages must be a list`},
		{"empty packages", packages, "packages: []\n", `manifest line 4: packages is empty`},
		{"package is no mapping", "  - name: qemu-system-data", "  - qemu-utils\n  - name: qemu-system-data", `manifest line 14: package 2 must be a mapping of name, version, built_from, distribution, release, architecture, file, size, sha256`},
		{"missing key", "    size: 2\n", "", `manifest line 14: package qemu-system-data: size is missing`},
		{"missing name", "  - name: qemu-system-data\n    version", "  - version", `manifest line 14: package 2: name is missing`},
		{"unknown package key", "    size: 2\n", "    size: 2\n    md5: x\n", `manifest line 22: package qemu-system-data: unknown key "md5"`},
		{"null value", "release: noble", "release:", `manifest line 27: package qemu-utils: release has no value`},
		{"list value", "release: noble", "release: [noble]", `manifest line 27: package qemu-utils: release must be lower-case letters, digits or . _ -`},
		{"package name", "name: qemu-system-data", "name: Qemu_data", `manifest line 14: package 2: name is "Qemu_data", it must be a Debian package name`},
		{"name like an option", "name: qemu-system-data", "name: --force-all", `manifest line 14: package 2: name is "--force-all", it must be a Debian package name`},
		{"version", "version: 1:8.2.2+ds-0ubuntu1.10+nfslock1", "version: 1:8.2.2 ; true", `manifest line 24: package qemu-utils: version is "1:8.2.2 ; true", it must be a Debian version`},
		{"empty version", "version: 1:8.2.2+ds-0ubuntu1.10+nfslock1", "version: ''", `manifest line 24: package qemu-utils: version is "", it must be a Debian version`},
		{"version and suffix", "version: 1:8.2.2+ds-0ubuntu1.10+nfslock1", "version: 1:8.2.2+ds-0ubuntu1.9+nfslock1", `manifest line 24: package qemu-utils: version is 1:8.2.2+ds-0ubuntu1.9+nfslock1, it must be built_from and suffix: 1:8.2.2+ds-0ubuntu1.10+nfslock1`},
		{"stock", "    size: 3\n", "    size: 3\n    stock: +b2\n", `manifest line 31: package qemu-utils: stock is "+b2", it must be a Debian version`},
		{"no stock", "    size: 3\n", "    size: 3\n    stock:\n", `manifest line 31: package qemu-utils: stock has no value`},
		{
			"stock of itself", "    size: 3\n", "    size: 3\n    stock: 1:8.2.2+ds-0ubuntu1.10+nfslock1\n",
			`manifest line 31: package qemu-utils: stock is 1:8.2.2+ds-0ubuntu1.10+nfslock1, the version of the package itself`,
		},
		{"architecture", "architecture: arm64", "architecture: ARM", `manifest line 28: package qemu-utils: architecture is "ARM", it must be a Debian architecture, such as amd64`},
		{"distribution", "distribution: ubuntu", "distribution: Ubuntu", `manifest line 26: package qemu-utils: distribution is "Ubuntu", it must be lower-case letters, digits or . _ -`},
		{"size zero", "size: 3", "size: 0", `manifest line 30: package qemu-utils: size is 0, it must be 1 to 2147483648 bytes`},
		{"size negative", "size: 3", "size: -3", `manifest line 30: package qemu-utils: size is -3, it must be 1 to 2147483648 bytes`},
		{"size too big", "size: 3", "size: 2147483649", `manifest line 30: package qemu-utils: size is 2147483649, it must be 1 to 2147483648 bytes`},
		{"size beyond 64 bits", "size: 3", "size: 99999999999999999999", `manifest line 30: package qemu-utils: size is "99999999999999999999", it must be a whole number`},
		{"size float", "size: 3", "size: 3.0", `manifest line 30: package qemu-utils: size is "3.0", it must be a whole number`},
		{"size hex", "size: 3", "size: 0x3", `manifest line 30: package qemu-utils: size is "0x3", it must be a whole number`},
		{"sha256 upper case", "sha256: b", "sha256: B", `manifest line 22: package qemu-system-data: sha256 is "B` + sumB[1:] + `", it must be 64 lower-case hex digits`},
		{"sha256 short", "sha256: bb", "sha256: b", `manifest line 22: package qemu-system-data: sha256 is "` + sumB[1:] + `", it must be 64 lower-case hex digits`},
		{
			"duplicate", "  - name: qemu-utils\n    version: 1:8", "  - name: qemu-utils\n    version: 1:7.2+nfslock1\n    built_from: 1:7.2\n    distribution: debian\n    release: bookworm\n    architecture: amd64\n    file: x.deb\n    size: 1\n    sha256: " + sumA + "\n  - name: qemu-utils\n    version: 1:8",
			`manifest line 23: package qemu-utils: there is one for debian bookworm amd64 already, in line 5`,
		},
		{
			"duplicate of architecture all", "  - name: qemu-utils\n    version: 1:8", "  - name: qemu-system-data\n    version: 1:7.2+nfslock1\n    built_from: 1:7.2\n    distribution: debian\n    release: bookworm\n    architecture: amd64\n    file: x.deb\n    size: 1\n    sha256: " + sumA + "\n  - name: qemu-utils\n    version: 1:8",
			`manifest line 23: package qemu-system-data: there is one for debian bookworm amd64 already, in line 14`,
		},
		{
			"architecture all as the duplicate", "  - name: qemu-utils\n    version: 1:8", "  - name: qemu-utils\n    version: 1:7.2+nfslock1\n    built_from: 1:7.2\n    distribution: debian\n    release: bookworm\n    architecture: all\n    file: x.deb\n    size: 1\n    sha256: " + sumA + "\n  - name: qemu-utils\n    version: 1:8",
			`manifest line 23: package qemu-utils: there is one for debian bookworm all already, in line 5`,
		},
		{"one file twice", "file: qemu-utils_8.2.2_arm64.deb", "file: qemu-system-data_7.2+dfsg-7+deb12u18+nfslock1_all.deb", `manifest line 23: package qemu-utils: file qemu-system-data_7.2+dfsg-7+deb12u18+nfslock1_all.deb has another size or sha256 in line 14`},
		{"anchor", "suffix: +nfslock1", "suffix: &s +nfslock1", `manifest line 3: YAML anchors and aliases are not allowed`},
		{"alias", "suffix: +nfslock1\n", "suffix: &s +nfslock1\nother: *s\n", `manifest line 3: YAML anchors and aliases are not allowed`},
		{"tag", "suffix: +nfslock1", "suffix: !!binary K25mcw==", `manifest line 3: YAML tags are not allowed`},
		{"second document", "schema: 1", "schema: 1\n---\nschema: 1", `manifest line 2: a second document begins`},
		{"not YAML", "suffix: +nfslock1", "suffix: [", `manifest: it is not YAML: near line 4: did not find expected node content`},
		{"not YAML after the first document", good, "schema: 1\n---\n{", `manifest: it is not YAML: near line 3: did not find expected node content`},
		{"nothing", good, "", `manifest: it is empty`},
		{"a comment", good, "# nothing\n", `manifest: it is empty`},
		{"null", good, "---\n", `manifest line 2: the manifest must be a mapping of schema, variant, suffix, packages`},
		{"text", good, "hello", `manifest line 1: the manifest must be a mapping of schema, variant, suffix, packages`},
		{"not UTF-8", "schema", "\xff", `manifest: it is not UTF-8 text`},
		{"too long", "schema", strings.Repeat("#", 1<<20), `manifest: it has 1049585 bytes, 1048576 are allowed`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Count(good, test.old) == 0 {
				t.Fatal("the test changes nothing")
			}
			m, err := ParseManifest([]byte(strings.Replace(good, test.old, test.new, 1)))
			if err == nil {
				t.Fatalf("got %+v, want %s", m, test.want)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFileNamesThatLeaveTheFolderAreRefused(t *testing.T) {
	for _, name := range []string{
		"/etc/x.deb", "../x.deb", "..", ".", "", ".deb", ".x.deb", "a/b.deb", `a\b.deb`, "-x.deb", "--x.deb", "x.deb\x00", "x\x00.deb", "x\n.deb",
		"x.deb\n", "x y.deb", "x.rpm", "x.DEB", "é.deb", "$(id).deb", "x;y.deb", "*.deb", strings.Repeat("x", 252) + ".deb",
	} {
		text := strings.Replace(good, "qemu-utils_8.2.2_arm64.deb", yamlQuote(name), 1)
		_, err := ParseManifest([]byte(text))
		if want := `manifest line 29: package qemu-utils: file is `; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for _, name := range []string{"x.deb", "a..b.deb", "qemu_1%3a7.2+dfsg-7~bpo1_amd64.deb", strings.Repeat("x", 251) + ".deb"} {
		if p := parse(t, strings.Replace(good, "qemu-utils_8.2.2_arm64.deb", name, 1)).Packages[2]; p.File != name {
			t.Errorf("got %q, want %q", p.File, name)
		}
	}
}

// yamlQuote: what Go and YAML escape in double quotes is the same for the characters used here.
func yamlQuote(text string) string { return strconv.Quote(text) }

func TestVersionsFollowDebianPolicy(t *testing.T) {
	for version, want := range map[string]bool{
		"1": true, "1.0": true, "1:7.2+dfsg-7+deb12u18": true, "0:1-1": true, "1.2-3-4": true, "1:2:3-1": true, "5~rc1-1": true,
		"": false, "a": false, "1:": false, ":1": false, "a:1": false, "1-": false, "-1": false, "1_2": false, "1:a": false,
		"1 2": false, "1\n": false, "1-1:2": false, "1/2": false, "é1": false, "1é": false, strings.Repeat("1", 200): false,
		"1234567890:1": false,
	} {
		if got := isVersion(version); got != want {
			t.Errorf("%q: got %t, want %t", version, got, want)
		}
	}
}

func TestAllErrorsAreToldUpToTen(t *testing.T) {
	_, err := ParseManifest([]byte(strings.NewReplacer("fallback", "x", "size: 2", "size: 0").Replace(good)))
	want := "2 errors:\n- manifest line 2: variant is \"x\", it must be fallback or disable_ofd\n" +
		"- manifest line 21: package qemu-system-data: size is 0, it must be 1 to 2147483648 bytes"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = ParseManifest([]byte("schema: 1\nvariant: fallback\nsuffix: +n\npackages: [{}, {}]\n"))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 12 || lines[0] != "18 errors:" || lines[11] != "- and 8 more" {
		t.Errorf("got %d lines: %v", len(lines), err)
	}
}

func TestManyAliasesAreRefusedAtOnce(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 10))
	}
	_, err := ParseManifest([]byte(bomb.String()))
	if want := "manifest line 1: YAML anchors and aliases are not allowed"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Whatever a megabyte of YAML holds, its error is short, and comes soon.
func TestHostileManifestsAreRefusedSoonAndShortly(t *testing.T) {
	const mebibyte = 1 << 20
	fill := func(begin, unit, end string) string {
		return begin + strings.Repeat(unit, (mebibyte-len(begin)-len(end))/len(unit)) + end
	}
	for name, text := range map[string]string{
		"deep lists":         fill("", "[", ""),
		"deep mappings":      fill("", "{a: ", ""),
		"deep block":         fill("", "- ", "x"),
		"many keys":          fill("{", "a,", "}"),
		"many elements":      fill("packages: [", "x,", "]"),
		"many packages":      fill("packages:\n", "- {}\n", ""),
		"many documents":     fill("", "---\n", ""),
		"a long key":         fill("? ", "k", "\n: x\n"),
		"a long name":        fill("packages:\n- name: ", "k", "\n"),
		"a long suffix":      fill("suffix: +", "k", "\n"),
		"a long version":     fill("packages:\n- {name: qemu-utils, version: '1", "k", "'}\n"),
		"a long size":        fill("packages:\n- {name: qemu-utils, size: ", "9", "}\n"),
		"a long tag":         fill("!", "k", " x\n"),
		"a long alias":       fill("a: *", "k", "\n"),
		"a long anchor":      fill("a: &", "k", " x\n"),
		"a long schema":      fill("schema: ", "9", "\n"),
		"escapes":            fill("\"", "\\U0010FFFF", "\""),
		"a directive":        fill("%YAML ", "1", "\n"),
		"keys over and over": fill("", "schema: 1\n", ""),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		_, err := ParseManifest([]byte(text))
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %v, %d MiB", name, took, used>>20)
		if err == nil || len(err.Error()) > 4000 {
			t.Errorf("%s: %.100v, an error of %d bytes", name, err, len(fmt.Sprint(err)))
		}
		if took > 2*time.Minute || used > 1<<30 {
			t.Errorf("%s: took %v and %d MiB", name, took, used>>20)
		}
	}
}

func TestDigestIsThatOfTheBytes(t *testing.T) {
	// echo -n 'schema: 1' | sha256sum
	if got, want := Digest([]byte("schema: 1")), "325d061edd03272800228bbe72b0999d3415375a137cdae9ed5e4374a36b7f29"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// print writes a manifest in the order of the documentation.
func print(m Manifest) string {
	var out strings.Builder
	fmt.Fprintf(&out, "schema: %d\nvariant: %s\nsuffix: %s\npackages:\n", m.Schema, m.Variant, yamlQuote(m.Suffix))
	for _, p := range m.Packages {
		fmt.Fprintf(&out, "  - name: %q\n    version: %q\n    built_from: %q\n    distribution: %q\n    release: %q\n    architecture: %q\n    file: %q\n    size: %d\n    sha256: %q\n",
			p.Name, p.Version, p.BuiltFrom, p.Distribution, p.Release, p.Architecture, p.File, p.Size, p.SHA256)
		if p.Stock != "" {
			fmt.Fprintf(&out, "    stock: %q\n", p.Stock)
		}
	}
	return out.String()
}

// What is accepted is the same after it is written and read again, and its error is not empty otherwise.
func FuzzParseManifest(f *testing.F) {
	for _, seed := range []string{
		good, "", "---\n", "a: &a [*a]", "schema: 1\npackages: [{name: x}]", "schema: 2", "{", "? a\n: b", "!!binary x", "%YAML 1.2\n---\n",
		"schema: 1\nvariant: disable_ofd\nsuffix: \"+\\u0041\"\npackages: []\n", strings.Replace(good, "size: 3", "size: +3", 1), "\ufeff" + good,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "manifest") && !strings.Contains(err.Error(), " errors:\n- manifest") || !cmp.Equal(m, Manifest{}) {
				t.Errorf("got %+v with error %q", m, err)
			}
			return
		}
		again, err := ParseManifest([]byte(print(m)))
		if err != nil {
			t.Fatalf("%v\n%s", err, print(m))
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("-first +again:\n%s", diff)
		}
		for _, p := range m.Packages {
			if strings.ContainsAny(p.File, "/\x00\n") || p.Size <= 0 || len(p.SHA256) != 64 {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}
