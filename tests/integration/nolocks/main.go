// Command nolocks mounts a folder a second time, so that every lock is refused there, as an NFSv3 client without locks refuses it. It plays
// the store in tests, because few machines that run them have the kernel's NFS client. Root and /dev/fuse are all it needs.
//
// It returns when the filesystem is mounted. umount(8) ends it, with -l where files are still open.
//
//	CGO_ENABLED=0 go build -o nolocks ./tests/integration/nolocks
//	nolocks [-errno NAME] [-kinds fcntl,flock] FOLDER MOUNTPOINT SOURCE
//	umount -l MOUNTPOINT
//
// FOLDER holds the files. SOURCE is what mount tables show, as filer:/volumes; the type is fuse.nolocks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("nolocks: ")
	errno := flag.String("errno", "ENOLCK", "what a lock is refused with")
	kinds := flag.String("kinds", "fcntl,flock", "which locks are refused: fcntl, POSIX and OFD locks, which look the same from here; flock; the others are granted as in FOLDER")
	foreground := flag.Bool("foreground", false, "do not leave the terminal")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: nolocks [-errno NAME] [-kinds fcntl,flock] FOLDER MOUNTPOINT SOURCE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 3 {
		flag.Usage()
		log.Fatal("FOLDER, MOUNTPOINT and SOURCE are wanted")
	}
	no, err := parseRefusal(*errno, *kinds)
	if err == nil && *foreground {
		err = serve(no, flag.Arg(0), flag.Arg(1), flag.Arg(2))
	} else if err == nil {
		err = background()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// refusal says what is refused, and how.
type refusal struct {
	errno        syscall.Errno
	fcntl, flock bool
}

// What filesystems were seen to refuse locks with.
var errnos = map[string]syscall.Errno{
	"EACCES": syscall.EACCES, "EINVAL": syscall.EINVAL, "EIO": syscall.EIO, "ENOLCK": syscall.ENOLCK, "ENOSYS": syscall.ENOSYS, "EOPNOTSUPP": syscall.EOPNOTSUPP,
}

func parseRefusal(errno, kinds string) (r refusal, err error) {
	r.errno = errnos[errno]
	if r.errno == 0 {
		return r, fmt.Errorf("cannot refuse locks with %q: it is one of %s", errno, strings.Join(slices.Sorted(maps.Keys(errnos)), ", "))
	}
	for _, kind := range strings.Split(kinds, ",") {
		switch kind {
		case "fcntl":
			r.fcntl = true
		case "flock":
			r.flock = true
		default:
			return r, fmt.Errorf("cannot refuse locks of kind %q: the kinds are fcntl and flock", kind)
		}
	}
	return r, nil
}

// refuses tells whether a request is refused. An unlock never is: the kernel's NFS client, too, answers that nothing was held.
func (r refusal) refuses(lock *fuse.FileLock, flags uint32) bool {
	if lock.Typ == syscall.F_UNLCK {
		return false
	}
	if flags&fuse.FUSE_LK_FLOCK != 0 {
		return r.flock
	}
	return r.fcntl
}

// background starts this program again, and returns when that one has mounted the filesystem or has said why it cannot.
func background() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, append([]string{"-foreground"}, os.Args[1:]...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	mounted, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if n, _ := mounted.Read(make([]byte, 16)); n == 0 {
		return errors.Join(errors.New("cannot mount"), cmd.Wait())
	}
	return nil
}

func serve(no refusal, folder, mountpoint, source string) error {
	data, err := fs.NewLoopbackRoot(folder)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", folder, err)
	}
	unix.Umask(0) // the kernel has applied the caller's
	server, err := fs.Mount(mountpoint, &node{data.(*fs.LoopbackNode), no}, &fs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, EnableLocks: true, DirectMountStrict: true, FsName: source, Name: "nolocks", Options: []string{"default_permissions"},
	}})
	if err != nil {
		return fmt.Errorf("cannot mount at %s: %w", mountpoint, err)
	}
	fmt.Fprintln(os.Stdout, "mounted")
	// Whoever waits for the end of what this program was started with waits no longer.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	server.Wait()
	return nil
}

// node is a file or folder. It has no extended attributes, as over NFSv3.
type node struct {
	*fs.LoopbackNode
	no refusal
}

// WrapChild makes what is found below a node one of these, too.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{ops.(*fs.LoopbackNode), n.no}
}

// Open opens a file. O_DIRECT is the caller's with the kernel: passed on, it would have each request of this program be aligned as well.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, flags, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_DIRECT)
	return n.wrap(h), flags, errno
}

// Create makes and opens a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	i, h, flags, errno := n.LoopbackNode.Create(ctx, name, flags&^syscall.O_DIRECT, mode, out)
	return i, n.wrap(h), flags, errno
}

// Tmpfile is what NFS does not have.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP
}

// Getxattr reads none.
func (n *node) Getxattr(context.Context, string, []byte) (uint32, syscall.Errno) {
	return 0, syscall.EOPNOTSUPP
}

// Setxattr sets none.
func (n *node) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// Removexattr removes none.
func (n *node) Removexattr(context.Context, string) syscall.Errno { return syscall.EOPNOTSUPP }

// Listxattr finds none.
func (n *node) Listxattr(context.Context, []byte) (uint32, syscall.Errno) {
	return 0, syscall.EOPNOTSUPP
}

func (n *node) wrap(h fs.FileHandle) fs.FileHandle {
	if f, ok := h.(*fs.LoopbackFile); ok {
		return &handle{f, n.no}
	}
	return h
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	no refusal
}

// Getlk asks who has a lock.
func (h *handle) Getlk(ctx context.Context, owner uint64, lock *fuse.FileLock, flags uint32, out *fuse.FileLock) syscall.Errno {
	if h.no.refuses(lock, flags) {
		return h.no.errno
	}
	return h.LoopbackFile.Getlk(ctx, owner, lock, flags, out)
}

// Setlk takes a lock, or not.
func (h *handle) Setlk(ctx context.Context, owner uint64, lock *fuse.FileLock, flags uint32) syscall.Errno {
	if h.no.refuses(lock, flags) {
		return h.no.errno
	}
	return h.LoopbackFile.Setlk(ctx, owner, lock, flags)
}

// Setlkw waits for a lock.
func (h *handle) Setlkw(ctx context.Context, owner uint64, lock *fuse.FileLock, flags uint32) syscall.Errno {
	if h.no.refuses(lock, flags) {
		return h.no.errno
	}
	return h.LoopbackFile.Setlkw(ctx, owner, lock, flags)
}
