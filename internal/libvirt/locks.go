package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Where the settings are, below the container's root. Kolla copies the third over the first when the container starts.
const (
	qemuConf     = "etc/libvirt/qemu.conf"
	lockdConf    = "etc/libvirt/qemu-lockd.conf"
	deployedConf = "var/lib/kolla/config_files/qemu.conf"
)

// Locks are the locks that libvirt takes by itself when a guest starts, beside those of QEMU, and the settings that decide.
type Locks struct {
	Version          string `json:"version"`           // "11.3.0"
	File             string `json:"file"`              // "/etc/libvirt/qemu.conf"
	RememberOwner    bool   `json:"remember_owner"`    // it notes the owner of a disk in the file itself, under a lock
	DynamicOwnership bool   `json:"dynamic_ownership"` // it gives a disk to QEMU's user
	LockManager      string `json:"lock_manager"`      // "lockd" or "sanlock"; empty without one
	OwnLocks         bool   `json:"own_locks"`         // it takes a lock on each disk, a POSIX one, and starts no guest where that is refused
	Remedy           string `json:"remedy"`            // sentences: how its own locks are given up, and what that gives up; empty where it takes none
	Detail           string `json:"detail"`            // what could not be told, or is not yet in force

	byOwner, byManager bool // what takes them
}

// ReadLocks finds out what holds in a container. version is that of libvirt's package. In libvirt's words: remember_owner came in 5.6,
// needs dynamic_ownership, and both are on by default (qemu_conf.c; the lock is virSecurityManagerMetadataLock's).
func ReadLocks(root *os.Root, version string) Locks {
	l := Locks{Version: upstream(version), File: "/" + qemuConf, RememberOwner: true, DynamicOwnership: true}
	now, err := readConf(root, qemuConf)
	if err != nil {
		l.Detail = err.Error()
	}
	l.take(now)
	lockd, err := readConf(root, lockdConf)
	if err != nil {
		l.Detail = join(l.Detail, err.Error())
	}
	l.byOwner = l.RememberOwner && l.DynamicOwnership && !older(l.Version, 5, 6)
	// Without a lockspace it locks the disks, if it is to lock them by itself at all: src/locking/lock_driver_lockd.c.
	l.byManager = l.LockManager == "lockd" && lockd["file_lockspace_dir"] == "" && lockd["auto_disk_leases"] != "0"
	l.OwnLocks = l.byOwner || l.byManager
	l.Remedy = l.remedy()
	if deployed, err := readConf(root, deployedConf); err == nil && deployed != nil {
		later := Locks{RememberOwner: true, DynamicOwnership: true}
		later.take(deployed)
		if later.RememberOwner != l.RememberOwner || later.DynamicOwnership != l.DynamicOwnership || later.LockManager != l.LockManager {
			l.Detail = join(l.Detail, "kolla-ansible has written another qemu.conf, which holds after the container's next start")
		}
	}
	return l
}

func (l *Locks) take(s settings) {
	if v, ok := s["remember_owner"]; ok {
		l.RememberOwner = v != "0"
	}
	if v, ok := s["dynamic_ownership"]; ok {
		l.DynamicOwnership = v != "0"
	}
	l.LockManager = s["lock_manager"]
}

// Why names the settings that make libvirt take locks on disks. Empty if it takes none.
func (l Locks) Why() string {
	var why []string
	if l.byOwner {
		why = append(why, "remember_owner is on, as by default")
	}
	if l.byManager {
		why = append(why, `lock_manager is "lockd" and has no lockspace`)
	}
	if len(why) == 0 {
		return ""
	}
	return "libvirt takes a lock of its own on each disk before QEMU starts (" + strings.Join(why, ", and ") + ")"
}

// How a setting gets into kolla's qemu.conf. Read in the role nova-cell of kolla-ansible 14 to 23: releases before 22 look for no file of the operator's.
const deploy = "With kolla-ansible 22 (OpenStack 2026.1) or newer, copy qemu.conf.j2 from its roles/nova-cell/templates to /etc/kolla/config/nova/qemu.conf.j2 " +
	"(for one host: nova/INVENTORY_HOSTNAME/qemu.conf.j2), which replaces the template as a whole, and change the copy. " +
	"Before that release, change the template itself, share/kolla-ansible/ansible/roles/nova-cell/templates/qemu.conf.j2; an upgrade of kolla-ansible takes the change away. " +
	"Then run kolla-ansible reconfigure, which restarts nova_libvirt. Guests that run go on."

func (l Locks) remedy() string {
	var ways []string
	if l.byOwner {
		ways = append(ways, "Set remember_owner = 0 in libvirt's qemu.conf. libvirt then no longer gives a disk back to the owner it had before the guest, nor keeps two libvirts apart while they change owners.")
	}
	if l.byManager {
		ways = append(ways, "Give libvirt's lock manager a file_lockspace_dir in qemu-lockd.conf, on a share that has locks: docs/locks.md.")
	}
	if l.byOwner {
		ways = append(ways, deploy)
	}
	return strings.Join(ways, " ")
}

// readConf gives nil for a file that is not there: libvirt then goes by its defaults.
func readConf(root *os.Root, name string) (settings, error) {
	file, _, err := foreign.OpenLinked(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		defer file.Close()
		var s settings
		if s, err = parseConf(file); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("cannot read /%s: %w", name, err)
}

// upstream takes Debian's parts off a version: "1:11.3.0-3+deb13u3" is 11.3.0.
func upstream(version string) string {
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	version, _, _ = strings.Cut(version, "-")
	return version
}

// older tells whether a version is before major.minor. One that cannot be read is taken for a new one.
func older(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

func join(one, other string) string {
	if one == "" {
		return other
	}
	return one + "; " + other
}
