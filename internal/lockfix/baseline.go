package lockfix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// Baseline is the index of the packages from before that this host keeps for one container. It lies beside them as
// index.json and is written last, so that it never names a file that is not there.
type Baseline struct {
	Schema   int           `json:"schema"` // 1
	ID       string        `json:"id"`     // of the container they were taken from
	Image    string        `json:"image"`
	Suffix   string        `json:"suffix"` // of the patch set that replaced them
	Made     time.Time     `json:"made"`
	Packages []KeptPackage `json:"packages"`
}

// KeptPackage is one repacked package.
type KeptPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Held    bool   `json:"held"` // apt was told to keep it, before we came
	File    string `json:"file"` // in the same folder
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
	// Excluded are paths of which the file has only placeholders. One that an older version kept has none, and lacks them.
	Excluded []deb.Excluded    `json:"excluded,omitempty"`
	Refused  string            `json:"-"` // why dpkg would not take it now
	Control  deb.Package       `json:"-"` // from the file, see readContents
	Sums     map[string]string `json:"-"` // of what is to be there
}

const (
	indexName      = "index.json"
	baselineSchema = 1
	indexLimit     = 1 << 20 // bytes; a real one has about 2,000
)

// openBaseline reads the index. Without one there is no baseline: nil. The caller closes the folder that is returned
// with one.
func openBaseline(dir string) (*Baseline, *os.Root, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the packages from before: %w", err)
	}
	b, err := readIndex(root)
	if b == nil || err != nil {
		root.Close()
		return nil, nil, err
	}
	return b, root, nil
}

// readContents fills in what the kept files say of themselves. It reads each of them whole, so it is for those who are
// going to install them.
func (b *Baseline) readContents(root *os.Root) error {
	for i := range b.Packages {
		k := &b.Packages[i]
		file, err := openKept(root, *k)
		if err != nil {
			return err
		}
		archive, err := deb.ReadArchive(file)
		file.Close()
		if err != nil {
			return fmt.Errorf("cannot read the kept %s: %w", k.File, err)
		}
		if archive.Package.Name != k.Name || archive.Package.Version != k.Version {
			return fmt.Errorf("the kept %s is %s %s, not %s %s", k.File, archive.Package.Name, archive.Package.Version, k.Name, k.Version)
		}
		k.Control, k.Sums = archive.Package, expected(archive.Md5sums, k.Excluded)
	}
	return nil
}

// findRefused asks whether the container's rules, which may have changed since, let dpkg leave out all of which a file has placeholders.
func (b *Baseline) findRefused(db *deb.Database) error {
	for i := range b.Packages {
		k := &b.Packages[i]
		link, pattern, err := db.BroughtBack(k.Excluded)
		if err != nil {
			return err
		}
		if link != "" {
			k.Refused = fmt.Sprintf("by now its dpkg is configured with path-include %s, so it wants %s of %s, which it left out before", pattern, link, k.Name)
		}
	}
	return nil
}

// expected takes what was left out from the checksums of a package's files, whatever the rules say by now.
func expected(sums map[string]string, excluded []deb.Excluded) map[string]string {
	for _, e := range excluded {
		delete(sums, strings.TrimPrefix(e.Path, "/"))
	}
	return sums
}

func readIndex(root *os.Root) (*Baseline, error) {
	file, _, err := foreign.Open(root, indexName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the packages from before: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, indexLimit))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", filepath.Join(root.Name(), indexName), err)
	}
	return parseIndex(filepath.Join(root.Name(), indexName), data)
}

func parseIndex(name string, data []byte) (*Baseline, error) {
	var b Baseline
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if b.Schema != baselineSchema {
		return nil, fmt.Errorf("cannot read %s: it has schema %d, this program knows %d: update the collection", name, b.Schema, baselineSchema)
	}
	return &b, nil
}

// openKept opens a kept file whose size and checksum are as the index says.
func openKept(root *os.Root, k KeptPackage) (*os.File, error) {
	file, _, err := foreign.Open(root, k.File)
	if err != nil {
		return nil, fmt.Errorf("cannot open the kept %s: %w", k.Name, err)
	}
	if err := patchset.Verify(k.file(), file); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot use the kept %s: %w", k.Name, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot use the kept %s: %w", k.Name, err)
	}
	return file, nil
}

// file is the package as one that can be verified and copied like one of a patch set.
func (k KeptPackage) file() patchset.Package {
	return patchset.Package{Name: k.Name, Version: k.Version, File: k.File, Size: k.Size, SHA256: k.SHA256}
}

// keep repacks the named packages of the container into dir, reads each back, and writes the index. What an older index
// holds of other packages stays. It returns warnings about files that were not as the distribution shipped them: they
// are kept as they are.
func keep(ctx context.Context, dir string, s Seen, suffix string, source *os.Root, packages []string) (warnings []string, err error) {
	if err := patchset.MakeFolder(dir); err != nil {
		return nil, fmt.Errorf("cannot keep packages: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot keep packages: %w", err)
	}
	defer root.Close()
	db, err := deb.OpenDatabase(source)
	if err != nil {
		return nil, err
	}
	b := Baseline{Schema: baselineSchema, ID: s.ID, Image: s.Image, Suffix: suffix, Made: time.Now().UTC()}
	if s.Kept != nil && s.Kept.ID == s.ID {
		b.Packages = slices.DeleteFunc(slices.Clone(s.Kept.Packages), func(k KeptPackage) bool { return slices.Contains(packages, k.Name) })
	}
	for _, name := range packages {
		p, ok := db.Package(name)
		if !ok {
			return nil, fmt.Errorf("cannot keep %s: it is gone since the container was looked at", name)
		}
		k, report, err := repack(ctx, root, db, p)
		if err != nil {
			return nil, fmt.Errorf("cannot keep %s: %w", name, err)
		}
		for _, f := range report.Problems {
			warnings = append(warnings, fmt.Sprintf("%s: %s of %s is %s already; it is kept so", s.Name, f.Path, name, f.Kind))
		}
		if report.Unlisted > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: dpkg lists %d paths of %s that path-exclude left out: they are too many, and it will no longer list them when the package is brought back",
				s.Name, report.Unlisted, name))
		}
		b.Packages = append(b.Packages, k)
	}
	if err := writeIndex(root, b); err != nil {
		return nil, err
	}
	return warnings, sweep(root, b)
}

// sweep removes files that the index does not name: of an earlier baseline, or of a run that was killed.
func sweep(root *os.Root, b Baseline) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("cannot clean up the packages from before: %w", err)
	}
	for _, e := range entries {
		named := slices.ContainsFunc(b.Packages, func(k KeptPackage) bool { return k.File == e.Name() })
		if !named && e.Name() != indexName {
			err = errors.Join(err, root.Remove(e.Name()))
		}
	}
	return err
}

func repack(ctx context.Context, root *os.Root, db *deb.Database, p deb.Package) (k KeptPackage, report deb.RepackReport, err error) {
	part := p.Name + ".deb.part"
	file, err := root.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return k, report, err
	}
	defer func() {
		file.Close()
		if err != nil {
			_ = root.Remove(part)
		}
	}()
	if report, err = db.Repack(ctx, p, file); err != nil {
		return k, report, err
	}
	if err := file.Sync(); err != nil {
		return k, report, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return k, report, err
	}
	k = KeptPackage{Name: p.Name, Version: p.Version, Held: p.Status.Want == "hold", Excluded: report.Excluded}
	if err := readBack(file, &k); err != nil {
		return k, report, err
	}
	k.File = p.Name + "_" + k.SHA256 + ".deb" // never in the place of one that the index names
	return k, report, root.Rename(part, k.File)
}

// readBack proves that what lies on the disk is the package, whole, and fills in its size and checksum.
func readBack(file *os.File, k *KeptPackage) error {
	sum := sha256.New()
	archive, err := deb.CheckArchive(io.TeeReader(file, sum))
	if err == nil {
		_, err = io.Copy(sum, file) // behind the last member
	}
	if err != nil {
		return fmt.Errorf("cannot read it back: %w", err)
	}
	if archive.Package.Name != k.Name || archive.Package.Version != k.Version {
		return fmt.Errorf("read back, it is %s %s, not %s %s", archive.Package.Name, archive.Package.Version, k.Name, k.Version)
	}
	k.SHA256 = hex.EncodeToString(sum.Sum(nil))
	k.Size, err = file.Seek(0, io.SeekEnd)
	return err
}

func writeIndex(root *os.Root, b Baseline) error {
	slices.SortFunc(b.Packages, func(x, y KeptPackage) int { return bytes.Compare([]byte(x.Name), []byte(y.Name)) })
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= indexLimit {
		return fmt.Errorf("cannot write the index of kept packages: it would have %d bytes", len(data))
	}
	if err := writeWhole(root, indexName, append(data, '\n')); err != nil {
		return fmt.Errorf("cannot write the index of kept packages: %w", err)
	}
	return nil
}

// forget removes a baseline, the index first.
func forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, indexName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget the packages from before: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot forget the packages from before: %w", err)
	}
	return nil
}
