package baseline

import (
	"cmp"
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

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// IndexName is the file in which the index lies, beside the packages that it names. It is written last, so that it never names one that is not there.
const IndexName = "index.json"

const (
	unreadName = "index.json.unread" // an index that could not be read when another one was written
	schema     = 1
	indexLimit = 1 << 20 // bytes; a real one has about 2,000
)

// Open reads the index of a folder. Without one there is nothing kept: nil. The caller closes the folder that is returned with one.
func Open(dir string) (*Index, *os.Root, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the packages from before: %w", err)
	}
	x, err := readIndex(root)
	if x == nil || err != nil {
		root.Close()
		return nil, nil, err
	}
	return x, root, nil
}

// All reads the indexes of a folder that has one folder for each container, by their names. Damage in one is an error beside the others.
func All(dir string) (map[string]*Index, error) {
	root, err := os.OpenRoot(dir)
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
	all := map[string]*Index{}
	var errs []error
	for _, name := range names {
		x, err := readOne(root, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot tell what was patched in %s: %w", name, err))
		}
		if x != nil { // else it is half made
			all[name] = x
		}
	}
	return all, errors.Join(errs...)
}

func readOne(root *os.Root, name string) (*Index, error) {
	folder, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return readIndex(folder)
}

// ReadContents fills in what the kept files say of themselves. It reads each of them whole, so it is for those who are
// going to install them. The error is that of the first one that cannot be used.
func (x *Index) ReadContents(root *os.Root) (damage error) {
	for i := range x.Packages {
		k := &x.Packages[i]
		if err := k.readContents(root); err != nil {
			k.Damage = err.Error()
			damage = cmp.Or(damage, err)
		}
	}
	return damage
}

func (k *Kept) readContents(root *os.Root) error {
	file, err := k.Open(root)
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
	k.Control, k.Sums = archive.Package, Expected(archive.Md5sums, k.Excluded)
	return nil
}

// FindRefused asks whether the container's rules, which may have changed since, let dpkg leave out all of which a file has placeholders.
func (x *Index) FindRefused(db *deb.Database) error {
	for i := range x.Packages {
		k := &x.Packages[i]
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

// Expected takes what was left out from the checksums of a package's files, whatever the rules say by now.
func Expected(sums map[string]string, excluded []deb.Excluded) map[string]string {
	for _, e := range excluded {
		delete(sums, strings.TrimPrefix(e.Path, "/"))
	}
	return sums
}

func readIndex(root *os.Root) (*Index, error) {
	file, _, err := foreign.Open(root, IndexName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the packages from before: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, indexLimit))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", filepath.Join(root.Name(), IndexName), err)
	}
	return parseIndex(filepath.Join(root.Name(), IndexName), data)
}

func parseIndex(name string, data []byte) (*Index, error) {
	var x Index
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if x.Schema != schema {
		return nil, fmt.Errorf("cannot read %s: it has schema %d, this program knows %d: update the collection", name, x.Schema, schema)
	}
	return &x, nil
}

// Open opens a kept file whose size and checksum are as the index says.
func (k Kept) Open(root *os.Root) (*os.File, error) {
	file, _, err := foreign.Open(root, k.File)
	if err != nil {
		return nil, fmt.Errorf("cannot open the kept %s: %w", k.Name, err)
	}
	if err := patchset.Verify(k.Deb(), file); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot use the kept %s: %w", k.Name, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot use the kept %s: %w", k.Name, err)
	}
	return file, nil
}

// Deb is the package as one that can be verified and copied like one of a patch set.
func (k Kept) Deb() patchset.Package {
	return patchset.Package{Name: k.Name, Version: k.Version, File: k.File, Size: k.Size, SHA256: k.SHA256}
}

// Save repacks the named packages of the container that source is the root of into dir, reads each back, and writes the index x with them: what it has
// of these packages is replaced, and of others stays. It returns warnings about files that were not as the distribution shipped them: they are kept
// as they are.
func Save(ctx context.Context, dir string, x Index, source *os.Root, packages []string) (warnings []string, err error) {
	return save(ctx, dir, x, source, packages, func([]Kept) error { return nil })
}

// Keep does the same with what is to be brought back one day, which is the distribution's alone: each package is judged once more when it is packed.
func (k Known) Keep(ctx context.Context, dir string, x Index, source *os.Root, packages []string) (warnings []string, err error) {
	return save(ctx, dir, x, source, packages, func(packed []Kept) error {
		db, err := deb.OpenDatabase(source)
		if err != nil {
			return err
		}
		for _, kept := range packed {
			p, _ := db.Package(kept.Name)
			if p.Version != kept.Version {
				return fmt.Errorf("cannot keep %s: it was %s a moment ago and is %s now, so somebody else is at work there", kept.Name, kept.Version, p.Version)
			}
			if j := k.JudgeIn(db, p); j.Whose != Stock {
				return fmt.Errorf("cannot keep %s %s: it is not the distribution's", p.Name, p.Version)
			}
		}
		return nil
	})
}

func save(ctx context.Context, dir string, x Index, source *os.Root, packages []string, check func(packed []Kept) error) (warnings []string, err error) {
	root, err := makeFolder(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	db, err := deb.OpenDatabase(source)
	if err != nil {
		return nil, err
	}
	var packed []Kept
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
			warnings = append(warnings, fmt.Sprintf("%s of %s is %s already; it is kept so", f.Path, name, f.Kind))
		}
		if report.Unlisted > 0 {
			warnings = append(warnings, fmt.Sprintf("dpkg lists %d paths of %s that path-exclude left out: they are too many, and it will no longer list them when the package is brought back",
				report.Unlisted, name))
		}
		packed = append(packed, k)
	}
	if err := check(packed); err != nil {
		return nil, err
	}
	x.Packages = append(slices.DeleteFunc(slices.Clone(x.Packages), func(k Kept) bool { return slices.Contains(packages, k.Name) }), packed...)
	return warnings, x.write(root)
}

// Write writes the index alone.
func (x Index) Write(dir string) error {
	root, err := makeFolder(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return x.write(root)
}

func makeFolder(dir string) (*os.Root, error) {
	if err := statedir.MakeFolder(dir); err != nil {
		return nil, fmt.Errorf("cannot keep packages: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot keep packages: %w", err)
	}
	return root, nil
}

// Sweep removes files that the index does not name: of an earlier baseline, or of a run that was killed. Beside an index that could not be read they stay:
// nobody knows whose they are, and a person may.
func (x Index) Sweep(root *os.Root) error {
	if _, err := root.Lstat(unreadName); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("cannot clean up the packages from before: %w", err)
	}
	for _, e := range entries {
		named := slices.ContainsFunc(x.Packages, func(k Kept) bool { return k.File == e.Name() })
		if !named && e.Name() != IndexName {
			err = errors.Join(err, root.Remove(e.Name()))
		}
	}
	return err
}

func repack(ctx context.Context, root *os.Root, db *deb.Database, p deb.Package) (k Kept, report deb.RepackReport, err error) {
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
	k = Kept{Name: p.Name, Version: p.Version, BuiltFrom: p.SourceVersion, Held: p.Status.Want == "hold", Excluded: report.Excluded}
	if err := readBack(file, &k); err != nil {
		return k, report, err
	}
	k.File = p.Name + "_" + k.SHA256 + ".deb" // never in the place of one that the index names
	return k, report, root.Rename(part, k.File)
}

// readBack proves that what lies on the disk is the package, whole, and fills in its size and checksum.
func readBack(file *os.File, k *Kept) error {
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

// write writes the index, and then removes what it does not name.
func (x Index) write(root *os.Root) error {
	if _, err := readIndex(root); err != nil {
		if err := root.Rename(IndexName, unreadName); err != nil {
			return fmt.Errorf("cannot put an index aside that cannot be read: %w", err)
		}
	}
	x.Schema, x.Packages = schema, append([]Kept{}, x.Packages...)
	slices.SortFunc(x.Packages, func(a, b Kept) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= indexLimit {
		return fmt.Errorf("cannot write the index of kept packages: it would have %d bytes", len(data))
	}
	if err := statedir.WriteWhole(root, IndexName, append(data, '\n')); err != nil {
		return fmt.Errorf("cannot write the index of kept packages: %w", err)
	}
	return x.Sweep(root)
}

// Forget removes a folder and all that is kept in it, the index first.
func Forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, IndexName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget the packages from before: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot forget the packages from before: %w", err)
	}
	return nil
}
