package lockfix

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// BenchmarkOnDisk measures what it takes to have an install on the disk, by fsync of what it wrote and by syncfs of the container's root, on an idle disk and
// on one that somebody else writes to as fast as it goes. A container's root is two layers; the package has the sizes of qemu-utils and qemu-block-extra.
// docs/decisions/0023-on-disk.md has the figures. It takes minutes: go test ./internal/lockfix -run '^$' -bench OnDisk -benchtime 10x.
func BenchmarkOnDisk(b *testing.B) {
	for _, kind := range []string{"ext4", "xfs"} {
		for _, busy := range []bool{false, true} {
			for _, how := range []string{"fsync", "syncfs"} {
				b.Run(fmt.Sprintf("%s/busy=%v/%s", kind, busy, how), func(b *testing.B) { benchmarkOnDisk(b, kind, busy, how) })
			}
		}
	}
}

func benchmarkOnDisk(b *testing.B, kind string, busy bool, how string) {
	d := newLoopDisk(b, kind, 6<<30)
	root := filepath.Join(d.dir, "cinder_volume")
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 2500 { // dpkg's lists, and what else there is
		name := filepath.Join(root, "var/lib/dpkg/info", fmt.Sprintf("package%d.list", i))
		must(os.MkdirAll(filepath.Dir(name), 0o755))
		must(os.WriteFile(name, []byte("/usr\n"), 0o644))
	}
	stanza := "Package: %s\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
	must(os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), fmt.Appendf(nil, stanza+stanza, "dpkg", "qemu-utils"), 0o644))
	for _, name := range []string{"usr/bin", "usr/lib/qemu", "usr/sbin", "etc"} {
		must(os.MkdirAll(filepath.Join(root, name), 0o755))
	}
	d.layered(root)
	files := map[string]int{}
	for i := range 3 {
		files[fmt.Sprintf("usr/bin/qemu-%d", i)] = 2 << 20
	}
	for i := range 12 {
		files[fmt.Sprintf("usr/lib/qemu/block-%d.so", i)] = 40 << 10
	}
	var list bytes.Buffer
	for name := range files {
		fmt.Fprintf(&list, "/%s\n", name)
	}
	data := make([]byte, 2<<20)
	_, _ = rand.Read(data)
	install := func() {
		for name, size := range files {
			must(os.WriteFile(filepath.Join(root, name+".dpkg-new"), data[:size], 0o755))
			must(os.Rename(filepath.Join(root, name+".dpkg-new"), filepath.Join(root, name)))
		}
		must(os.WriteFile(filepath.Join(root, "var/lib/dpkg/info/qemu-utils.list"), list.Bytes(), 0o644))
	}
	var written uint64
	if busy {
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			written = keepBusy(b, filepath.Join(d.dir, "guest"), stop)
		}()
		defer func() {
			close(stop)
			<-ended
			b.ReportMetric(float64(written>>20)/b.Elapsed().Seconds(), "MiB/s-beside")
		}()
		time.Sleep(5 * time.Second)
	}
	time.Sleep(2 * time.Second) // a container's image is older than the run
	var longest time.Duration
	for b.Loop() {
		b.StopTimer()
		install()
		opened, err := os.OpenRoot(root)
		must(err)
		b.StartTimer()
		began := time.Now()
		if how == "fsync" {
			s := syncing{root: opened, now: time.Now(), age: 2 * time.Second, files: map[string]bool{}, folders: map[string]bool{}}
			must(errors.Join(s.addPackages([]deb.Package{{Name: "qemu-utils"}}), s.sync()))
		} else {
			folder, err := opened.Open(".")
			must(err)
			must(errors.Join(unix.Syncfs(int(folder.Fd())), folder.Close()))
		}
		longest = max(longest, time.Since(began))
		opened.Close()
	}
	b.ReportMetric(longest.Seconds(), "s-longest")
}

// keepBusy writes to a file of 3 GiB, as a guest does to its disk, until it is stopped.
func keepBusy(b *testing.B, name string, stop chan struct{}) (written uint64) {
	file, err := os.Create(name)
	if err != nil {
		b.Error(err)
		return 0
	}
	defer file.Close()
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	for at := int64(0); ; at = (at + 1) % (3 << 10) {
		select {
		case <-stop:
			return written
		default:
		}
		n, err := file.WriteAt(data, at<<20)
		written += uint64(n)
		if err != nil {
			b.Error(err)
			return written
		}
	}
}
