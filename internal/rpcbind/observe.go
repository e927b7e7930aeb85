package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// machine is the host itself.
type machine struct {
	connect func(context.Context) (*engine.Engine, string) // the string says why there is none
	engine  *engine.Engine                                 // nil until then
	why     string
	dir     *statedir.Folder // nil where there is none yet
	proc    string           // "/proc"
	client  sunrpc.Caller
	state   string // "/var/lib/nfs"
	noImage error  // why the engine made none of ours in this run
}

// observe looks at everything at once. In check mode not even the host's package lists are refreshed.
func (m *machine) observe(ctx context.Context, o Options, check bool) (Seen, error) {
	s := Seen{Systemd: host.Booted(), Files: map[string]string{}, Units: map[string]host.Unit{}}
	if m.noImage != nil {
		s.NoImage = m.noImage.Error()
	}
	var err error
	if s.Record, err = readRecord(m.dir); err != nil {
		return s, err
	}
	if s.Addresses, err = host.Addresses(); err != nil {
		return s, err
	}
	s.Notified = exists(notifiedMark)
	s.IPv6 = exists(filepath.Join(m.proc, "1/net/tcp6"))
	var group errgroup.Group
	group.Go(func() error { return m.lookAtUnits(ctx, o, &s) })
	group.Go(func() error { return m.lookAtProcesses(&s) })
	group.Go(func() error { return m.lookAtContainers(ctx, o, &s) })
	group.Go(func() error {
		s.Answers = sunrpc.AskLocal(ctx, m.client, o.Statd)
		return ctx.Err()
	})
	group.Go(func() error { return m.lookAtMounts(&s) })
	if err := group.Wait(); err != nil {
		return s, err
	}
	if err := m.settle(ctx, o, &s); err != nil {
		return s, err
	}
	if err := m.lookAtWatched(ctx, &s); err != nil {
		return s, err
	}
	return s, m.lookAtPackages(ctx, o, &s, check)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (m *machine) lookAtUnits(ctx context.Context, o Options, s *Seen) (err error) {
	if !s.Systemd {
		return nil
	}
	names := []string{socketUnit, rpcUnit, statdUnit, notifyUnit, ownUnit(o.ContainerName), kolla.Unit(o.ContainerName)}
	if name := s.Record.Container; name != "" && name != o.ContainerName {
		names = append(names, ownUnit(name), kolla.Unit(name))
	}
	if s.Units, err = host.Units(ctx, names...); err != nil {
		return err
	}
	// Ours stays under its unit when kolla's containers are gone.
	s.KollaUnits = kollaUnits("/", kolla.Unit(o.ContainerName), kolla.Unit(s.Record.Container)) || exists(unitFolder+ownUnit(o.ContainerName))
	for _, path := range append([]string{bootLink, rpcLink}, dropIns...) {
		if err := s.readFile(path); err != nil {
			return err
		}
	}
	s.Listeners = listeners("/")
	return nil
}

// kollaUnits tells whether systemd owns kolla's containers here: whether any of them has a unit, but for those that this module wrote. The files are asked,
// as kolla-ansible writes them into this folder, and no list of containers: a host may have none but glance_api.
func kollaUnits(root string, ours ...string) bool {
	paths, _ := filepath.Glob(filepath.Join(root, unitFolder, kolla.Unit("*"))) // of a pattern that is right
	return slices.ContainsFunc(paths, func(path string) bool {
		info, err := os.Lstat(path)
		return err == nil && info.Mode().IsRegular() && !slices.Contains(ours, filepath.Base(path)) // a mask is a link
	})
}

// unitLimit is far above any unit's file, in bytes.
const unitLimit = 1 << 20

// Sockets of a socket unit.
var listens = regexp.MustCompile(`(?m)^[ \t]*Listen(Stream|Datagram)[ \t]*=[ \t]*\S`)

// listeners finds drop-ins of rpcbind.socket that add to what ours says: those whose names sort behind it, in whichever folder (systemd.unit(5)).
func listeners(root string) (found []string) {
	for _, folder := range []string{"etc", "run", "usr/local/lib", "usr/lib"} {
		paths, _ := filepath.Glob(filepath.Join(root, folder, "systemd/system", filepath.Base(socketDropIns), "*.conf")) // of a pattern that is right
		for _, path := range paths {
			if filepath.Base(path) <= filepath.Base(listenDropIn) {
				continue
			}
			if text, err := host.ReadFile(path, unitLimit); err == nil && listens.Match(text) {
				found = append(found, path)
			}
		}
	}
	return found
}

// readFile takes up a file of ours if it is there; of a link, where it points.
func (s *Seen) readFile(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		s.Files[path], err = os.Readlink(path)
		return err
	}
	var text []byte
	if err == nil {
		text, err = host.ReadFile(path, unitLimit)
	}
	if err != nil {
		return fmt.Errorf("cannot read what systemd is told: %w", err)
	}
	s.Files[path] = string(text)
	return nil
}

// lookAtProcesses finds who serves, and who has port 111.
func (m *machine) lookAtProcesses(s *Seen) error {
	found, err := host.Processes(m.proc, rpcbindName, statdName)
	if err != nil {
		return err
	}
	var likely []int
	for _, p := range found {
		if p.HostNetwork { // another network has a port 111 of its own
			s.Processes = append(s.Processes, Daemon{Process: p})
			likely = append(likely, p.PID)
		}
	}
	if s.Sockets, err = host.Bound(m.proc, sunrpc.Port); err != nil || len(s.Sockets) == 0 {
		return err
	}
	holders, err := host.Holders(m.proc, s.Sockets, likely)
	if err != nil {
		return err
	}
	for _, pid := range holders {
		// The first process is systemd, which opened rpcbind's socket. Our container's first process does the same there.
		if pid == 1 || slices.Contains(likely, pid) {
			continue
		}
		s.holders = append(s.holders, holder{pid, host.CommandName(m.proc, pid), host.ContainerOf(m.proc, pid)})
	}
	return nil
}

func (m *machine) lookAtMounts(s *Seen) error {
	mounts, err := host.NFSMounts(m.proc)
	if err == nil {
		s.Threads, err = host.ServerThreads(m.proc)
	}
	if err != nil {
		return err
	}
	s.InUse = slices.DeleteFunc(mounts, func(mount host.Mount) bool { return !mount.NeedsStatd() })
	return nil
}

// lookAtContainers: an engine is needed for mode container only, so its absence is left to the plan.
func (m *machine) lookAtContainers(ctx context.Context, o Options, s *Seen) error {
	if m.engine == nil && m.connect != nil {
		if m.engine, m.why = m.connect(ctx); m.engine == nil {
			m.connect = nil // once is enough
		}
	}
	s.EngineError = m.why
	if m.engine == nil {
		return nil
	}
	s.EngineName = m.engine.Name
	asking, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	if err := m.askEngine(asking, o, s); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.EngineError = err.Error()
	}
	return nil
}

// engineLimit is for an engine that is stuck: it may still say that it is there, and mode host can do without it.
const engineLimit = 10 * time.Second

func (m *machine) askEngine(ctx context.Context, o Options, s *Seen) error {
	list, err := m.engine.List(ctx)
	if err != nil {
		return err
	}
	s.OtherNames = map[string]string{}
	for _, c := range list {
		s.OtherNames[c.ID] = c.Name
		if slices.Contains(kolla.NFSUsers, c.Name) && !slices.Contains(c.Mounts, "/run") && !slices.Contains(c.Mounts, "/var/run") {
			s.Unbound = append(s.Unbound, Unbound{c.Name, c.HostNetwork})
		}
	}
	slices.SortFunc(s.Unbound, func(a, b Unbound) int { return strings.Compare(a.Name, b.Name) })
	if err := lookAtOurs(list, o, s); err != nil {
		return err
	}
	if err := m.lookAtOwnImages(ctx, list, s); err != nil {
		return err
	}
	if err := m.lookAtLeft(ctx, o, list, s); err != nil {
		return err
	}
	return m.lookAtImage(ctx, o, list, s)
}

// lookAtLeft finds whom statds watched in containers that still run. mount.nfs starts one there, and it dies with a restart of the container.
func (m *machine) lookAtLeft(ctx context.Context, o Options, all []engine.Listed, s *Seen) error {
	if !o.Statd || o.absent() {
		return nil
	}
	left := make([]Left, len(all))
	var group errgroup.Group
	for i, c := range all {
		if !slices.Contains(kolla.NFSUsers, c.Name) || c.State != "running" || !c.HostNetwork {
			continue
		}
		group.Go(func() error {
			looking, cancel := context.WithTimeoutCause(ctx, insideLimit, errNotInTime)
			defer cancel()
			found, err := foreign.Within(looking, func() (Left, error) { return m.lookInside(looking, c) })
			if errors.Is(err, foreign.ErrNoAnswer) {
				return nil
			}
			left[i] = found
			return err
		})
	}
	err := group.Wait()
	s.Left = slices.DeleteFunc(left, func(l Left) bool { return len(l.Servers) == 0 })
	return err
}

// insideLimit is for looking into a container, which may have a filesystem in that place that never answers.
const insideLimit = 5 * time.Second

var errNotInTime = fmt.Errorf("there was no answer within %v", insideLimit)

// lookInside gives nothing of a container that ended, or has a trap in that place: nothing there is ours to take.
func (m *machine) lookInside(ctx context.Context, c engine.Listed) (Left, error) {
	root, err := m.openLeft(ctx, c.ID)
	if err != nil || root == nil {
		return Left{}, nil
	}
	defer root.Close()
	home, err := openState(m.state)
	if err != nil {
		return Left{}, err
	}
	if home != nil { // bound into the container
		defer home.Close()
		if same, err := sameFolder(root, home); err != nil || same {
			return Left{}, err
		}
	}
	servers, err := watches(root)
	return Left{Container: c.Name, ID: c.ID, Servers: servers}, err
}

// lookAtWatched reads whom statd watches in either home.
func (m *machine) lookAtWatched(ctx context.Context, s *Seen) error {
	s.Watched = map[Mode][]string{}
	if len(s.InUse) == 0 {
		return nil
	}
	for _, mode := range []Mode{OnHost, InContainer} {
		if mode == InContainer && (s.Ours == nil || s.EngineError != "") {
			continue
		}
		home, err := m.openHome(ctx, mode)
		if err != nil || home == nil {
			continue // where the services run it is opened again, and that fails
		}
		s.Watched[mode], err = watches(home)
		home.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func lookAtOurs(list []engine.Listed, o Options, s *Seen) error {
	s.mayHaveUnit(o.ContainerName)
	for _, c := range list {
		if c.Labels[kolla.RPCBindLabel] == "" {
			continue
		}
		if s.Ours != nil {
			return fmt.Errorf("cannot tell which container is the one of this module: %s and %s have its label %s; remove one", s.Ours.Name, c.Name, kolla.RPCBindLabel)
		}
		s.Ours = &OurContainer{ID: c.ID, Name: c.Name, State: c.State, Spec: c.Labels[kolla.RPCBindLabel], ImageID: c.ImageID, Inherited: kolla.Labelled(c.Labels)}
		s.mayHaveUnit(c.Name)
	}
	return nil
}

// mayHaveUnit: a container's unit has one of two names, the second in versions before.
func (s *Seen) mayHaveUnit(container string) {
	s.unitFiles = append(s.unitFiles, unitFolder+ownUnit(container), unitFolder+kolla.Unit(container))
}

// lookAtOwnImages leaves out those from which somebody else runs a container.
func (m *machine) lookAtOwnImages(ctx context.Context, list []engine.Listed, s *Seen) error {
	all, err := m.engine.Images(ctx, baseLabel)
	s.OwnImages = slices.DeleteFunc(all, func(i engine.Image) bool {
		return slices.ContainsFunc(list, func(c engine.Listed) bool { return c.ImageID == i.ID && (s.Ours == nil || c.ID != s.Ours.ID) })
	})
	return err
}

// lookAtImage finds what mode container would run from: the user's image, else what a container here runs from that has both programs,
// else what ours was made from, else an image of ours whose container is gone.
func (m *machine) lookAtImage(ctx context.Context, o Options, list []engine.Listed, s *Seen) error {
	if o.Image != "" {
		id, err := m.engine.ImageID(ctx, o.Image)
		if errors.Is(err, engine.ErrNotFound) {
			s.Image.Problem = fmt.Sprintf("image %s is not on this host; pull it first", o.Image)
			return nil
		}
		s.Image = Image{Reference: o.Image, ID: id}
		return err
	}
	candidates := slices.Clone(kolla.NFSImages)
	if s.Ours != nil {
		candidates = append(candidates, s.Ours.Name)
	}
	for _, name := range candidates {
		if i := slices.IndexFunc(list, func(c engine.Listed) bool { return c.Name == name }); i >= 0 {
			s.Image = Image{Reference: list[i].Image, ID: list[i].ImageID}
			if base := list[i].Labels[baseLabel]; base != "" {
				s.Image.ID, s.Image.Ours = base, true
			}
			return nil
		}
	}
	for _, i := range s.OwnImages {
		if len(i.References) > 0 {
			s.Image = Image{Reference: i.References[0], ID: i.Labels[baseLabel], Ours: true}
			return nil
		}
	}
	s.Image.Problem = fmt.Sprintf("no image is named, and the host has none of %s to take one from", strings.Join(kolla.NFSImages, ", "))
	return nil
}

type holder struct {
	pid       int
	name      string
	container string
}

// settle puts together what was found apart.
func (m *machine) settle(ctx context.Context, o Options, s *Seen) error {
	if s.Record.Container != "" {
		s.mayHaveUnit(s.Record.Container)
	}
	for _, path := range s.unitFiles {
		if err := s.readFile(path); err != nil {
			return err
		}
	}
	for i := range s.Processes {
		d := &s.Processes[i]
		d.Ours = s.Ours != nil && d.Container == s.Ours.ID
		switch {
		case d.Container == "":
			d.Where = d.Unit
		case s.OtherNames[d.Container] != "":
			d.Where = s.OtherNames[d.Container]
		default:
			d.Where = d.Container[:12]
		}
	}
	if err := s.lookAtOwners(ctx); err != nil {
		return err
	}
	for _, h := range s.holders {
		if h.container != "" && s.Ours != nil && h.container == s.Ours.ID {
			continue
		}
		text := fmt.Sprintf("%s (process %d)", h.name, h.pid)
		if h.container != "" {
			name := s.OtherNames[h.container]
			if name == "" {
				name = h.container[:12]
			}
			text = fmt.Sprintf("%s in container %s (process %d)", h.name, name, h.pid)
		}
		s.Foreign = append(s.Foreign, text)
	}
	statd := slices.ContainsFunc(s.Processes, func(d Daemon) bool { return d.Name == statdName })
	if statd && s.Answers.Statd == NotThere && o.Statd && s.Answers.Programs != nil {
		s.Answers.Statd = Unregistered
	}
	s.StalePID = stalePID(s.Processes)
	return nil
}

// lookAtOwners asks systemd whose main process a statd is that is under somebody else's unit: such a one comes back. Others, as one that
// mount.nfs started from a service, do not.
func (s *Seen) lookAtOwners(ctx context.Context) error {
	for i := range s.Processes {
		d := &s.Processes[i]
		if !s.Systemd || d.Name != statdName || d.Container != "" || d.Unit == "" || d.Unit == statdUnit {
			continue
		}
		units, err := host.Units(ctx, d.Unit)
		if err != nil {
			return err
		}
		d.Main = units[d.Unit].MainPID == strconv.Itoa(d.PID)
	}
	// Whom a statd watches that lives is carried over with it.
	s.Left = slices.DeleteFunc(s.Left, func(l Left) bool {
		return slices.ContainsFunc(s.Processes, func(d Daemon) bool { return d.Name == statdName && d.Container == l.ID })
	})
	return nil
}

// stalePID reads the file that start-statd believes. A statd in a PID namespace of its own writes the number that it has there.
func stalePID(daemons []Daemon) int {
	text, err := host.ReadFile("/run/rpc.statd.pid", 64)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	for _, d := range daemons {
		if d.Name == statdName && (d.PID == pid && !d.OwnPIDs || d.PIDInside == pid && d.Ours) {
			return 0
		}
	}
	return pid
}

// lookAtPackages asks the package tool only when it may be needed: it takes half a second.
func (m *machine) lookAtPackages(ctx context.Context, o Options, s *Seen, check bool) error {
	if len(s.Record.Packages) > 0 && (o.absent() || o.Mode == InContainer || o.Mode == Auto && (s.Ours != nil || s.Record.Mode == InContainer)) {
		if err := m.lookAtNeeded(ctx, s); err != nil {
			return err
		}
	}
	if o.absent() {
		return nil
	}
	programs := []string{"rpcbind", "rpc.statd"}
	tool := "apt"
	for i := range packages(tool, o.Statd) {
		if slices.ContainsFunc([]string{"/usr/sbin", "/usr/bin", "/sbin"}, func(dir string) bool { return exists(filepath.Join(dir, programs[i])) }) {
			continue
		}
		if s.Tool == "" {
			if err := m.tool(s); err != nil {
				return err
			}
			tool = string(s.Tool)
		}
		s.Missing = append(s.Missing, packages(tool, true)[i])
	}
	if len(s.Missing) == 0 || o.Mode == InContainer || s.Ours != nil && o.Mode == Auto {
		return nil
	}
	if o.Mode == Auto && s.Record.Mode == InContainer {
		return nil
	}
	err := s.Tool.Installable(ctx, "", s.Missing)
	if err != nil { // perhaps only because the host's lists are old, or were never fetched
		err = installableNow(ctx, s.Tool, s.Missing, check)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.cannotInstall(err)
}

// cannotInstall: that another tool holds a lock says nothing of what can be installed, and is no reason for a container.
func (s *Seen) cannotInstall(err error) error {
	if errors.Is(err, host.ErrBusy) {
		return fmt.Errorf("cannot tell whether %s can be installed: %w; run again when it is done", strings.Join(s.Missing, " and "), err)
	}
	if err != nil {
		s.Uninstall = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return nil
}

// lookAtNeeded asks which of the packages that this module installed could not be removed.
func (m *machine) lookAtNeeded(ctx context.Context, s *Seen) error {
	if err := m.tool(s); err != nil {
		return err
	}
	s.Needed = map[string]string{}
	var together []string
	for _, name := range s.Record.Packages {
		err := s.Tool.Removable(ctx, append(slices.Clone(together), name))
		if errors.Is(err, host.ErrNeeded) {
			s.Needed[name] = strings.ReplaceAll(err.Error(), "\n", "; ")
			continue
		}
		together = append(together, name) // any other refusal is for the removal itself to report
	}
	return nil
}

// refreshLimit is for mirrors that do not answer: apt asks each of them, at each of its addresses.
const refreshLimit = 2 * time.Minute

func installableNow(ctx context.Context, tool host.PackageTool, packages []string, check bool) error {
	lists := ""
	if check {
		var err error
		if lists, err = os.MkdirTemp("", "nfslock-lists-"); err != nil {
			return err
		}
		defer os.RemoveAll(lists)
	}
	fetching, cancel := context.WithTimeout(ctx, refreshLimit)
	defer cancel()
	fetched := tool.Refresh(fetching, lists)
	if err := tool.Installable(ctx, lists, packages); err != nil {
		return errors.Join(err, fetched)
	}
	return nil
}

func (m *machine) tool(s *Seen) error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	d, err := kolla.ReadDistribution(root)
	if err != nil {
		return err
	}
	s.Distribution, s.Tool = d.ID, host.ToolFor(d.ID)
	return nil
}
