package deb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Incoming is a package that may be installed, with the checksums of its files, as an Archive has them.
type Incoming struct {
	Package Package
	Sums    map[string]string
}

// Mount is a place below a root where another filesystem, or another part of the same, is mounted.
type Mount struct {
	Path     string // absolute, below the root
	ReadOnly bool
}

// Facts is what dpkg would come upon in one root, apart from its packages. It is plain data.
type Facts struct {
	Settings Settings
	Standing []Refusal // whatever is installed
	Files    []Refusal // by package: its files that dpkg cannot replace
	// Missed are files of packages that dpkg replaces well, and that are not what runs then, or not the root's own.
	Missed []Refusal
	// Links are files that dpkg would make a hard link of, see LinkTrial: a small one of each package.
	Links map[string]string
}

// Facts looks at the places of the files that the packages have or would have. searched is the PATH that dpkg is called with.
func (d *Database) Facts(candidates []Incoming, mounts []Mount, searched string) (Facts, error) {
	config, err := d.config()
	if err != nil {
		return Facts{}, err
	}
	own, _ := d.Package("dpkg")
	f := Facts{Settings: settle(config, own.Version), Links: map[string]string{}}
	if f.Standing, err = readOverrides(d.root, own.Version); err != nil {
		return Facts{}, err
	}
	f.Standing = append(f.Standing, d.lackedPrograms(searched, f.Settings)...)
	f.Standing = append(f.Standing, d.signatures(searched, f.Settings)...)
	diversions, err := d.diversions()
	if err != nil {
		return Facts{}, err
	}
	l := look{Database: d, mounts: mounts, over: map[string]bool{}, diversions: diversions, facts: &f, folders: map[string]*folder{}}
	defer l.close()
	for _, m := range mounts {
		l.over[m.Path] = true
	}
	if l.rules, err = d.rules(); err != nil {
		return Facts{}, err
	}
	l.database(candidates)
	for _, c := range candidates {
		if err := l.candidate(c); err != nil {
			return Facts{}, fmt.Errorf("cannot look at the files of %s: %w", c.Package.Name, err)
		}
	}
	return f, nil
}

// lackedPrograms are those without which dpkg does nothing: src/main/help.c, checkpath.
func (d *Database) lackedPrograms(searched string, s Settings) (refusals []Refusal) {
	if s.forces("bad-path") {
		return nil
	}
	for _, program := range []string{"sh", "rm", "tar", "diff", "dpkg-deb", "ldconfig", "start-stop-daemon"} {
		if d.program(searched, program) == "" {
			refusals = append(refusals, Refusal{
				Where: program, Why: "there is no such program in " + searched + ": dpkg installs nothing",
				Remedy: "put it back into the container, or recreate the container from its image",
			})
		}
	}
	return refusals
}

// signatures: where debsig-verify is installed, and nothing says otherwise, dpkg takes only packages with a signature of its kind
// (its deb_verify). Somebody wanted that, so it is not for an option to set aside.
func (d *Database) signatures(searched string, s Settings) []Refusal {
	const verifier = "debsig-verify"
	at := d.program(searched, verifier)
	if s.unsigned || s.forces("bad-verify") || at == "" {
		return nil
	}
	return []Refusal{{
		Where: at, Why: "dpkg has it judge each package, and rebuilt and kept ones have no signature of its kind: dpkg installs nothing",
		Remedy: "if packages may come without one, put the line no-debsig into a file below /etc/dpkg/dpkg.cfg.d in the container until the run is over",
	}}
}

// program finds a program as dpkg does: lib/dpkg/command.c, find_command. A link may lead anywhere.
func (d *Database) program(searched, name string) string {
	for dir := range strings.SplitSeq(searched, ":") {
		info, err := d.root.Lstat(path.Join(".", dir, name))
		if err == nil && (info.Mode().Type() == fs.ModeSymlink || info.Mode().IsRegular() && info.Mode()&0o111 != 0) {
			return path.Join(dir, name)
		}
	}
	return ""
}

// look goes through the places of files. Each folder is opened once.
type look struct {
	*Database
	mounts     []Mount
	over       map[string]bool // their paths
	diversions []diversion
	rules      pathRules
	facts      *Facts
	folders    map[string]*folder
}

type folder struct {
	fd      int    // -1 where it is not there, or in what is mounted: that may never answer
	path    string // absolute, where the folders at the top, as /lib and /bin, are no links to others
	mount   *Mount // that it is in, other than the root
	hinders string // why nothing can be replaced there
	remedy  string
}

func (l *look) close() {
	for _, f := range l.folders {
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
	}
}

// database looks at what dpkg writes for itself.
func (l *look) database(candidates []Incoming) {
	const admin = "var/lib/dpkg"
	names := []string{"status", "status-old", "lock", "lock-frontend", "triggers/Unincorp", "triggers/Lock", "updates/tmp.i"}
	for _, c := range candidates {
		if base, err := l.infoBase(c.Package); err == nil {
			for _, kind := range strings.Fields("list md5sums preinst postinst prerm postrm conffiles triggers shlibs symbols templates config") {
				names = append(names, "info/"+base+"."+kind)
			}
		}
	}
	for _, name := range names {
		if _, why, remedy := l.place(path.Join(admin, name)); why != "" {
			l.facts.Standing = append(l.facts.Standing, Refusal{Where: "/" + path.Join(admin, name), Why: why, Remedy: remedy})
		}
	}
}

// candidate looks at the files that the package has and at those that it would have.
func (l *look) candidate(c Incoming) error {
	p, there := l.Package(c.Package.Name)
	has := map[string]string{}
	if there && p.present() {
		sums, err := l.Md5sums(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		has = sums
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(c.Sums)), maps.Keys(has))
	slices.Sort(names)
	names = slices.Compact(names)
	smallest := int64(-1)
	refuse := func(list *[]Refusal, name, why, remedy string) {
		r := Refusal{Package: c.Package.Name, Where: "/" + name, Why: why, Remedy: remedy}
		if !slices.Contains(*list, r) {
			*list = append(*list, r)
		}
	}
	for _, name := range names {
		sum, comes := c.Sums[name]
		place := divert(l.diversions, name, c.Package.Name)
		if l.rules.excludes("/" + name) {
			if stat, _, _ := l.place(place); comes && sum != has[name] && stat != nil {
				refuse(&l.facts.Files, name, "path-exclude makes dpkg leave it as it is",
					"take that rule out of dpkg's configuration in the container until the run is over")
			}
			continue
		}
		stat, why, remedy := l.place(place)
		if why == "" && !l.facts.Settings.forces("overwrite-diverted") && comes {
			why, remedy = overDiverted(l.diversions, name)
		}
		switch {
		case why != "":
			refuse(&l.facts.Files, place, why, remedy)
		case l.folder(path.Dir(place)).mount != nil:
			at := l.folder(path.Dir(place)).mount.Path
			refuse(&l.facts.Missed, place, "it is in what is mounted at "+at+", which is not the container's own",
				"mount nothing over folders with programs: put what is to be there into the image")
		case place != name && (stat == nil || stat.Mode&0o111 != 0):
			if why := l.runsInstead(name, place); why != "" {
				refuse(&l.facts.Missed, name, why, "take the diversion back in the container: dpkg-divert --rename --remove /"+name)
			}
		}
		if stat != nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && (smallest < 0 || int64(stat.Size) < smallest) {
			smallest = int64(stat.Size)
			l.facts.Links[c.Package.Name] = "/" + place
		}
	}
	return nil
}

const (
	mountedThere = "something is mounted there, so dpkg can make no backup link of it"
	unmount      = "take that mount out of the container's volumes and recreate it"
)

// place looks whether dpkg can replace what is there, or put something there. stat is nil where nothing is, and where nothing could be seen.
func (l *look) place(name string) (stat *unix.Statx_t, why, remedy string) {
	dir := l.folder(path.Dir(name))
	if dir.hinders != "" {
		return nil, dir.hinders, dir.remedy
	}
	if l.over[path.Join(dir.path, path.Base(name))] {
		return nil, mountedThere, unmount
	}
	if dir.fd < 0 {
		return nil, "", ""
	}
	var st unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if unix.Statx(dir.fd, path.Base(name), flags, unix.STATX_TYPE|unix.STATX_MODE|unix.STATX_SIZE, &st) != nil {
		return nil, "", ""
	}
	switch has := st.Attributes & st.Attributes_mask; {
	case has&unix.STATX_ATTR_IMMUTABLE != 0:
		why, remedy = "it is immutable, so dpkg can make no backup link of it", "take the attribute off: chattr -i"
	case has&unix.STATX_ATTR_APPEND != 0:
		why, remedy = "it can only be appended to, so dpkg cannot replace it", "take the attribute off: chattr -a"
	case has&unix.STATX_ATTR_MOUNT_ROOT != 0:
		why, remedy = mountedThere, unmount
	}
	return &st, why, remedy
}

// folder opens a folder, and looks whether something can be made in it. One that is not there hinders nothing.
func (l *look) folder(name string) *folder {
	if f := l.folders[name]; f != nil {
		return f
	}
	f := &folder{fd: -1, path: "/"}
	l.folders[name] = f
	var above *folder
	if name != "." {
		above = l.folder(path.Dir(name))
		f.path = path.Join(above.path, path.Base(name))
		if above.path == "/" {
			if target, err := l.root.Readlink(name); err == nil {
				f.path = path.Join("/", target)
			}
		}
		f.mount = l.mounted(f.path)
	}
	if f.mount != nil {
		if f.mount.ReadOnly {
			f.hinders, f.remedy = f.mount.Path+" is mounted read-only, so dpkg can replace nothing there", unmount
		}
		return f
	}
	if f.fd = l.open(name, above); f.fd < 0 {
		return f
	}
	var st unix.Statx_t
	if unix.Statx(f.fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st) != nil {
		return f
	}
	switch has := st.Attributes & st.Attributes_mask; {
	case has&unix.STATX_ATTR_IMMUTABLE != 0:
		f.hinders, f.remedy = "the folder is immutable, so dpkg can put nothing there", "take the attribute off: chattr -i /"+name
	case has&unix.STATX_ATTR_APPEND != 0:
		f.hinders, f.remedy = "the folder can only be added to, so dpkg can replace nothing there", "take the attribute off: chattr -a /"+name
	}
	return f
}

// open goes from folder to folder; where there is a link in between, the root sees to it that nothing leads out.
func (l *look) open(name string, above *folder) int {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	if above != nil && above.fd >= 0 {
		fd, err := unix.Openat(above.fd, path.Base(name), flags|unix.O_NOFOLLOW, 0)
		if err == nil {
			return fd
		}
		if errors.Is(err, fs.ErrNotExist) {
			return -1
		}
	}
	file, err := l.root.OpenFile(name, flags, 0)
	if err != nil {
		return -1
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// mounted finds the mount that an absolute path is in, other than the root.
func (l *look) mounted(name string) (in *Mount) {
	for i, m := range l.mounts {
		if m.Path != "/" && (name == m.Path || strings.HasPrefix(name, m.Path+"/")) && (in == nil || len(m.Path) >= len(in.Path)) {
			in = &l.mounts[i]
		}
	}
	return in
}

// overDiverted: one package's own file would take the place to which another's is diverted.
func overDiverted(diversions []diversion, name string) (why, remedy string) {
	for _, d := range diversions {
		if d.to == name {
			return "it is where /" + d.from + " is diverted to, which dpkg does not overwrite",
				"take the diversion back in the container: dpkg-divert --rename --remove /" + d.from
		}
	}
	return "", ""
}

// runsInstead tells whether a diverted program is not what runs under its name. A link to it, or a script that calls it, runs it.
func (l *look) runsInstead(name, place string) string {
	at, err := l.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "it is diverted to /" + place + ", and nothing is in its place"
	}
	if own, e := l.root.Stat(place); err == nil && e == nil && os.SameFile(at, own) {
		return ""
	}
	if f, _, err := foreign.OpenLinked(l.root, name); err == nil {
		defer f.Close()
		const most = 64 << 10
		if text, err := io.ReadAll(io.LimitReader(f, most)); err == nil && strings.HasPrefix(string(text), "#!") && strings.Contains(string(text), "/"+place) {
			return ""
		}
	}
	return "it is diverted to /" + place + ", and what runs is another program"
}
