package lockprobe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/carriers"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
)

// Where the lock code is that counts in every container, and where it is that runs guests.
const (
	tool      = "usr/bin/qemu-img"
	emulators = "usr/bin/qemu-system-"
)

// machines are the emulators' words for Debian's architectures.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "armhf": "arm", "ppc64el": "ppc64"}

func machineOf(architecture string) string {
	if machine := machines[architecture]; machine != "" {
		return machine
	}
	return architecture // i386, s390x, riscv64
}

// usualSuffix is what patch sets are called unless their builder chose another suffix, which a baseline then tells.
var usualSuffix = regexp.MustCompile(`\+nfslock[0-9]+$`)

// marker is the warning of the variant fallback; every program that has the edit holds it.
const marker = "image locks are refused"

// baseline is what a run of nfs_lock_fix wrote down of a container that it patched, as far as it matters here.
type baseline struct {
	Schema   int    `json:"schema"`
	ID       string `json:"id"`
	Suffix   string `json:"suffix"`
	Packages []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"packages"`
}

// indexLimit is far above any real index (about 2,000 bytes).
const indexLimit = 1 << 20

// readBaselines reads what this host keeps of its containers, by their names. Damage in one is an error beside the others.
func readBaselines(dir string) (map[string]baseline, error) {
	root, err := os.OpenRoot(filepath.Join(dir, "baseline"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what was patched: %w", err)
	}
	defer root.Close()
	folder, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot read what was patched: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot read what was patched: %w", err)
	}
	all := map[string]baseline{}
	var errs []error
	for _, name := range names {
		file, _, err := foreign.Open(root, filepath.Join(name, "index.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // half made
		}
		var b baseline
		if err == nil {
			b, err = parseBaseline(file)
			file.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read what was patched in %s: %w", name, err))
			continue
		}
		all[name] = b
	}
	return all, errors.Join(errs...)
}

func parseBaseline(r io.Reader) (b baseline, err error) {
	data, err := io.ReadAll(io.LimitReader(r, indexLimit))
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err == nil && b.Schema != 1 {
		err = fmt.Errorf("it has schema %d, this program knows 1", b.Schema)
	}
	return b, err
}

// readPackages fills in what QEMU a container has. guests are all that run on the host.
func (v *view) readPackages(kept baseline, guests []host.Guest) error {
	p := &v.row
	d, err := kolla.ReadDistribution(v.root)
	if err != nil {
		return err
	}
	p.Distribution = strings.TrimSpace(d.ID + " " + d.Release)
	if !d.UsesDpkg() {
		return v.readOther()
	}
	db, err := deb.OpenDatabase(v.root)
	if err != nil {
		return err
	}
	v.architecture = db.Architecture()
	if kolla.RunsGuests(p.Container) {
		v.readLibvirt(db)
	}
	used, err := v.usedPrograms(guests)
	if err != nil {
		return err
	}
	var found []locker
	for _, have := range db.Packages() {
		if have.Source != "qemu" || have.Status.State == "not-installed" || have.Status.State == "config-files" {
			continue
		}
		row := QEMUPacket{Name: have.Name, Version: have.Version, Held: have.Status.Want == "hold"}
		row.Patched = usualSuffix.MatchString(have.Version) || kept.Suffix != "" && strings.HasSuffix(have.Version, kept.Suffix)
		p.Installed = append(p.Installed, row)
		if !slices.Contains(carriers.Packages, have.Name) {
			continue
		}
		l := locker{name: have.Name, patched: row.Patched}
		if word, ok := strings.CutPrefix(have.Name, "qemu-system-"); ok {
			l.emulates = word
		}
		if l.program, err = ownedOf(db, have, used); err != nil {
			return err
		}
		l.further = l.program != tool && l.program != emulators+machineOf(v.architecture)
		if l.program != "" && (l.patched || l.program == tool) {
			if l.edited, err = contains(v.root, l.program, marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read /%s: %w", l.program, err)
			}
		}
		found = append(found, l)
	}
	whatCounts(found).tell(p)
	if p.Library.active() && (p.QEMU == Stock || p.QEMU == Mixed) {
		p.QEMU = ByLibrary
	}
	return nil
}

// usedPrograms are the programs with lock code that the container's own work uses: qemu-img everywhere; where Nova's guests run, or libguestfs
// does, the emulator of the host's architecture; and those of further guests, defined or running.
func (v *view) usedPrograms(guests []host.Guest) ([]string, error) {
	used := []string{tool}
	if !kolla.RunsEmulators(v.row.Container) {
		return used, nil
	}
	used = append(used, emulators+machineOf(v.architecture))
	if !kolla.RunsGuests(v.row.Container) {
		return used, nil
	}
	programs, err := libvirt.Emulators(v.root)
	for _, g := range guests {
		if libvirt.Runs(v.root, g.Name) { // others are of another container's, and none of Nova's
			programs = append(programs, g.Program)
		}
	}
	for _, program := range programs {
		used = append(used, strings.TrimPrefix(program, "/"))
	}
	return used, err
}

// ownedOf is the first of some programs that a package brings, empty if none.
func ownedOf(db *deb.Database, p deb.Package, programs []string) (string, error) {
	if p.Name == "qemu-utils" {
		return tool, nil
	}
	files, err := db.Files(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot tell which programs %s has: %w", p.Name, err)
	}
	for _, program := range programs {
		if slices.Contains(files, program) {
			return program, nil
		}
	}
	return "", nil
}

// locker is a package with lock code.
type locker struct {
	name     string
	emulates string // the package's word for its architectures; empty of the tools
	program  string // of those that the container's work uses; empty if it uses none
	patched  bool   // by its version
	edited   bool   // its program has the edit of the variant fallback
	further  bool   // the program is used because a domain of another architecture is defined or runs
}

// counted is what a container's QEMU packages come to.
type counted struct {
	qemu      QEMU
	variant   string
	unpatched []string
	further   []string
	others    []string // emulators without the patch that do not count
}

func (c counted) tell(p *Packages) {
	p.QEMU, p.Variant, p.Unpatched, p.UnpatchedFurther, p.StockEmulators = c.qemu, c.variant, c.unpatched, c.further, c.others
}

// whatCounts is the one place that decides whether a container is patched: by the programs that its own work uses. Emulators that it does not use
// are told, and count for nothing. Where it uses none that is known, all count.
func whatCounts(found []locker) counted {
	c := counted{unpatched: []string{}, further: []string{}, others: []string{}}
	none := !slices.ContainsFunc(found, func(l locker) bool { return l.program != "" })
	patched, marked := 0, false
	for _, l := range found {
		if l.program == "" && !none {
			if !l.patched {
				c.others = append(c.others, l.emulates)
			}
			continue
		}
		marked = marked || l.edited
		if l.patched || l.edited {
			patched++
		}
		if !l.patched { // also beside a program that was copied over its package's
			c.unpatched = append(c.unpatched, l.name)
			if l.further && !none {
				c.further = append(c.further, l.name)
			}
		}
	}
	c.qemu = summary(patched, len(c.unpatched))
	switch {
	case marked:
		c.variant = "fallback"
	case patched > 0:
		c.variant = "disable_ofd"
	}
	slices.Sort(c.others)
	return c
}

func summary(patched, stock int) QEMU {
	switch {
	case patched > 0 && stock > 0:
		return Mixed
	case patched > 0:
		return Patched
	case stock > 0:
		return Stock
	}
	return NoQEMU
}

// contains looks for a text in a program of a container.
func contains(root *os.Root, name, text string) (bool, error) {
	file, _, err := foreign.Open(root, name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	return containsText(io.LimitReader(file, 256<<20), text) // ten times the largest QEMU
}

func containsText(r io.Reader, text string) (bool, error) {
	buffer := make([]byte, 256<<10)
	kept := 0 // bytes at the front, in which the text may have begun
	for {
		n, err := r.Read(buffer[kept:])
		if bytes.Contains(buffer[:kept+n], []byte(text)) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		end := kept + n
		kept = min(len(text)-1, end)
		copy(buffer, buffer[end-kept:end])
	}
}

// runAgain is the way out of drift.
const runAgain = "run nfslock.kolla.fix again, if it is still needed"

// drift compares a container with what the last run of nfs_lock_fix made of it: by the packages that it replaced, whatever else is installed.
func drift(name string, kept baseline, now *Packages) (Drift, bool) {
	d := Drift{Container: name, What: "packages", Was: kept.ID, Message: runAgain}
	switch {
	case now == nil:
		d.Kind, d.Counts, d.Message = Gone, true, "there is no such container now; the packages from before are kept until nfs_lock_fix has state absent"
		return d, true
	case now.QEMU == Unknown || now.QEMU == ByLibrary || now.State != "running": // what the library does needs no patch
		return d, false
	}
	found := false
	for _, k := range kept.Packages {
		for _, have := range now.Installed {
			counts := slices.Contains(now.Unpatched, have.Name)
			if have.Name != k.Name || have.Patched || found && (d.Counts || !counts) {
				continue
			}
			found, d.Counts = true, counts
			d.tell(name, kept, now, k.Name, k.Version, have.Version)
		}
	}
	return d, found
}

// tell says how a package is stock again.
func (d *Drift) tell(name string, kept baseline, now *Packages, lost, was, is string) {
	if now.ID != kept.ID {
		d.Kind, d.Is = Recreated, now.ID
		d.Message = fmt.Sprintf("%s was recreated and has lost the patch: %s", name, runAgain)
		return
	}
	d.Kind, d.Was, d.Is = Lost, lost+" "+was+kept.Suffix, lost+" "+is
	d.Message = fmt.Sprintf("%s has the stock %s again: %s", name, lost, runAgain)
	if order, err := deb.CompareVersions(is, was+kept.Suffix); err == nil && order > 0 {
		d.Kind = Superseded
		d.Message = fmt.Sprintf("a later %s of the distribution replaced the patched one in %s: build a patch set from it, and %s", lost, name, runAgain)
	}
}
