package lockfix

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// Inside the container, below its root. /var/lib belongs to root there, so no service user can get in between.
const (
	privateDir = "var/lib/nfslock"
	policyFile = "usr/sbin/policy-rc.d"
)

// policyText denies every start and stop that a maintainer script asks for, as invoke-rc.d(8) reads it. Its second line
// tells a later run that a killed one left it behind.
const policyText = "#!/bin/sh\n# nfslock: for the time of an install only\nexit 101\n"

// copyIn writes the files where the container's own processes see them: through its root folder in /proc, mounts and tmpfs
// included, where the engine's copy can land below a tmpfs. Each is then read again from there.
func (t *target) copyIn(d delivery) (paths []string, err error) {
	if err := t.root.Mkdir(privateDir, 0o700); err != nil {
		return nil, err
	}
	for _, p := range d.packages {
		name := privateDir + "/" + p.Name + ".deb"
		if err := t.copyFile(p, name, d); err != nil {
			return nil, fmt.Errorf("%s: %w", p.File, err)
		}
		paths = append(paths, "/"+name)
	}
	return paths, nil
}

func (t *target) copyFile(p patchset.Package, name string, d delivery) error {
	from, err := d.open(p)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	back, _, err := foreign.Open(t.root, name)
	if err != nil {
		return err
	}
	defer back.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, back); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return errors.New("it does not read as it was written")
	}
	return nil
}

// denyServices leaves a policy that is there already alone: it is the image's own, or ours from a run that was killed.
func (t *target) denyServices() error {
	file, err := t.root.OpenFile(policyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(policyText)
	return errors.Join(err, file.Chmod(0o755), file.Close()) // clean removes it also when it is only half written
}

// clean removes all that is ours from the container.
func (t *target) clean() error {
	ours, err := t.deniesServices()
	if ours {
		err = t.root.Remove(policyFile)
	}
	err = errors.Join(err, t.removeTrialLinks())
	// What is not there is not to be removed from a filesystem that may be read-only.
	_, missing := t.root.Lstat(privateDir)
	if errors.Is(missing, fs.ErrNotExist) {
		return err
	}
	return errors.Join(err, t.root.RemoveAll(privateDir))
}

// deniesServices tells whether the container has our policy, or the beginning of it. A link or a long file is not ours.
func (t *target) deniesServices() (bool, error) {
	file, info, err := foreign.Open(t.root, policyFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, foreign.ErrNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	if info.Size() > int64(len(policyText)) {
		return false, nil
	}
	text, err := io.ReadAll(io.LimitReader(file, int64(len(policyText))))
	return err == nil && strings.HasPrefix(policyText, string(text)), err
}
