package deb

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A power cut leaves files that are empty, or end where their last part was to be written.
func TestFilesThatAPowerCutLeftAreFound(t *testing.T) {
	program, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	const sum = "  "
	other := "0123456789abcdef0123456789abcdef" + sum
	files := map[string]string{
		statusFile:                   stanza("qemu-utils", "amd64", "1", "ii"),
		infoDir + "/qemu-utils.list": "/usr\n",
		infoDir + "/qemu-utils.md5sums": other + "usr/bin/whole\n" + other + "usr/bin/cut\n" + other + "usr/bin/empty\n" + other + "usr/bin/gone\n" +
			other + "usr/share/doc/gone\n" + other + "usr/share/empty\n" + emptySum + sum + "usr/share/none\n" + other + "usr/bin/script\n" +
			other + "usr/lib/left/out.so\n" + other + "usr/bin/moved\n" + other + "usr/bin/folder\n",
		"var/lib/dpkg/diversions": "/usr/bin/moved\n/usr/bin/moved.real\n:\n",
		"usr/bin/moved":           "", // another package's
		"usr/bin/moved.real":      "whole",
		"etc/dpkg/dpkg.cfg":       "path-exclude=/usr/lib/left/*\n",
		"usr/bin/whole":           string(program),
		"usr/bin/cut":             string(program[:len(program)-4096]),
		"usr/bin/empty":           "",
		"usr/share/empty":         "",
		"usr/share/none":          "",
		"usr/bin/script":          "#!/bin/sh\n",
		"usr/bin/folder/x":        "",
	}
	d := openDatabase(t, newRoot(t, files))
	p, _ := d.Package("qemu-utils")
	got, err := d.Hollow(p)
	want := []FileProblem{
		{Path: "/usr/bin/cut", Kind: "cut off"},
		{Path: "/usr/bin/empty", Kind: "empty"},
		{Path: "/usr/bin/gone", Kind: "missing"},
		{Path: "/usr/share/empty", Kind: "empty"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestListThatAPowerCutLeftIsFound(t *testing.T) {
	d := openDatabase(t, newRoot(t, map[string]string{
		statusFile: stanza("qemu-utils", "amd64", "1", "ii"), infoDir + "/qemu-utils.list": "",
	}))
	p, _ := d.Package("qemu-utils")
	got, err := d.Hollow(p)
	want := []FileProblem{{Path: "/" + infoDir + "/qemu-utils.list", Kind: "empty"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// BenchmarkHollow is of this machine's first packages with 400 files, as QEMU's in nova_libvirt have.
func BenchmarkHollow(b *testing.B) {
	root, err := os.OpenRoot("/")
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	d, err := OpenDatabase(root)
	if err != nil {
		b.Skipf("no dpkg here: %v", err)
	}
	files := 0
	var packages []Package
	for _, p := range d.Packages() {
		sums, _ := d.Md5sums(p)
		if n := len(sums); n < 200 && files+n < 450 {
			packages, files = append(packages, p), files+n
		}
	}
	for b.Loop() {
		for _, p := range packages {
			if _, err := d.Hollow(p); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(files), "files")
}
