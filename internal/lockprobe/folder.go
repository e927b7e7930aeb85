package lockprobe

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// Folders that a container's qemu-img makes its images in. Nothing else is called that.
const folderPrefix = ".nfslock-proof-"

var folderName = regexp.MustCompile(`^` + regexp.QuoteMeta(folderPrefix) + `[0-9a-f]{16}$`)

// The images' names: of those, and of nothing else in such a folder, it is removed.
const (
	firstImage  = "image"
	secondImage = "copy"
)

// makeFolder makes one for whoever started this process, which then has to remove it.
func (c *child) makeFolder(handle int) error {
	name := newName(folderPrefix)
	c.say(event{At: "folder", File: name})
	c.file.Store(name) // before it is there: whoever gives up in between removes it
	mode := uint32(0o700)
	if c.task.ImageMode != 0 {
		mode = 0o711
	}
	if err := c.asSomebody(handle, func() error { return unix.Mkdirat(c.dir, name, mode) }); err != nil {
		c.file.Store("")
		return fmt.Errorf("cannot make a folder for an image%s: %w", whyNot(err), named(err))
	}
	var st unix.Stat_t
	if err := unix.Fstatat(c.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		c.remove()
		return fmt.Errorf("cannot look at the folder for an image: %w", named(err))
	}
	if c.task.ImageMode != 0 {
		if err := c.makeImage(name, inode{st.Dev, st.Ino}); err != nil {
			c.remove()
			return fmt.Errorf("cannot make an image%s: %w", whyNot(err), named(err))
		}
	}
	if c.file.Swap("") == name { // nobody has given up and removed it
		c.say(event{Made: &inode{st.Dev, st.Ino}})
	}
	return nil
}

// guestImageSize is of an image that nothing is read from, in bytes.
const guestImageSize = 1 << 20

// makeImage makes an image in a folder that this process has just made.
func (c *child) makeImage(folder string, made inode) error {
	at, st, err := c.openFolder(folder)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if (inode{st.Dev, st.Ino}) != made {
		return errors.New("another folder is where that of the image was")
	}
	fd, err := unix.Openat(at, firstImage, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(unix.Fchmod(fd, c.task.ImageMode), unix.Ftruncate(fd, guestImageSize))
}

// removeFolder says which images there are, and removes them and the folder. A link, or another folder that was put in its place, is
// left alone.
func (c *child) removeFolder() error {
	c.say(event{At: "remove"})
	if u := c.as.Load(); u != nil {
		if err := become(*u); err != nil {
			return fmt.Errorf("cannot become user %d: %w", u.UID, err)
		}
	}
	fd, st, err := c.openFolder(c.task.Remove)
	if err != nil {
		return fmt.Errorf("cannot open the folder of the images again: %w", named(err))
	}
	defer unix.Close(fd)
	if (inode{st.Dev, st.Ino}) != *c.task.Folder {
		return errors.New("another folder is where that of the images was, and is left alone")
	}
	var found []string
	for _, name := range []string{firstImage, secondImage} {
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
			found = append(found, name)
		}
	}
	c.say(event{Found: found})
	if err := c.clearFolder(fd, c.task.Remove); err != nil {
		return fmt.Errorf("cannot remove the folder of the images: %w", named(err))
	}
	return nil
}

// openFolder opens a folder of that name, which is none of another filesystem's, and no link.
func (c *child) openFolder(name string) (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Openat(c.dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	id, err := host.MountID(fd)
	if err == nil && id != c.task.MountID {
		err = errors.New("another filesystem is mounted there")
	}
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, st, err
}

// clearFolder removes the images and then the folder, which fails if anything else is in it.
func (c *child) clearFolder(fd int, name string) error {
	if !folderName.MatchString(name) {
		return errors.New("it is not called as one of ours")
	}
	for _, image := range []string{firstImage, secondImage} {
		_ = unix.Unlinkat(fd, image, 0)
	}
	return unix.Unlinkat(c.dir, name, unix.AT_REMOVEDIR)
}

func (c *child) sweepFolder(name string) bool {
	if !folderName.MatchString(name) {
		return false
	}
	fd, st, err := c.openFolder(name)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return left(st, c.made) && c.clearFolder(fd, name) == nil
}

// has tells whether an image was in the folder.
func (a *attempt) has(image string) bool { return slices.Contains(a.Found, image) }
