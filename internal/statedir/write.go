package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// MakeFolder makes dir, and what is missing above it, for its owner alone whatever the umask, and sees to it that it is
// still there after a power cut: fsync(2) of a file says nothing of the folder that names it.
func MakeFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := MakeFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	above, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(above.Sync(), above.Close())
}

// WriteWhole is Folder.Write for those who have a folder below open by themselves.
func WriteWhole(root *os.Root, name string, data []byte) error {
	return (&Folder{root, root.Name()}).Write(name, data)
}

// Remove is Folder.Remove for those who have a folder below open by themselves.
func Remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncFolder(root)
}

// SyncFolder makes renames and removals in it last through a power cut.
func SyncFolder(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
