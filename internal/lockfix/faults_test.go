package lockfix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// faults are what is wrong with a container's dpkg, as real ones were seen to fail.
type faults struct {
	hook    bool   // a post-invoke hook ends with 1: everything is done, and the exit code is an error
	fixed   string // a path that no package can replace, by chattr +i or a mount: dpkg puts the package back and goes on with the next
	records bool   // nothing can be written into its database: what it noted stays beside it, and nobody can read that in
	half    bool   // it is killed while it unpacks
	trigger string // a package whose trigger fails in every install
}

const updates = "var/lib/dpkg/updates"

// faulty is dpkg with these.
func (b *box) faulty(c engine.Command) error {
	if err := b.readUpdates(); err != nil {
		return err
	}
	var errs []error
	if i := slices.Index(c.Args, "--configure"); i >= 0 {
		for _, name := range c.Args[i+1:] {
			if name == b.faults.trigger {
				errs = append(errs, fmt.Errorf("installed %s package post-installation script subprocess returned error exit status 1", name))
				continue
			}
			errs = append(errs, b.setState(name, "ok installed"))
		}
		return errors.Join(errs...)
	}
	i := slices.Index(c.Args, "--install")
	if i < 0 {
		return b.dpkg(c)
	}
	for _, path := range c.Args[i+1:] {
		data, err := os.ReadFile(b.root + path)
		if err != nil {
			return err
		}
		archive, err := deb.CheckArchive(bytes.NewReader(data))
		if err != nil {
			return err
		}
		name := archive.Package.Name
		switch _, has := archive.Md5sums[b.faults.fixed]; {
		case b.faults.records:
			was, err := b.stanza(name)
			half := strings.NewReplacer("ok installed", "reinstreq half-installed").Replace(was)
			errs = append(errs, err, b.note("0000", half), b.note("0001", was), b.note("tmp.i", ""), errors.New("error creating new backup file '/var/lib/dpkg/status-old'"))
		case b.faults.half:
			return errors.Join(b.setState(name, "reinstreq half-installed"), errors.New("killed"))
		case has:
			errs = append(errs, fmt.Errorf("unable to make backup link of './%s' before installing new version", b.faults.fixed))
		default:
			errs = append(errs, b.dpkg(engine.Command{Args: append(slices.Clone(c.Args[:i+1]), path)}))
		}
	}
	if b.faults.trigger != "" {
		errs = append(errs, b.setState(b.faults.trigger, "ok half-configured"), fmt.Errorf("installed %s package post-installation script subprocess returned error exit status 1", b.faults.trigger))
	}
	if b.faults.hook {
		errs = append(errs, errors.New("error executing hook '/bin/false', exit code 256"))
	}
	return errors.Join(errs...)
}

// readUpdates is what each dpkg does first.
func (b *box) readUpdates() error {
	dir := filepath.Join(b.root, updates)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return nil // there is no such folder in some
	}
	if b.faults.records {
		return errors.New("error creating new backup file '/var/lib/dpkg/status-old'")
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if name, _, ok := strings.Cut(strings.TrimPrefix(string(text), "Package: "), "\n"); ok && err == nil {
			err = b.edit(name, func(string) string { return string(text) })
		}
		if err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name()))); err != nil {
			return err
		}
	}
	return nil
}

func (b *box) note(name, text string) error {
	return os.WriteFile(filepath.Join(b.root, updates, name), []byte(text), 0o644)
}

func (b *box) stanza(name string) (text string, err error) {
	err = b.edit(name, func(s string) string {
		text = s
		return s
	})
	return text + "\n", err
}

// setState changes how far dpkg is with a package.
func (b *box) setState(name, state string) error {
	return b.edit(name, func(stanza string) string {
		lines := strings.Split(stanza, "\n")
		for i, line := range lines {
			if words := strings.Fields(line); len(words) == 4 && words[0] == "Status:" {
				lines[i] = fmt.Sprintf("Status: %s %s", words[1], state)
			}
		}
		return strings.Join(lines, "\n")
	})
}
