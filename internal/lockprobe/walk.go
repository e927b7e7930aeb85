package lockprobe

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// walk opens a path below a folder, one name after the other, so that no symbolic link is followed: openat2(2) would do the same from
// Linux 5.6 on. What is opened is a handle (O_PATH): nothing that is no folder or regular file is started or waited for. An error
// names the part at which it happened.
func walk(root int, name string) (int, error) {
	at, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the root folder: %w", named(err))
	}
	parts := strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		if part == ".." || part == "." {
			unix.Close(at)
			return -1, fmt.Errorf("cannot open %q: it is no plain path", name)
		}
		next, err := unix.Openat(at, part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(at)
		if err != nil {
			return -1, fmt.Errorf("cannot open %q: %w", "/"+strings.Join(parts[:i+1], "/"), named(err))
		}
		at = next
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			unix.Close(at)
			return -1, fmt.Errorf("cannot look at %q: %w", "/"+strings.Join(parts[:i+1], "/"), named(err))
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			unix.Close(at)
			return -1, fmt.Errorf("cannot open %q: it is a symbolic link, which is not followed; name the real path", "/"+strings.Join(parts[:i+1], "/"))
		}
	}
	return at, nil
}
