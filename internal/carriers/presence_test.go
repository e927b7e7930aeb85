package carriers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const infoDir = "var/lib/dpkg/info"

// tree makes files below a folder, and what their names end in: / a folder, | a pipe, > a link to behind.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, target, link := strings.Cut(name, ">")
		path := filepath.Join(dir, strings.TrimSuffix(name, "|"))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(target, path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case strings.HasSuffix(name, "|"):
			err = syscall.Mkfifo(path, 0o600)
		default:
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ask fails a test that waits for longer than any local filesystem takes.
func ask(t *testing.T, dir string) (bool, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		found bool
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		defer root.Close()
		found, err := hasQEMU(root)
		answers <- answer{found, err}
	}()
	select {
	case a := <-answers:
		return a.found, a.err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
		return false, nil
	}
}

func TestQEMUIsFoundByDpkgsFileLists(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		want  bool
	}{
		{"Glance's", []string{infoDir + "/dpkg.list", infoDir + "/qemu-utils.list", infoDir + "/qemu-utils.md5sums"}, true},
		{"an emulator alone", []string{infoDir + "/qemu-system-arm.list"}, true},
		{"none", []string{infoDir + "/dpkg.list", infoDir + "/python3.list"}, false},
		{"packages of QEMU's that take no locks", []string{infoDir + "/qemu-guest-agent.list", infoDir + "/qemu-system-common.list", infoDir + "/qemu-system-data.list", infoDir + "/qemu-block-extra.list"}, false},
		{"no folder for them", []string{"var/lib/dpkg/status"}, false},
		{"rpm", []string{"var/lib/rpm/rpmdb.sqlite"}, false},
		{"rpm's emulator", []string{"var/lib/rpm/rpmdb.sqlite", "usr/libexec/qemu-kvm"}, true},
		{"rpm's tool", []string{"usr/bin/qemu-img"}, true},
		{"rpm's guest agent", []string{"usr/bin/qemu-ga"}, false},
		{"a link for a program", []string{"usr/bin/qemu-img>../libexec/other", "usr/libexec/other"}, false},
		{"a pipe for a program", []string{"usr/bin/qemu-img|"}, false},
		{"a program beside a database that has no package of it", []string{infoDir + "/dpkg.list", "usr/bin/qemu-img"}, false},
		{"nothing at all", nil, false},
		{"a pipe for a folder", []string{"var/lib/dpkg/info|"}, false},
		{"a pipe on the way", []string{"var/lib|"}, false},
		{"a pipe for a list", []string{infoDir + "/qemu-utils.list|"}, false},
		{"a folder for a list", []string{infoDir + "/qemu-utils.list/"}, false},
		{"a link for a list", []string{infoDir + "/dpkg.list", infoDir + "/qemu-utils.list>dpkg.list"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := ask(t, tree(t, test.files...)); err != nil || got != test.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// TestHostileLinksLeadNowhere: neither out of the container nor to another place in it.
func TestHostileLinksLeadNowhere(t *testing.T) {
	outside := tree(t, infoDir+"/qemu-utils.list", "usr/bin/qemu-img")
	for _, link := range []string{"usr>" + outside + "/usr", "usr/bin>" + outside + "/usr/bin", "var>" + outside + "/var", "var/lib>" + outside + "/var/lib", "var/lib/dpkg>../../elsewhere", "var/lib/dpkg/info>info"} {
		dir := tree(t, "elsewhere/info/qemu-utils.list", link)
		if got, err := ask(t, dir); err != nil || got {
			t.Errorf("%s: %v, %v", link, got, err)
		}
	}
}

// TestHostileMountsAreNotWaitedFor: a filesystem that never answers, wherever on the way it is, or in a list's place.
func TestHostileMountsAreNotWaitedFor(t *testing.T) {
	for _, at := range []string{"var", "var/lib", "var/lib/dpkg", infoDir, infoDir + "/qemu-utils.list"} {
		t.Run(filepath.Base(at), func(t *testing.T) {
			dir := tree(t, infoDir+"/qemu-utils.list")
			silent(t, filepath.Join(dir, at))
			got, err := ask(t, dir)
			if err == nil || got || !strings.Contains(err.Error(), "/"+at) || !strings.Contains(err.Error(), "something is mounted there") {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// silent mounts a filesystem of FUSE whose server never reads a request: fuse(4).
func silent(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse, and root: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) }) // whoever waits then gets an error
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	mode := unix.S_IFREG
	if info.IsDir() {
		mode = unix.S_IFDIR
	}
	if err := unix.Mount("silent", path, "fuse.silent", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0", fd, mode)); err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkNoQEMU is what a container without QEMU costs, beside the question to the engine.
func BenchmarkNoQEMU(b *testing.B) {
	dir := b.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, infoDir), 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range 1500 { // 400 packages
		if err := os.WriteFile(filepath.Join(dir, infoDir, fmt.Sprintf("lib%d.list", i)), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	for b.Loop() {
		if found, err := hasQEMU(root); err != nil || found {
			b.Fatal(found, err)
		}
	}
}
