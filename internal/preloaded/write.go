package preloaded

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// The moments of Write, in the order in which they come where both files are put: for tests that let the program die.
const (
	LibraryPart = "library part" // it is written beside its place, whole
	LibraryPut  = "library"      // it is there, or is gone
	ListPart    = "list part"
	ListPut     = "list"
)

// Write makes both files what they are to be. At no moment a list names a library that is missing or cut: that is put first and taken last, and
// replaced by a rename. hit is told of each moment. Where an error is returned the files are as before, or as far as it came.
func Write(root *os.Root, want Files, hit func(moment string)) error {
	if want.listed() {
		if !usable(want.Library.data()) {
			return errors.New("cannot have a list name a library that no program can load")
		}
		if err := writeLibrary(root, want, hit); err != nil {
			return err
		}
		return writeList(root, want, hit)
	}
	if err := writeList(root, want, hit); err != nil {
		return err
	}
	return writeLibrary(root, want, hit)
}

// Tidy removes what a run that was killed has left beside the two files, and tells whether there was something.
func Tidy(root *os.Root) (left bool, all error) {
	for _, name := range []string{listPart, libraryPart} {
		// What is not there is not to be removed from a filesystem that may be read-only.
		if _, err := root.Lstat(name); err != nil {
			continue
		}
		left = true
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, fmt.Errorf("cannot remove /%s: %w", name, err))
		}
	}
	return left, all
}

func writeList(root *os.Root, want Files, hit func(string)) error {
	if want.List == nil {
		return remove(root, listName, hit, ListPut)
	}
	return replace(root, listName, listPart, want.List, hit, ListPart, ListPut)
}

func writeLibrary(root *os.Root, want Files, hit func(string)) error {
	if want.Library != nil {
		if err := makeFolder(root); err != nil {
			return fmt.Errorf("cannot make /%s: %w", folderName, err)
		}
		return replace(root, libraryName, libraryPart, want.Library, hit, LibraryPart, LibraryPut)
	}
	if err := remove(root, libraryName, hit, LibraryPut); err != nil || want.Folder {
		return err
	}
	switch err := root.Remove(folderName); { // it goes where nothing else is in it
	case err == nil:
		return syncFolder(root, path.Dir(folderName))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist): // ENOTEMPTY is the latter
		return nil
	default:
		return fmt.Errorf("cannot remove /%s: %w", folderName, err)
	}
}

// makeFolder also opens one to all that a run left which died before it did: a library that its user cannot read is none.
func makeFolder(root *os.Root) error {
	if err := root.Mkdir(folderName, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Lstat(folderName)
	if err == nil && info.Mode().Perm() != 0o755 {
		err = root.Chmod(folderName, 0o755)
	}
	if err != nil {
		return err
	}
	return syncFolder(root, path.Dir(folderName))
}

func remove(root *os.Root, name string, hit func(string), moment string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncFolder(root, path.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("cannot remove /%s: %w", name, err)
	}
	hit(moment)
	return nil
}

// replace writes a file under another name beside its place, reads it back, and renames it. One that is there already as it is to be stays.
func replace(root *os.Root, name, part string, want *File, hit func(string), written, put string) (err error) {
	if now, err := readFile(root, name, int64(len(want.Data))); err == nil && now.Equal(want) {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write /%s: %w", name, err)
			_ = root.Remove(part)
		}
	}()
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(want.Data)
	if err == nil {
		err = errors.Join(file.Chown(want.UID, want.GID), file.Chmod(want.Mode)) // in this order: a new owner takes bits of the mode
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := reads(root, part, want); err != nil {
		return err
	}
	hit(written)
	if err := root.Rename(part, name); err != nil {
		return err
	}
	if err := syncFolder(root, path.Dir(name)); err != nil {
		return err
	}
	hit(put)
	return reads(root, name, want)
}

func reads(root *os.Root, name string, want *File) error {
	now, err := readFile(root, name, int64(len(want.Data)))
	if err == nil && !bytes.Equal(now.Data, want.Data) {
		err = errors.New("it does not read as it was written")
	}
	return err
}

// syncFolder makes renames and removals in a folder of the container last through a power cut.
func syncFolder(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
