package patchset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// ErrOtherContent is the cause when a file has the right size and another checksum than the manifest says.
var ErrOtherContent = errors.New("its checksum is not the one in the manifest")

// Part is a package's file on its way into the store from afar, piece by piece. What has come stays in the store's folder,
// so that a later try, or a later run, goes on from there. Every byte goes into the checksum, also those of an earlier run.
type Part struct {
	store *Store
	pkg   Package
	name  string // the file's, when it is whole
	file  *os.File
	sum   hash.Hash
	size  int64 // bytes so far
}

// partName has no random piece, as those of addFrom have: the next run has to find it.
func partName(name string) string { return name + partSuffix }

// isKeptPart says whether a file in the store is one that a later run may go on with.
func isKeptPart(name string) bool {
	sum, found := strings.CutSuffix(name, partName(".deb"))
	return found && isSHA256(sum)
}

// Part opens what has come of the package's file so far, or begins it. The caller closes it.
func (s *Store) Part(ctx context.Context, p Package) (*Part, error) {
	name, err := storeName(p)
	if err != nil {
		return nil, err
	}
	if s.root == nil {
		return nil, fmt.Errorf("cannot store %s: %s does not exist", p.Name, s.dir)
	}
	part := &Part{store: s, pkg: p, name: name, sum: sha256.New()}
	if err := part.open(ctx); err != nil {
		if part.file != nil {
			part.file.Close()
		}
		return nil, fmt.Errorf("cannot store %s in %s: %w", p.Name, s.dir, cause(err))
	}
	return part, nil
}

func (a *Part) open(ctx context.Context) error {
	name := partName(a.name)
	info, err := a.store.root.Lstat(name)
	if err == nil && (!info.Mode().IsRegular() || CheckOwner(info) != nil || info.Size() > a.pkg.Size) {
		err = a.store.root.RemoveAll(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if a.file, err = a.store.root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600); err != nil {
		return err
	}
	if err := a.file.Chmod(0o600); err != nil {
		return err
	}
	a.size, err = io.Copy(a.sum, untilDone{ctx, a.file})
	return err
}

// Size is how many bytes have come.
func (a *Part) Size() int64 { return a.size }

// Write appends. More than the package may have is refused, and nothing of it is written.
func (a *Part) Write(b []byte) (n int, err error) {
	if int64(len(b)) > a.pkg.Size-a.size {
		return 0, fmt.Errorf("file %s of package %s is longer than the %d bytes in the manifest", a.pkg.File, a.pkg.Name, a.pkg.Size)
	}
	n, err = a.file.Write(b)
	a.sum.Write(b[:n])
	a.size += int64(n)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The room is given back. What had come is worth less than a host that works.
		return n, fmt.Errorf("cannot store %s in %s: %w: it needs %d bytes, %s", a.pkg.Name, a.store.dir, cause(err), a.pkg.Size, a.discarded())
	}
	if err != nil {
		return n, fmt.Errorf("cannot store %s in %s: %w", a.pkg.Name, a.store.dir, cause(err))
	}
	return n, nil
}

func (a *Part) discarded() string {
	_ = a.Restart() // the first error matters
	return a.store.free()
}

// Restart throws away what has come.
func (a *Part) Restart() error {
	a.sum.Reset()
	a.size = 0
	err := a.file.Truncate(0)
	if err == nil {
		_, err = a.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("cannot store %s in %s: %w", a.pkg.Name, a.store.dir, cause(err))
	}
	return nil
}

// Commit checks size and checksum and gives the file its place in the store, where it outlasts a power cut. The cause is
// ErrOtherContent where the checksum is wrong.
func (a *Part) Commit() error {
	if a.size != a.pkg.Size {
		return fmt.Errorf("file %s of package %s has %d bytes, the manifest says %d", a.pkg.File, a.pkg.Name, a.size, a.pkg.Size)
	}
	if got := hex.EncodeToString(a.sum.Sum(nil)); got != a.pkg.SHA256 {
		return fmt.Errorf("file %s of package %s has sha256 %s, the manifest says %s: %w", a.pkg.File, a.pkg.Name, got, a.pkg.SHA256, ErrOtherContent)
	}
	err := a.file.Sync()
	if err == nil {
		err = a.store.root.Rename(partName(a.name), a.name)
	}
	if err != nil {
		return fmt.Errorf("cannot store %s in %s: %w", a.pkg.Name, a.store.dir, cause(err))
	}
	return a.store.sync()
}

// Discard removes what has come; the Part is of no further use.
func (a *Part) Discard() error { return a.store.root.Remove(partName(a.name)) }

// Close ends this try. What has come stays, for a later one.
func (a *Part) Close() error { return a.file.Close() }
