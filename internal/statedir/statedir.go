// Package statedir owns this host's folder, /var/lib/nfslock: that nobody but root can have written what lies in it, that what is written
// there is on the disk, that no more is removed than what lies there, and that one run at a time is at work. It knows nothing of what is kept.
package statedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Path is the folder.
const Path = "/var/lib/nfslock"

// Folder is the folder, or one below it. Of a nil one nothing is there, and nothing can be written.
type Folder struct {
	root *os.Root
	path string
}

// Bounds of the walk through all that lies there. A real one has some hundred files, three folders deep.
const (
	maxEntries = 100_000
	maxDepth   = 8
)

// Open opens the folder for reading, after a look at all of it, and changes nothing. It gives nil where there is none. The caller closes it.
func Open(path string) (*Folder, error) {
	f, err := open(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, refuse(path, err)
	}
	return f, nil
}

// Make opens the folder for a run that changes something: it is made where there is none, and closed to readers.
func Make(path string) (*Folder, error) {
	if err := MakeFolder(path); err != nil {
		return nil, refuse(path, err)
	}
	f, err := open(path, true)
	if err != nil {
		return nil, refuse(path, err)
	}
	return f, nil
}

func refuse(path string, err error) error {
	return fmt.Errorf("cannot use %s: %w; make it root's own, or move it out of the way", path, bare(err))
}

// open takes a link of root's own to a folder of root's own for the folder itself: it may lie on a larger disk.
func open(path string, change bool) (*Folder, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		if err := checkOwner(link); err != nil {
			return nil, err
		}
	}
	// A pipe would be waited for, and a device may do something when it is opened.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		err = errors.New("it is no folder")
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var info unix.Statx_t
	if err := statx(fd, "", &info); err != nil {
		return nil, err
	}
	if err := check(&info); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd)) // that which was looked at
	if err != nil {
		return nil, err
	}
	f := &Folder{root, path}
	if change && info.Mode&0o7777 != 0o700 {
		err = root.Chmod(".", 0o700)
	}
	if err == nil {
		err = f.look()
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

// look goes through all that lies there.
func (f *Folder) look() error {
	left := maxEntries
	top, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	var info unix.Statx_t
	if err := statx(int(top.Fd()), "", &info); err != nil {
		return err
	}
	return look(top, "", &info, &left, 0)
}

// look checks each entry by its folder's descriptor, so that no name is another's a moment later. Nothing is opened but folders of ours.
func look(dir *os.File, path string, home *unix.Statx_t, left *int, depth int) error {
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if *left--; *left < 0 {
				return fmt.Errorf("it has more than %d files", maxEntries)
			}
			if err := lookAt(dir, name, filepath.Join(path, name), home, left, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func lookAt(dir *os.File, name, path string, home *unix.Statx_t, left *int, depth int) error {
	var info unix.Statx_t
	err := statx(int(dir.Fd()), name, &info)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another run is at work
	}
	if err == nil && !sameMount(&info, home) {
		err = errors.New("something is mounted there")
	}
	if err == nil {
		err = check(&info)
	}
	if err != nil {
		return fmt.Errorf("%s in it: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("%s in it: it is more than %d folders deep", path, maxDepth)
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in it: %w", path, err)
	}
	below := os.NewFile(uintptr(fd), path)
	defer below.Close()
	return look(below, path, home, left, depth+1)
}

func statx(fd int, name string, info *unix.Statx_t) error {
	for {
		err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, info)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sameMount: before Linux 5.8 the kernel does not say which mount it is, and a folder of the same filesystem may be bound there.
func sameMount(a, b *unix.Statx_t) bool {
	if a.Dev_major != b.Dev_major || a.Dev_minor != b.Dev_minor {
		return false
	}
	return a.Mask&b.Mask&unix.STATX_MNT_ID == 0 || a.Mnt_id == b.Mnt_id
}

// check refuses what root, or in a test the user that runs, has not made, or others may write to; and what is neither a file nor a folder.
func check(info *unix.Statx_t) error {
	switch kind := info.Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		return errors.New("it is a symbolic link")
	case kind != unix.S_IFDIR && kind != unix.S_IFREG:
		return errors.New("it is neither a file nor a folder")
	case info.Uid != 0 && int(info.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d", info.Uid)
	case info.Mode&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o)", info.Mode&0o7777)
	}
	return nil
}

func checkOwner(info fs.FileInfo) error {
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("the link belongs to user %d", owner)
	}
	return nil
}

// bare drops the operation and the path, which the caller's words name already.
func bare(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) && err == error(e) { //nolint:errorlint // only where nothing was added
		return e.Err
	}
	return err
}

// Close releases the folder; files that are open stay open.
func (f *Folder) Close() error {
	if f == nil {
		return nil
	}
	return f.root.Close()
}

// Path is where it lies.
func (f *Folder) Path() string { return f.path }

// Folder opens a folder below. The error is fs.ErrNotExist where there is none.
func (f *Folder) Folder(name string) (*Folder, error) {
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err := f.own(name, unix.S_IFDIR); err != nil {
		return nil, err
	}
	root, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &Folder{root, filepath.Join(f.path, name)}, nil
}

// MakeFolder is Folder, and makes it where there is none. It is on the disk when it returns.
func (f *Folder) MakeFolder(name string) (*Folder, error) {
	if err := local(name); err != nil {
		return nil, err
	}
	err := f.root.Mkdir(name, 0o700)
	if err == nil {
		err = errors.Join(f.root.Chmod(name, 0o700), f.Sync()) // whatever the umask
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return f.Folder(name)
}

// local: a name is one of this folder's own entries.
func local(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is no name of a file", name)
	}
	return nil
}

// own looks at one entry again: the caller may have had the folder open for long.
func (f *Folder) own(name string, kind uint16) error {
	if err := local(name); err != nil {
		return err
	}
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	var home, info unix.Statx_t
	err = statx(int(dir.Fd()), "", &home)
	if err == nil {
		err = statx(int(dir.Fd()), name, &info)
	}
	switch {
	case err != nil:
	case info.Mode&unix.S_IFMT != kind:
		err = errors.New("it is of another kind")
		if kind == unix.S_IFREG {
			err = foreign.ErrNotRegular
		}
	case !sameMount(&info, &home):
		err = errors.New("something is mounted there")
	default:
		err = check(&info)
	}
	if err != nil {
		return &fs.PathError{Op: "use", Path: filepath.Join(f.path, name), Err: err}
	}
	return nil
}

// Names are the entries of the folder.
func (f *Folder) Names() ([]string, error) {
	if f == nil {
		return nil, nil
	}
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxEntries)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// Sync makes what was made, renamed and removed in the folder last through a power cut.
func (f *Folder) Sync() error { return SyncFolder(f.root) }
