package lockprobe

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"

	"golang.org/x/sys/unix"
)

// Files that locks are taken on. Nothing else is called that.
const filePrefix = ".nfslock-probe-"

var fileName = regexp.MustCompile(`^` + regexp.QuoteMeta(filePrefix) + `[0-9a-f]{16}$`)

func newName(prefix string) string {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // it never fails: crypto/rand
	return prefix + hex.EncodeToString(random)
}

// create makes the file.
func (c *child) create(handle int) (fd int, err error) {
	name := newName(filePrefix)
	c.say(event{At: "create", File: name})
	c.file.Store(name) // before it is there: whoever gives up in between removes it
	err = c.asSomebody(handle, func() (err error) {
		fd, err = unix.Openat(c.dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err == nil {
		return fd, unix.Fstat(fd, &c.made)
	}
	c.file.Store("")
	return -1, fmt.Errorf("cannot create a file to lock%s: %w", whyNot(err), named(err))
}

// asSomebody makes something in a folder, as root or, where a server squashes root, as somebody whom it knows: the container's own
// user, or the owner of the folder.
func (c *child) asSomebody(handle int, do func() error) error {
	err := do()
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		users := c.task.Users
		var st unix.Stat_t
		if unix.Fstat(handle, &st) == nil {
			users = append(users, user{int(st.Uid), int(st.Gid)})
		}
		for _, u := range users {
			if u.UID == 0 {
				continue
			}
			if become(u) == nil && do() == nil {
				c.as.Store(&u)
				c.say(event{As: &u})
				return nil
			}
		}
	}
	return err
}

func whyNot(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return ": it is read-only"
	case errors.Is(err, unix.ENOSPC):
		return ": it is full"
	case errors.Is(err, unix.EDQUOT):
		return ": its quota is used up"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return ": neither root, as with root_squash, nor the container's user nor the folder's owner may"
	}
	return ""
}

// become uses the file system's user of this thread (setfsuid(2)), which is whom an NFS server is told. The thread stays with it: a
// server asks again at every call.
func become(u user) error {
	if u.UID == 0 {
		return nil
	}
	return errors.Join(unix.Setfsgid(u.GID), unix.Setfsuid(u.UID))
}

// remove takes the file away, as whoever made it, from whichever thread.
func (c *child) remove() {
	name, _ := c.file.Swap("").(string)
	if name == "" {
		return
	}
	if u := c.as.Load(); u != nil {
		runtime.LockOSThread() // and never unlocked: the thread is not root's any more
		if become(*u) != nil {
			return
		}
	}
	if !folderName.MatchString(name) {
		_ = unix.Unlinkat(c.dir, name, 0)
		return
	}
	if fd, _, err := c.openFolder(name); err == nil {
		defer unix.Close(fd)
		_ = c.clearFolder(fd, name)
	}
}

// sweepLimit is how many names of a folder are looked at. A volume's folder has hundreds.
const sweepLimit = 4096

// sweepAge is far more than the longest time of a run, in seconds.
const sweepAge = 3600

// sweep removes what runs have left that were killed together with their children: empty files with our kind of name, of the same
// owner as ours, and an hour older, and such folders. Their age is measured by the server's clock alone.
func (c *child) sweep() {
	dir, err := unix.Openat(c.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	folder := os.NewFile(uintptr(dir), "")
	defer folder.Close()
	removed := 0
	for seen := 0; seen < sweepLimit; {
		names, err := folder.Readdirnames(256)
		seen += len(names)
		for _, name := range names {
			if c.sweepFile(name) || c.sweepFolder(name) {
				removed++
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
	}
	if removed > 0 {
		c.say(event{Removed: removed})
	}
}

func (c *child) sweepFile(name string) bool {
	var st unix.Stat_t
	return fileName.MatchString(name) && unix.Fstatat(c.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 && left(st, c.made) && unix.Unlinkat(c.dir, name, 0) == nil
}

// left tells of a file or folder whether an earlier run left it, by the file that this run made.
func left(st, made unix.Stat_t) bool {
	return st.Uid == made.Uid && st.Mtim.Sec < made.Mtim.Sec-sweepAge
}
