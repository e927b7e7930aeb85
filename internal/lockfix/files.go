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
	source source
	sha256 string          // of the manifest
	signer string          // of the manifest; empty where a signature is not asked for
	store  *patchset.Store // nil: the source's files are opened where they are
	// scratch takes the store's place in check mode, which leaves the host as it is: a private folder in $TMPDIR, or /tmp.
	scratch    *patchset.Store
	scratchDir string
}

// openSet reads the manifest and finds out where its files are. Nothing is made or changed.
func openSet(ctx context.Context, o Options) (m patchset.Manifest, f *files, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), o.timeIsUp())
	defer cancel()
	from, err := openSource(o)
	if err != nil {
		return m, nil, err
	}
	f = &files{source: from}
	if m, err = f.readManifest(ctx, o); err != nil {
		from.Close()
		return m, nil, err
	}
	return m, f, nil
}

// readManifest believes nothing that the manifest says before its checksum and its signature are what was asked for.
func (f *files) readManifest(ctx context.Context, o Options) (m patchset.Manifest, err error) {
	text, err := f.source.Manifest(ctx)
	if err != nil {
		return m, err
	}
	if f.sha256 = patchset.Digest(text); o.ManifestSHA256 != "" && f.sha256 != o.ManifestSHA256 {
		return m, fmt.Errorf("cannot trust the manifest of %s: its sha256 is %s, manifest_sha256 says %s", o.PatchSet, f.sha256, o.ManifestSHA256)
	}
	if f.signer, err = checkSignature(ctx, o, text, f.source); err != nil {
		return m, err
	}
	if m, err = patchset.ParseManifest(text); err != nil {
		return m, fmt.Errorf("cannot use patch set %s: %w", o.PatchSet, err)
	}
	return m, nil
}

// openStore is for the run that holds the host's lock: the store's folder is made, and what a killed run left half
// copied is removed. In check mode neither is.
func (f *files) openStore(dir string, change bool) (err error) {
	if _, fetches := f.source.(fetcher); fetches {
		f.store, err = patchset.OpenStore(filepath.Join(dir, "store"), change)
	}
	return err
}

func (f *files) close() {
	f.source.Close()
	if f.store != nil {
		f.store.Close()
	}
	if f.scratch != nil {
		f.scratch.Close()
	}
	if f.scratchDir != "" {
		_ = os.RemoveAll(f.scratchDir) // of its owner alone, and in a folder that is tidied
	}
}

// open gives the package's file with size and checksum already proven. The error is fs.ErrNotExist where the store
// lacks it.
func (f *files) open(p patchset.Package) (*os.File, error) {
	if direct, ok := f.source.(opener); ok {
		return proven(direct.Open(p))(p)
	}
	file, err := f.store.Open(p)
	if f.scratch != nil && errors.Is(err, fs.ErrNotExist) {
		return f.scratch.Open(p)
	}
	return file, err
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

// take brings what the store lacks into it, where the next run finds it, or in check mode into the scratch folder. What the
// controller has to send first stays missing.
func (f *files) take(ctx context.Context, need []patchset.Package, change bool) error {
	from, ok := f.source.(fetcher)
	if !ok {
		return nil
	}
	defer f.source.Close() // a server need not wait while dpkg works
	for _, p := range need {
		known, err := f.open(p)
		if err == nil {
			known.Close()
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		to := f.store
		if !change {
			if to, err = f.scratchStore(); err != nil {
				return err
			}
		}
		if err := from.Fetch(ctx, p, to); err != nil && !errors.Is(err, errUpload) {
			return err
		}
	}
	return nil
}

func (f *files) scratchStore() (*patchset.Store, error) {
	if f.scratch != nil {
		return f.scratch, nil
	}
	var err error
	if f.scratchDir, err = os.MkdirTemp("", "nfslock-"); err != nil {
		return nil, fmt.Errorf("cannot look at the packages in check mode: %w", err)
	}
	f.scratch, err = patchset.OpenStore(f.scratchDir, true)
	return f.scratch, err
}

// contents reads the control part of each file and checks that it is the package the manifest says. Those the store
// lacks are returned as missing.
func (f *files) contents(m patchset.Manifest, need []patchset.Package) (contents map[string]deb.Archive, missing []patchset.Package, err error) {
	contents = map[string]deb.Archive{}
	for _, p := range need {
		file, err := f.open(p)
		if f.store != nil && errors.Is(err, fs.ErrNotExist) {
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
		if err := m.Holds(p, archive.Package); err != nil {
			return nil, nil, err
		}
		contents[p.SHA256] = archive
	}
	return contents, missing, nil
}
