package deb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

const emptySum = "d41d8cd98f00b204e9800998ecf8427e" // MD5 of nothing

// programFolders are below which a file that is missing is a fault. Others are removed from images to save room.
var programFolders = []string{"usr/bin/", "usr/sbin/", "usr/lib/", "usr/libexec/", "bin/", "sbin/", "lib/"}

// Hollow finds what a power cut leaves of a package that dpkg calls installed: files that are empty and were not delivered so, and programs and libraries that
// are missing or end too early. No more than their first bytes is read, so it is for packages that are large, and not ours.
func (d *Database) Hollow(p Package) ([]FileProblem, error) {
	problems, err := d.hollow(p)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the files of %s: %w", p.Name, err)
	}
	return problems, nil
}

func (d *Database) hollow(p Package) (problems []FileProblem, err error) {
	base, err := d.infoBase(p)
	if err != nil {
		return nil, err
	}
	list := path.Join(infoDir, base+".list") // one of checksums may well be empty: python3-venv's is
	if info, err := d.root.Lstat(list); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		problems = append(problems, FileProblem{Path: "/" + list, Kind: "empty"})
	}
	sums, err := d.Md5sums(p)
	if errors.Is(err, fs.ErrNotExist) {
		return problems, nil
	}
	if err != nil {
		return nil, err
	}
	diversions, err := d.diversions()
	if err != nil {
		return nil, err
	}
	look := folderByFolder{root: d.root}
	defer look.close()
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		place := divert(diversions, name, p.Name)
		size, regular, err := look.at(place)
		program := slices.ContainsFunc(programFolders, func(f string) bool { return strings.HasPrefix(name, f) })
		switch {
		case err == nil && regular && size == 0 && sums[name] != emptySum:
			problems = append(problems, FileProblem{Path: "/" + name, Kind: "empty"})
		case err == nil && regular && program && d.cutOff(place):
			problems = append(problems, FileProblem{Path: "/" + name, Kind: "cut off"})
		case !errors.Is(err, fs.ErrNotExist) || !program:
		default:
			rules, err := d.rules()
			if err != nil {
				return nil, err
			}
			if !rules.excludes("/" + name) {
				problems = append(problems, FileProblem{Path: "/" + name, Kind: "missing"})
			}
		}
	}
	return problems, nil
}

// folderByFolder looks at files in the order of their names: to find each from the root takes four times as long.
type folderByFolder struct {
	root *os.Root
	name string
	open *os.File // nil if it is not there
	err  error
}

func (f *folderByFolder) close() {
	if f.open != nil {
		f.open.Close()
	}
}

func (f *folderByFolder) at(place string) (size int64, regular bool, err error) {
	if dir := path.Dir(place); dir != f.name {
		f.close()
		f.name = dir
		f.open, f.err = f.root.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if f.err != nil {
		return 0, false, f.err
	}
	var is unix.Stat_t
	if err := unix.Fstatat(int(f.open.Fd()), path.Base(place), &is, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, false, err
	}
	return is.Size, is.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// cutOff tells whether a program or library is shorter than its header says: GNU's linkers put the table of sections last. See elf(5). What is not of 64 bits,
// the lowest byte first, is not looked at.
func (d *Database) cutOff(place string) bool {
	file, info, err := foreign.Open(d.root, place)
	if err != nil {
		return false
	}
	defer file.Close()
	var h [64]byte
	if _, err := io.ReadFull(file, h[:]); err != nil || string(h[:6]) != "\x7fELF\x02\x01" {
		return false
	}
	table, entry, count := binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint16(h[58:]), binary.LittleEndian.Uint16(h[60:])
	size := uint64(info.Size())
	return count > 0 && (table > size || uint64(entry)*uint64(count) > size-table)
}
