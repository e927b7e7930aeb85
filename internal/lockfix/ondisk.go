package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

const (
	diskLimit  = 10 * time.Minute // for one container, on a disk that others keep busy
	diskAtOnce = 16               // fsyncs that are under way together share writes of the filesystem's log
	lately     = 10 * time.Second // before the run began to change something: clocks of files are coarse
	longAgo    = time.Hour        // what a dead run wrote before that the kernel has written by itself: it waits half a minute
	walkDepth  = 32               // folders below each other; kolla's images have 12
	walkLimit  = 200_000          // files and folders that are looked at; kolla's images have 10,000 there
)

// Below a container's root.
var (
	// placesOfScripts are those that maintainer scripts and triggers write to (ld.so.cache, alternatives, links of units), dpkg's database among them.
	placesOfScripts = []string{"etc", "var"}
	// placesOfOthers are in those, large, and no package's: kolla's virtual environments.
	placesOfOthers = []string{"var/lib/kolla"}
	// dpkgFiles are synced in any case. What was ours for the time of the install is gone, and is to stay so.
	dpkgFiles = []string{"var/lib/dpkg/status", "var/lib/dpkg/updates", infoDir, policyFile, privateDir}
)

const infoDir = "var/lib/dpkg/info"

// putOnDisk makes what was done outlast a power cut, in all containers at once, before the journal and the baseline let go of it. dpkg itself does that for its
// database, and for files only where it is not configured with force-unsafe-io, as it is in most images. See docs/decisions/0023-on-disk.md.
// A container in which it fails is not done: the next run finds it in the journal.
func (j *job) putOnDisk(ctx context.Context, all []*work, began time.Time) {
	var group errgroup.Group
	for _, w := range all {
		if !w.mayHaveWritten() || !w.done && !w.rolledBack || w.gone || w.root == nil {
			continue
		}
		group.Go(func() error {
			if err := w.sync(ctx, began); err != nil {
				w.done, w.rolledBack, w.triedBack = false, false, false // nor is it stuck: the next run tries again
				w.err = errors.Join(w.err, fail("disk", "cannot tell that what was done in %s is on the disk: %w; run again when that is mended", w.Name, err))
			}
			return nil
		})
	}
	_ = group.Wait()
}

// mayHaveWritten: this run, or a dead one.
func (w *work) mayHaveWritten() bool { return len(w.plan.Steps) > 0 || w.seen.Dead != nil }

// endOnDisk makes it last that the journal was ended and baselines were forgotten: else they are back after a power cut, and the next run has something to do.
func (j *job) endOnDisk(all []*work) (failed error) {
	if !slices.ContainsFunc(all, (*work).mayHaveWritten) {
		return nil
	}
	for _, dir := range []string{j.dir, filepath.Join(j.dir, "baseline"), j.journal.dir} {
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(statedir.SyncFolder(root), root.Close())
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("cannot tell that %s is on the disk: %w", dir, err))
		}
	}
	return failed
}

// sync is for what this run changed, and what a dead one may have.
func (w *work) sync(ctx context.Context, began time.Time) error {
	root, library, age := w.root, w.before.Library != nil, time.Since(began)+lately
	if w.seen.Dead != nil {
		age = max(age, longAgo)
	}
	dpkg := w.dpkg && len(w.before.Packages) > 0
	if !dpkg && !library {
		return nil
	}
	_, forget := w.step(Forget)
	var packages []deb.Package
	for _, b := range w.before.Packages {
		if have, ok := w.seen.find(b.Name); ok && (b.Replaced || forget) {
			packages = append(packages, have)
		}
	}
	_, err := within(context.WithoutCancel(ctx), diskLimit, func() (none struct{}, err error) {
		s := syncing{root: root, now: time.Now(), age: age, files: map[string]bool{}, folders: map[string]bool{}}
		if dpkg {
			err = s.addPackages(packages)
		}
		if library {
			s.add(preload.Library, preload.List)
		}
		if err == nil {
			err = s.sync()
		}
		return none, err
	})
	return err
}

// lookForHollow looks, on the way back, at those of QEMU's packages of which this host keeps nothing: there is no other way to see that a power cut, or a disk,
// has left them without content. The kept ones are compared by their checksums.
func (t *target) lookForHollow(o Options) error {
	if !o.absent() || !o.packages() {
		return nil
	}
	compared := keptSums(t.seen.Kept)
	for _, have := range t.seen.Packages {
		if have.Source != "qemu" || have.Status.State != "installed" || compared[have.Name].version == have.Version {
			continue
		}
		problems, err := t.db.Hollow(have)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			t.seen.Hollow = append(t.seen.Hollow, HollowPackage{have, problems})
		}
	}
	return nil
}

// HollowPackage is one of the distribution's without content.
type HollowPackage struct {
	deb.Package
	Problems []deb.FileProblem
}

// refuseHollow: a container is not as it was while a program in it has no content. What else there is to take back is taken back.
func (p *ContainerPlan) refuseHollow() {
	var found, apt []string
	install, _ := p.step(Install)
	for _, h := range p.Seen.Hollow {
		if slices.Contains(install.Packages, h.Name) {
			continue
		}
		text := h.Problems[0].String()
		if more := len(h.Problems) - 1; more > 0 {
			text += fmt.Sprintf(", and %d more files of it", more)
		}
		found, apt = append(found, h.Name+": "+text), append(apt, h.Name+"="+h.Version)
	}
	if p.Failure != nil || len(found) == 0 {
		return
	}
	f := &Failure{
		Step: "plan", Message: fmt.Sprintf("cannot call %s as it was: dpkg calls these installed, and this host keeps nothing of them: %s",
			p.Seen.Name, strings.Join(found, "; ")),
		Hint: "recreate the container from its image, or run as root inside it: apt-get update && apt-get install --reinstall " + strings.Join(apt, " "),
	}
	if !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Verb != Forget }) {
		p.Failure = f
		return
	}
	p.Notes = append(p.Notes, f.Message+"; "+f.Hint)
}

// syncing is a set of files, and of folders, below a root.
type syncing struct {
	root           *os.Root
	files, folders map[string]bool
	now            time.Time
	age            time.Duration // of what addRecent adds, at most
	walked         int
}

// add takes names as dpkg lists them. What is there decides what becomes of each; the folder that it is in, or was in, counts in any case.
func (s *syncing) add(names ...string) {
	for _, name := range names {
		name = path.Clean("./" + name)
		s.folders[path.Dir(name)] = true
		switch info, err := s.root.Lstat(name); {
		case err != nil: // left out by path-exclude, or gone
		case info.IsDir():
			s.folders[name] = true
		case info.Mode().IsRegular():
			s.files[name] = true
		}
	}
}

// addPackages adds the packages' files, what dpkg knows of them, and what was changed lately where scripts write.
func (s *syncing) addPackages(packages []deb.Package) error {
	s.add(dpkgFiles...)
	db, err := deb.OpenDatabase(s.root)
	if err != nil {
		return err
	}
	for _, p := range packages {
		files, err := db.Files(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.add(files...)
	}
	info, err := s.root.Open(infoDir)
	if err != nil {
		return err
	}
	names, err := info.Readdirnames(-1)
	info.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, p := range packages {
			if rest, ok := strings.CutPrefix(name, p.Name); ok && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, ":")) {
				s.add(path.Join(infoDir, name))
			}
		}
	}
	for _, place := range placesOfScripts {
		if err := s.addRecent(place); err != nil {
			return err
		}
	}
	return nil
}

// addRecent adds what was changed lately below a folder, or will have been when a clock that was set back comes there again. No other filesystem is gone into,
// or asked: one that is mounted there may never answer.
func (s *syncing) addRecent(place string) error {
	folder, err := s.root.OpenFile(place, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.Close()
	var home unix.Statx_t
	if err := unix.Statx(int(folder.Fd()), "", unix.AT_EMPTY_PATH|statQuietly, statWanted, &home); err != nil {
		return &fs.PathError{Op: "look at", Path: place, Err: err}
	}
	return s.walk(folder, place, home, walkDepth)
}

const (
	statQuietly = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	statWanted  = unix.STATX_TYPE | unix.STATX_CTIME | unix.STATX_MNT_ID
)

func (s *syncing) walk(folder *os.File, place string, home unix.Statx_t, depth int) error {
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return &fs.PathError{Op: "look into", Path: place, Err: err}
	}
	if s.walked += len(names); s.walked > walkLimit {
		return fmt.Errorf("there are more than %d files below /%s", walkLimit, strings.Join(placesOfScripts, " and /"))
	}
	for _, name := range names {
		var is unix.Statx_t
		err := unix.Statx(int(folder.Fd()), name, statQuietly, statWanted, &is)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "look at", Path: path.Join(place, name), Err: err}
		}
		below, kind := path.Join(place, name), is.Mode&unix.S_IFMT
		// Kernels before 5.8 do not tell the mount. Of files the device may be a lower layer's.
		mounted := is.Mask&home.Mask&unix.STATX_MNT_ID != 0 && is.Mnt_id != home.Mnt_id
		if mounted || kind == unix.S_IFDIR && (is.Dev_major != home.Dev_major || is.Dev_minor != home.Dev_minor) {
			continue
		}
		if s.now.Sub(time.Unix(is.Ctime.Sec, int64(is.Ctime.Nsec))).Abs() < s.age {
			switch kind {
			case unix.S_IFDIR:
				s.folders[below] = true
			case unix.S_IFREG:
				s.files[below] = true
			}
		}
		if kind != unix.S_IFDIR || depth == 0 || slices.Contains(placesOfOthers, below) {
			continue
		}
		fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "look into", Path: below, Err: err}
		}
		next := os.NewFile(uintptr(fd), below)
		err = s.walk(next, below, home, depth-1)
		next.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// sync ends when all of it is on the disk.
func (s *syncing) sync() error {
	folders, err := s.above()
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(diskAtOnce)
	for name := range s.files {
		group.Go(func() error {
			file, _, err := foreign.Open(s.root, name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, foreign.ErrNotRegular) {
				return nil // it has been replaced since
			}
			if err != nil {
				return err
			}
			defer file.Close()
			return file.Sync()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, name := range folders {
		group.Go(func() error {
			folder, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				return nil
			}
			if err != nil {
				return err
			}
			defer folder.Close()
			if err := folder.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
				return err
			}
			return nil // a filesystem without fsync(2) for folders has nothing of them that could be lost
		})
	}
	return group.Wait()
}

type inode struct{ dev, ino uint64 }

// above names each folder once, and all above it up to the root. A name of dpkg's may lead through a link, as /lib does: the folders above are those where it
// ends.
func (s *syncing) above() (names []string, err error) {
	known := map[inode]bool{}
	top, err := s.folder(".")
	if err != nil {
		return nil, err
	}
	known[top], names = true, []string{"."}
	for name := range s.folders {
		for depth := 0; ; depth++ {
			id, err := s.folder(name)
			if depth > 2*walkDepth {
				return nil, fmt.Errorf("/%s has too many folders above it", name)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				name = path.Dir(name) // it has been removed
				continue
			}
			if err != nil {
				return nil, err
			}
			if known[id] {
				break
			}
			known[id], names = true, append(names, name)
			name += "/.."
		}
	}
	return names, nil
}

func (s *syncing) folder(name string) (inode, error) {
	handle, err := s.root.OpenFile(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return inode{}, err
	}
	defer handle.Close()
	var is unix.Stat_t
	err = unix.Fstat(int(handle.Fd()), &is)
	return inode{is.Dev, is.Ino}, err
}
