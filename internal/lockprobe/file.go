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

func newFileName() string {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // it never fails: crypto/rand
	return filePrefix + hex.EncodeToString(random)
}

// create makes the file, as root or, where a server squashes root, as somebody whom it knows: the container's own user, or the owner
// of the folder.
func (c *child) create(handle int) (int, error) {
	name := newFileName()
	c.say(event{At: "create", File: name})
	c.file.Store(name) // before it is there: whoever gives up in between removes it
	fd, err := c.createAs(name, user{})
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
			var again error
			if fd, again = c.createAs(name, u); again == nil {
				c.as.Store(&u)
				c.say(event{As: &u})
				err = nil
				break
			}
		}
	}
	if err == nil {
		return fd, unix.Fstat(fd, &c.made)
	}
	c.file.Store("")
	why := ""
	switch {
	case errors.Is(err, unix.EROFS):
		why = ": it is read-only"
	case errors.Is(err, unix.ENOSPC):
		why = ": it is full"
	case errors.Is(err, unix.EDQUOT):
		why = ": its quota is used up"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		why = ": neither root, as with root_squash, nor the container's user nor the folder's owner may"
	}
	return -1, fmt.Errorf("cannot create a file to lock%s: %w", why, named(err))
}

// createAs uses the file system's user of this thread (setfsuid(2)), which is whom an NFS server is told, and stays with it: a
// server asks again at every call.
func (c *child) createAs(name string, u user) (int, error) {
	if err := become(u); err != nil {
		return -1, err
	}
	return unix.Openat(c.dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

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
	_ = unix.Unlinkat(c.dir, name, 0)
}

// sweepLimit is how many names of a folder are looked at. A volume's folder has hundreds.
const sweepLimit = 4096

// sweepAge is far more than the longest time of a run, in seconds.
const sweepAge = 3600

// sweep removes files of runs that were killed together with their children: empty ones with our kind of name, of the same owner as
// ours, and an hour older. Their age is measured by the server's clock alone.
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
			var st unix.Stat_t
			if fileName.MatchString(name) && unix.Fstatat(c.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && left(st, c.made) && unix.Unlinkat(c.dir, name, 0) == nil {
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

// left tells of a file whether an earlier run left it, by the one that this run made.
func left(st, made unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 && st.Uid == made.Uid && st.Mtim.Sec < made.Mtim.Sec-sweepAge
}
