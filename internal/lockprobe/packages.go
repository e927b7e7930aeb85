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
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// lockers are the packages whose programs take image locks. The others of QEMU's source (modules, data, firmware) only go with them.
var lockers = regexp.MustCompile(`^qemu-(utils|system-(x86|arm|ppc|s390x|mips|misc|riscv|sparc|xen))$`)

// usualSuffix is what patch sets are called unless their builder chose another suffix, which a baseline then tells.
var usualSuffix = regexp.MustCompile(`\+nfslock[0-9]+$`)

// marker is the warning of the variant fallback; every program that has the edit holds it.
const marker = "image locks are refused"

// programs are where the lock code is, by package.
var programs = map[string]string{"qemu-utils": "usr/bin/qemu-img", "qemu-system-x86": "usr/bin/qemu-system-x86_64", "qemu-system-arm": "usr/bin/qemu-system-aarch64"}

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

// readPackages fills in what QEMU a container has.
func (p *Packages) readPackages(root *os.Root, kept baseline) error {
	d, err := kolla.ReadDistribution(root)
	if err != nil {
		return err
	}
	p.Distribution = strings.TrimSpace(d.ID + " " + d.Release)
	if !d.UsesDpkg() {
		return fmt.Errorf("cannot tell which QEMU %s has: it is no Debian or Ubuntu", p.Container)
	}
	db, err := deb.OpenDatabase(root)
	if err != nil {
		return err
	}
	patched, stock := 0, 0
	marked := false
	for _, have := range db.Packages() {
		if have.Source != "qemu" || have.Status.State == "not-installed" || have.Status.State == "config-files" {
			continue
		}
		row := QEMUPacket{Name: have.Name, Version: have.Version, Held: have.Status.Want == "hold"}
		row.Patched = usualSuffix.MatchString(have.Version) || kept.Suffix != "" && strings.HasSuffix(have.Version, kept.Suffix)
		p.Installed = append(p.Installed, row)
		if !lockers.MatchString(have.Name) {
			continue
		}
		edited := false
		if program := programs[have.Name]; program != "" && (row.Patched || have.Name == "qemu-utils") {
			edited, err = contains(root, program, marker)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read /%s: %w", program, err)
			}
			marked = marked || edited
		}
		switch {
		case row.Patched:
			patched++
		case edited: // a program that was copied over its package's
			patched++
			stock++
		default:
			stock++
		}
	}
	p.QEMU, p.Variant = summary(patched, stock), ""
	switch {
	case marked:
		p.Variant = "fallback"
	case patched > 0:
		p.Variant = "disable_ofd"
	}
	return nil
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

// drift compares a container with what the last run of nfs_lock_fix made of it.
func drift(name string, kept baseline, now *Packages) (Drift, bool) {
	again := "run nfslock.kolla.fix again, if it is still needed"
	d := Drift{Container: name, Was: kept.ID, Message: again}
	switch {
	case now == nil:
		d.Kind, d.Message = Gone, "there is no such container now; the packages from before are kept until nfs_lock_fix has state absent"
		return d, true
	case now.QEMU == Unknown || now.QEMU == Patched || now.State != "running":
		return d, false
	case now.ID != kept.ID:
		d.Kind, d.Is = Recreated, now.ID
		d.Message = fmt.Sprintf("%s was recreated and has lost the patch: %s", name, again)
		return d, now.QEMU != Mixed
	}
	for _, k := range kept.Packages {
		for _, have := range now.Installed {
			if have.Name != k.Name || have.Patched {
				continue
			}
			d.Kind, d.Was, d.Is = Lost, k.Name+" "+k.Version+kept.Suffix, have.Name+" "+have.Version
			d.Message = fmt.Sprintf("%s has the stock %s again: %s", name, k.Name, again)
			if order, err := deb.CompareVersions(have.Version, k.Version+kept.Suffix); err == nil && order > 0 {
				d.Kind = Superseded
				d.Message = fmt.Sprintf("a later %s of the distribution replaced the patched one in %s: build a patch set from it, and %s", k.Name, name, again)
			}
			return d, true
		}
	}
	return d, false
}
