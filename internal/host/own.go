package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// ReadOwn reads a file that nobody but root (or, in a test, the user that runs) can have written or put there: it and
// every folder above it belong to them, nobody else may write to them, and none is a symbolic link. A folder with the
// sticky bit, as /tmp, will do: only a file's owner can replace it there. A larger file than most bytes is refused.
func ReadOwn(name string, most int64) (data []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", name, err)
		}
	}()
	if !filepath.IsAbs(name) {
		return nil, errors.New("it is no absolute path")
	}
	file, err := openOwn(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return foreign.ReadAtMost(file, most)
}

// openOwn goes down from the root, and looks at what it holds, not at a name that may be another's a moment later.
func openOwn(name string) (*os.File, error) {
	at, err := os.OpenFile("/", unix.O_PATH, 0)
	if err != nil {
		return nil, bare(err)
	}
	path := "/"
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if err := checkOwn(at, path, true); err != nil {
			at.Close()
			return nil, err
		}
		fd, err := unix.Openat(int(at.Fd()), part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		at.Close()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(path, part)
		at = os.NewFile(uintptr(fd), path)
	}
	defer at.Close()
	if err := checkOwn(at, path, false); err != nil {
		return nil, err
	}
	// Only now that it is known to be a regular file: to open a device may do something already.
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", at.Fd()))
	return file, bare(err)
}

func checkOwn(f *os.File, path string, folder bool) error {
	info, err := f.Stat()
	if err != nil {
		return bare(err)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: name what it leads to", path)
	case folder && !mode.IsDir():
		return fmt.Errorf("%s is no folder", path)
	case !folder && !mode.IsRegular():
		return errors.New("it is no regular file")
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, who could change it: make it root's", path, owner)
	case mode.Perm()&0o022 != 0 && (!folder || mode&fs.ModeSticky == 0):
		return fmt.Errorf("others than root may write to %s (mode %04o): take that away", path, mode.Perm())
	}
	return nil
}

// bare drops the operation and path, which the caller's words name already.
func bare(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
