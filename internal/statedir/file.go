package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// PartSuffix is of a file that is being written. One that a run left, which was killed, is replaced by the next one of that name.
const PartSuffix = ".part"

// Open opens a file for reading. The error is fs.ErrNotExist where there is none.
func (f *Folder) Open(name string) (*os.File, fs.FileInfo, error) {
	if f == nil {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err := f.own(name, unix.S_IFREG); err != nil {
		return nil, nil, err
	}
	return foreign.Open(f.root, name)
}

// Read reads a file whole. One of more than most bytes is an error.
func (f *Folder) Read(name string, most int64) ([]byte, error) {
	file, _, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := foreign.ReadAtMost(file, most)
	var large *foreign.TooLargeError
	if errors.As(err, &large) {
		err = &fs.PathError{Op: "read", Path: filepath.Join(f.path, name), Err: err}
	}
	return data, err
}

// Write writes a file so that after a power cut the former one is there or this one, never a part. It is on the disk when it returns.
func (f *Folder) Write(name string, data []byte) error {
	file, err := f.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Commit()
}

// File is one that is being written, beside the one that it is to replace.
type File struct {
	*os.File
	folder *Folder
	name   string
	done   bool
}

// Create begins a file. The caller closes it, and has called Commit before, or nothing is left of it.
func (f *Folder) Create(name string) (*File, error) {
	if f == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: errors.New("there is no folder for it")}
	}
	if err := local(name); err != nil {
		return nil, err
	}
	if err := f.root.Remove(name + PartSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := f.root.OpenFile(name+PartSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	made := &File{File: file, folder: f, name: name}
	if err := file.Chmod(0o600); err != nil { // whatever the umask
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// Commit puts the file in its place, under its name. Both are on the disk when it returns.
func (f *File) Commit() error { return f.CommitAs(f.name) }

// CommitAs is Commit under a name that was not known before, as one with a checksum in it.
func (f *File) CommitAs(name string) error {
	if err := local(name); err != nil {
		return err
	}
	err := f.Sync()
	if err == nil {
		err = f.folder.root.Rename(f.name+PartSuffix, name)
	}
	if err != nil {
		return err
	}
	f.done = true
	return f.folder.Sync()
}

// Close closes the file, and removes it if it was not put in its place.
func (f *File) Close() error {
	err := f.File.Close()
	if !f.done {
		err = errors.Join(err, f.folder.root.Remove(f.name+PartSuffix))
		f.done = true
	}
	return err
}

// Append opens a file that is there to write at its end, as a journal. What is written is not on the disk before the file's Sync returns.
func (f *Folder) Append(name string) (*os.File, error) {
	if err := f.own(name, unix.S_IFREG); err != nil {
		return nil, err
	}
	return f.root.OpenFile(name, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// Rename gives a file or folder another name in the same folder, in place of a file that has it. That is on the disk when it returns.
func (f *Folder) Rename(name, other string) error {
	if err := errors.Join(local(name), local(other)); err != nil {
		return err
	}
	if err := f.root.Rename(name, other); err != nil {
		return err
	}
	return f.Sync()
}

// Remove removes a file, if it is there. That is on the disk when it returns.
func (f *Folder) Remove(name string) error {
	if f == nil {
		return nil
	}
	err := f.own(name, unix.S_IFREG)
	if err == nil {
		err = f.root.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// RemoveFolder removes a folder and all in it, if it is there. Where anything in it is not ours, a link, or mounted there, nothing is removed.
func (f *Folder) RemoveFolder(name string) error {
	below, err := f.Folder(name)
	if f == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = below.look()
	below.Close()
	if err != nil {
		return &fs.PathError{Op: "remove", Path: filepath.Join(f.path, name), Err: err}
	}
	if err := f.root.RemoveAll(name); err != nil {
		return err
	}
	return f.Sync()
}
