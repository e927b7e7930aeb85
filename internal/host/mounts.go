package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mount is an NFS mount, and a process that sees it.
type Mount struct {
	Source  string // "filer:/export"
	Path    string // as that process sees it
	Options string // the filesystem's own: "rw,vers=3,…"
	PID     int
}

// NeedsStatd is true of a mount whose locks go through rpc.statd: NFS versions 2 and 3, unless all its locks are local
// (nfs(5): nolock, local_lock).
func (m Mount) NeedsStatd() bool {
	return needsStatd(m.Options)
}

func needsStatd(super string) bool {
	options := strings.Split(super, ",")
	has := func(option string) bool { return slices.Contains(options, option) }
	return (has("vers=3") || has("vers=2")) && !has("nolock") && !has("local_lock=all")
}

// Servers are the names of the mount's server: its address, and what it was called when it was mounted.
func (m Mount) Servers() (names []string) {
	for option := range strings.SplitSeq(m.Options, ",") {
		if address, ok := strings.CutPrefix(option, "addr="); ok {
			names = append(names, address)
		}
	}
	if name, _, ok := strings.Cut(m.Source, ":/"); ok {
		if name = strings.Trim(name, "[]"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// NFSMounts finds the NFS mounts in all mount namespaces below proc, usually "/proc": cinder_volume mounts in its own. One that
// several namespaces share is reported once. The same path may be of another version in another namespace, so the options count, too.
func NFSMounts(proc string) ([]Mount, error) {
	pids, err := pids(proc)
	if err != nil {
		return nil, err
	}
	namespaces := map[string]bool{}
	var all []Mount
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		ns, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
		if err != nil || namespaces[ns] {
			continue
		}
		file, err := os.Open(filepath.Join(dir, "mountinfo"))
		if err != nil {
			continue // it ended: another process may be in the namespace
		}
		found, err := parseMounts(file, pid)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read the mounts that process %d sees: %w", pid, err)
		}
		namespaces[ns] = true
		for _, m := range found {
			if !slices.ContainsFunc(all, func(o Mount) bool { return o.Source == m.Source && o.Path == m.Path && o.Options == m.Options }) {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// ServerThreads is how many threads the kernel's NFS server runs, 0 where there is none. The clients of one that runs are told of a reboot
// as servers are, and drop their locks as they do. nfsd(7) names both files: the former exists while its filesystem is mounted, the latter while the
// module is loaded; there the count follows "th".
func ServerThreads(proc string) (int, error) {
	for path, at := range map[string]int{"fs/nfsd/threads": 0, "1/net/rpc/nfsd": 1} {
		text, err := os.ReadFile(filepath.Join(proc, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("cannot tell whether this host is an NFS server: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) <= at || at == 1 && fields[0] != "th" {
				continue
			}
			n, err := strconv.Atoi(fields[at])
			if err != nil {
				return 0, fmt.Errorf("cannot tell whether this host is an NFS server: %s: %w", path, err)
			}
			if n > 0 {
				return n, nil
			}
		}
	}
	return 0, nil
}

// parseMounts keeps the NFS mounts of what a process sees.
func parseMounts(r io.Reader, pid int) ([]Mount, error) {
	all, err := parseMountInfo(r)
	var found []Mount
	for _, m := range all {
		if m.IsNFS() {
			found = append(found, Mount{Source: m.Source, Path: m.Path, Options: m.Super, PID: pid})
		}
	}
	return found, err
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
