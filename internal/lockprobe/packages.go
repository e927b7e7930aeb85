package lockprobe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
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

// variants are the edits that there are.
var variants = []string{"fallback", "disable_ofd"}

// marker is the warning of the variant fallback; every program that has the edit holds it.
const marker = "image locks are refused"

// readPackages fills in what QEMU a container has. record is what this host wrote down of it, nil if nothing; guests are all that run on the host.
func (v *view) readPackages(record *baseline.Index, guests []host.Guest) error {
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
	known := baseline.Known{ID: v.ID, Index: record}
	var found []locker
	for _, have := range db.Packages() {
		if have.Source != "qemu" || have.Status.State == "not-installed" || have.Status.State == "config-files" {
			continue
		}
		judged := known.JudgeIn(db, have)
		p.Installed = append(p.Installed, QEMUPacket{
			Name: have.Name, Version: have.Version, Held: have.Status.Want == "hold", Patched: judged.Whose == baseline.Ours, whose: judged.Whose, doubt: judged.Why,
		})
		if !slices.Contains(carriers.Packages, have.Name) {
			continue
		}
		row := &p.Installed[len(p.Installed)-1]
		l := locker{name: have.Name, patched: row.Patched}
		if row.Patched && slices.Contains(variants, judged.Graft.Variant) {
			l.variant = judged.Graft.Variant
		}
		if word, ok := strings.CutPrefix(have.Name, "qemu-system-"); ok {
			l.emulates = word
		}
		if l.program, err = ownedOf(db, have, used); err != nil {
			return err
		}
		l.further = l.program != tool && l.program != emulators+machineOf(v.architecture)
		if l.program != "" && l.variant == "" && (row.whose != baseline.Stock || l.program == tool) {
			if l.edited, err = contains(v.root, l.program, marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read /%s: %w", l.program, err)
			}
		}
		if row.whose == baseline.Doubtful { // that it has the edit is a fact
			l.patched = l.edited
			row.Patched = l.edited
		}
		if l.patched && l.edited {
			l.variant = variants[0]
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
	patched  bool   // it is ours
	variant  string // by what dpkg or this host knows of it, else by its program; empty if neither tells
	edited   bool   // its program was read and has the edit of the variant fallback
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
	patched := 0
	var known []string
	for _, l := range found {
		if l.program == "" && !none {
			if !l.patched {
				c.others = append(c.others, l.emulates)
			}
			continue
		}
		if l.variant != "" {
			known = append(known, l.variant)
		} else if l.edited {
			known = append(known, variants[0])
		}
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
	case slices.Contains(known, variants[1]): // it has no locks of its own, whatever the others do
		c.variant = variants[1]
	case len(known) > 0:
		c.variant = variants[0]
	case patched > 0:
		c.variant = variants[1]
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

// drift compares a container with what the last run of nfs_lock_fix made of it: by the packages that it replaced, whatever else is installed. Only one that
// is the distribution's by now is lost.
func drift(name string, record *baseline.Index, now *Packages) (Drift, bool) {
	d := Drift{Container: name, What: "packages", Was: record.ID, Message: runAgain}
	switch {
	case now == nil:
		d.Kind, d.Counts, d.Message = Gone, true, "there is no such container now; the packages from before are kept until nfs_lock_fix has state absent"
		return d, true
	case now.QEMU == Unknown || now.QEMU == ByLibrary || now.State != "running": // what the library does needs no patch
		return d, false
	}
	found := false
	for _, replaced := range record.Names() {
		for _, have := range now.Installed {
			counts := slices.Contains(now.Unpatched, have.Name)
			if have.Name != replaced || have.whose != baseline.Stock || found && (d.Counts || !counts) {
				continue
			}
			found, d.Counts = true, counts
			d.tell(name, record, now, have)
		}
	}
	return d, found
}

// tell says how a package is stock again.
func (d *Drift) tell(name string, record *baseline.Index, now *Packages, lost QEMUPacket) {
	if now.ID != record.ID {
		d.Kind, d.Is = Recreated, now.ID
		d.Message = fmt.Sprintf("%s was recreated and has lost the patch: %s", name, runAgain)
		return
	}
	was := record.Put(lost.Name)
	d.Kind, d.Was, d.Is = Lost, strings.TrimSpace(lost.Name+" "+was), lost.Name+" "+lost.Version
	d.Message = fmt.Sprintf("%s has the stock %s again: %s", name, lost.Name, runAgain)
	if order, err := deb.CompareVersions(lost.Version, was); err == nil && order > 0 {
		d.Kind = Superseded
		d.Message = fmt.Sprintf("a later %s of the distribution replaced the patched one in %s: build a patch set from it, and %s", lost.Name, name, runAgain)
	}
}
