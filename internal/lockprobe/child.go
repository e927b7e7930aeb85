package lockprobe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// ProbeName is what a process that takes locks is called, in place of the module's name. Ansible runs a module by its own name and
// gives it a file, so no option leads here.
const ProbeName = "nfslock-probe"

// rootFD is where a process that is started from here finds the container's root folder.
const rootFD = 3

// IsProbe tells from the arguments whether this process is to take locks: ProbeName, the mount's device, the deadline in seconds since
// 1970, a task. The second and third are for a later run, which recognises one that hangs.
func IsProbe(args []string) bool { return len(args) == 4 && path.Base(args[0]) == ProbeName }

// task is what such a process does.
type task struct {
	Path     []byte // absolute, below the root; bytes, because a path need not be UTF-8
	Inside   bool   // it runs in the container: its own root is the one meant, and it has no input
	MountID  int    // of the mount that Path is on
	ReadOnly bool   // the mount is: make no file
	Users    []user // to try as, in this order, where root may not create a file
	LimitMS  int64
	Remove   string // remove this file of another process, or this folder, and do nothing else
	Make     bool   // make a folder for images, leave it, and do nothing else

	ImageMode uint32 // with Make: make an empty image in it, of that mode, for a guest, whose user may pass through the folder; 0: none
	Folder    *inode // the folder to remove; nil of one that is empty if it is there at all
}

type user struct{ UID, GID int }

func (t task) limit() time.Duration { return time.Duration(t.LimitMS) * time.Millisecond }

// inode tells a file or folder from another one of the same name.
type inode struct{ Device, Number uint64 }

// event is a line that such a process prints. The last At before it falls silent is where it hangs.
type event struct {
	At      string `json:"at,omitempty"`      // what begins: "open", "create", "ofd", "posix", "flock", "folder", "remove", "end"
	File    string `json:"file,omitempty"`    // with "create" and "folder": the name it will have
	Kind    string `json:"kind,omitempty"`    // of Probe
	Probe   *Probe `json:"probe,omitempty"`   // how that kind fared
	Problem string `json:"problem,omitempty"` // why no lock is tried
	As      *user  `json:"as,omitempty"`      // who could create the file, if not root
	Removed int    `json:"removed,omitempty"` // files of earlier runs
	Missing bool   `json:"missing,omitempty"` // there is no such path
	Device  uint64 `json:"device,omitempty"`  // of an image
	Inode   uint64 `json:"inode,omitempty"`

	Made  *inode   `json:"made,omitempty"`  // the folder, which is for whoever reads this to remove
	Found []string `json:"found,omitempty"` // which images were in the folder
}

// child is such a process.
type child struct {
	task task
	out  io.Writer
	dir  int                  // the folder's descriptor, -1 until it is open
	file atomic.Value         // its name, "" while there is none
	as   atomic.Pointer[user] // who made it, nil for root
	made unix.Stat_t          // as it was at first
}

// ProbeMain is the main function of such a process. It ends it at the deadline, or when its parent is gone, whatever hangs.
func ProbeMain(args []string, out io.Writer) {
	debug.SetGCPercent(-1) // it lives for milliseconds
	c := &child{out: out, dir: -1}
	c.file.Store("")
	if err := json.Unmarshal([]byte(args[3]), &c.task); err != nil {
		c.say(event{Problem: fmt.Sprintf("cannot read its task: %v", err)})
		return
	}
	time.AfterFunc(c.task.limit(), c.giveUp)
	if !c.task.Inside {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // the parent holds the other end until it is gone
			c.giveUp()
		}()
	}
	runtime.LockOSThread() // the user, below, is the thread's
	if err := c.work(); err != nil {
		c.say(event{Problem: err.Error()})
	}
	c.say(event{At: "end"})
}

func (c *child) say(e event) {
	line, err := json.Marshal(e)
	if err == nil {
		_, _ = c.out.Write(append(line, '\n'))
	}
}

// cleanLimit is how long the removal of the file may take after the deadline.
const cleanLimit = 500 * time.Millisecond

// giveUp removes the file, which works while locks hang, and ends the process. A signal to itself also ends threads that wait for an
// NFS server (TASK_KILLABLE in the kernel).
func (c *child) giveUp() {
	removed := make(chan struct{})
	go func() {
		c.remove()
		close(removed)
	}()
	select {
	case <-removed:
	case <-time.After(cleanLimit):
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
}

func (c *child) work() error {
	c.say(event{At: "open"})
	root := rootFD
	if c.task.Inside {
		var err error
		if root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("cannot open the root folder: %w", err)
		}
	}
	handle, err := walk(root, string(c.task.Path))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		c.say(event{Missing: true})
	}
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	if id, err := host.MountID(handle); err != nil || id != c.task.MountID {
		return errors.Join(err, errors.New("another filesystem, or a planted link, is at that path than the table of mounts says"))
	}
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return fmt.Errorf("cannot look at it: %w", named(err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.askImage(handle, st)
	}
	if c.task.ReadOnly {
		return errors.New("it is mounted read-only, and nothing is written there")
	}
	if c.dir, err = unix.Openat(handle, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot open the folder: %w", named(err))
	}
	if c.task.Make {
		return c.makeFolder(handle)
	}
	if c.task.Remove != "" {
		if len(c.task.Users) > 0 {
			c.as.Store(&c.task.Users[0])
		}
		if c.task.Folder != nil {
			return c.removeFolder()
		}
		c.file.Store(c.task.Remove)
		c.remove()
		return nil
	}
	fd, err := c.create(handle)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		c.say(event{At: k.name})
		p := k.try(fd)
		c.say(event{Kind: k.name, Probe: &p})
	}
	c.say(event{At: "remove"})
	unix.Close(fd) // before it is removed: an NFS client only renames an open file
	c.remove()
	c.sweep()
	return nil
}

// askImage asks for locks on a file: who would keep a writer out? It opens the file for reading only.
func (c *child) askImage(handle int, st unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("it is neither a folder nor a regular file")
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", handle), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the file: %w", named(err))
	}
	defer unix.Close(fd)
	c.say(event{At: "ofd", Device: st.Dev, Inode: st.Ino})
	p := askOFD(fd)
	c.say(event{Kind: "ofd", Probe: &p})
	return nil
}

// named gives an errno its name, which is what people search for: "ENOLCK (no locks available)".
func named(err error) error {
	var no unix.Errno
	if errors.As(err, &no) {
		return fmt.Errorf("%s (%w)", errnoName(no), no)
	}
	return err
}
