package lockprobe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// fileID is a file as /proc/locks names it: "08:01:131074", device in hexadecimal, inode in decimal.
type fileID struct {
	major, minor uint32
	inode        uint64
}

func imageID(device, inode uint64) fileID {
	return fileID{unix.Major(device), unix.Minor(device), inode}
}

// heldLock is a line of /proc/locks, or of the same form in /proc/PID/fdinfo: proc_locks(5).
type heldLock struct {
	kind  string // "ofd", "posix" or "flock"
	file  fileID
	bytes string // "100-103", "all"
	first uint64
}

// parseLock reads "1: OFDLCK ADVISORY  READ -1 00:2d:1234 100 103". A waiting one has "->" behind its number and holds nothing.
func parseLock(line string) (heldLock, bool) {
	f := strings.Fields(line)
	if len(f) != 8 || f[1] == "->" {
		return heldLock{}, false
	}
	var l heldLock
	switch f[1] {
	case "OFDLCK":
		l.kind = "ofd"
	case "POSIX":
		l.kind = "posix"
	case "FLOCK":
		l.kind = "flock"
	default: // leases and the like
		return heldLock{}, false
	}
	id := strings.Split(f[5], ":")
	if len(id) != 3 {
		return heldLock{}, false
	}
	major, err1 := strconv.ParseUint(id[0], 16, 32)
	minor, err2 := strconv.ParseUint(id[1], 16, 32)
	inode, err3 := strconv.ParseUint(id[2], 10, 64)
	first, err4 := strconv.ParseUint(f[6], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return heldLock{}, false
	}
	l.file, l.first = fileID{uint32(major), uint32(minor), inode}, first
	switch last, err := strconv.ParseUint(f[7], 10, 64); {
	case f[7] == "EOF" && first == 0:
		l.bytes = "all"
	case f[7] == "EOF":
		l.bytes = fmt.Sprintf("from %d", first)
	case err != nil:
		return heldLock{}, false
	case last == first:
		l.bytes = f[6]
	default:
		l.bytes = f[6] + "-" + f[7]
	}
	return l, true
}

// locksOf lists the locks that a process holds through its open files. It is bounded: a guest has some hundred descriptors.
func locksOf(proc string, pid int) []heldLock {
	dir, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "fdinfo"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(65536)
	var all []heldLock
	for _, name := range names {
		file, err := os.Open(filepath.Join(dir.Name(), name))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(file, 1<<20))
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "lock:"); ok {
				if l, ok := parseLock(text); ok {
					all = append(all, l)
				}
			}
		}
		file.Close()
	}
	return all
}

// imageLocks counts the byte locks that QEMU takes on images.
func imageLocks(locks []heldLock) (n int) {
	for _, l := range locks {
		if l.kind != "flock" && l.first >= heldBase && l.first < deniedBase+perms {
			n++
		}
	}
	return n
}

// findHolders finds the processes of this host that hold locks on the files, by file. It goes through all open files of the host, so
// it is for files that were asked for and are locked. name is what a container's id is called here.
func findHolders(proc string, files map[fileID]bool, name func(id string) string) (map[fileID][]Holder, error) {
	pids, err := host.PIDs(proc)
	if err != nil {
		return nil, err
	}
	found := map[fileID][]Holder{}
	for _, pid := range pids {
		byFile := map[fileID]map[string][]string{}
		for _, l := range locksOf(proc, pid) {
			if files[l.file] {
				if byFile[l.file] == nil {
					byFile[l.file] = map[string][]string{}
				}
				byFile[l.file][l.kind] = append(byFile[l.file][l.kind], l.bytes)
			}
		}
		for id, kinds := range byFile {
			for _, kind := range []string{"ofd", "posix", "flock"} {
				if kinds[kind] == nil {
					continue
				}
				h := Holder{PID: pid, Program: host.CommandName(proc, pid), Guest: host.GuestName(proc, pid), Container: Host, Kind: kind, Bytes: strings.Join(kinds[kind], ", ")}
				if c := host.ContainerOf(proc, pid); c != "" {
					h.Container = name(c)
				}
				found[id] = append(found[id], h)
			}
		}
	}
	return found, nil
}
