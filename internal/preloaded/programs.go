package preloaded

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Programs are those that the library does something in, by their files' names, as preload/source/nfslock.c has them: with an asterisk, by how the name
// begins.
var Programs = slices.Concat(qemu, Daemons)

var qemu = []string{"qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon", "qemu-system-*", "qemu-kvm"}

// Daemons are libvirt's among them: one that runs has to be started again before it has the library.
var Daemons = []string{"libvirtd", "virtqemud"}

// programFolders are where they lie, below a root. Read in Debian's, Ubuntu's and Rocky's packages: qemu-kvm is in libexec on the last.
var programFolders = []string{"usr/bin", "usr/sbin", "usr/libexec", "usr/local/bin", "usr/local/sbin"}

// Program is one of them, as it was found in a container.
type Program struct {
	Path         string // "/usr/bin/qemu-img"; empty where there is none
	Architecture string // Go's word, which is dpkg's too: "amd64"; empty where it is one that no library is built for
	Glibc        bool   // it is started by glibc's dynamic linker, which reads the list
}

// Fit says why the library is of no use to it; nil where it is.
func (p Program) Fit() error {
	switch {
	case p.Architecture != runtime.GOARCH:
		name := p.Architecture
		if name == "" {
			name = "of another architecture"
		}
		return fmt.Errorf("%s is %s, and this program's library is %s", p.Path, name, runtime.GOARCH)
	case !p.Glibc:
		return fmt.Errorf("%s is not started by glibc's dynamic linker, and no other reads /etc/ld.so.preload as the library needs it", p.Path)
	}
	return nil
}

// FindProgram looks for one of them below a container's root, the first that fits if several are there. Links are followed within the root.
func FindProgram(root *os.Root) (Program, error) { return find(root, Programs) }

// FindQEMU is FindProgram for QEMU's own alone.
func FindQEMU(root *os.Root) (Program, error) { return find(root, qemu) }

func find(root *os.Root, programs []string) (Program, error) {
	var found Program
	try := func(name string) (bool, error) {
		p, err := readProgram(root, name)
		if err != nil || p.Path == "" {
			return false, err
		}
		if found.Path == "" || p.Fit() == nil {
			found = p
		}
		return p.Fit() == nil, nil
	}
	for _, folder := range programFolders {
		for _, name := range programs {
			if strings.HasSuffix(name, "*") {
				continue
			}
			if done, err := try(path.Join(folder, name)); done || err != nil {
				return found, err
			}
		}
	}
	if found.Path != "" {
		return found, nil
	}
	// A container with an emulator and no tool is rare: only then folders of a thousand names are read.
	for _, folder := range programFolders[:3] {
		for _, name := range emulators(root, folder) {
			if done, err := try(path.Join(folder, name)); done || err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

const namesLimit = 20000 // of a folder; Debian's /usr/bin has about a thousand

func emulators(root *os.Root, folder string) (names []string) {
	dir, err := root.Open(folder)
	if err != nil {
		return nil
	}
	defer dir.Close()
	all, _ := dir.Readdirnames(namesLimit)
	for _, pattern := range qemu {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			for _, name := range all {
				if strings.HasPrefix(name, prefix) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return names[:min(len(names), 64)]
}

// readProgram tells of a file what matters of it: nothing where it is no program, such as a script or what is missing.
func readProgram(root *os.Root, name string) (Program, error) {
	file, _, err := foreign.OpenLinked(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, foreign.ErrNotRegular) {
		return Program{}, nil
	}
	if err != nil {
		return Program{}, nil //nolint:nilerr // a link that leads nowhere in this root: no program of it can be started by that name
	}
	defer file.Close()
	program, err := elf.NewFile(file)
	if err != nil {
		return Program{}, nil //nolint:nilerr // a script, or damaged
	}
	p := Program{Path: "/" + name}
	for architecture, machine := range machines {
		if program.Machine == machine && program.Class == elf.ELFCLASS64 {
			p.Architecture = architecture
		}
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP && part.Filesz < 4096 {
			interpreter := make([]byte, part.Filesz)
			n, _ := part.ReadAt(interpreter, 0)
			p.Glibc = strings.HasPrefix(path.Base(strings.TrimRight(string(interpreter[:n]), "\x00")), "ld-linux")
		}
	}
	return p, nil
}
