package lockprobe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/carriers"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// containers is what is asked of an engine.
type containers interface {
	carriers.Engine
	Exec(ctx context.Context, id string, c engine.Command) (engine.Outcome, error)
}

// machine is the host that is looked at.
type machine struct {
	engine containers // nil if none answers
	caller sunrpc.Caller
	proc   string // "/proc"
	dir    string // /var/lib/nfslock
	fstab  string // "/etc/fstab"
	try    func(ctx context.Context, root *os.File, device string, t task) attempt

	progress progress
}

// seen is everything that the report is made of.
type seen struct {
	views        []*view
	names        map[string]string // ids of containers to names
	answers      sunrpc.Answers
	processes    []host.Process
	guests       []host.Guest
	guestsError  error
	volumes      []volume
	kept         map[string]*baseline.Index
	keptError    error
	put          preloaded.Record // which containers got the library
	putError     error
	config       config
	stuck        []stuckProbe
	otherServers []string // that have taken the lock manager's or the status monitor's place
	asked        []string // containers
	engineError  error    // the engine did not say which there are
	left         []string // sentences: what was not looked at
	virsh        string   // how a person on this host calls it
}

// view is what one container, or the host, sees.
type view struct {
	name string
	engine.Container
	root   *os.Root // nil of the host, and of one that does not run, or whose files do not answer
	folder *os.File // its root folder, for processes that take locks
	uid    int      // of its first process
	gid    int
	mounts []host.MountPoint
	row    Packages

	architecture string         // dpkg's word
	libvirt      *libvirt.Locks // of the container that runs guests, nil if it has no libvirt
	covered      bool           // that libvirt runs, and has the library loaded
	programs     []string       // of those that a proof runs, what is there
}

func (v *view) close() {
	if v.folder != nil {
		v.folder.Close()
	}
	if v.root != nil {
		v.root.Close()
	}
}

// kept is the folder in which modules keep what they know of this host; empty where there is none, or others than root may have written in it.
func (m *machine) kept(ctx context.Context) (dir string, warnings []string) {
	folder, err := foreign.Within(ctx, func() (*statedir.Folder, error) { return statedir.Open(m.dir) })
	if err != nil {
		return "", []string{fmt.Sprintf("cannot tell what was patched here, and which containers got the library: %v", err)}
	}
	if folder == nil {
		return "", nil
	}
	defer folder.Close()
	if folder.Locked() {
		warnings = append(warnings, "another run of the collection is at work on this host: what is reported may be changing")
	}
	return m.dir, warnings
}

// observe looks at everything at once. What cannot be seen of a container stands in its row; an error is of the whole host.
func (m *machine) observe(ctx context.Context, o Options) (s seen, err error) {
	looking, cancel := o.looking(ctx)
	defer cancel()
	done := m.progress.begin("%s", m.dir)
	dir, left := m.kept(looking)
	done()
	s.left = left
	var group errgroup.Group
	group.Go(func() error {
		defer m.progress.begin("rpcbind and rpc.statd")()
		s.answers = sunrpc.AskLocal(ctx, m.caller, true)
		return nil
	})
	group.Go(func() (err error) {
		defer m.progress.begin("the host's services")()
		s.processes, err = host.Processes(m.proc, slices.Concat([]string{rpcbindName, statdName}, otherServers, preloaded.Daemons)...)
		return err
	})
	// The kernel may let who reads a process's arguments wait for it.
	var stuckError error
	group.Go(func() error {
		defer m.progress.begin("the host's processes")()
		s.stuck, stuckError = foreign.Within(looking, func() ([]stuckProbe, error) { return findStuck(m.proc, time.Now()) })
		return nil
	})
	group.Go(func() error {
		defer m.progress.begin("the guests")()
		s.guests, s.guestsError = foreign.Within(looking, func() ([]host.Guest, error) { return host.Guests(m.proc) })
		return nil
	})
	group.Go(func() error {
		if dir != "" {
			s.kept, s.keptError = baseline.All(filepath.Join(dir, "baseline"))
			s.put, s.putError = preloaded.ReadRecord(dir)
		}
		s.volumes = readVolumes(m.proc)
		return nil
	})
	group.Go(func() error { // the folder may be on a server
		defer m.progress.begin("the configuration in %s", o.ConfigDir)()
		found, err := foreign.Within(looking, func() (config, error) { return readConfig(o.ConfigDir), nil })
		if err != nil {
			found.unread = append(found.unread, Finding{Kind: UnreadConfig, File: o.ConfigDir, Message: fmt.Sprintf("cannot read the configuration: %v", err)})
		}
		found.fixed = readFstab(m.fstab)
		s.config = found
		return nil
	})
	own := &view{name: Host}
	group.Go(func() error { return m.lookAtHost(own) })
	s.views = []*view{own}
	if m.engine != nil {
		found, err := m.choose(ctx, o, dir)
		if err != nil && len(o.Containers) == 0 {
			s.engineError, err = err, nil
		}
		if err != nil {
			return s, errors.Join(err, group.Wait())
		}
		s.asked, s.left = found.Names, append(s.left, found.Notes...)
		if s.engineError == nil {
			s.names = map[string]string{}
			own.row.QEMU = NoQEMU // the host's own is none of kolla's; without an engine it is not known who uses its mounts
		}
		for name, id := range found.IDs {
			s.names[id] = name
		}
		for _, name := range s.asked {
			s.views = append(s.views, &view{name: name, row: Packages{Container: name, QEMU: Unknown, Installed: []QEMUPacket{}, StockEmulators: []string{}, Unpatched: []string{}, UnpatchedFurther: []string{}, Library: Library{Others: []string{}}}})
		}
	}
	if err := group.Wait(); err != nil {
		return s, err
	}
	if stuckError != nil {
		s.left = append(s.left, fmt.Sprintf("cannot tell which processes of earlier runs still hang: %v", stuckError))
	}
	someAtOnce(s.views[1:], slowAfter, func(v *view) {
		defer m.progress.begin("%s", v.name)()
		looking, cancel := o.looking(ctx)
		defer cancel()
		if err := foreign.NoPanic(func() error { return m.look(looking, v, s.kept[v.name], s.guests) }); err != nil {
			v.row.Error = err.Error()
		}
	})
	if i := slices.IndexFunc(s.processes, func(p host.Process) bool { return p.Name == statdName && p.HostNetwork }); i >= 0 && s.answers.Statd == sunrpc.NotThere && s.answers.Programs != nil {
		s.answers.Statd = sunrpc.Unregistered
	}
	s.otherServers = findOtherServers(m.proc, s.processes, s.answers)
	s.left = append(s.left, m.findCovered(ctx, &s)...)
	return s, nil
}

func (m *machine) choose(ctx context.Context, o Options, dir string) (carriers.Choice, error) {
	defer m.progress.begin("which containers there are")()
	ctx, cancel := context.WithTimeout(ctx, o.perMount())
	defer cancel()
	return carriers.Choose(ctx, m.engine, dir, o.Containers)
}

// The programs' names as processes.
const (
	rpcbindName = "rpcbind"
	statdName   = "rpc.statd"
)

func (m *machine) lookAtHost(v *view) (err error) {
	if v.mounts, err = host.ReadMounts(m.proc, os.Getpid()); err != nil {
		return err
	}
	v.folder, err = os.Open("/")
	return err
}

// look fills in what one container is and sees.
func (m *machine) look(ctx context.Context, v *view, record *baseline.Index, guests []host.Guest) (err error) {
	if v.Container, err = m.engine.Inspect(ctx, v.name); err != nil {
		return err
	}
	v.row.ID, v.row.Image, v.row.State = v.ID, v.Image, v.State
	if v.State != "running" {
		return nil
	}
	status, err := os.ReadFile(filepath.Join(m.proc, strconv.Itoa(v.PID), "status"))
	if err != nil {
		return fmt.Errorf("cannot look at the first process of %s: %w", v.name, err)
	}
	filtered := v.readStatus(status)
	switch {
	case !filtered:
		v.row.Seccomp = "none"
	case v.Seccomp == "custom":
		v.row.Seccomp = "custom"
	default:
		v.row.Seccomp = "default"
	}
	mounts, err := host.ReadMounts(m.proc, v.PID)
	if err != nil {
		return err
	}
	// Opened last: it proves that all of the above was of this container, and not of another with its process's number.
	root, err := m.engine.OpenRoot(ctx, v.Container)
	if err != nil {
		return err
	}
	v.root, v.mounts = root, mounts
	if v.folder, err = foreign.Within(ctx, func() (*os.File, error) { return root.Open(".") }); err != nil {
		return v.silent(fmt.Errorf("cannot open the files of %s: %w", v.name, err))
	}
	read := *v // a look that is left behind goes on with it, and never comes back
	found, err := foreign.Within(ctx, func() (*view, error) {
		read.readPrograms()
		return &read, errors.Join(read.readLibrary(), read.readPackages(record, guests))
	})
	if errors.Is(err, foreign.ErrNoAnswer) {
		return v.silent(fmt.Errorf("cannot look at the files of %s: %w", v.name, err))
	}
	if found != nil { // there was no panic
		*v = *found
	}
	return err
}

// silent takes leave of a container's files, which do not answer. Its mounts are tried all the same, by processes that may hang.
func (v *view) silent(err error) error {
	v.root.Close()
	v.root = nil
	if v.folder == nil {
		v.mounts = nil
	}
	var perhaps []string
	for _, m := range visible(v.mounts) {
		if strings.HasPrefix(m.FSType, "fuse") || slices.Contains(shared, m.FSType) {
			perhaps = append(perhaps, fmt.Sprintf("%s at %s", m.FSType, m.Path))
		}
	}
	way := "mend or unmount what is mounted there"
	if len(perhaps) > 0 {
		way += ", as " + strings.Join(perhaps[:min(len(perhaps), 8)], ", ")
	}
	return fmt.Errorf("%w: %s", err, way)
}

// readStatus takes the user and whether system calls are filtered from /proc/PID/status: proc(5).
func (v *view) readStatus(status []byte) (filtered bool) {
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(value)
		switch {
		case key == "Uid" && len(fields) == 4:
			v.uid, _ = strconv.Atoi(fields[3]) // as filesystems see it
		case key == "Gid" && len(fields) == 4:
			v.gid, _ = strconv.Atoi(fields[3])
		case key == "Seccomp" && len(fields) == 1:
			filtered = fields[0] == "2"
		}
	}
	return filtered
}

// stuckProbe is a process of an earlier run that hangs.
type stuckProbe struct {
	pid       int
	device    string
	container string // the engine's id, empty outside
}

// findStuck recognises them by their arguments: a process of root's that is past the deadline that it was given. One whose run is at
// work still has time. What a container's process claims counts for that container alone.
func findStuck(proc string, now time.Time) ([]stuckProbe, error) {
	pids, err := host.PIDs(proc)
	if err != nil {
		return nil, err
	}
	var all []stuckProbe
	for _, pid := range pids {
		line, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
		if err != nil || !bytes.HasPrefix(line, []byte(ProbeName+"\x00")) && !bytes.Contains(line, []byte("/"+ProbeName+"\x00")) {
			continue
		}
		info, err := os.Stat(filepath.Join(proc, strconv.Itoa(pid)))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		if device, past := parseStuck(line, now); past {
			all = append(all, stuckProbe{pid, device, host.ContainerOf(proc, pid)})
		}
	}
	return all, nil
}

func parseStuck(cmdline []byte, now time.Time) (device string, past bool) {
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	if !IsProbe(args) {
		return "", false
	}
	deadline, err := strconv.ParseInt(args[2], 10, 64)
	return args[1], err == nil && now.After(time.Unix(deadline, 0))
}
