package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MountPoint is one line of /proc/PID/mountinfo: proc(5).
type MountPoint struct {
	ID      int    // of the mount, no other on this host has it
	Device  string // of the filesystem: "0:57"
	Root    string // the folder of the filesystem that is mounted
	Path    string // as that process sees it
	Options string // of this mount: "rw,relatime"
	FSType  string // "nfs4", "fuse.glusterfs"
	Source  string // "filer:/export"
	Super   string // the filesystem's own options: "rw,vers=3,…"
}

// IsNFS is true of NFS of any version.
func (m MountPoint) IsNFS() bool { return m.FSType == "nfs" || m.FSType == "nfs4" }

// NeedsStatd is true of an NFS mount whose locks go through rpc.statd, see Mount.
func (m MountPoint) NeedsStatd() bool { return m.IsNFS() && needsStatd(m.Super) }

// HasOption looks in the mount's and in the filesystem's own options.
func (m MountPoint) HasOption(option string) bool {
	for _, all := range []string{m.Options, m.Super} {
		for o := range strings.SplitSeq(all, ",") {
			if o == option {
				return true
			}
		}
	}
	return false
}

// Value is what a filesystem's option is set to, empty if it is not: "3" for vers.
func (m MountPoint) Value(option string) string {
	for o := range strings.SplitSeq(m.Super, ",") {
		if name, value, ok := strings.Cut(o, "="); ok && name == option {
			return value
		}
	}
	return ""
}

// ReadMounts lists the mounts that a process sees, below proc, usually "/proc".
func ReadMounts(proc string, pid int) ([]MountPoint, error) {
	file, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts that process %d sees: %w", pid, err)
	}
	defer file.Close()
	all, err := parseMountInfo(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts that process %d sees: %w", pid, err)
	}
	return all, nil
}

// MountID is the number of the mount that a descriptor is on, as MountPoint has it. It has been in fdinfo since Linux 3.15 and is one of
// the whole host's, in whatever namespace.
func MountID(fd int) (int, error) {
	file, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("cannot tell which mount it is: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return 0, fmt.Errorf("cannot tell which mount it is: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("cannot tell which mount it is: the kernel does not say")
}

// parseMountInfo reads /proc/PID/mountinfo: the fields before " - " vary in number; behind it are type, source and the filesystem's
// own options. The kernel separates by one space and writes a space in a name as \040. A source may be empty.
func parseMountInfo(r io.Reader) ([]MountPoint, error) {
	var all []MountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay's line names all its layers
	for lines.Scan() {
		before, behind, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Split(before, " "), strings.Split(behind, " ")
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		id, err := strconv.Atoi(left[0])
		if err != nil {
			continue
		}
		all = append(all, MountPoint{
			ID: id, Device: left[2], Root: unescape(left[3]), Path: unescape(left[4]), Options: left[5],
			FSType: right[0], Source: unescape(right[1]), Super: right[2],
		})
	}
	return all, lines.Err()
}
