// Package preloaded knows what of the preloaded library is in a container, which processes have it loaded, and how its two files come and go.
package preloaded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// State is what the two files in a container come to.
type State string

// The states. With Installed, Bound and Old, programs that start have the library.
const (
	None      State = "none"
	Installed State = "installed" // in the container's own layer
	Bound     State = "bound"     // both files come by volumes
	Old       State = "old"       // in the layer, as another build of it
	Unlisted  State = "unlisted"  // it is there, and the list does not name it
	Broken    State = "broken"    // the list names it, and no program can load it
)

// Seen is what was read.
type Seen struct {
	State   State
	SHA256  string   // of the library that is there; empty if none
	Current bool     // it is this program's own build
	Others  []string // what else the list names
}

// Active tells whether programs that start now have the library.
func (s Seen) Active() bool { return s.State == Installed || s.State == Bound || s.State == Old }

// Limits of what is read: the library has at most 70 kB, and a list is a line or two.
const (
	libraryLimit = 256 << 10
	listLimit    = 64 << 10
)

// Read looks at both files below a container's root. What the dynamic linker passes over, such as a folder in a file's place, is as if it were not there. An error
// is of the files themselves: the disk, or a filesystem that is gone.
func Read(root *os.Root) (Seen, error) {
	list, listMount, err := read(root, preload.List, listLimit)
	if err != nil {
		return nothing(), err
	}
	library, libraryMount, err := read(root, preload.Library, libraryLimit)
	if err != nil {
		return nothing(), err
	}
	return judge(list, library, listMount && libraryMount), nil
}

func nothing() Seen { return Seen{State: None, Others: []string{}} }

// judge tells what two files' bytes come to. A nil library is none.
func judge(list, library []byte, bound bool) Seen {
	s, listed := nothing(), false
	for _, entry := range Entries(list) {
		if entry == preload.Library {
			listed = true
		} else {
			s.Others = append(s.Others, entry)
		}
	}
	if library != nil {
		sum := sha256.Sum256(library)
		s.SHA256 = hex.EncodeToString(sum[:])
		s.Current = bytes.Equal(library, preload.Built)
	}
	switch {
	case !listed && library != nil:
		s.State = Unlisted
	case !listed:
	case !usable(library):
		s.State = Broken
	case bound:
		s.State = Bound
	case s.Current:
		s.State = Installed
	default:
		s.State = Old
	}
	return s
}

// read gives a regular file's bytes, nil where there is none that the dynamic linker would take, and whether something is mounted there.
func read(root *os.Root, name string, limit int64) (data []byte, mounted bool, err error) {
	file, info, err := foreign.OpenLinked(root, strings.TrimPrefix(name, "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, foreign.ErrNotRegular), errors.Is(err, syscall.ENOTDIR):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("cannot read %s: %w", name, err)
	}
	defer file.Close()
	if info.Size() > limit {
		return nil, false, fmt.Errorf("cannot read %s: it has %d bytes, more than %d", name, info.Size(), limit)
	}
	if data, err = io.ReadAll(io.LimitReader(file, limit)); err != nil {
		return nil, false, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if data == nil {
		data = []byte{}
	}
	top, err := root.Open(".")
	if err != nil {
		return nil, false, fmt.Errorf("cannot read %s: %w", name, err)
	}
	defer top.Close()
	here, err1 := host.MountID(int(file.Fd()))
	there, err2 := host.MountID(int(top.Fd()))
	if err := errors.Join(err1, err2); err != nil {
		return nil, false, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, here != there, nil
}

// Entries are what a list names, as the dynamic linker reads it (do_preload in glibc's elf/rtld.c): blanks, tabs, line ends and colons lie
// between, and # begins a comment.
func Entries(list []byte) (entries []string) {
	for line := range strings.Lines(string(list)) {
		line, _, _ = strings.Cut(line, "#")
		entries = append(entries, strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(separators, r) })...)
	}
	return entries
}

const separators = " \t\n:"

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// usable tells whether programs of this machine can load it: one that is cut in the middle would kill them all. Its sections stand at its end.
func usable(library []byte) bool {
	if bytes.Equal(library, preload.Built) {
		return true
	}
	file, err := elf.NewFile(bytes.NewReader(library))
	if err != nil || file.Type != elf.ET_DYN || file.Machine != machines[runtime.GOARCH] {
		return false
	}
	for _, part := range file.Progs {
		if part.Off+part.Filesz < part.Off || part.Off+part.Filesz > uint64(len(library)) {
			return false
		}
	}
	name, err := file.DynString(elf.DT_SONAME)
	return err == nil && slices.Contains(name, preload.Name)
}

// Loaded tells whether a process has the library loaded, in whatever build. One that has ended has not. The kernel may let a reader wait for a
// process that hangs, so the answer has ctx's deadline.
func Loaded(ctx context.Context, proc string, pid int) (bool, error) {
	type answer struct {
		loaded bool
		err    error
	}
	found := make(chan answer, 1)
	go func() {
		maps, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "maps"))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		found <- answer{names(maps), err}
	}()
	select {
	case a := <-found:
		if a.err != nil {
			return false, fmt.Errorf("cannot tell what process %d has loaded: %w", pid, a.err)
		}
		return a.loaded, nil
	case <-ctx.Done():
		return false, fmt.Errorf("cannot tell what process %d has loaded: %w", pid, context.Cause(ctx))
	}
}

// names tells whether a process's maps have the library: proc(5).
func names(maps []byte) bool {
	for line := range strings.Lines(string(maps)) {
		file := strings.TrimSuffix(strings.TrimSpace(line), " (deleted)")
		if i := strings.IndexByte(file, '/'); i >= 0 && path.Base(file[i:]) == preload.Name {
			return true
		}
	}
	return false
}
