package deb

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// repack writes the package into a file and reads it back.
func repack(t testing.TB, root *os.Root, name string) (path string, a Archive, report RepackReport) {
	t.Helper()
	d := openDatabase(t, root)
	p, found := d.Package(name)
	if !found {
		t.Fatalf("%s is not installed", name)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), name+".deb"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if report, err = d.Repack(t.Context(), p, f); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if a, err = CheckArchive(f); err != nil {
		t.Fatal(err)
	}
	return f.Name(), a, report
}

// snapshot lists everything below a folder with what dpkg sets.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		name := strings.TrimPrefix(path, dir)
		text := fmt.Sprintf("%o %d:%d", s.Mode, s.Uid, s.Gid)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			first, known := inodes[s.Ino]
			if !known {
				inodes[s.Ino] = name
			}
			text += fmt.Sprintf(" %d %x %s", info.ModTime().Unix(), sha256.Sum256(content), first)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + target
		}
		all[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const (
	helloScript   = "#!/bin/sh\nexit 0\n"
	helloConffile = "/etc/hello.conf\n"
)

// installHello lets dpkg install the test package, without what kolla's rules exclude, into a root with merged /usr.
func installHello(t testing.TB, suffix string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	rules := filepath.Join(dir, "etc/dpkg/dpkg.cfg.d")
	for _, path := range []string{rules, filepath.Join(dir, "usr/lib")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(rules, "kolla"), []byte(kollaRules), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
		t.Fatal(err)
	}
	deb := testDeb{
		control: testControl + "Source: world (1:2.0)\nProvides: hi (= 3)\nX-Own-Field: kept\n",
		files: append([]testFile{
			{name: "./etc/"}, {name: "./etc/hello.conf", content: "a=b\n"}, {name: "./lib/"}, {name: "./lib/hello/"}, {name: "./lib/hello/x", content: "x"},
		}, helloFiles[1:]...),
		extra:         map[string]string{"postinst": helloScript, "prerm": helloScript, "conffiles": helloConffile, "triggers": "activate-noawait hello\n"},
		controlSuffix: suffix, dataSuffix: suffix,
	}
	dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, deb.bytes(t)))...)
	return dir
}

// kollaOptions are kolla's rules as options: with --root dpkg still reads the configuration of this machine.
func kollaOptions() (options []string) {
	for _, rule := range parsePathRules(parseConfig("", kollaRules)) {
		option := "--path-exclude="
		if rule.include {
			option = "--path-include="
		}
		options = append(options, option+rule.pattern)
	}
	return options
}

func TestARepackedPackageInstallsAsItWas(t *testing.T) {
	for _, suffix := range []string{".gz", ".xz"} {
		dir := installHello(t, suffix)
		if err := os.Lchown(filepath.Join(dir, "usr/bin/hello-suid"), 65_533, 3_000_000); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "usr/bin/hello-suid"), 0o750|os.ModeSetuid|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		path, archive, report := repack(t, openRoot(t, dir), "hello")
		if len(report.Problems) > 0 {
			t.Errorf("problems: %v", report.Problems)
		}
		if diff := cmp.Diff([]string{"usr/share/doc/hello/changelog.gz"}, archive.Missing); diff != "" {
			t.Error(diff)
		}
		again, _, _ := repack(t, openRoot(t, dir), "hello")
		first, second := snapshot(t, filepath.Dir(path)), snapshot(t, filepath.Dir(again))
		if strings.Fields(first["/hello.deb"])[3] != strings.Fields(second["/hello.deb"])[3] {
			t.Error("the same input gives other bytes")
		}
		if fields := run(t, "dpkg-deb", "--field", path); strings.Contains(fields, "Status") || strings.Contains(fields, "Conffiles") || !strings.Contains(fields, "X-Own-Field: kept\n") {
			t.Error(fields)
		}
		run(t, "dpkg-deb", "--info", path)
		run(t, "dpkg-deb", "--contents", path)

		list := filepath.Join(infoDir, "hello.list") // dpkg has just written it
		setTime(t, filepath.Join(dir, list))
		want := snapshot(t, dir)
		fresh := t.TempDir()
		for _, path := range []string{"usr/lib"} {
			if err := os.MkdirAll(filepath.Join(fresh, path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("usr/lib", filepath.Join(fresh, "lib")); err != nil {
			t.Fatal(err)
		}
		dpkgInstall(t, fresh, append(options(report), "--install", path)...)
		if diff := cmp.Diff(run(t, "dpkg", "--root="+dir, "--verify", "hello"), run(t, "dpkg", "--root="+fresh, "--verify", "hello")); diff != "" {
			t.Errorf("dpkg --verify: -before +after\n%s", diff)
		}
		setTime(t, filepath.Join(fresh, list))
		got := snapshot(t, fresh)
		for _, all := range []map[string]string{want, got} {
			for name := range all {
				switch {
				case strings.HasPrefix(name, "/etc/dpkg"), strings.HasPrefix(name, "/var"):
					if !strings.HasPrefix(name, "/"+infoDir) || strings.HasSuffix(name, "/format") {
						delete(all, name)
					}
				case name == "" || name == "/etc":
					delete(all, name)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: -before +after\n%s", suffix, diff)
		}
		before, after := openDatabase(t, openRoot(t, dir)), openDatabase(t, openRoot(t, fresh))
		if diff := cmp.Diff(before.Packages(), after.Packages()); diff != "" {
			t.Error(diff)
		}
	}
}

func setTime(t *testing.T, path string) {
	t.Helper()
	if err := os.Chtimes(path, testTime, testTime); err != nil {
		t.Fatal(err)
	}
}

// TestAPackageGoesBackOverItsUpgrade is what a rollback does.
func TestAPackageGoesBackOverItsUpgrade(t *testing.T) {
	dir := installHello(t, ".gz")
	before := snapshot(t, filepath.Join(dir, "usr"))
	path, archive, _ := repack(t, openRoot(t, dir), "hello")
	patched := testDeb{
		control: strings.Replace(testControl, "1:2.0-1", "1:2.0-1+nfslock1", 1),
		// Without ./lib dpkg would take the link away, as no other package has it here.
		files: []testFile{{name: "./lib/"}, {name: "./usr/"}, {name: "./usr/bin/"}, {name: "./usr/bin/hello", content: "patched", mode: 0o755}, {name: "./usr/bin/more", content: "more"}},
	}
	dpkgInstall(t, dir, append(kollaOptions(), "--install", writeFile(t, patched.bytes(t)))...)
	d := openDatabase(t, openRoot(t, dir))
	if p, _ := d.Package("hello"); p.Version != "1:2.0-1+nfslock1" {
		t.Fatal(p)
	}
	dpkgInstall(t, dir, append(kollaOptions(), "--install", path)...)
	d = openDatabase(t, openRoot(t, dir))
	p, _ := d.Package("hello")
	problems, err := d.VerifyFiles(t.Context(), p, archive.Md5sums)
	if p.Version != "1:2.0-1" || p.Status.String() != "ii" || len(problems) > 0 || err != nil {
		t.Error(p, problems, err)
	}
	if diff := cmp.Diff(before, snapshot(t, filepath.Join(dir, "usr"))); diff != "" {
		t.Error(diff)
	}
}

// TestAChangedPackageIsRepackedAsItIs has no need of dpkg.
func TestAChangedPackageIsRepackedAsItIs(t *testing.T) {
	root := newRoot(t, map[string]string{
		statusFile: stanza("other", "amd64", "1", "ii", "Description: not hello") +
			stanza("hello", "amd64", "1", "hi", "Config-Version: 1", "Conffiles:", " /etc/x "+sum("x"), "Description: d", " more"),
		updatesDir + "/0000":        stanza("hello", "amd64", "2", "hi", "Conffiles:", " /etc/x "+sum("x"), "Triggers-Pending: y", "Description: d", " more"),
		infoDir + "/hello.list":     "/.\n/bin\n/bin/same\n/bin/altered\n/bin/gone\n/bin/became-link\n/bin/diverted\n/usr/share/doc/x\n",
		infoDir + "/hello.md5sums":  "",
		infoDir + "/hello.x.list":   "of another package",
		infoDir + "/hello-x.prerm":  "of another package",
		infoDir + "/hello.postinst": helloScript,
		"etc/dpkg/dpkg.cfg.d/kolla": kollaRules,
		"var/lib/dpkg/diversions":   "/bin/diverted\n/bin/diverted.real\nother\n",
		"bin":                       "-> usr/bin",
		"usr/bin/same":              "same",
		"usr/bin/altered":           "altered",
		"usr/bin/became-link":       "-> same",
		"usr/bin/diverted":          "other's",
		"usr/bin/diverted.real":     "same",
	})
	var sums string
	for _, name := range []string{"bin/same", "bin/altered", "bin/gone", "bin/became-link", "bin/diverted", "usr/share/doc/x"} {
		sums += sum("same") + "  " + name + "\n"
	}
	if err := os.WriteFile(filepath.Join(root.Name(), infoDir, "hello.md5sums"), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	path, archive, report := repack(t, root, "hello")
	want := Archive{
		Package: Package{Name: "hello", Architecture: "amd64", Version: "2", Source: "hello", SourceVersion: "2"},
		Md5sums: map[string]string{"bin/same": sum("same"), "bin/altered": sum("altered"), "bin/diverted": sum("same"), "usr/share/doc/x": sum("same")},
		Missing: []string{"usr/share/doc/x"},
	}
	if diff := cmp.Diff(want, archive); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]FileProblem{
		{Path: "/bin/altered", Kind: "altered"}, {Path: "/bin/became-link", Kind: "altered"}, {Path: "/bin/gone", Kind: "missing"},
	}, report.Problems); diff != "" {
		t.Error(diff)
	}
	const fields = "Package: hello\nArchitecture: amd64\nVersion: 2\nDescription: d\n more\n"
	if got := run(t, "dpkg-deb", "--info", path, "control"); got != fields {
		t.Errorf("control:\n%s", got)
	}
	var names []string
	for line := range strings.Lines(run(t, "dpkg-deb", "--contents", path)) {
		names = append(names, strings.Join(strings.Fields(line)[5:], " "))
	}
	if diff := cmp.Diff([]string{"./", "./bin/", "./bin/same", "./bin/altered", "./bin/became-link -> same", "./bin/diverted", "./usr/share/doc/x link to ./usr/share/doc/x"}, names); diff != "" {
		t.Error(diff)
	}
	if got := run(t, "dpkg-deb", "--info", path); strings.Contains(got, "prerm") || !strings.Contains(got, "postinst") {
		t.Error(got)
	}
}

func TestWhatCannotBeRepackedIsRefused(t *testing.T) {
	files := func(change map[string]string) map[string]string {
		all := map[string]string{
			statusFile:                 stanza("hello", "amd64", "1", "ii"),
			infoDir + "/hello.list":    "/.\n/x\n",
			infoDir + "/hello.prerm":   helloScript,
			infoDir + "/hello.preinst": helloScript,
			"x":                        "x",
		}
		for name, content := range change {
			if delete(all, name); content != "" {
				all[name] = content
			}
		}
		return all
	}
	for name, change := range map[string]map[string]string{
		"no list":                      {infoDir + "/hello.list": ""},
		"a list that leads out":        {infoDir + "/hello.list": "/../x\n"},
		"a file that leads out":        {infoDir + "/hello.list": "/y/passwd\n", "y": "-> /etc"},
		"a script that is elsewhere":   {infoDir + "/hello.prerm": "-> hello.preinst"},
		"a checksum that leads out":    {infoDir + "/hello.md5sums": sum("x") + "  ../x\n"},
		"a checksum of something else": {infoDir + "/hello.md5sums": sum("x") + "  y/passwd\n", "y": "-> /etc"},
	} {
		d := openDatabase(t, newRoot(t, files(change)))
		p, _ := d.Package("hello")
		if report, err := d.Repack(t.Context(), p, &memory{}); err == nil {
			t.Errorf("%s: %v", name, report)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	d := openDatabase(t, newRoot(t, files(nil)))
	p, _ := d.Package("hello")
	if _, err := d.Repack(t.Context(), p, &memory{}); err != nil {
		t.Error(err)
	}
	p.Version = "2"
	if _, err := d.Repack(t.Context(), p, &memory{}); err == nil {
		t.Error("another version than the installed one is repacked")
	}
}

// memory is a file in memory.
type memory struct {
	content []byte
	at      int64
}

func (m *memory) Write(p []byte) (int, error) {
	m.content = append(m.content, make([]byte, max(0, m.at+int64(len(p))-int64(len(m.content))))...)
	n := copy(m.content[m.at:], p)
	m.at += int64(n)
	return n, nil
}

func (m *memory) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += m.at
	case io.SeekEnd:
		offset += int64(len(m.content))
	}
	m.at = offset
	return offset, nil
}

// TestRepackingTakesLittleMemory packs 64 MiB.
func TestRepackingTakesLittleMemory(t *testing.T) {
	root := newRoot(t, map[string]string{statusFile: stanza("hello", "amd64", "1", "ii"), infoDir + "/hello.list": "/.\n/big\n"})
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	if err := root.WriteFile("big", big, 0o644); err != nil {
		t.Fatal(err)
	}
	d := openDatabase(t, root)
	p, _ := d.Package("hello")
	f, err := os.Create(filepath.Join(t.TempDir(), "big.deb"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := d.Repack(t.Context(), p, f); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("took %d bytes", used)
	}
}

// A sparse file of a terabyte costs whoever is root in a container nothing.
func TestHugeFilesAreNotRead(t *testing.T) {
	root := newRoot(t, map[string]string{
		statusFile:                 stanza("hello", "amd64", "1", "ii"),
		infoDir + "/hello.list":    "/.\n/big\n",
		infoDir + "/hello.prerm":   helloScript,
		infoDir + "/hello.md5sums": sum("x") + "  big\n",
		"big":                      "x",
	})
	truncate := func(name string, size int64) {
		t.Helper()
		f, err := root.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			err = f.Truncate(size)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d := openDatabase(t, root)
	p, _ := d.Package("hello")
	refused := func(want string) {
		t.Helper()
		begin := time.Now()
		if _, err := d.Repack(t.Context(), p, &memory{}); err == nil || !strings.Contains(err.Error(), want) || time.Since(begin) > 5*time.Second {
			t.Errorf("%v, after %v", err, time.Since(begin))
		}
	}
	truncate(infoDir+"/hello.prerm", 1<<40)
	refused("the control files have more than")
	truncate(infoDir+"/hello.prerm", 1)
	truncate("big", 1<<40)
	problems, err := d.VerifyFiles(t.Context(), p, map[string]string{"big": sum("x")})
	if diff := cmp.Diff([]FileProblem{{Path: "/big", Kind: "altered"}}, problems); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	refused("/big: it has more than")

	truncate("big", maxData) // as large as may be, and another one beside it
	for name, text := range map[string]string{"beside": "y", infoDir + "/hello.list": "/beside\n/big\n", infoDir + "/hello.md5sums": ""} {
		if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused("/big: it has more than")
}
