package preloaded

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// File is one of the two files, with what makes it that file again.
type File struct {
	Data []byte      `json:"data"`
	Mode fs.FileMode `json:"mode"`
	UID  int         `json:"uid"`
	GID  int         `json:"gid"`
}

// Files are the two of a container, as they are or are to be.
type Files struct {
	List    *File `json:"list,omitempty"`    // nil: there is none
	Library *File `json:"library,omitempty"` // likewise
	Folder  bool  `json:"folder,omitempty"`  // the library's folder is there, whatever is in it
}

// Place is all that is seen at both places, for those who change it.
type Place struct {
	Seen
	Files
	Empty   bool   // the library's folder is there, and nothing in it
	Mounted bool   // something is mounted at one of them: a volume, whose files are the host's
	Refusal string // why nothing can be written there; empty where it can
}

// listed tells whether the list names the library.
func (f Files) listed() bool {
	return f.List != nil && slices.Contains(Entries(f.List.Data), preload.Library)
}

// Effect is what they come to in a container's layer.
func (f Files) Effect() State { return judge(f.List.data(), f.Library.data(), false).State }

// Needs tells whether something is to be written or removed so that the files are what they are to be.
func (p Place) Needs(want Files) bool {
	return !p.List.Equal(want.List) || !p.Library.Equal(want.Library) || p.Empty && !want.Folder
}

// Equal compares two files, of which each may be none.
func (f *File) Equal(g *File) bool {
	if f == nil || g == nil {
		return f == g
	}
	return f.Mode == g.Mode && f.UID == g.UID && f.GID == g.GID && bytes.Equal(f.Data, g.Data)
}

// SHA256 is its checksum, in hexadecimal.
func (f *File) SHA256() string {
	sum := sha256.Sum256(f.data())
	return hex.EncodeToString(sum[:])
}

func (f *File) data() []byte {
	if f == nil {
		return nil
	}
	return f.Data
}

// Present is what is to be there so that programs have this program's build. New files belong to whom this program runs as, which is root.
func (f Files) Present() Files {
	ours := File{Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
	list, library := ours, ours
	if f.List != nil {
		list = *f.List
	}
	list.Data, library.Data = With(f.List.data()), preload.Built
	return Files{List: &list, Library: &library, Folder: true}
}

// Absent is what is to be there so that nothing of the library is left.
func (f Files) Absent() Files {
	if f.List == nil {
		return Files{}
	}
	rest := Without(f.List.Data)
	if rest == nil && len(f.List.Data) > 0 {
		return Files{}
	}
	list := *f.List
	list.Data = rest
	return Files{List: &list}
}

// Sound is f, or where its list names a library that no program can load, f without both: nothing goes back to that.
func (f Files) Sound() Files {
	if f.listed() && !usable(f.Library.data()) {
		return f.Absent()
	}
	return f
}

// The two files and the library's folder, below a root.
var (
	listName     = strings.TrimPrefix(preload.List, "/")
	libraryName  = strings.TrimPrefix(preload.Library, "/")
	folderName   = path.Dir(libraryName)
	listPart     = listName + ".nfslock-part"
	libraryPart  = libraryName + ".part"
	foldersAbove = []string{path.Dir(listName), "usr", "usr/lib"}
)

// Look reads both places, follows no link, and says why nothing could be written there.
func Look(root *os.Root) (p Place, err error) {
	p.Seen = nothing()
	l := looker{root: root, place: &p}
	if l.home, err = mountOf(root, "."); err != nil {
		return p, err
	}
	for _, name := range slices.Concat(foldersAbove, []string{folderName}) {
		there, err := l.folder(name)
		if err != nil {
			return p, err
		}
		p.Folder = there // of the last one
		if !there && name != folderName {
			l.refuse("it has no folder /%s", name)
		}
		if p.Refusal != "" && !p.Mounted {
			return p, nil // what the dynamic linker finds behind a link is not looked for
		}
	}
	if p.Seen, err = Read(root); err != nil {
		return p, err
	}
	if p.List, err = l.file(listName, listLimit); err != nil {
		return p, err
	}
	if !p.Folder {
		return p, nil
	}
	if p.Library, err = l.file(libraryName, libraryLimit); err != nil {
		return p, err
	}
	p.Empty, err = empty(root, folderName)
	return p, err
}

func empty(root *os.Root, name string) (bool, error) {
	dir, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, fmt.Errorf("cannot look into /%s: %w", name, err)
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// looker keeps the first reason why nothing can be written.
type looker struct {
	root  *os.Root
	place *Place
	home  int // the root's mount
}

func (l *looker) refuse(format string, args ...any) {
	if l.place.Refusal == "" {
		l.place.Refusal = fmt.Sprintf(format, args...)
	}
}

func (l *looker) folder(name string) (there bool, err error) {
	info, err := l.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("cannot look at /%s: %w", name, err)
	case !info.IsDir():
		l.refuse("/%s is %s, and not a folder", name, kind(info))
		return false, nil
	}
	return true, l.mount(name)
}

func (l *looker) mount(name string) error {
	mount, err := mountOf(l.root, name)
	if err == nil && mount != l.home {
		l.place.Mounted = true
		l.refuse("something is mounted at /%s", name)
	}
	return err
}

func (l *looker) file(name string, limit int64) (*File, error) {
	info, err := l.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot look at /%s: %w", name, err)
	case !info.Mode().IsRegular():
		l.refuse("/%s is %s, and not a file", name, kind(info))
		return nil, nil
	}
	f, err := readFile(l.root, name, limit)
	if err != nil {
		return nil, err
	}
	return f, l.mount(name)
}

func kind(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "a folder"
	case info.Mode()&fs.ModeSymlink != 0:
		return "a symbolic link"
	case info.Mode().IsRegular():
		return "a file"
	}
	return "a pipe, socket or device"
}

func readFile(root *os.Root, name string, limit int64) (*File, error) {
	file, info, err := foreign.Open(root, name)
	if err != nil {
		return nil, fmt.Errorf("cannot read /%s: %w", name, err)
	}
	defer file.Close()
	data, err := foreign.ReadAtMost(file, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read /%s: %w", name, err)
	}
	f := &File{Data: data, Mode: info.Mode()}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = int(owner.Uid), int(owner.Gid)
	}
	return f, nil
}

func mountOf(root *os.Root, name string) (int, error) {
	handle, err := root.OpenFile(name, unix.O_PATH, 0) // nothing is asked of what is mounted there
	if err != nil {
		return 0, fmt.Errorf("cannot look at /%s: %w", name, err)
	}
	defer handle.Close()
	return host.MountID(int(handle.Fd()))
}
