package preloaded

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// What the library works in stands in its source, too, where an auditor reads it.
func TestProgramsAreThoseOfTheSource(t *testing.T) {
	text, err := os.ReadFile("../../preload/source/nfslock.c")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, list := range regexp.MustCompile(`(?m)^static const char \*const (?:tools|servers)\[\] = \{(.*), 0\};$`).FindAllStringSubmatch(string(text), -1) {
		for name := range strings.SplitSeq(list[1], ", ") {
			want = append(want, strings.Trim(name, `"`))
		}
	}
	if !slices.Equal(want, Programs) {
		t.Errorf("the source has %q, this package %q", want, Programs)
	}
	for _, name := range Daemons {
		if !slices.Contains(Programs, name) {
			t.Errorf("%s is not among them", name)
		}
	}
}

// program is the smallest file that looks like a program: an ELF header, and one segment that names the interpreter.
func program(machine uint16, interpreter string) []byte {
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	le := binary.LittleEndian
	for _, v := range []any{uint16(2), machine, uint32(1), uint64(0), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0)} {
		_ = binary.Write(&b, le, v)
	}
	size := uint64(len(interpreter) + 1)
	for _, v := range []any{uint32(3), uint32(4), uint64(120), uint64(120), uint64(120), size, size, uint64(1)} {
		_ = binary.Write(&b, le, v)
	}
	b.WriteString(interpreter + "\x00")
	return b.Bytes()
}

const (
	glibc = "/lib64/ld-linux-x86-64.so.2"
	musl  = "/lib/ld-musl-x86_64.so.1"
)

var machineOf = map[string]uint16{"amd64": 62, "arm64": 183}

func TestFindProgram(t *testing.T) {
	own := machineOf[runtime.GOARCH]
	other, otherName := machineOf["arm64"], "arm64"
	if runtime.GOARCH == "arm64" {
		other, otherName = machineOf["amd64"], "amd64"
	}
	for _, test := range []struct {
		name  string
		files map[string][]byte
		links map[string]string
		want  Program
		unfit string
		qemu  string // where want is a daemon
	}{
		{name: "none", files: map[string][]byte{"usr/bin/ls": program(own, glibc)}},
		{name: "Debian's tools", files: map[string][]byte{"usr/bin/qemu-img": program(own, glibc)}, want: Program{"/usr/bin/qemu-img", runtime.GOARCH, true}},
		{name: "Rocky's emulator", files: map[string][]byte{"usr/libexec/qemu-kvm": program(own, glibc)}, want: Program{"/usr/libexec/qemu-kvm", runtime.GOARCH, true}},
		{name: "libvirt alone", files: map[string][]byte{"usr/sbin/virtqemud": program(own, glibc)}, want: Program{"/usr/sbin/virtqemud", runtime.GOARCH, true}},
		{
			name: "Rocky's libvirt and emulator", want: Program{"/usr/sbin/virtqemud", runtime.GOARCH, true}, qemu: "/usr/libexec/qemu-kvm",
			files: map[string][]byte{"usr/sbin/virtqemud": program(own, glibc), "usr/libexec/qemu-kvm": program(own, glibc)},
		},
		{name: "an emulator alone", files: map[string][]byte{"usr/bin/qemu-system-x86_64": program(own, glibc)}, want: Program{"/usr/bin/qemu-system-x86_64", runtime.GOARCH, true}},
		{name: "a guest agent", files: map[string][]byte{"usr/bin/qemu-ga": program(own, glibc)}},
		{name: "a script", files: map[string][]byte{"usr/bin/qemu-img": []byte("#!/bin/sh\n")}},
		{name: "empty", files: map[string][]byte{"usr/bin/qemu-img": {}}},
		{name: "cut", files: map[string][]byte{"usr/bin/qemu-img": program(own, glibc)[:80]}},
		{name: "by a link", files: map[string][]byte{"opt/qemu-img": program(own, glibc)}, links: map[string]string{"usr/bin/qemu-img": "/opt/qemu-img"}, want: Program{"/usr/bin/qemu-img", runtime.GOARCH, true}},
		{name: "a link out", links: map[string]string{"usr/bin/qemu-img": "../../../../../../../bin/sh"}},
		{name: "musl", files: map[string][]byte{"usr/bin/qemu-img": program(own, musl)}, want: Program{"/usr/bin/qemu-img", runtime.GOARCH, false}, unfit: "not started by glibc"},
		{name: "static", files: map[string][]byte{"usr/bin/qemu-img": program(own, "")}, want: Program{"/usr/bin/qemu-img", runtime.GOARCH, false}, unfit: "not started by glibc"},
		{name: "another architecture", files: map[string][]byte{"usr/bin/qemu-img": program(other, glibc)}, want: Program{"/usr/bin/qemu-img", otherName, true}, unfit: "is " + otherName},
		{name: "one without a library", files: map[string][]byte{"usr/bin/qemu-img": program(243, glibc)}, want: Program{"/usr/bin/qemu-img", "", true}, unfit: "of another architecture"},
		{
			name: "one that fits among others", want: Program{"/usr/sbin/libvirtd", runtime.GOARCH, true},
			files: map[string][]byte{"usr/bin/qemu-img": program(own, musl), "usr/sbin/libvirtd": program(own, glibc)}, qemu: "/usr/bin/qemu-img",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, root := tree(t, nil, nil)
			for name, data := range test.files {
				plant(t, dir, name, func(path string) error { return os.WriteFile(path, data, 0o755) })
			}
			for name, target := range test.links {
				plant(t, dir, name, func(path string) error { return os.Symlink(target, path) })
			}
			got, err := FindProgram(root)
			if err != nil || got != test.want {
				t.Errorf("%+v, %v", got, err)
			}
			if got.Path == "" {
				return
			}
			own, err := FindQEMU(root)
			if daemon := slices.Contains(Daemons, filepath.Base(got.Path)); err != nil || !daemon && own != got || daemon && own.Path != test.qemu {
				t.Errorf("of QEMU's own: %+v, %v", own, err)
			}
			if err := got.Fit(); (err != nil) != (test.unfit != "") || err != nil && !strings.Contains(err.Error(), test.unfit) {
				t.Errorf("fit: %v", err)
			}
		})
	}
}

func plant(t *testing.T, dir, name string, make func(path string) error) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := make(path); err != nil {
		t.Fatal(err)
	}
}
