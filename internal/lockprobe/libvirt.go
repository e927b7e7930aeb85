package lockprobe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
)

// libvirtPackage is the one that starts guests: the daemons load it, whichever of them runs.
const libvirtPackage = "libvirt-daemon-driver-qemu"

// readLibvirt finds out which locks libvirt takes in the container that runs guests.
func (v *view) readLibvirt(db *deb.Database) {
	if p, ok := db.Package(libvirtPackage); ok && db.Installed(libvirtPackage) {
		l := libvirt.ReadLocks(v.root, p.Version)
		v.libvirt = &l
	}
}

// libvirtLocks is what was found of it on this host.
func (s seen) libvirtLocks() LibvirtLocks {
	for _, v := range s.views {
		if v.libvirt != nil {
			return LibvirtLocks{Container: v.name, Covered: v.covered, Locks: *v.libvirt}
		}
	}
	return LibvirtLocks{}
}

// guests tells whether a guest can start from an image on the mount: its QEMU has to get its OFD locks or go on without, and libvirt has to get
// its POSIX lock, take none, or go on without.
func (e Evidence) guests() Guests {
	g := Guests{Missing: []string{}}
	ofd, posix := e.Probes.OFD, e.Probes.POSIX
	switch {
	case e.Libvirt == nil || e.Image:
		return g
	case ofd.Result == Hung || posix.Result == Hung || e.Hangs != "":
		g.Start, g.Missing = StartsNot, append(g.Missing, "a call to the mount does not return in time")
		return g
	case ofd.Result == NotTried || ofd.Result == HeldBy || posix.Result == NotTried || posix.Result == HeldBy:
		g.Start = StartsOpen
		return g
	}
	if ofd.Result == Refused && !e.QEMU.unlocked() {
		switch e.QEMU {
		case Unknown:
			g.Start = StartsOpen
			return g
		case NoQEMU:
			g.Missing = append(g.Missing, fmt.Sprintf("%s has no QEMU", e.Container))
		case Mixed:
			g.Missing = append(g.Missing, fmt.Sprintf("QEMU takes locks, which are refused here%s, and without the patch in %s are %s", inBrackets(ofd.Errno), e.Container, strings.Join(e.Unpatched, ", ")))
		default:
			g.Missing = append(g.Missing, fmt.Sprintf("QEMU takes locks, which are refused here%s, and %s has not the patched one", inBrackets(ofd.Errno), e.Container))
		}
	}
	qemu := len(g.Missing)
	if posix.Result == Refused && e.Libvirt.OwnLocks && !e.Covered {
		missing := fmt.Sprintf("%s, and it is refused here%s", e.Libvirt.Why(), inBrackets(posix.Errno))
		if e.Library {
			missing += fmt.Sprintf(": the library is there, and this libvirt was started before it: restart %s", e.Container)
		}
		g.Missing = append(g.Missing, missing)
	}
	switch {
	case len(g.Missing) == 0:
		g.Start = Starts
	case qemu == 0 && e.squashed():
		g.Start = StartsOpen
		g.Missing[0] += "; it goes without that lock on a disk that root, whom the server squashes, may not open for writing"
	default:
		g.Start = StartsNot
	}
	return g
}

// libvirtRefuses tells whether libvirt itself would start no guest here, whatever QEMU does.
func (e Evidence) libvirtRefuses() bool {
	return e.Libvirt != nil && e.Libvirt.OwnLocks && !e.Covered && e.Probes.POSIX.Result == Refused && !e.squashed()
}

// shared are the types of filesystem on which libvirt starts a guest without its own lock if root may not open the disk for writing, as where a
// server squashes root: virSecurityManagerMetadataLock and virFileIsSharedFS in libvirt 5.6 to 11.3.
var shared = []string{"nfs", "nfs4", "ceph", "cifs", "smb3", "gfs2", "ocfs2", "gpfs", "beegfs", "fuse.glusterfs", "fuse.quobyte"}

// squashed tells whether root may not write here, so that it depends on a disk's mode whether libvirt takes its lock.
func (e Evidence) squashed() bool { return e.As != nil && slices.Contains(shared, e.FSType) }

// libvirtSettings are what decides of libvirt, in words.
func (e Evidence) libvirtSettings() string {
	l := e.Libvirt
	takes := "takes no lock of its own on disks"
	if l.OwnLocks {
		takes = "takes a lock of its own on each disk"
	}
	text := fmt.Sprintf("libvirt %s in %s %s (%s: remember_owner = %d, dynamic_ownership = %d", l.Version, e.Container, takes, l.File, digit(l.RememberOwner), digit(l.DynamicOwnership))
	if l.LockManager != "" {
		text += fmt.Sprintf(", lock_manager = %q", l.LockManager)
	}
	text += ")"
	if l.Detail != "" {
		text += ": " + l.Detail
	}
	if e.Covered {
		text += "; it has the library loaded, and goes on where that lock is refused"
	}
	return text
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}
