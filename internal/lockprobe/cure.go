package lockprobe

import (
	"fmt"
	"strings"
)

// A command names HOST for the host that was looked at: a module does not know what the inventory calls it.
const (
	ensureCommand = "ansible -i INVENTORY HOST -b -m nfslock.kolla.rpcbind_ensure"
	// run on the server: whether it reaches this host
	callbackCommand = "rpcinfo -T tcp HOST 100024 && rpcinfo -T tcp HOST 100021"
	libraryCommand  = "ansible -i INVENTORY HOST -b -m nfslock.kolla.nfs_lock_fix -a method=library"
)

// cure is the smallest thing that helps against a verdict.
func (e Evidence) cure(v Verdict) Cure {
	switch v {
	case OK:
		if e.libvirtRefuses() { // POSIX locks alone are refused
			return e.forLibvirt("QEMU gets its locks, and libvirt does not get its own, so that no guest starts")
		}
		return Cure{Fix: FixNone, Text: "Nothing is to be done."}
	case RPCBindMissing, StatdMissing, StatdDead:
		return Cure{
			Fix: FixRPCBind, Command: ensureCommand,
			Text: "Make rpcbind and rpc.statd live on this host; the mounts that exist recover at once. Or mount with NFSv4: " + nfsv4,
		}
	case ServerNoNLM:
		return Cure{Fix: FixNFSv4, Text: "Mount with NFSv4, which needs no lock manager beside it: " + nfsv4 + " Or start the server's lock manager."}
	case CallbackBlocked:
		return Cure{
			Fix: FixServer, Command: callbackCommand,
			Text: "Let the server reach this host: port 111 and those of rpc.statd and of the lock manager, which the command, run on the server, tries; start the server's rpc.statd if it is down. Or mount with NFSv4: " + nfsv4,
		}
	case NolockMount:
		return Cure{Fix: FixNFSv4, Text: "Remove the option, or mount with NFSv4: " + nfsv4 + " Until then nothing keeps two hosts from writing to one image."}
	case LocksRefused, OFDUnsupported:
		return e.withoutLocks()
	case Held:
		return e.holder()
	case Hangs:
		return Cure{Fix: FixServer, Text: fmt.Sprintf("Look at the server of %s and the network to it. What waits for the mount on this host cannot be ended before it answers; umount -f ends it, with an error for whoever writes there.", e.Source)}
	}
	return Cure{Fix: FixLook, Text: "Clear up what the reason names, then run this again."}
}

// nfsv4 names the settings of kolla-ansible with which both sides move. Read in Cinder, os-brick and Nova: Cinder hands Nova only the
// options that stand behind a share, never its own nfs_mount_options.
const nfsv4 = "write vers=4.2 behind the share in /etc/kolla/config/nfs_shares (host:/export -o vers=4.2), " +
	"set nfs_mount_options = vers=4.2 in /etc/kolla/config/cinder/cinder-volume.conf for the backend and in /etc/kolla/config/nova/nova-compute.conf under [libvirt], " +
	"run kolla-ansible reconfigure, and mount again: guests with volumes there are to be moved away first."

// packagesWay is the other way than the library.
const packagesWay = "The patched QEMU packages do the same for QEMU alone: nfslock.kolla.fix with -e nfs_lock_fix_patch_set=FOLDER."

// forLibvirt is what helps where only libvirt's own lock is in the way: its settings, which a person changes, or the library.
func (e Evidence) forLibvirt(why string) Cure {
	if e.Library {
		return Cure{
			Fix: FixPatch, Command: libraryCommand,
			Text: fmt.Sprintf("%s: the library is in %s, and its libvirt was started before it. The command restarts %s; guests that run go on.", why, e.Container, e.Container),
		}
	}
	return Cure{
		Fix: FixLibvirt, Command: libraryCommand,
		Text: fmt.Sprintf("%s: %s Or put the library into %s, which the command does: libvirt then goes on where its lock is refused, and warns.", why, e.Libvirt.Remedy, e.Container),
	}
}

// withoutLocks: to go on without locks is the last cure, and already there in some containers. For guests the packages are half of it where libvirt takes
// locks, too.
func (e Evidence) withoutLocks() Cure {
	switch {
	case e.QEMU == ByLibrary && e.libvirtRefuses():
		return e.forLibvirt("With the library QEMU goes on without locks here and warns, but no guest starts")
	case e.QEMU == Patched && (e.Library || e.Variant == "fallback") && e.libvirtRefuses():
		return e.forLibvirt("The patched QEMU goes on without locks here and warns, but no guest starts")
	case e.QEMU == ByLibrary || e.QEMU == Patched && e.Library:
		return Cure{Fix: FixNone, Text: "Nothing more is to be done: with the library QEMU goes on without locks here and warns. Nothing keeps two writers of one image apart."}
	case e.QEMU == Patched && e.Variant == "fallback":
		return Cure{Fix: FixNone, Text: "Nothing more is to be done: the patched QEMU goes on without locks here and warns. Nothing keeps two writers of one image apart."}
	case e.QEMU == Patched && e.Variant == "disable_ofd" && e.Probes.POSIX.Result == Granted:
		return Cure{Fix: FixNone, Text: "Nothing more is to be done: QEMU has the classic edit and takes no OFD locks. Nothing keeps two writers of one image apart."}
	case e.QEMU == Patched && e.Variant == "disable_ofd":
		return Cure{Fix: FixPatch, Command: libraryCommand, Text: "QEMU has the classic edit (disable_ofd): images open without locks, but to create and to convert one still takes a POSIX lock, which is refused here. Put the library there, which the command does, or install a patch set of the variant fallback."}
	case e.QEMU == NoQEMU:
		return Cure{Fix: FixNone, Text: fmt.Sprintf("Nothing is to be patched here, as no QEMU of kolla's is. Have the locks of the store (%s) mended if something else needs them.", e.FSType)}
	}
	const library = "put the library into the containers, which the command does: QEMU and libvirt then go on without locks where they are refused, and warn"
	c := Cure{
		Fix: FixPatch, Command: libraryCommand,
		Text: fmt.Sprintf("Have the locks of the store (%s) mended. Else %s: nothing keeps two writers of one image apart then. %s", e.FSType, library, packagesWay),
	}
	if e.OutsideWell {
		c.Text = fmt.Sprintf("Give %s another seccomp profile, which is the smaller cure, as the mount itself grants locks. Else %s. %s", e.Container, library, packagesWay)
	}
	if e.libvirtRefuses() {
		c.Text += " For guests they are half of it: " + e.Libvirt.Remedy
	}
	return c
}

// holder: a lock is never released from here.
func (e Evidence) holder() Cure {
	if len(e.Holders) == 0 {
		return Cure{
			Fix: FixHolder,
			Text: fmt.Sprintf("Find the other host that has the image open: the server (%s) knows its clients' locks. If that host is dead: fence it first, so that it cannot come back and write; only then clear its locks on the server, "+
				"with the server's own command (ONTAP: vserver locks break; Linux: it notices when the client's rpc.statd notifies it). Never while the holder may be alive.", e.Source),
		}
	}
	for _, h := range e.Holders {
		if h.Guest != "" {
			return Cure{Fix: FixHolder, Text: fmt.Sprintf("The lock is right: guest %s runs from this image. Reading beside it works with qemu-img -U; to write, shut the guest down first.", h.Guest), Command: e.Virsh + " domstate " + quote(h.Guest)}
		}
	}
	return Cure{Fix: FixHolder, Text: fmt.Sprintf("Wait for %s to end, or find out why it does not.", e.Holders[0])}
}

// quote makes a word of a shell command of a name that comes from a host.
func quote(name string) string {
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
