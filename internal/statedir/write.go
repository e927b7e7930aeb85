package statedir

import (
	"errors"
	"io/fs"
	"os"
)

// WriteWhole is Folder.Write for those who have a folder below open by themselves.
func WriteWhole(root *os.Root, name string, data []byte) error {
	part := name + PartSuffix
	file, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, root.Remove(part))
	}
	if err := root.Rename(part, name); err != nil {
		return err
	}
	return SyncFolder(root)
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
