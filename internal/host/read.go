package host

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// ReadFile reads a file of the host's, such as a drop-in of somebody else's: a regular one, of at most that many bytes. A pipe is not waited
// for, and no device is opened.
func ReadFile(path string, most int64) (data []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", path, bare(err))
		}
	}()
	handle, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return foreign.ReadAtMost(file, most)
}
