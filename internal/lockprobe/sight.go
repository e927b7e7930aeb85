package lockprobe

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// sight is a mount, or a path that the user named, as one view sees it.
type sight struct {
	view  *view
	mount host.MountPoint
	path  string
	named bool // by the option paths
}

// spot is a place in a filesystem: those that are the same spot are tried once.
type spot struct {
	device   string
	folder   string // in the filesystem
	readOnly bool
	inside   *view // the view in which it is to be tried, nil if that may be done from outside
}

// sights finds what there is to try in a view: its NFS mounts, and the paths that the user named.
func sights(v *view, paths []string) []sight {
	var all []sight
	visible := visible(v.mounts)
	for _, m := range visible {
		if m.IsNFS() {
			all = append(all, sight{view: v, mount: m, path: m.Path})
		}
	}
	for _, p := range paths {
		if slices.ContainsFunc(all, func(s sight) bool { return s.path == p }) {
			continue
		}
		if m, ok := mountOf(visible, p); ok {
			all = append(all, sight{view: v, mount: m, path: p, named: true})
		}
	}
	slices.SortStableFunc(all, func(a, b sight) int { return cmp.Compare(a.path, b.path) })
	return all
}

// visible leaves out mounts that another one was put on top of, at the same path: only the last can be reached.
func visible(mounts []host.MountPoint) []host.MountPoint {
	last := map[string]int{}
	for i, m := range mounts {
		last[m.Path] = i
	}
	var all []host.MountPoint
	for i, m := range mounts {
		if last[m.Path] == i {
			all = append(all, m)
		}
	}
	return all
}

// mountOf is the mount that a path is on: the one with the longest path above it.
func mountOf(mounts []host.MountPoint, p string) (best host.MountPoint, ok bool) {
	for _, m := range mounts {
		if under(m.Path, p) && (!ok || len(m.Path) > len(best.Path)) {
			best, ok = m, true
		}
	}
	return best, ok
}

func under(folder, p string) bool {
	return folder == "/" || p == folder || strings.HasPrefix(p, folder+"/")
}

// spot tells where in its filesystem it is.
func (s sight) spot() spot {
	at := spot{device: s.mount.Device, readOnly: s.mount.HasOption("ro")}
	at.folder = path.Join(s.mount.Root, strings.TrimPrefix(s.path, s.mount.Path))
	if s.view.row.Seccomp == "custom" {
		at.inside = s.view
	}
	return at
}

// vers is the version of an NFS mount: "3", "4.2".
func vers(m host.MountPoint) string {
	if !m.IsNFS() {
		return ""
	}
	return m.Value("vers")
}

// nolock is the mount's option that makes locks local to this host, empty if there is none.
func nolock(m host.MountPoint) string {
	if !m.IsNFS() || strings.HasPrefix(vers(m), "4") {
		return ""
	}
	return readOptions(m.Super).local
}
