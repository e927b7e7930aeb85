package deb

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stanza makes one of a status file: "hello amd64 1.0 ii", more fields after that.
func stanza(name, arch, version, status string, fields ...string) string {
	words := map[string]string{
		"ii": "install ok installed", "hi": "hold ok installed", "rc": "deinstall ok config-files", "pn": "purge ok not-installed",
		"iU": "install ok unpacked", "iF": "install ok half-configured", "iHR": "install reinstreq half-installed",
		"iW": "install ok triggers-awaited", "it": "install ok triggers-pending", "ri": "deinstall ok installed", "hU": "hold ok unpacked",
	}
	return fmt.Sprintf("Package: %s\nStatus: %s\nArchitecture: %s\nVersion: %s\n%s\n", name, words[status], arch, version, strings.Join(append(fields, ""), "\n"))
}

// short lists packages like "hello:amd64 1.0 ii".
func short(packages []Package) []string {
	var list []string
	for _, p := range packages {
		list = append(list, fmt.Sprintf("%s:%s %s %s", p.Name, p.Architecture, p.Version, p.Status))
	}
	return list
}

func TestPendingRecordsCount(t *testing.T) {
	const same = "Multi-Arch: same"
	root := newRoot(t, map[string]string{
		statusFile: stanza("dpkg", "amd64", "1", "ii") + stanza("utils", "amd64", "1", "ii") + stanza("lib", "amd64", "1", "ii", same) +
			stanza("cross", "i386", "1", "ii") + stanza("gone", "amd64", "1", "ii"),
		updatesDir + "/0000":  stanza("utils", "amd64", "2", "iU"),
		updatesDir + "/0001":  stanza("utils", "amd64", "2", "iF"),
		updatesDir + "/0002":  stanza("new", "all", "1", "iHR"),
		updatesDir + "/0003":  stanza("lib", "i386", "1", "ii", same),
		updatesDir + "/0004":  stanza("cross", "amd64", "2", "ii"),
		updatesDir + "/0005":  stanza("gone", "amd64", "1", "pn"),
		updatesDir + "/0010":  stanza("utils", "amd64", "2", "ii"),
		updatesDir + "/tmp.i": "half a rec",
	})
	want := []string{"dpkg:amd64 1 ii", "utils:amd64 2 ii", "lib:amd64 1 ii", "cross:amd64 2 ii", "gone:amd64 1 pn", "new:all 1 iHR", "lib:i386 1 ii"}
	if diff := cmp.Diff(want, short(openDatabase(t, root).Packages())); diff != "" {
		t.Error(diff)
	}
}

// TestAStatusRewrittenInBetweenIsReadAgain has dpkg merge its records while they are read.
func TestAStatusRewrittenInBetweenIsReadAgain(t *testing.T) {
	root := newRoot(t, map[string]string{
		statusFile:           stanza("a", "amd64", "1", "ii"),
		statusFile + "-new":  stanza("a", "amd64", "3", "ii"),
		updatesDir + "/0000": stanza("a", "amd64", "2", "ii"),
	})
	var seen []string
	err := eachRecord(root, func() { seen = nil }, func(raw []byte, _ bool) error {
		p, err := parseStatusStanza(raw)
		seen = append(seen, p.Version)
		if p.Version == "2" {
			return errors.Join(root.Rename(statusFile+"-new", statusFile), root.Remove(updatesDir+"/0000"))
		}
		return err
	})
	if diff := cmp.Diff([]string{"3"}, seen); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestWithoutDpkgTheErrorSaysSo(t *testing.T) {
	_, err := OpenDatabase(newRoot(t, map[string]string{"etc/os-release": "ID=rocky"}))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestStatusOutsideOfTheRootIsNotRead(t *testing.T) {
	outside := writeFile(t, []byte(stanza("a", "amd64", "1", "ii")))
	for _, files := range []map[string]string{
		{statusFile: "-> " + outside},
		{"var/lib/dpkg": "-> " + filepath.Dir(outside)},
		{"var": "-> ../../../../../../../../var"},
	} {
		if d, err := OpenDatabase(newRoot(t, files)); err == nil {
			t.Errorf("%v: read %v", files, short(d.Packages()))
		}
	}
}

func TestPackagesAreFoundByName(t *testing.T) {
	const same = "Multi-Arch: same"
	d := openDatabase(t, newRoot(t, map[string]string{
		statusFile: stanza("dpkg", "amd64", "1", "ii") + stanza("lib", "i386", "1", "ii", same) + stanza("lib", "amd64", "1", "ii", same) +
			stanza("data", "all", "1", "ii") + stanza("foreign", "i386", "1", "ii") + stanza("two", "i386", "1", "ii", same) +
			stanza("two", "arm64", "1", "ii", same) + stanza("removed", "amd64", "1", "rc") + stanza("half", "amd64", "1", "iF") + stanza("held", "amd64", "1", "hi"),
	}))
	if got := d.Architecture(); got != "amd64" {
		t.Errorf("native architecture %q", got)
	}
	for name, want := range map[string]string{
		"lib": "lib:amd64 1 ii", "data": "data:all 1 ii", "foreign": "foreign:i386 1 ii", "two": "", "removed": "removed:amd64 1 rc",
		"half": "half:amd64 1 iF", "held": "held:amd64 1 hi", "li": "",
	} {
		got := ""
		p, found := d.Package(name)
		if found {
			got = short([]Package{p})[0]
		}
		if got != want {
			t.Errorf("%s: found %q, want %q", name, got, want)
		}
		if got := d.Installed(name); got != strings.HasSuffix(want, "i") {
			t.Errorf("Installed(%s) = %v", name, got)
		}
	}
}

func TestPackagesAreTheCallersOwn(t *testing.T) {
	d := openDatabase(t, newRoot(t, map[string]string{statusFile: stanza("a", "amd64", "1", "ii")}))
	d.Packages()[0].Name = "b"
	if _, found := d.Package("a"); !found {
		t.Error("a change in the list reached the database")
	}
}

func sum(content string) string { return fmt.Sprintf("%x", md5.Sum([]byte(content))) }

func TestMd5sumsAreFoundByArchitecture(t *testing.T) {
	d := openDatabase(t, newRoot(t, map[string]string{
		statusFile:                     stanza("dpkg", "amd64", "1", "ii"),
		infoDir + "/lib:amd64.list":    "/.\n",
		infoDir + "/lib:amd64.md5sums": sum("a") + "  usr/lib/a\n",
		infoDir + "/lib:i386.list":     "/.\n",
		infoDir + "/lib:i386.md5sums":  sum("i") + "  usr/lib/i\n",
		infoDir + "/utils.md5sums":     strings.ToUpper(sum("u")) + "  ./usr/bin/u u\n",
		infoDir + "/old.list":          "/.\n",
		infoDir + "/old.md5sums":       sum("o") + "  o",
		infoDir + "/bad.md5sums":       sum("o") + "  /etc/../../o\n",
	}))
	for name, c := range map[string]struct {
		p    Package
		want map[string]string
	}{
		"same":               {Package{Name: "lib", Architecture: "i386", MultiArch: "same"}, map[string]string{"usr/lib/i": sum("i")}},
		"other":              {Package{Name: "utils", Architecture: "amd64"}, map[string]string{"usr/bin/u u": sum("u")}},
		"same, old database": {Package{Name: "old", Architecture: "amd64", MultiArch: "same"}, map[string]string{"o": sum("o")}},
	} {
		got, err := d.Md5sums(c.p)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	if _, err := d.Md5sums(Package{Name: "none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a list: %v", err)
	}
	for _, name := range []string{"bad", "../info/utils", ""} {
		if got, err := d.Md5sums(Package{Name: name}); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v %v", name, got, err)
		}
	}
}

func TestFilesAreVerified(t *testing.T) {
	root := newRoot(t, map[string]string{
		statusFile:                      stanza("hello", "amd64", "1", "ii"),
		"etc/dpkg/dpkg.cfg.d/kolla":     kollaRules,
		"var/lib/dpkg/diversions":       "/usr/bin/diverted\n/usr/bin/diverted.real\nother\n/usr/bin/mine\n/usr/bin/not-mine\nhello\n/usr/bin/local\n/usr/bin/local.distrib\n:\n",
		"bin":                           "-> usr/bin",
		"lib":                           "-> usr/lib",
		"usr/bin/good":                  "good",
		"usr/bin/altered":               "other",
		"usr/bin/empty":                 "",
		"usr/bin/link":                  "-> good",
		"usr/bin/diverted":              "somebody else's",
		"usr/bin/diverted.real":         "good",
		"usr/bin/mine":                  "good",
		"usr/bin/local":                 "x",
		"usr/bin/local.distrib":         "good",
		"usr/lib/folder/file":           "x",
		"usr/lib/out":                   "-> /etc",
		"usr/lib/file":                  "x",
		"usr/share/doc/hello/README.gz": "altered",
	})
	if err := syscall.Mkfifo(filepath.Join(root.Name(), "usr/lib/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := openDatabase(t, root)
	want := map[string]string{}
	for _, name := range []string{
		"usr/bin/good", "bin/good", "usr/bin/altered", "usr/bin/link", "usr/bin/gone", "usr/bin/diverted", "usr/bin/mine", "usr/bin/local",
		"usr/lib/folder", "usr/lib/out/passwd", "usr/lib/file/below", "lib/pipe", "usr/share/doc/hello/copyright", "usr/share/doc/hello/README.gz",
		"usr/share/doc/hello/changelog.gz", "usr/share/man/man1/hello.1.gz", "usr/share/locale/en_GB/hello.mo",
	} {
		want[name] = sum("good")
	}
	want["usr/bin/empty"] = sum("")
	got, err := d.VerifyFiles(t.Context(), Package{Name: "hello", Architecture: "amd64"}, want)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if (got[i].Cause != "") != (got[i].Kind == "unreadable") {
			t.Errorf("%+v", got[i])
		}
		got[i].Cause = ""
	}
	if diff := cmp.Diff([]FileProblem{
		{Path: "/lib/pipe", Kind: "altered"},
		{Path: "/usr/bin/altered", Kind: "altered"},
		{Path: "/usr/bin/gone", Kind: "missing"},
		{Path: "/usr/bin/link", Kind: "altered"},
		{Path: "/usr/lib/file/below", Kind: "missing"},
		{Path: "/usr/lib/folder", Kind: "altered"},
		{Path: "/usr/lib/out/passwd", Kind: "unreadable"},
		{Path: "/usr/share/doc/hello/README.gz", Kind: "altered"},
		{Path: "/usr/share/doc/hello/copyright", Kind: "missing"},
		{Path: "/usr/share/locale/en_GB/hello.mo", Kind: "missing"},
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingToVerifyIsNoProblem(t *testing.T) {
	d := openDatabase(t, newRoot(t, map[string]string{statusFile: stanza("hello", "amd64", "1", "ii")}))
	if got, err := d.VerifyFiles(t.Context(), Package{Name: "hello"}, nil); len(got) > 0 || err != nil {
		t.Error(got, err)
	}
}

func TestVerifyingEndsWithTheContext(t *testing.T) {
	d := openDatabase(t, newRoot(t, map[string]string{statusFile: stanza("hello", "amd64", "1", "ii"), "x": "x"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := d.VerifyFiles(ctx, Package{Name: "hello"}, map[string]string{"x": sum("x")}); !errors.Is(err, context.Canceled) {
		t.Error(got, err)
	}
}

func TestDamagedDiversionsAreNoticed(t *testing.T) {
	for _, text := range []string{"/a\n", "/a\n/b\n", "/a\n/../b\nc\n", "\n\n\n"} {
		d := openDatabase(t, newRoot(t, map[string]string{statusFile: stanza("a", "amd64", "1", "ii"), "var/lib/dpkg/diversions": text}))
		if _, err := d.VerifyFiles(t.Context(), Package{Name: "a"}, nil); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// TestFilesOfThisMachineVerifyAsByDpkg compares with dpkg --verify on packages that every Debian has.
func TestFilesOfThisMachineVerifyAsByDpkg(t *testing.T) {
	run(t, "dpkg", "--version") // or skip
	d := openDatabase(t, openRoot(t, "/"))
	for _, name := range []string{"dpkg", "bash", "coreutils", "libc6", "base-files"} {
		p, found := d.Package(name)
		if !found {
			t.Skipf("%s is not installed", name)
		}
		sums, err := d.Md5sums(p)
		if err != nil {
			t.Fatal(err)
		}
		problems, err := d.VerifyFiles(t.Context(), p, sums)
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string]bool{}
		for line := range strings.Lines(run(t, "dpkg", "--verify", name)) {
			if fields := strings.Fields(line); len(fields) > 1 && !strings.Contains(line, " c /") {
				bad[fields[len(fields)-1]] = true
			}
		}
		for _, f := range problems {
			if !bad[f.Path] {
				t.Errorf("%s: dpkg has nothing against %s", name, f)
			}
		}
		if len(problems) > len(bad) {
			t.Errorf("%s: %d problems, dpkg has %d", name, len(problems), len(bad))
		}
	}
}

// BenchmarkVerify opens this machine's database and verifies the files of one package, as is done for each container.
func BenchmarkVerify(b *testing.B) {
	if _, err := os.Stat("/" + statusFile); err != nil {
		b.Skip(err)
	}
	root := openRoot(b, "/")
	b.ReportAllocs()
	var bytes int64
	for b.Loop() {
		d := openDatabase(b, root)
		p, found := d.Package("dpkg")
		sums, err := d.Md5sums(p)
		if !found || err != nil {
			b.Skip(err)
		}
		if _, err := d.VerifyFiles(b.Context(), p, sums); err != nil {
			b.Fatal(err)
		}
		if bytes == 0 {
			for name := range sums {
				if info, err := os.Stat("/" + name); err == nil {
					bytes += info.Size()
				}
			}
		}
	}
	b.SetBytes(bytes)
}

func BenchmarkOpenDatabase(b *testing.B) {
	if _, err := os.Stat("/" + statusFile); err != nil {
		b.Skip(err)
	}
	root := openRoot(b, "/")
	b.ReportAllocs()
	for b.Loop() {
		openDatabase(b, root)
	}
}
