//go:build lab

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

// The preloaded library in programs that run on: guests, as libvirt starts them, and servers of disks. What the tools do with it is in the matrix
// of image locks.

// A store is a folder in which every lock is refused, and one in which none is. QEMU finds it at /store, with the library or without.
type store struct {
	t       *testing.T
	image   string
	path    string
	library bool
	list    string   // /etc/ld.so.preload
	options []string // of the engine
}

func newStore(t *testing.T, refusing bool) *store {
	t.Helper()
	dir := t.TempDir()
	s := &store{t: t, image: "nfslock-lab/nova-libvirt:bookworm", path: filepath.Join(dir, "store"), library: true, list: preload.Library + "\n"}
	data := filepath.Join(dir, "data")
	for _, path := range []string{s.path, data} {
		s.check(os.Mkdir(path, 0o777))
		s.check(os.Chmod(path, 0o777))
	}
	if refusing {
		nolocks := filepath.Join(dir, "nolocks")
		build := exec.Command("go", "build", "-o", nolocks, "./nolocks")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		s.call(build)
		s.call(exec.Command(nolocks, data, s.path, "filer:/volumes"))
		t.Cleanup(func() { s.call(exec.Command("umount", "-l", s.path)) })
	}
	return s
}

func (s *store) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) call(cmd *exec.Cmd) {
	s.t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %v: %s", cmd, err, out)
	}
}

// run runs a shell's lines in a container of its own, as Nova's user. Its stderr is a pipe, as libvirt gives a guest one.
func (s *store) run(script string, input ...string) (out, said string, err error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	name := "nfslock-preload-" + strings.ToLower(rand.Text()[:8])
	defer func() { _ = exec.Command("docker", "rm", "-f", name).Run() }() // the end of the client is not that of the container
	args := []string{"run", "--rm", "-i", "--name", name, "--network", "none", "--user", "nova", "-v", s.path + ":/store", "-w", "/store", "--label", "nfslock.scratch=preload"}
	if s.library {
		built, err := filepath.Abs(filepath.Join("../../preload/built", runtime.GOARCH, preload.Name))
		s.check(err)
		list := filepath.Join(s.t.TempDir(), "ld.so.preload")
		s.check(os.WriteFile(list, []byte(s.list), 0o644))
		args = append(args, "-v", built+":"+preload.Library+":ro", "-v", list+":"+preload.List+":ro")
	}
	args = append(args, s.options...)
	cmd := exec.CommandContext(ctx, "docker", append(args, "--entrypoint", "bash", s.image, "-c", script)...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(strings.Join(input, "\n") + "\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// libvirt's sandbox, and its way to name a disk.
const guest = `exec qemu-system-x86_64 -name guest -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -S -no-user-config -nodefaults \
	-display none -machine pc,accel=tcg -m 32 -qmp stdio -device virtio-blk-pci,drive=disk,id=virtio0 \
	-blockdev '{"driver":"file","filename":"/store/disk.qcow2","node-name":"file","auto-read-only":true,"discard":"unmap","aio":"AIO"}' \
	-blockdev '{"driver":"qcow2","node-name":"disk","read-only":false,"file":"file"}'`

var (
	writesSome = `{"execute":"human-monitor-command","arguments":{"command-line":"qemu-io -d /machine/peripheral/virtio0/virtio-backend \"write 0 64k\""}}`
	snapshot   = `{"execute":"blockdev-snapshot-sync","arguments":{"node-name":"disk","snapshot-file":"/store/overlay.qcow2","snapshot-node-name":"overlay"}}`
	qmp        = []string{`{"execute":"qmp_capabilities"}`, writesSome, snapshot, `{"execute":"quit"}`}
)

func TestAGuestInLibvirtsSandboxStartsWhereLocksAreRefused(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the lab's nova_libvirt has QEMU for amd64")
	}
	s := newStore(t, true)
	if out, said, err := s.run("qemu-img create -q -f qcow2 /store/disk.qcow2 64M"); err != nil || said != "" {
		t.Fatalf("%v: %s%s", err, out, said)
	}
	for _, aio := range []string{"threads", "io_uring"} {
		t.Run(aio, func(t *testing.T) {
			s := *s
			s.t = t
			line := strings.ReplaceAll(guest, "AIO", aio)
			s.options = []string{"--security-opt", "seccomp=unconfined"} // the engine's own profile may refuse io_uring
			s.library = false
			if _, said, err := s.run(line, qmp...); err == nil || !strings.Contains(said, "Failed to lock byte") {
				t.Errorf("without the library: %v: %s", err, said)
			}
			s.library = true
			out, said, err := s.run(line, qmp...)
			if err != nil || strings.Count(out, `"return"`) != 4 || strings.Contains(out, `"error"`) || !strings.Contains(out, "64 KiB, 1 ops") {
				t.Errorf("%v: %s%s", err, out, said)
			}
			var files []string
			for line := range strings.Lines(said) {
				if w := warned.FindStringSubmatch(strings.TrimSpace(line)); w != nil {
					files = append(files, w[1])
				} else if !strings.Contains(line, "64 KiB") {
					t.Errorf("said %q", line)
				}
			}
			if got := strings.Join(files, " "); got != "/store/disk.qcow2 /store/overlay.qcow2" {
				t.Errorf("warned of %q", got)
			}
		})
	}
}

func TestTwoGuestsOnOneImageAreRefusedWhereLocksWork(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the lab's nova_libvirt has QEMU for amd64")
	}
	s := newStore(t, false)
	line := strings.ReplaceAll(guest, "AIO", "threads")
	out, said, err := s.run(`qemu-img create -q -f qcow2 /store/disk.qcow2 64M
		mkfifo /tmp/in && exec 3<>/tmp/in
		(`+line+`) <&3 >/tmp/out 2>&1 &
		for i in {1..600}; do if grep -qs QMP /tmp/out; then break; fi; sleep 0.1; done
		`+line, qmp...)
	if err == nil || !strings.Contains(said, `Failed to get "write" lock`) {
		t.Errorf("%v: %s%s", err, out, said)
	}
}

// Those that hand a disk out are tools: the caller of qemu-nbd may take a word in its pipe for a failure, as Nova does.
func TestServersOfDisksWorkInSilenceWhereLocksAreRefused(t *testing.T) {
	s := newStore(t, true)
	script := `set -e
		qemu-img create -q -f qcow2 /store/disk.qcow2 64M
		qemu-nbd --fork -k /tmp/nbd -f qcow2 /store/disk.qcow2
		qemu-io -f raw -c 'write 0 64k' nbd+unix:///?socket=/tmp/nbd | grep '64 KiB'`
	if out, said, err := s.run(script); err != nil || said != "" || !strings.Contains(out, "64 KiB, 1 ops") {
		t.Errorf("%v: %s%s", err, out, said)
	}
	script = `set -e
		qemu-storage-daemon --daemonize --pidfile /tmp/pid --blockdev file,node-name=f,filename=/store/disk.qcow2 --blockdev qcow2,node-name=d,file=f \
			--nbd-server addr.type=unix,addr.path=/tmp/nbd2 --export nbd,id=e,node-name=d,writable=on
		qemu-io -f raw -c 'write 0 64k' nbd+unix:///d?socket=/tmp/nbd2 | grep '64 KiB'`
	if out, said, err := s.run(script); err != nil || said != "" || !strings.Contains(out, "64 KiB, 1 ops") {
		t.Errorf("%v: %s%s", err, out, said)
	}
}
