package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// machine is the host itself.
type machine struct {
	connect func(context.Context) (*engine.Engine, string) // the string says why there is none
	engine  *engine.Engine                                 // nil until then
	why     string
	dir     string // /var/lib/nfslock
	proc    string // "/proc"
	client  sunrpc.Caller
}

// observe looks at everything at once. In check mode not even the host's package lists are refreshed.
func (m *machine) observe(ctx context.Context, o Options, check bool) (Seen, error) {
	s := Seen{Systemd: host.Booted(), Files: map[string]string{}, Units: map[string]host.Unit{}}
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
	if err := m.settle(o, &s); err != nil {
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
	names := []string{socketUnit, rpcUnit, statdUnit, kolla.Unit(o.ContainerName)}
	for _, name := range kolla.Carriers {
		names = append(names, kolla.Unit(name))
	}
	if s.Units, err = host.Units(ctx, names...); err != nil {
		return err
	}
	s.KollaUnits = slices.ContainsFunc(kolla.Carriers, func(name string) bool { return s.Units[kolla.Unit(name)].Exists() })
	for _, path := range []string{statdDropIn, notifyDropIn, listenDropIn, bootLink, rpcLink} {
		if err := s.readFile(path); err != nil {
			return err
		}
	}
	return nil
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
		text, err = os.ReadFile(path)
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
	return m.lookAtImage(ctx, o, list, s)
}

func lookAtOurs(list []engine.Listed, o Options, s *Seen) error {
	s.unitFiles = []string{unitFolder + kolla.Unit(o.ContainerName)}
	for _, c := range list {
		if c.Labels[label] == "" {
			continue
		}
		if s.Ours != nil {
			return fmt.Errorf("cannot tell which container is the one of this module: %s and %s have its label %s; remove one", s.Ours.Name, c.Name, label)
		}
		s.Ours = &OurContainer{ID: c.ID, Name: c.Name, State: c.State, Spec: c.Labels[label]}
		s.unitFiles = append(s.unitFiles, unitFolder+kolla.Unit(c.Name))
	}
	return nil
}

// lookAtImage finds what mode container would run from: the user's image, else what a container here runs from that has both programs,
// else what ours was made from.
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
func (m *machine) settle(o Options, s *Seen) error {
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

// stalePID reads the file that start-statd believes. A statd in a PID namespace of its own writes the number that it has there.
func stalePID(daemons []Daemon) int {
	text, err := os.ReadFile("/run/rpc.statd.pid")
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
	if o.absent() {
		return m.tool(s)
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
	err := s.Tool.Installable(ctx, "", s.Missing)
	if err != nil { // perhaps only because the host's lists are old, or were never fetched
		err = installableNow(ctx, s.Tool, s.Missing, check)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.Uninstall = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return nil
}

func installableNow(ctx context.Context, tool host.PackageTool, packages []string, check bool) error {
	lists := ""
	if check {
		var err error
		if lists, err = os.MkdirTemp("", "nfslock-lists-"); err != nil {
			return err
		}
		defer os.RemoveAll(lists)
	}
	fetched := tool.Refresh(ctx, lists)
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
