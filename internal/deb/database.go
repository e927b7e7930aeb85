package deb

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

const (
	statusFile = "var/lib/dpkg/status"
	updatesDir = "var/lib/dpkg/updates"
	infoDir    = "var/lib/dpkg/info"
)

// Database is what dpkg knew below one root when OpenDatabase read it. It can be used by several goroutines, as long as
// the root stays open.
type Database struct {
	root     *os.Root
	native   string
	packages []Package

	diversions func() ([]diversion, error)
	config     func() ([]configLine, error)
	rules      func() (pathRules, error)
}

// OpenDatabase reads the status of all packages. Without a dpkg database the error is a fs.ErrNotExist.
func OpenDatabase(root *os.Root) (*Database, error) {
	d := &Database{
		root:       root,
		diversions: sync.OnceValues(func() ([]diversion, error) { return readDiversions(root) }),
		config:     sync.OnceValues(func() ([]configLine, error) { return readConfig(root) }),
	}
	d.rules = sync.OnceValues(func() (pathRules, error) {
		config, err := d.config()
		return parsePathRules(config), err
	})
	type instance struct{ name, architecture string }
	index := map[instance]int{}
	begin := func() {
		d.packages = d.packages[:0]
		clear(index)
	}
	err := eachRecord(root, begin, func(raw []byte, update bool) error {
		p, err := parseStatusStanza(raw)
		if err != nil {
			return err
		}
		if i, found := index[instance{p.Name, p.Architecture}]; found {
			d.packages[i] = p
			return nil
		}
		place := -1
		if update {
			place = d.replacedBy(p)
		}
		if place >= 0 {
			delete(index, instance{p.Name, d.packages[place].Architecture})
			d.packages[place] = p
		} else {
			place = len(d.packages)
			d.packages = append(d.packages, p)
		}
		index[instance{p.Name, p.Architecture}] = place
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the dpkg database: %w", err)
	}
	for _, p := range d.packages {
		if p.Name == "dpkg" && p.present() {
			d.native = p.Architecture
		}
	}
	return d, nil
}

// replacedBy finds the instance of another architecture whose place a pending record takes: dpkg has only one of a
// package that is not Multi-Arch: same (lib/dpkg/parse.c, parse_find_pkg_slot).
func (d *Database) replacedBy(p Package) int {
	place := -1
	for i, old := range d.packages {
		if old.Name != p.Name || old.Status.State == "not-installed" {
			continue
		}
		if place >= 0 || old.MultiArch == "same" && p.MultiArch == "same" {
			return -1
		}
		place = i
	}
	return place
}

// eachRecord hands over all stanzas of the status file and then those of the records not yet merged into it, in order.
// dpkg renames a new status file into place and then removes the records: when the file changed in between, all starts
// again with begin.
func eachRecord(root *os.Root, begin func(), handle func(raw []byte, update bool) error) error {
	for range 10 {
		begin()
		same, err := eachRecordOnce(root, handle)
		if err != nil || same {
			return err
		}
	}
	return fmt.Errorf("dpkg keeps writing %s", statusFile)
}

func eachRecordOnce(root *os.Root, handle func(raw []byte, update bool) error) (same bool, err error) {
	status, before, err := foreign.Open(root, statusFile)
	if err != nil {
		return false, err
	}
	defer status.Close()
	if err := eachStanza(status, atMost(maxPackages, func(raw []byte) error { return handle(raw, false) })); err != nil {
		return false, fmt.Errorf("%s: %w", statusFile, err)
	}
	names, err := readDirNames(root, updatesDir)
	if err != nil {
		return false, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.Trim(name, "0123456789") != "" }) // tmp.i, the record being written
	if len(names) > maxUpdates {
		return false, fmt.Errorf("%s has more than %d records", updatesDir, maxUpdates)
	}
	for _, name := range names {
		record, _, err := foreign.Open(root, path.Join(updatesDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		err = eachStanza(record, atMost(1, func(raw []byte) error { return handle(raw, true) })) // modstatdb_note writes one
		record.Close()
		if err != nil {
			return false, fmt.Errorf("%s/%s: %w", updatesDir, name, err)
		}
	}
	after, err := root.Stat(statusFile)
	if err != nil {
		return false, err
	}
	return os.SameFile(before, after), nil
}

// atMost bounds what many small stanzas take: each becomes a Package, which is larger.
func atMost(limit int, handle func([]byte) error) func([]byte) error {
	return func(raw []byte) error {
		if limit--; limit < 0 {
			return errors.New("there are more packages than any system has")
		}
		return handle(raw)
	}
}

// readDirNames lists a folder, sorted; one that is not there is empty.
func readDirNames(root *os.Root, name string) ([]string, error) {
	dir, err := root.Open(name + "/.") // opening a pipe would wait for ever; with the dot it is an error
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Packages lists what dpkg knows, in the order of its status file: also packages that are removed or half installed.
func (d *Database) Packages() []Package { return slices.Clone(d.packages) }

// Architecture is the native one, in dpkg's words: that of the package dpkg.
func (d *Database) Architecture() string { return d.native }

// Package finds the instance of the native architecture, else the only one.
func (d *Database) Package(name string) (Package, bool) {
	found := -1
	for i, p := range d.packages {
		if p.Name != name {
			continue
		}
		if p.Architecture == d.native || p.Architecture == "all" {
			return p, true
		}
		if found >= 0 {
			return Package{}, false
		}
		found = i
	}
	if found < 0 {
		return Package{}, false
	}
	return d.packages[found], true
}

// Installed tells whether the package is wholly there: neither half configured nor waiting for a trigger.
func (d *Database) Installed(name string) bool {
	p, found := d.Package(name)
	return found && p.Status.State == "installed"
}

// Md5sums reads what the package said of its files: path without leading slash → checksum in hex. A package without such
// a list, as one without files is, gives a fs.ErrNotExist.
func (d *Database) Md5sums(p Package) (map[string]string, error) {
	base, err := d.infoBase(p)
	if err != nil {
		return nil, fmt.Errorf("cannot read the checksums of %s: %w", p.Name, err)
	}
	f, _, err := foreign.Open(d.root, path.Join(infoDir, base+".md5sums"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the checksums of %s: %w", p.Name, err)
	}
	defer f.Close()
	sums, err := parseMd5sums(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s/%s.md5sums: %w", infoDir, base, err)
	}
	return sums, nil
}

// Files are the paths of the package's files, links and folders, without leading slash, as dpkg lists them. A package without such a list, as
// one that was never unpacked, gives a fs.ErrNotExist.
func (d *Database) Files(p Package) ([]string, error) {
	base, err := d.infoBase(p)
	if err != nil {
		return nil, fmt.Errorf("cannot read the files of %s: %w", p.Name, err)
	}
	names, err := d.listed(base)
	if err != nil {
		return nil, fmt.Errorf("cannot read the files of %s: %w", p.Name, err)
	}
	return names, nil
}

// listed are the paths of a file list in info/, in its order.
func (d *Database) listed(base string) (names []string, err error) {
	f, _, err := foreign.Open(d.root, path.Join(infoDir, base+".list"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = eachLine(f, func(line string) error {
		name, err := cleanName(line)
		names = append(names, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s/%s.list: %w", infoDir, base, err)
	}
	return names, nil
}

// infoBase is what the names of the package's files in info/ begin with: NAME:ARCH for what is Multi-Arch: same, NAME
// else and in databases that no dpkg of these days has opened.
func (d *Database) infoBase(p Package) (string, error) {
	if !safeName(p.Name) || p.MultiArch == "same" && !safeName(p.Architecture) {
		return "", fmt.Errorf("invalid package name %q", p.Name+":"+p.Architecture)
	}
	if p.MultiArch == "same" {
		base := p.Name + ":" + p.Architecture
		if _, err := d.root.Lstat(path.Join(infoDir, base+".list")); err == nil {
			return base, nil
		}
	}
	return p.Name, nil
}

func parseMd5sums(r io.Reader) (map[string]string, error) {
	sums := map[string]string{}
	err := eachLine(r, func(line string) error {
		name, sum, err := parseMd5sum(line)
		sums[name] = sum
		return err
	})
	return sums, err
}

// parseMd5sum is as strict as lib/dpkg/db-fsys-digest.c.
func parseMd5sum(line string) (name, sum string, err error) {
	if len(line) < 35 || line[32:34] != "  " || strings.Trim(line[:32], "0123456789abcdefABCDEF") != "" {
		return "", "", fmt.Errorf("no checksum in %.80q", line)
	}
	name, err = cleanName(line[34:])
	return name, strings.ToLower(line[:32]), err
}

// eachLine hands over the lines of one of dpkg's listings, without their ends.
func eachLine(r io.Reader, handle func(string) error) error {
	lines := bufio.NewScanner(bounded(r, maxListing, "the file"))
	for lines.Scan() {
		if err := handle(lines.Text()); err != nil {
			return cmp.Or(lines.Err(), err) // the line that a read error cuts off is handed over too
		}
	}
	return lines.Err()
}

// cleanName makes a path of dpkg's, "./usr/bin/x" or "/usr/bin/x", one below the root: usr/bin/x. The root itself is ".".
func cleanName(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "\n\x00") {
		return "", fmt.Errorf("invalid path %.80q", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %.80q leaves the tree", name)
		}
	}
	return path.Clean("./" + name), nil
}
