package deb

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// factsOf reads what dpkg would come upon in dir, with the programs that every container has.
func factsOf(t testing.TB, dir string, mounts []Mount, candidates ...Incoming) (Facts, []Package) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	db, err := OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	f, err := db.Facts(candidates, mounts, usualPath)
	if err != nil {
		t.Fatal(err)
	}
	return f, db.Packages()
}

func plantPrograms(t testing.TB, dir string) {
	t.Helper()
	err := os.MkdirAll(filepath.Join(dir, "sbin"), 0o755)
	for _, name := range []string{"sh", "rm", "tar", "diff", "dpkg-deb", "ldconfig", "start-stop-daemon"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "sbin", name), nil, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPlacesAreJudgedAsByDpkg has a fault of a container each and where it is said to be. The same is then tried: dpkg replaces the package just where
// nothing is said.
func TestPlacesAreJudgedAsByDpkg(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("attributes and mounts need root")
	}
	attribute := func(flag, name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			file := filepath.Join(dir, name)
			if out, err := exec.Command("chattr", "+"+flag, file).CombinedOutput(); err != nil {
				t.Skipf("this filesystem has no attributes: %s", out)
			}
			t.Cleanup(func() { _ = exec.Command("chattr", "-"+flag, file).Run() })
		}
	}
	bind := func(name string, flags uintptr) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			file := filepath.Join(dir, name)
			if err := unix.Mount(file, file, "", unix.MS_BIND, ""); err != nil {
				t.Skipf("nothing can be mounted: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
			if flags != 0 {
				if err := unix.Mount("", file, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			file := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
	}
	divert := func(with func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			write("var/lib/dpkg/diversions", "/usr/bin/hello\n/usr/bin/hello.distrib\n:\n")(t, dir)
			if err := os.Rename(filepath.Join(dir, "usr/bin/hello"), filepath.Join(dir, "usr/bin/hello.distrib")); err != nil {
				t.Fatal(err)
			}
			with(t, dir)
		}
	}
	for name, c := range map[string]struct {
		make   func(*testing.T, string)
		mounts []Mount
		config string
		want   string // where it is
		missed string
	}{
		"nothing":                     {make: func(*testing.T, string) {}},
		"immutable file":              {make: attribute("i", "usr/bin/hello"), want: "/usr/bin/hello"},
		"immutable other file":        {make: attribute("i", "sbin/sh")},
		"append-only file":            {make: attribute("a", "usr/bin/hello"), want: "/usr/bin/hello"},
		"immutable folder":            {make: attribute("i", "usr/bin"), want: "/usr/bin/hello"},
		"append-only folder":          {make: attribute("a", "usr/bin"), want: "/usr/bin/hello"},
		"immutable status":            {make: attribute("i", "var/lib/dpkg/status"), want: "/var/lib/dpkg/status"},
		"immutable list":              {make: attribute("i", "var/lib/dpkg/info/hello.list"), want: "/var/lib/dpkg/info/hello.list"},
		"a mount over a file":         {make: bind("usr/bin/hello", 0), want: "/usr/bin/hello"},
		"the same, known from a list": {make: bind("usr/bin/hello", 0), mounts: []Mount{{"/usr/bin/hello", false}}, want: "/usr/bin/hello"},
		"a mount above":               {make: bind("usr", 0), mounts: []Mount{{"/usr", false}}, missed: "/usr/bin/hello"},
		"a read-only mount above":     {make: bind("usr", unix.MS_RDONLY), mounts: []Mount{{"/usr", true}}, want: "/usr/bin/hello"},
		"a mount of a similar name":   {make: func(*testing.T, string) {}, mounts: []Mount{{"/usr/bin/hell", true}, {"/", false}, {"/us", true}}},
		"a mount elsewhere":           {make: func(*testing.T, string) {}, mounts: []Mount{{"/lib/modules", true}, {"/etc/kolla", true}}},

		"diverted, nothing there":          {make: divert(func(*testing.T, string) {}), missed: "/usr/bin/hello"},
		"diverted, another program":        {make: divert(write("usr/bin/hello", "ELF")), missed: "/usr/bin/hello"},
		"diverted, another script":         {make: divert(write("usr/bin/hello", "#!/bin/sh\nexec /usr/bin/other \"$@\"\n")), missed: "/usr/bin/hello"},
		"diverted, a script that calls it": {make: divert(write("usr/bin/hello", "#!/bin/sh\nexec /usr/bin/hello.distrib \"$@\"\n"))},
		"diverted, a link to it": {make: divert(func(t *testing.T, dir string) {
			if err := os.Symlink("hello.distrib", filepath.Join(dir, "usr/bin/hello")); err != nil {
				t.Fatal(err)
			}
		})},
		"in the place of another":           {make: write("var/lib/dpkg/diversions", "/usr/bin/other\n/usr/bin/hello\n:\n"), want: "/usr/bin/hello"},
		"in the place of another, forced":   {make: write("var/lib/dpkg/diversions", "/usr/bin/other\n/usr/bin/hello\n:\n"), config: "force-overwrite-diverted"},
		"an override of nobody's":           {make: write("var/lib/dpkg/statoverride", "root nosuch1 4754 /x\n"), want: "/var/lib/dpkg/statoverride:1"},
		"left out by a rule":                {make: func(*testing.T, string) {}, config: "path-exclude=/usr/bin/*", want: "/usr/bin/hello"},
		"left out by a rule, and not there": {make: func(_ *testing.T, dir string) { os.Remove(filepath.Join(dir, "usr/bin/hello")) }, config: "path-exclude=/usr/bin/*"},
		"doing nothing":                     {make: func(*testing.T, string) {}, config: "no-act", want: "/root/.dpkg.cfg:1"},
	} {
		t.Run(name, func(t *testing.T) {
			scratch := newScratch(t)
			plantPrograms(t, scratch.dir)
			write("root/.dpkg.cfg", c.config)(t, scratch.dir)
			c.make(t, scratch.dir)
			older := readArchive(t, scratch.older)
			facts, before := factsOf(t, scratch.dir, c.mounts, Incoming{older.Package, older.Md5sums})
			refusals, err := facts.Refusals(before, []Package{older.Package})
			if err != nil {
				t.Fatal(err)
			}
			if got := places(refusals); got != c.want {
				t.Errorf("refused: %v", refusals)
			}
			if got := places(facts.MissedOf([]Package{older.Package})); got != c.missed {
				t.Errorf("missed: %v", facts.Missed)
			}
			if others, err := facts.Refusals(before, nil); len(others) > 0 || err != nil || len(facts.MissedOf(nil)) > 0 {
				t.Errorf("with nothing to install: %v %v", others, err)
			}
			if name == "left out by a rule, and not there" {
				return // then dpkg installs no such file
			}
			said, back := scratch.goBack(t, c.config, facts.Settings.Options)
			content, err := os.ReadFile(filepath.Join(scratch.dir, "usr/bin/hello"))
			if name == "left out by a rule" { // dpkg says that all is well
				back = back && string(content) == "1" && err == nil
			}
			if back != (c.want == "") {
				t.Errorf("dpkg went back: %v; it says:\n%s", back, said)
			}
		})
	}
}

func readArchive(t testing.TB, name string) Archive {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := ReadArchive(f)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func places(refusals []Refusal) string {
	var list []string
	for _, r := range refusals {
		list = append(list, r.Where)
	}
	return strings.Join(list, " ")
}

func TestProgramsThatDpkgNeedsAreLookedForInItsPath(t *testing.T) {
	files := map[string]string{statusFile: "", "usr/bin/sh": "-> /etc/alternatives/sh"}
	for _, name := range []string{"usr/bin/rm", "usr/bin/tar", "usr/sbin/ldconfig", "usr/bin/dpkg-deb", "opt/start-stop-daemon", "usr/bin/diff"} {
		files[name] = ""
	}
	root := newRoot(t, files)
	for name := range files {
		if strings.Contains(name, "bin/") && name != "usr/bin/diff" && name != "usr/bin/sh" {
			if err := root.Chmod(name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	db, err := OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{"": "diff start-stop-daemon", "force-bad-path": ""} {
		if got := places(db.lackedPrograms(usualPath, settle(parseConfig("/etc/x", config), "1.21.22"))); got != want {
			t.Errorf("%q: %s", config, got)
		}
	}
}

// TestAJudgeOfSignaturesIsNotSetAside: dpkg goes back just where nothing is said.
func TestAJudgeOfSignaturesIsNotSetAside(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"debsig-verify": "exit 10",
		"dpkg":          `exec unshare -m sh -c 'mount --bind /dev/null /etc/dpkg/dpkg.cfg && exec /usr/bin/dpkg "$@"' dpkg "$@"`, // without the machine's no-debsig
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tries := exec.Command(filepath.Join(dir, "dpkg"), "--version").Run() == nil
	usual := os.Getenv("PATH")
	for config, want := range map[string]string{"": "/usr/bin/debsig-verify", "no-debsig": "", "force-bad-verify": "", "no-debsig\nrefuse-all": ""} {
		scratch := newScratch(t)
		plantPrograms(t, scratch.dir)
		older := readArchive(t, scratch.older)
		judged := func(verifier string) string {
			for name, text := range map[string]string{"usr/bin/" + verifier: "", "root/.dpkg.cfg": config} {
				name = filepath.Join(scratch.dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			facts, before := factsOf(t, scratch.dir, nil, Incoming{older.Package, older.Md5sums})
			refusals, err := facts.Refusals(before, []Package{older.Package})
			if err != nil || slices.Contains(facts.Settings.Options, "--no-debsig") {
				t.Errorf("%q: %v, %v", config, err, facts.Settings.Options)
			}
			return places(refusals)
		}
		if got := judged("other"); got != "" {
			t.Errorf("%q, without it: %s", config, got)
		}
		if got := judged("debsig-verify"); got != want {
			t.Errorf("%q: %s", config, got)
		}
		if !tries {
			continue // nothing can be mounted
		}
		t.Setenv("PATH", dir+":"+usual)
		facts, _ := factsOf(t, scratch.dir, nil)
		said, back := scratch.goBack(t, config, facts.Settings.Options)
		t.Setenv("PATH", usual)
		if back != (want == "") {
			t.Errorf("%q: dpkg went back: %v; it says:\n%s", config, back, said)
		}
	}
}

// TestPackagesThatDpkgPassesOver: it says that all went well.
func TestPackagesThatDpkgPassesOver(t *testing.T) {
	for name, c := range map[string]struct {
		before, config string
		passed         bool
	}{
		"same version":                 {"hello amd64 1 ii", "skip-same-version", true},
		"same version, held":           {"hello amd64 1 hi", "skip-same-version", true},
		"same version, unpacked":       {"hello amd64 1 iU", "skip-same-version", true},
		"same version, half installed": {"hello amd64 1 iHR", "skip-same-version", false},
		"same version, to be removed":  {"hello amd64 1 ri", "skip-same-version", false},
		"another version":              {"hello amd64 2 ii", "skip-same-version", false},
		"removed":                      {"hello amd64 1 rc", "skip-same-version", false},
		"no such line":                 {"hello amd64 1 ii", "no-pager", false},
		"unselected":                   {"hello amd64 2 ri", "selected-only", true},
		"selected":                     {"hello amd64 2 ii", "selected-only", false},
		"selected, held":               {"hello amd64 2 hi", "no-also-select", false},
	} {
		t.Run(name, func(t *testing.T) {
			install := packagesOf(t, "hello amd64 1 ii")[1:]
			install[0].Status = Status{}
			got := settle(parseConfig("/etc/x", c.config), "1.21.22").passesOver(packagesOf(t, c.before), install[0])
			if (len(got) > 0) != c.passed {
				t.Error(got)
			}
			said, _ := tryInstall(t, c.before, "hello amd64 1 ii", c.config)
			if dpkg := strings.Contains(strings.ToLower(said), "skipping"); dpkg != c.passed {
				t.Errorf("dpkg says:\n%s", said)
			}
		})
	}
}

func TestFactsNameAFileForATrialOfLinks(t *testing.T) {
	scratch := newScratch(t)
	older := readArchive(t, scratch.older)
	facts, _ := factsOf(t, scratch.dir, nil, Incoming{older.Package, older.Md5sums})
	if diff := cmp.Diff(map[string]string{"hello": "/usr/bin/hello"}, facts.Links); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkFacts has what five containers cost, with packages of this machine as large as QEMU's: a patch set's two, and all fifteen that
// kolla's nova_libvirt has.
func BenchmarkFacts(b *testing.B) {
	const containers = 5
	root, err := os.OpenRoot("/")
	if err != nil {
		b.Skip(err)
	}
	defer root.Close()
	db, err := OpenDatabase(root)
	if err != nil {
		b.Skip(err)
	}
	mounts := []Mount{{"/", false}, {"/proc", false}, {"/dev", false}, {"/etc/kolla", true}, {"/lib/modules", true}}
	before := db.Packages()
	for _, count := range []int{2, 15} {
		var candidates []Incoming
		var install []Package
		files := 0
		for _, p := range before {
			sums, err := db.Md5sums(p)
			if err == nil && p.present() && len(sums) >= 20 && len(sums) <= 80 && len(candidates) < count {
				candidates = append(candidates, Incoming{p, sums})
				install = append(install, p)
				files += len(sums)
			}
		}
		b.Run(fmt.Sprintf("observe %d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for range containers {
					b.StopTimer() // the database is read in any case
					db, err := OpenDatabase(root)
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if _, err := db.Facts(candidates, mounts, usualPath); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(files), "files")
		})
		facts, err := db.Facts(candidates, mounts, usualPath)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("decide %d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for range containers {
					if _, err := facts.Refusals(before, install); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
