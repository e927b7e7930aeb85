package patchset

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// Store is the host's folder of .deb files, each named after its checksum. Folders have mode 0700 and files 0600,
// whatever the umask. The caller sees to it that one process at a time adds to it.
type Store struct {
	dir  string
	root *os.Root // nil: the folder does not exist
}

const partSuffix = ".part" // of a file that is being copied

// OpenStore opens the store; the caller closes it. Without create nothing is changed, and a folder that does not exist
// is an empty store. With create it is made, and what a killed run left half copied is removed; what it left half fetched
// stays, see Part.
func OpenStore(dir string, create bool) (*Store, error) {
	s := &Store{dir: dir}
	if create {
		if err := statedir.MakeFolder(dir); err != nil {
			return nil, fmt.Errorf("cannot create store %s: %w", dir, err)
		}
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) && !create {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open store %s: %w", dir, cause(err))
	}
	s.root = root
	if err := s.prepare(create); err != nil {
		root.Close()
		return nil, fmt.Errorf("cannot use store %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) prepare(create bool) error {
	info, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	if err := CheckOwner(info); err != nil {
		return err
	}
	if !create {
		return nil
	}
	if info.Mode().Perm() != 0o700 {
		if err := s.root.Chmod(".", 0o700); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), partSuffix) && !isKeptPart(e.Name()) {
			err = errors.Join(err, s.root.Remove(e.Name()))
		}
	}
	return err
}

// CheckOwner refuses what is not the running user's own: whoever else owns a file can change it after it was checked.
func CheckOwner(info fs.FileInfo) error {
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, not to %d", owner, os.Geteuid())
	}
	return nil
}

// Close releases the folder; files that are open stay open.
func (s *Store) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

// Open opens the package's file, which is as the manifest says. A file that is not, whoever damaged it, counts as
// missing: the error then is fs.ErrNotExist, and Add replaces it.
func (s *Store) Open(p Package) (*os.File, error) {
	missing := fmt.Errorf("%s (%s) is not in store %s: %w", p.Name, p.File, s.dir, fs.ErrNotExist)
	if s.root == nil {
		return nil, missing
	}
	name, err := storeName(p)
	if err != nil {
		return nil, err
	}
	info, err := s.root.Lstat(name) // os.Root follows links, also with O_NOFOLLOW
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read store %s: %w", s.dir, cause(err))
	}
	if !info.Mode().IsRegular() || info.Size() != p.Size || CheckOwner(info) != nil {
		return nil, missing
	}
	file, err := s.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read store %s: %w", s.dir, cause(err))
	}
	if err := Verify(p, file); err != nil {
		file.Close()
		return nil, missing
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot read store %s: %w", s.dir, cause(err))
	}
	return file, nil
}

// Add copies the file named from, which stays where it is, into the store.
func (s *Store) Add(ctx context.Context, p Package, from string) error {
	file, err := OpenFile(p, from)
	if err != nil {
		return err
	}
	defer file.Close()
	return s.addFrom(ctx, p, file)
}

// addFrom copies r into the store, checking size and checksum on the way. After an error nothing half copied is left.
func (s *Store) addFrom(ctx context.Context, p Package, r io.Reader) error {
	name, err := storeName(p)
	if err != nil {
		return err
	}
	if s.root == nil {
		return fmt.Errorf("cannot store %s: %s does not exist", p.Name, s.dir)
	}
	part := name + "." + rand.Text() + partSuffix
	err = s.copy(ctx, p, part, r)
	if err == nil {
		err = s.root.Rename(part, name)
	}
	if err == nil {
		return s.sync()
	}
	_ = s.root.Remove(part) // may not exist; the first error matters
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("cannot store %s in %s: %w: it needs %d bytes, %s", p.Name, s.dir, cause(err), p.Size, s.free())
	}
	return fmt.Errorf("cannot store %s in %s: %w", p.Name, s.dir, cause(err))
}

func (s *Store) copy(ctx context.Context, p Package, part string, r io.Reader) (err error) {
	file, err := s.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := file.Close(); err == nil {
			err = e
		}
	}()
	if err := file.Chmod(0o600); err != nil {
		return err
	}
	if err := verify(p, untilDone{ctx, r}, file); err != nil {
		return err
	}
	return file.Sync()
}

// sync makes the rename last through a power cut.
func (s *Store) sync() error {
	dir, err := s.root.Open(".")
	if err != nil {
		return fmt.Errorf("cannot sync store %s: %w", s.dir, cause(err))
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot sync store %s: %w", s.dir, cause(err))
	}
	return nil
}

// free is asked after the half copied file is gone.
func (s *Store) free() string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return "how much is free is unknown"
	}
	return fmt.Sprintf("%d are free", st.Bavail*uint64(st.Bsize))
}

// storeName does not trust that the package came from ParseManifest.
func storeName(p Package) (string, error) {
	if !isSHA256(p.SHA256) {
		return "", fmt.Errorf("cannot name %s in the store: sha256 is %s, it must be 64 lower-case hex digits", p.Name, quote(p.SHA256))
	}
	return p.SHA256 + ".deb", nil
}

// untilDone stops a copy between two reads.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(buf []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := u.r.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("cannot read what is to be copied: %w", err)
	}
	return n, err
}

// Keep removes every file but those of the packages: earlier patch sets', and what somebody put there.
func (s *Store) Keep(packages []Package) error {
	if s.root == nil {
		return nil
	}
	entries, err := fs.ReadDir(s.root.FS(), ".")
	for _, e := range entries {
		wanted := slices.ContainsFunc(packages, func(p Package) bool { return p.SHA256+".deb" == e.Name() })
		if !wanted {
			err = errors.Join(err, s.root.RemoveAll(e.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot tidy store %s: %w", s.dir, cause(err))
	}
	return nil
}
