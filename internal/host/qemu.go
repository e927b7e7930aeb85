package host

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Guest is a QEMU process that runs a virtual machine in some container of this host.
type Guest struct {
	PID     int
	Name    string // of the guest, where the command line tells it
	Program string // as the process knows it, "/usr/bin/qemu-system-x86_64"
	exe     string // /proc/PID/exe
}

// Guests finds the QEMU processes below proc, usually "/proc", that live in a container: in another mount namespace than
// this program, which runs on the host itself. A guest of the host's own libvirt is not kolla's.
func Guests(proc string) ([]Guest, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	own, err := os.Readlink(filepath.Join(proc, "self", "ns", "mnt"))
	if err != nil {
		return nil, fmt.Errorf("cannot tell containers' processes from the host's: %w", err)
	}
	var guests []Guest
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if g, ok := guest(proc, own, pid); ok {
			guests = append(guests, g)
		}
	}
	return guests, nil
}

// guest looks at one process. One that ends meanwhile is none.
func guest(proc, own string, pid int) (Guest, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	exe := filepath.Join(dir, "exe")
	target, err := os.Readlink(exe)
	if err != nil {
		return Guest{}, false
	}
	path := strings.TrimSuffix(target, " (deleted)") // proc(5)
	if !strings.HasPrefix(filepath.Base(path), "qemu-system-") && filepath.Base(path) != "qemu-kvm" {
		return Guest{}, false
	}
	if ns, err := os.Readlink(filepath.Join(dir, "ns", "mnt")); err != nil || ns == own {
		return Guest{}, false
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Guest{}, false
	}
	return Guest{PID: pid, Name: guestName(line), Program: path, exe: exe}, true
}

// GuestName is the name of the guest that a process runs; empty if it is no QEMU or has none.
func GuestName(proc string, pid int) string {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	target, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil || !strings.HasPrefix(filepath.Base(target), "qemu-") {
		return ""
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return ""
	}
	return guestName(line)
}

// guestName finds the name in QEMU's arguments, separated by NUL: "-name guest=vm,debug-threads=on" as libvirt writes
// it, or "-name vm". A comma in a name is doubled: qemu(1).
func guestName(cmdline []byte) string {
	args := bytes.Split(cmdline, []byte{0})
	for i, arg := range args {
		if option := string(arg); (option == "-name" || option == "--name") && i+1 < len(args) {
			value := strings.ReplaceAll(string(args[i+1]), ",,", "\x00")
			value, _, _ = strings.Cut(value, ",")
			value = strings.TrimPrefix(value, "guest=")
			return strings.ReplaceAll(value, "\x00", ",")
		}
	}
	return ""
}

// Stale keeps of the guests those whose program differs, by content, from the file of the same path below root, or has
// none there. The link's text does not tell: after a container was recreated it reads like the new one's program.
func Stale(guests []Guest, root *os.Root) ([]Guest, error) {
	sums := map[inode][sha256.Size]byte{} // a host with 50 guests has one or two programs
	var stale []Guest
	for _, g := range guests {
		running, err := os.Open(g.exe)
		if err != nil {
			continue // it ended
		}
		same, err := sameContent(running, root, g.Program, sums)
		running.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot compare the program of process %d: %w", g.PID, err)
		}
		if !same {
			stale = append(stale, g)
		}
	}
	return stale, nil
}

type inode struct{ dev, ino uint64 }

func sameContent(running *os.File, root *os.Root, path string, sums map[inode][sha256.Size]byte) (bool, error) {
	file, _, err := foreign.OpenLinked(root, strings.TrimPrefix(path, "/"))
	if err != nil {
		return false, nil // gone, moved out of reach, or no program: not what runs
	}
	defer file.Close()
	a, sizeA, err := identify(running)
	if err != nil {
		return false, err
	}
	b, sizeB, err := identify(file)
	if err != nil {
		return false, err
	}
	if a == b {
		return true, nil
	}
	if sizeA != sizeB {
		return false, nil
	}
	sumA, err := sum(running, a, sums)
	if err != nil {
		return false, err
	}
	sumB, err := sum(file, b, sums)
	return sumA == sumB, err
}

func identify(f *os.File) (inode, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return inode{}, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return inode{st.Dev, st.Ino}, info.Size(), nil
}

func sum(f *os.File, id inode, sums map[inode][sha256.Size]byte) ([sha256.Size]byte, error) {
	if known, ok := sums[id]; ok {
		return known, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return [sha256.Size]byte{}, err
	}
	sums[id] = [sha256.Size]byte(h.Sum(nil))
	return sums[id], nil
}
