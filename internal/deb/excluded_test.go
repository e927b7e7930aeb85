package deb

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// documented has of everything that kolla's rules leave out: a file, a folder that other packages have too, and links behind a link that stays, as
// dpkg lists links last. One folder of it is empty.
func documented(version string) testDeb {
	return testDeb{
		control: strings.Replace(testControl, "1:2.0-1", version, 1),
		files: []testFile{
			{name: "./"},
			{name: "./usr/"},
			{name: "./usr/bin/"},
			{name: "./usr/bin/hello", content: version, mode: 0o755},
			{name: "./usr/bin/hi", content: "hello", kind: tar.TypeSymlink, mode: 0o777},
			{name: "./usr/share/"},
			{name: "./usr/share/doc/"},
			{name: "./usr/share/doc/hello/"},
			{name: "./usr/share/doc/hello/changelog.gz", content: "new"},
			{name: "./usr/share/doc/hello/copyright", content: "free"},
			{name: "./usr/share/doc/hello/one[1]*?\\.html", content: "glob"},
			{name: "./usr/share/man/"},
			{name: "./usr/share/man/man1/"},
			{name: "./usr/share/man/man1/hello.1.gz", content: "manual"},
			{name: "./usr/share/man/man1/hi.1.gz", content: "hello.1.gz", kind: tar.TypeSymlink, mode: 0o777},
			{name: "./usr/share/man/man8/"},
			{name: "./usr/share/zz", content: "hello", kind: tar.TypeSymlink, mode: 0o777},
		},
	}
}

// neighbour has the same folders of manual pages.
var neighbour = testDeb{
	control: strings.Replace(testControl, "hello", "other", 1),
	files: []testFile{
		{name: "./"},
		{name: "./usr/"},
		{name: "./usr/share/"},
		{name: "./usr/share/man/"},
		{name: "./usr/share/man/man1/"},
		{name: "./usr/share/man/man1/other.1.gz", content: "manual"},
		{name: "./usr/share/man/man8/"},
		{name: "./usr/share/man/man8/other.8.gz", content: "manual"},
	},
}

// installDocumented gives a root with both packages, in which kolla's rules were in force.
func installDocumented(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/dpkg/dpkg.cfg.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	setRules(t, dir, kollaRules)
	for _, p := range []testDeb{neighbour, documented("1")} {
		dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, p.bytes(t)))...)
	}
	return dir
}

func setRules(t *testing.T, dir, rules string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "etc/dpkg/dpkg.cfg.d/kolla"), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lists are the lists of both packages, as dpkg wrote them.
func lists(t *testing.T, dir string) string {
	t.Helper()
	var all string
	for _, name := range []string{"hello", "other"} {
		text, err := os.ReadFile(filepath.Join(dir, infoDir, name+".list"))
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}

// installed is all that both packages have put into the root.
func installed(t *testing.T, dir string) map[string]string {
	t.Helper()
	return snapshot(t, filepath.Join(dir, "usr"))
}

func options(report RepackReport) (options []string) {
	for _, e := range report.Excluded {
		options = append(options, e.Option())
	}
	return options
}

func TestAListIsAsBeforeAfterTheWayBack(t *testing.T) {
	dir := installDocumented(t)
	list, files := lists(t, dir), installed(t, dir)
	for _, name := range []string{"/usr/share/man/man1/hello.1.gz", "/usr/share/man/man1/hi.1.gz", "/usr/share/man/man8"} {
		if !strings.Contains(list, name+"\n") || files[strings.TrimPrefix(name, "/usr")] != "" {
			t.Fatalf("dpkg no longer lists what it leaves out, or installs it: %s\n%s", name, list)
		}
	}
	path, archive, report := repack(t, openRoot(t, dir), "hello")
	if len(report.Problems) > 0 || report.Unlisted > 0 {
		t.Errorf("problems: %v, not listed: %d", report.Problems, report.Unlisted)
	}
	if diff := cmp.Diff([]string{"usr/share/doc/hello/changelog.gz", `usr/share/doc/hello/one[1]*?\.html`, "usr/share/man/man1/hello.1.gz"}, archive.Missing); diff != "" {
		t.Error(diff)
	}
	want := []Excluded{
		{Path: "/usr/share/doc/hello/changelog.gz"},
		{Path: `/usr/share/doc/hello/one[1]*?\.html`},
		{Path: "/usr/share/man/man1"},
		{Path: "/usr/share/man/man1/hello.1.gz"},
		{Path: "/usr/share/man/man1/hi.1.gz", Link: true},
		{Path: "/usr/share/man/man8"},
	}
	byPath := func(a, b Excluded) int { return strings.Compare(a.Path, b.Path) }
	if diff := cmp.Diff(slices.SortedFunc(slices.Values(want), byPath), slices.SortedFunc(slices.Values(report.Excluded), byPath)); diff != "" {
		t.Error(diff)
	}
	for name, with := range map[string][]string{
		"the rules hold": kollaOptions(),
		// Whoever sets them free meanwhile gets no empty page, and no link to nowhere.
		"the rules are gone": nil,
		"a rule brings some back": {
			"--path-exclude=/usr/share/man/*", "--path-include=/usr/share/man/man1/hello*", "--path-include=/usr/share/doc/hello/*",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := installDocumented(t)
			dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, documented("2").bytes(t)))...)
			if lists(t, dir) != list {
				t.Fatal("the other version has another list")
			}
			dpkgInstall(t, dir, append(append(with, options(report)...), "--install", path)...)
			if diff := cmp.Diff(list, lists(t, dir)); diff != "" {
				t.Errorf("-before +after\n%s", diff)
			}
			if diff := cmp.Diff(files, installed(t, dir)); diff != "" {
				t.Errorf("-before +after\n%s", diff)
			}
		})
	}
}

// TestPlaceholdersAreNotInstalledByHand: where the rules are gone and nobody says what to leave out, dpkg refuses, and stays with what is there.
func TestPlaceholdersAreNotInstalledByHand(t *testing.T) {
	dir := installDocumented(t)
	path, _, _ := repack(t, openRoot(t, dir), "hello")
	dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, documented("2").bytes(t)))...)
	before := installed(t, dir)
	out, err := exec.Command("dpkg", "--root="+dir, "--force-depends,script-chrootless,unsafe-io,not-root,bad-path", "--log=/dev/null", "--install", path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "usr/share/doc/hello/changelog.gz") {
		t.Errorf("%v: %s", err, out)
	}
	if diff := cmp.Diff(before, installed(t, dir)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// TestWhatIsMissingForAnotherReasonStaysMissing: dpkg installed it, somebody removed it.
func TestWhatIsMissingForAnotherReasonStaysMissing(t *testing.T) {
	dir := installDocumented(t)
	for _, name := range []string{"usr/bin/hello", "usr/share/zz", "usr/share/doc/hello/copyright"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	files := installed(t, dir)
	path, _, report := repack(t, openRoot(t, dir), "hello")
	if slices.ContainsFunc(report.Excluded, func(e Excluded) bool { return !strings.HasPrefix(e.Path, "/usr/share/") || e.Path == "/usr/share/zz" }) {
		t.Error(report.Excluded)
	}
	dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, documented("2").bytes(t)))...)
	dpkgInstall(t, dir, append(append(kollaOptions(), options(report)...), "--install", path)...)
	if diff := cmp.Diff(files, installed(t, dir)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
	if list := lists(t, dir); strings.Contains(list, "/usr/bin/hello\n") || strings.Contains(list, "/usr/share/zz\n") || !strings.Contains(list, "/usr/share/man/man1/hi.1.gz\n") {
		t.Error(list)
	}
}

// TestAFileThatAnotherPackageListsHasNoPlaceholder: two packages may list one file that neither could install. dpkg would not let a placeholder pass there.
func TestAFileThatAnotherPackageListsHasNoPlaceholder(t *testing.T) {
	root := newRoot(t, map[string]string{
		statusFile:                  stanza("hello", "amd64", "1", "ii") + stanza("other", "amd64", "1", "ii"),
		infoDir + "/hello.list":     "/.\n/usr\n/usr/share\n/usr/share/doc\n/usr/share/doc/x\n/usr/share/doc/y\n/usr/share/doc/\xff\n",
		infoDir + "/other.list":     "/.\n/usr/share/doc/x\n",
		infoDir + "/hello.md5sums":  sum("x") + "  usr/share/doc/x\n" + sum("y") + "  usr/share/doc/y\n",
		"etc/dpkg/dpkg.cfg.d/kolla": kollaRules,
		"usr/share/doc/z":           "",
	})
	_, _, report := repack(t, root, "hello")
	if diff := cmp.Diff([]Excluded{{Path: "/usr/share/doc/y"}}, report.Excluded); diff != "" {
		t.Error(diff)
	}
}

// TestTooManyPlaceholdersAreLeftOut: they come back as options of dpkg's, and whoever is root in a container can make up a list.
func TestTooManyPlaceholdersAreLeftOut(t *testing.T) {
	for count, want := range map[int]int{maxExcluded: 0, maxExcluded + 1: maxExcluded + 1} {
		var list strings.Builder
		list.WriteString("/.\n")
		for i := range count {
			fmt.Fprintf(&list, "/usr/share/man/%d\n", i)
		}
		root := newRoot(t, map[string]string{
			statusFile: stanza("hello", "amd64", "1", "ii"), infoDir + "/hello.list": list.String(), "etc/dpkg/dpkg.cfg.d/kolla": kollaRules,
		})
		_, _, report := repack(t, root, "hello")
		if report.Unlisted != want || len(report.Excluded) != count-want {
			t.Errorf("%d: %d placeholders, %d without", count, len(report.Excluded), report.Unlisted)
		}
	}
}

func TestLinksThatARuleBringsBack(t *testing.T) {
	for rules, want := range map[string]string{
		"":         "",
		kollaRules: "",
		"path-exclude=/usr/share/man/*\npath-include=/usr/share/man/man1/hello*": "",
		"path-include=/usr/share/man/man1/h*":                                    "/usr/share/man/man1/h*",
		"path-include=/usr/share/man/":                                           "/usr/share/man/",
		"path-include=*.1.gz":                                                    "*.1.gz",
	} {
		root := newRoot(t, map[string]string{statusFile: stanza("hello", "amd64", "1", "ii"), "etc/dpkg/dpkg.cfg": rules})
		d := openDatabase(t, root)
		all := []Excluded{{Path: "/usr/share/man/man1/hello.1.gz"}, {Path: "/usr/share/man/man1/hi.1.gz", Link: true}}
		link, rule, err := d.BroughtBack(all)
		if err != nil || rule != want || (link != "") != (want != "") {
			t.Errorf("%q: %s by %q: %v", rules, link, rule, err)
		}
	}
}
