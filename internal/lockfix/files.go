package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// files gives the .debs of a patch set, from its folder on this host or from the store.
type files struct {
	folder  *patchset.Folder // nil: they come through the store
	store   *patchset.Store
	uploads map[string]string // sha256 to path, not in the store yet
	sha256  string            // of the manifest
	signer  string            // of the manifest; empty where a signature is not asked for
}

// openSet reads the manifest and finds out where its files are. Nothing is made or changed.
func openSet(o Options) (m patchset.Manifest, f *files, err error) {
	f = &files{uploads: o.Uploads}
	text := []byte(o.Manifest)
	signature := func() ([]byte, error) { return []byte(o.Signature), nil }
	if o.RemoteSrc {
		if f.folder, err = patchset.OpenFolder(o.PatchSet); err != nil {
			return m, nil, err
		}
		if text, err = f.folder.Manifest(); err != nil {
			f.close()
			return m, nil, err
		}
		signature = f.folder.Signature
	}
	if f.sha256 = patchset.Digest(text); o.ManifestSHA256 != "" && f.sha256 != o.ManifestSHA256 {
		f.close()
		return m, nil, fmt.Errorf("cannot trust the manifest of %s: its sha256 is %s, manifest_sha256 says %s", o.PatchSet, f.sha256, o.ManifestSHA256)
	}
	if f.signer, err = checkSignature(o, text, signature); err != nil {
		f.close()
		return m, nil, err
	}
	if m, err = patchset.ParseManifest(text); err != nil {
		f.close()
		return m, nil, fmt.Errorf("cannot use patch set %s: %w", o.PatchSet, err)
	}
	return m, f, nil
}

// openStore is for the run that holds the host's lock: the store's folder is made, and what a killed run left half
// copied is removed. In check mode neither is.
func (f *files) openStore(dir string, change bool) (err error) {
	if f.folder == nil {
		f.store, err = patchset.OpenStore(filepath.Join(dir, "store"), change)
	}
	return err
}

func (f *files) close() {
	if f.folder != nil {
		f.folder.Close()
	}
	if f.store != nil {
		f.store.Close()
	}
}

// open gives the package's file with size and checksum already proven. The error is fs.ErrNotExist where the store
// lacks it.
func (f *files) open(p patchset.Package) (*os.File, error) {
	if f.folder == nil {
		file, err := f.store.Open(p)
		upload, ok := f.uploads[p.SHA256]
		if !ok || !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
		return proven(patchset.OpenFile(p, upload))(p)
	}
	return proven(f.folder.Open(p))(p)
}

// proven reads the whole file once before anybody believes a byte of it.
func proven(file *os.File, err error) func(patchset.Package) (*os.File, error) {
	return func(p patchset.Package) (*os.File, error) {
		if err != nil {
			return nil, err
		}
		err := patchset.Verify(p, file)
		if err == nil {
			_, err = file.Seek(0, io.SeekStart)
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		return file, nil
	}
}

// take puts the uploads into the store, where the next run finds them.
func (f *files) take(ctx context.Context, need []patchset.Package) error {
	for _, p := range need {
		upload, ok := f.uploads[p.SHA256]
		if !ok || f.store == nil {
			continue
		}
		if known, err := f.store.Open(p); err == nil {
			known.Close()
			continue
		}
		if err := f.store.Add(ctx, p, upload); err != nil {
			return err
		}
	}
	return nil
}

// contents reads the control part of each file and checks that it is the package the manifest says. Those the store
// lacks are returned as missing.
func (f *files) contents(need []patchset.Package) (contents map[string]deb.Archive, missing []patchset.Package, err error) {
	contents = map[string]deb.Archive{}
	for _, p := range need {
		file, err := f.open(p)
		if f.folder == nil && errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, p)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		archive, err := deb.ReadArchive(file)
		file.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("cannot use %s of package %s: %w", p.File, p.Name, err)
		}
		if is := archive.Package; is.Name != p.Name || is.Version != p.Version || is.Architecture != p.Architecture {
			return nil, nil, fmt.Errorf("cannot use %s: the manifest says %s %s %s, the file holds %s %s %s", p.File,
				p.Name, p.Version, p.Architecture, is.Name, is.Version, is.Architecture)
		}
		contents[p.SHA256] = archive
	}
	return contents, missing, nil
}
