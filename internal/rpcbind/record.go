package rpcbind

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// Record is what this module changed on the host, so that state: absent takes back that and nothing else. It is written before a
// run changes anything.
type Record struct {
	Mode     Mode     `json:"mode,omitempty"`
	Volume   bool     `json:"volume,omitempty"`   // made for statd's state, in mode container
	Packages []string `json:"packages,omitempty"` // installed
	Unmasked []string `json:"unmasked,omitempty"` // units
	Enabled  []string `json:"enabled,omitempty"`  // units that were not
	Started  []string `json:"started,omitempty"`  // units that did not run
	Links    []string `json:"links,omitempty"`    // links below /etc/systemd/system that were not there
	Disabled []string `json:"disabled,omitempty"` // units that were enabled, and would take port 111 from the container at boot

	Container string         `json:"container,omitempty"` // of mode container
	Found     map[string]Was `json:"found,omitempty"`     // the units as the first run found them: what later runs find may be this module's doing, or an operator's
}

// Was is a unit before the first run.
type Was struct {
	File string `json:"file,omitempty"` // as in host.Unit
	Runs bool   `json:"runs,omitempty"`
}

func (w Was) enabled() bool { return w.File == "enabled" }

// join is both; the mode is r's.
func (r Record) join(other Record) Record {
	both := func(a, b []string) []string {
		all := slices.Concat(a, b)
		slices.Sort(all)
		if len(all) == 0 {
			return nil
		}
		return slices.Compact(all)
	}
	joined := Record{
		Mode: r.Mode, Container: cmp.Or(r.Container, other.Container), Disabled: both(r.Disabled, other.Disabled), Found: r.Found, Volume: r.Volume || other.Volume, Packages: both(r.Packages, other.Packages), Unmasked: both(r.Unmasked, other.Unmasked),
		Enabled: both(r.Enabled, other.Enabled), Started: both(r.Started, other.Started), Links: both(r.Links, other.Links),
	}
	if joined.Found == nil {
		joined.Found = other.Found
	}
	return joined
}

// onHost: something of mode host is there, or the rest of it. Packages that others need by now are no rest: they stay.
func (r Record) onHost(needed map[string]string) bool {
	packages := slices.ContainsFunc(r.Packages, func(name string) bool { return needed[name] == "" })
	return r.Mode == OnHost || packages || len(r.Unmasked)+len(r.Enabled)+len(r.Started)+len(r.Links) > 0
}

func (r Record) empty() bool {
	return r.Mode == "" && !r.Volume && r.Container == "" && len(r.Disabled) == 0 && !r.onHost(nil)
}

const (
	recordName  = "rpcbind.json"
	recordLimit = 64 << 10 // bytes; a real one has some hundred
)

// readRecord gives an empty one where there is none.
func readRecord(dir *statedir.Folder) (Record, error) {
	var r Record
	data, err := dir.Read(recordName, recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return r, fmt.Errorf("cannot read what earlier runs changed, %s: %w", filepath.Join(dir.Path(), recordName), err)
	}
	return r, nil
}

// check refuses what this module never does: a record is what state absent takes back.
func (r Record) check() error {
	for _, name := range r.Packages {
		if !slices.Contains(packages("apt", true), name) && !slices.Contains(packages("dnf", true), name) {
			return fmt.Errorf("it names a package %q, which this module never installs", name)
		}
	}
	for _, path := range r.Links {
		if path != bootLink && path != rpcLink {
			return fmt.Errorf("it names a link %q, which this module never makes", path)
		}
	}
	for _, name := range slices.Concat(r.Unmasked, r.Enabled, r.Started, r.Disabled) {
		if !slices.Contains([]string{socketUnit, rpcUnit, statdUnit, notifyUnit}, name) {
			return fmt.Errorf("it names a unit %q, which this module never touches", name)
		}
	}
	return nil
}

// save writes the record so that it is there whole or as before. An empty one is removed.
func (r Record) save(dir *statedir.Folder) error {
	if r.empty() {
		if err := dir.Remove(recordName); err != nil {
			return fmt.Errorf("cannot forget what was changed: %w", err)
		}
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = dir.Write(recordName, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("cannot write down what is to be changed: %w", err)
	}
	return nil
}

// writeFile replaces a file at once, and is on the disk when it returns.
func writeFile(path, text string, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it has been renamed
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
