package deb

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testGraft = Graft{Variant: "fallback", Suffix: "+site1", BuiltFrom: "1:2.0-1", Stock: "1:2.0-1+b2"}

const graftedControl = `Package: hello
Source: hello-source (1:2.0-1)
Version: 1:2.0-1+site1
Nfslock-Variant: fallback
Nfslock-Suffix: +site1
Nfslock-Built-From: 1:2.0-1
Nfslock-Stock: 1:2.0-1+b2
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Provides: hello (= 1:2.0-1+b2)
Description: a test
 with a second line
`

// dpkg keeps fields that it does not know, whatever becomes of the package, and drops them with it: so they tell what is installed.
func TestDpkgKeepsTheFieldsOfAGraftedPackage(t *testing.T) {
	dir := t.TempDir()
	packed := func(control string, extra map[string]string) string {
		files := []testFile{{name: "./etc/"}, {name: "./etc/hello", content: "x"}, {name: "./usr/"}, {name: "./usr/hello", content: "x"}}
		if extra == nil {
			extra = map[string]string{"conffiles": "/etc/hello\n"}
		}
		return writeFile(t, testDeb{control: control, extra: extra, files: files, dataSuffix: ".gz"}.bytes(t))
	}
	root := openRoot(t, dir)
	is := func(when, short string, want Graft) {
		t.Helper()
		got, _ := openDatabase(t, root).Package("hello")
		if diff := cmp.Diff(want, got.Graft); diff != "" || got.Status.String() != short {
			t.Errorf("%s: %s %s\n%s", when, got.Status, got.Version, diff)
		}
	}
	grafted, stock := packed(graftedControl, nil), packed(strings.Replace(testControl, "2.0-1", "2.0-1+b2", 1), nil)

	dpkgInstall(t, dir, "--install", stock)
	is("the distribution's", "ii", Graft{})
	dpkgInstall(t, dir, "--unpack", grafted)
	is("unpacked over it", "iU", testGraft)
	dpkgInstall(t, dir, "--configure", "hello")
	is("configured", "ii", testGraft)
	if told := run(t, "dpkg-query", "--admindir="+dir+"/var/lib/dpkg", "-W", "-f", "${Nfslock-Variant} ${Nfslock-Stock}", "hello"); told != "fallback 1:2.0-1+b2" {
		t.Errorf("dpkg-query says %s", told)
	}
	if _, again, _ := repack(t, root, "hello"); again.Package.Graft != testGraft {
		t.Errorf("repacked, it says %+v", again.Package.Graft)
	}
	// Its postinst fails.
	broken := packed(strings.ReplaceAll(graftedControl, "site1", "ours2"), map[string]string{"postinst": "#!/bin/sh\nexit 1\n"})
	arguments := []string{"--root=" + dir, "--force-script-chrootless,unsafe-io,not-root,bad-path", "--log=/dev/null", "--force-downgrade", "--install", broken}
	if out, err := exec.Command("dpkg", arguments...).CombinedOutput(); err == nil {
		t.Fatalf("dpkg could configure it: %s", out)
	}
	newer := testGraft
	newer.Suffix = "+ours2"
	is("half configured", "iF", newer)
	dpkgInstall(t, dir, "--force-downgrade", "--install", grafted)
	dpkgInstall(t, dir, "--remove", "hello")
	is("removed, with its configuration left", "rc", testGraft)
	dpkgInstall(t, dir, "--install", packed(testControl, nil))
	is("the distribution's again", "ii", Graft{})
}

func TestFieldsOfAGraftedPackageAreReadAsTheyAre(t *testing.T) {
	for text, want := range map[string]Graft{
		"":                                  {},
		"nfslock-variant: disable_ofd\n":    {Variant: "disable_ofd"},
		"Nfslock-Suffix:\n":                 {},
		"Nfslock-Stock: 1:2 \t\n":           {Stock: "1:2"},
		"Nfslock-Built-From: a\n b\n":       {BuiltFrom: "a\n b"},
		"Nfslock-Variants: fallback\n":      {},
		"XB-Nfslock-Variant: fallback\n":    {},
		"Description: Nfslock-Variant: x\n": {},
	} {
		packages, err := ParseStatus(strings.NewReader("Package: hello\nVersion: 1\n" + text))
		if err != nil || packages[0].Graft != want {
			t.Errorf("%q: %+v, %v", text, packages, err)
		}
	}
	if got, err := ParseStatus(strings.NewReader("Package: hello\nNfslock-Variant: a\nNfslock-Variant: b\n")); err == nil {
		t.Errorf("a field twice: %+v", got)
	}
}

func TestAPackageOfOursIsKnownByItsFieldsOrItsShape(t *testing.T) {
	const shape = "Source: qemu (1:7.2-7)\nVersion: 1:7.2-7+site1\nProvides: qemu-block, qemu-utils (= 1:7.2-7+b3)\n"
	const fields = "Version: 1:7.2-7+site1\nNfslock-Variant: disable_ofd\nNfslock-Suffix: +site1\nNfslock-Built-From: 1:7.2-7\nNfslock-Stock: 1:7.2-7+b3\n"
	known := Graft{Suffix: "+site1", BuiltFrom: "1:7.2-7", Stock: "1:7.2-7+b3"}
	told := known
	told.Variant = "disable_ofd"
	for _, test := range []struct {
		name, text string
		want       Graft
		ours       bool
	}{
		{"fields", fields, told, true},
		{"fields, whatever the version is", strings.Replace(fields, "Version: 1:7.2-7+site1", "Version: 9", 1), told, true},
		{"of an earlier release", shape, known, true},
		{"of an earlier release, not rebuilt before", strings.Replace(shape, "+b3", "", 1), Graft{Suffix: "+site1", BuiltFrom: "1:7.2-7", Stock: "1:7.2-7"}, true},
		{"the distribution's", "Source: qemu\nVersion: 1:7.2-7\nProvides: qemu-block\n", Graft{}, false},
		{"the distribution's, rebuilt", "Source: qemu (1:7.2-7)\nVersion: 1:7.2-7+b3\n", Graft{}, false},
		{"another's suffix", "Source: qemu (1:7.2-7)\nVersion: 1:7.2-7+site1\n", Graft{}, false},
		{"provides itself as it is", "Source: qemu (1:7.2-7)\nVersion: 1:7.2-7+b3\nProvides: qemu-utils (= 1:7.2-7+b3)\n", Graft{}, false},
		{"provides another of its name", strings.Replace(shape, "7.2-7+b3", "7.1", 1), Graft{}, false},
		{"provides another name", strings.Replace(shape, "qemu-utils (", "qemu-img (", 1), Graft{}, false},
		{"a Provides that is none", strings.Replace(shape, "+b3)", "+b3", 1), Graft{}, false},
		{"no version at all", "Provides: qemu-utils (= 1)\n", Graft{}, false},
		{"a field less", strings.Replace(fields, "Nfslock-Stock: 1:7.2-7+b3\n", "", 1), Graft{Variant: "disable_ofd", Suffix: "+site1", BuiltFrom: "1:7.2-7"}, false},
		{"a command for a version", strings.Replace(fields, "Stock: 1:7.2-7+b3", "Stock: 1; reboot", 1), Graft{Variant: "disable_ofd", Suffix: "+site1", BuiltFrom: "1:7.2-7", Stock: "1; reboot"}, false},
	} {
		packages, err := ParseStatus(strings.NewReader("Package: qemu-utils\nStatus: install ok installed\n" + test.text))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got, ours := GraftOf(packages[0]); got != test.want || ours != test.ours {
			t.Errorf("%s: got %+v %t", test.name, got, ours)
		}
	}
}
