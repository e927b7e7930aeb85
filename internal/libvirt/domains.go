package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// definedFolder has a file for each domain that is defined. Nova defines every instance.
const definedFolder = "etc/libvirt/qemu"

// runningFolder has one for each that runs.
const runningFolder = "run/libvirt/qemu"

// Far above real ones: a domain of Nova's has 6,000 bytes, a host some hundreds of them.
const (
	domainLimit  = 1 << 20
	domainsLimit = 5000
)

// Emulators are the programs that the domains name which are defined in a container, each once, sorted: "/usr/bin/qemu-system-x86_64".
func Emulators(root *os.Root) ([]string, error) {
	folder, err := root.OpenFile(definedFolder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which domains are defined: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(domainsLimit)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read which domains are defined: %w", err)
	}
	var found []string
	for _, name := range names {
		if !strings.HasSuffix(name, ".xml") {
			continue
		}
		file, _, err := foreign.Open(root, path.Join(definedFolder, name))
		if err != nil {
			continue // gone, or no file of libvirt's
		}
		emulator := emulatorOf(io.LimitReader(file, domainLimit))
		file.Close()
		if emulator != "" && !slices.Contains(found, emulator) {
			found = append(found, emulator)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Runs tells whether libvirt in a container has a domain of that name running: it keeps a file of each in /run, which kolla binds from the host.
func Runs(root *os.Root, name string) bool {
	if name == "" || strings.ContainsRune(name, '/') {
		return false
	}
	_, err := root.Lstat(path.Join(runningFolder, name+".xml"))
	return err == nil
}

// emulatorOf reads as far as it can: a file that is being written is read at the next run.
func emulatorOf(r io.Reader) string {
	var domain struct {
		XMLName  xml.Name `xml:"domain"`
		Emulator string   `xml:"devices>emulator"`
	}
	if xml.NewDecoder(r).Decode(&domain) != nil {
		return ""
	}
	return strings.TrimSpace(domain.Emulator)
}
