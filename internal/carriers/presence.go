package carriers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// Packages are those of QEMU's whose programs take image locks, by Debian's and Ubuntu's names: the tools, and the emulators. One of these makes a container a
// carrier. The others of QEMU's source (modules, data, firmware, the guest agent) take none.
var Packages = []string{
	"qemu-utils", "qemu-system-x86", "qemu-system-arm", "qemu-system-ppc", "qemu-system-s390x", "qemu-system-mips", "qemu-system-misc", "qemu-system-riscv",
	"qemu-system-sparc", "qemu-system-xen", "qemu-system-x86-xen",
}

// lists is the folder in which dpkg has a file list of each package that it unpacked, named after it: none of QEMU's is Multi-Arch: same.
var lists = []string{"var", "lib", "dpkg", "info"}

// programs are looked for where dpkg has no database, as in an image with rpm packages: the emulator and the tool of Rocky's and CentOS's. No image of kolla's
// has a link in their place.
var programs = [][]string{{"usr", "libexec", "qemu-kvm"}, {"usr", "bin", "qemu-img"}}

// hasQEMU tells whether dpkg's database below a root has one of the packages, by a few dozen system calls: to read a status file takes fifty times as long. Nothing
// is opened for reading, no link is followed, and nothing is asked of any other mount than the root's own: what is mounted there may never answer, and no image
// of kolla's has its database on one.
func hasQEMU(root *os.Root) (bool, error) {
	start, err := root.Open(".")
	if err != nil {
		return false, fmt.Errorf("cannot open its root: %w", err)
	}
	defer start.Close()
	home, err := host.MountID(int(start.Fd()))
	if err != nil {
		return false, err
	}
	found, database, err := hasFile(int(start.Fd()), home, lists, listsOf(Packages))
	if database || err != nil {
		return found, err
	}
	for _, path := range programs {
		last := len(path) - 1
		if found, _, err := hasFile(int(start.Fd()), home, path[:last], path[last:]); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func listsOf(packages []string) (names []string) {
	for _, name := range packages {
		names = append(names, name+".list")
	}
	return names
}

// hasFile tells whether a folder has a file of one of the names, and whether there is such a folder.
func hasFile(at, home int, folder, names []string) (found, there bool, err error) {
	path := ""
	for _, name := range folder {
		path += "/" + name
		next, err := step(at, name, home, unix.O_DIRECTORY)
		if absent(err) {
			return false, false, nil
		}
		if err != nil {
			return false, false, &fs.PathError{Op: "look at", Path: path, Err: err}
		}
		defer unix.Close(next)
		at = next
	}
	for _, name := range names {
		file, err := step(at, name, home, 0)
		if absent(err) {
			continue
		}
		var info unix.Stat_t
		if err == nil {
			err = unix.Fstat(file, &info)
			unix.Close(file)
		}
		if err != nil {
			return false, true, &fs.PathError{Op: "look at", Path: path + "/" + name, Err: err}
		}
		if info.Mode&unix.S_IFMT == unix.S_IFREG {
			return true, true, nil
		}
	}
	return false, true, nil
}

// step takes hold of what a folder has under a name, without opening it: O_PATH, open(2). Of something that is mounted there it does no more than see that.
func step(at int, name string, home, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, err
		}
		mount, err := host.MountID(fd)
		if err == nil && mount != home {
			err = errors.New("something is mounted there")
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
}

// absent: there is nothing of that name, or no folder where one would be.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
