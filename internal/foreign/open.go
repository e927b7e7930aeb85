// Package foreign opens files that somebody else has put below a root, such as a container's: only regular ones, and
// without waiting.
package foreign

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that there is a folder, link, pipe, socket or device where a file was expected.
var ErrNotRegular = errors.New("not a regular file")

// Open opens a file for reading only after it has proved to be a regular one: to open a pipe may wait for ever, and to open
// a device can already do something, such as start a watchdog. A container may make any device; that it may not open it
// itself does not bind this program. Links on the way are followed below the root, a link at the end is refused.
func Open(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	handle, err := root.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return nil, nil, err
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()))
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: errors.Unwrap(err)}
	}
	return f, info, nil
}

// OpenLinked is Open for what administrators and distributions like to replace by a link. An absolute one means the root's
// own tree.
func OpenLinked(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	for range 8 {
		f, info, err := Open(root, name)
		if !errors.Is(err, ErrNotRegular) {
			return f, info, err
		}
		target, readErr := root.Readlink(name)
		if readErr != nil {
			return nil, nil, err
		}
		if path.IsAbs(target) {
			name = path.Join(".", target)
		} else {
			name = path.Join(path.Dir(name), target)
		}
	}
	return nil, nil, fmt.Errorf("%s is one of too many links", name)
}
