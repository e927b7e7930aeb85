package patchset

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Folder is a patch set in a folder of this host. Links that lead out of it are not followed.
type Folder struct {
	root *os.Root
}

// OpenFolder opens the folder; the caller closes it.
func OpenFolder(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open patch set %s: %w", dir, cause(err))
	}
	return &Folder{root}, nil
}

// Close releases the folder; files that are open stay open.
func (f *Folder) Close() error { return f.root.Close() }

// Manifest is the text of manifest.yml, as it is.
func (f *Folder) Manifest() ([]byte, error) { return f.text(ManifestName, MaxManifestSize) }

// Signature is what manifest.yml.sig holds. The cause is fs.ErrNotExist where the set has none.
func (f *Folder) Signature() ([]byte, error) { return f.text(SignatureName, MaxSignatureSize) }

func (f *Folder) text(name string, most int) (data []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", filepath.Join(f.root.Name(), name), cause(err))
		}
	}()
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	data, err = io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err == nil && len(data) > most {
		return nil, fmt.Errorf("it has more than %d bytes", most)
	}
	return data, err
}

// Open opens the package's file. Its size is right; its checksum is for Verify, or for Store.Add while it copies.
func (f *Folder) Open(p Package) (*os.File, error) {
	name := filepath.Join(f.root.Name(), p.File)
	return sized(p, name, func() (*os.File, error) {
		return f.root.OpenFile(p.File, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	})
}

// OpenFile opens the package's file somewhere on this host, such as an upload. Like Folder.Open it checks the size
// alone. A symbolic link is refused: whoever may write to the folder could point it at a file that only root may read.
func OpenFile(p Package, name string) (*os.File, error) {
	return sized(p, name, func() (*os.File, error) {
		return os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	})
}

// sized opens with O_NONBLOCK, so that a FIFO is refused rather than waited for.
func sized(p Package, name string, open func() (*os.File, error)) (file *os.File, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot use %s for %s: %w", name, p.Name, cause(err))
		}
	}()
	file, err = open()
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("it is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case info.Size() != p.Size:
		err = fmt.Errorf("it has %d bytes, the manifest says %d", info.Size(), p.Size)
	default:
		return file, nil
	}
	file.Close()
	return nil, err
}

// Verify reads r to its end, or to one byte more than the package may have, and compares size and checksum.
func Verify(p Package, r io.Reader) error {
	return verify(p, r, io.Discard)
}

// verify also copies what it reads to w.
func verify(p Package, r io.Reader, w io.Writer) error {
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(sum, w), io.LimitReader(r, p.Size+1))
	if err != nil {
		return err
	}
	if n > p.Size {
		return fmt.Errorf("file %s of package %s is longer than the %d bytes in the manifest", p.File, p.Name, p.Size)
	}
	if n < p.Size {
		return fmt.Errorf("file %s of package %s has %d bytes, the manifest says %d", p.File, p.Name, n, p.Size)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("file %s of package %s has sha256 %s, the manifest says %s", p.File, p.Name, got, p.SHA256)
	}
	return nil
}

// cause drops the operation and path of a file error, for messages that name the file themselves.
func cause(err error) error {
	switch err := err.(type) { //nolint:errorlint // one that is wrapped has words around it that must stay
	case *os.PathError:
		return err.Err
	case *os.LinkError:
		return err.Err
	}
	return err
}
