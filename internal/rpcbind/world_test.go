package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// toy is a host with rules: units that need each other, a port that only one can have, statds that must not be two, and
// NFS servers that drop locks when they are told of a reboot. What must never happen is counted in harm.
type toy struct {
	installed, repository, image, kollaUnits bool

	units    map[string]host.Unit
	files    map[string]string
	record   Record
	rpcbind  *daemon
	statds   []*daemon
	table    map[int]bool // pids of registered statds, alive or not
	watched  map[string][]string
	mark     bool // /run/sm-notify.pid
	inUse    bool
	late     bool // guests come up while the run is at work
	needed   bool // other packages need these
	told     int  // how often the server heard of a reboot
	box      *OurContainer
	volume   bool
	images   map[string]string // of ours, by name
	base     string            // the id of kolla's
	whole    bool              // the engine makes no image whose layers it is not given
	taken    string            // a foreign program at port 111
	poor     bool              // the image lacks a program
	deaf     bool              // a statd that is started never answers
	lastPID  int
	harm     []string
	failAt   int // the step, from 1, that fails
	stepped  int
	commands []string
}

type daemon struct {
	home    string // "host", "hand", "cinder_volume", "ours"
	pid     int
	stopped bool
}

const (
	server      = "10.0.0.2"
	kollasImage = "kolla/cinder-volume"
)

// ourUnits are the unit of our container, and what it was called in versions before.
var ourUnits = []string{ownUnit("nfs_rpcbind"), kolla.Unit("nfs_rpcbind")}

func newToy() *toy {
	w := &toy{units: map[string]host.Unit{}, files: map[string]string{}, table: map[int]bool{}, watched: map[string][]string{}, repository: true, image: true, images: map[string]string{}, base: "sha256:1"}
	for _, name := range []string{socketUnit, rpcUnit, statdUnit, notifyUnit} {
		w.units[name] = host.Unit{Load: "not-found", Active: "inactive"}
	}
	return w
}

func (w *toy) pid() int {
	w.lastPID++
	return 1000 + w.lastPID
}

// install is what the distribution's packages do: units, of which rpcbind's are enabled and started, and one sm-notify.
func (w *toy) install() {
	w.installed = true
	for _, name := range []string{statdUnit, notifyUnit} {
		if !w.units[name].Masked() {
			w.units[name] = host.Unit{Load: "loaded", Active: "inactive", File: "static"}
		}
	}
	for _, name := range []string{socketUnit, rpcUnit} {
		if w.units[name].Load == "not-found" {
			w.units[name] = host.Unit{Load: "loaded", Active: "inactive", File: "enabled"}
		}
	}
	if !w.units[notifyUnit].Masked() {
		w.notify("host")
	}
	_ = w.start(socketUnit)
	_ = w.start(rpcUnit)
}

// notify is sm-notify at a home.
func (w *toy) notify(home string) {
	if w.mark {
		return
	}
	w.mark = true
	if slices.Contains(w.watched[home], server) {
		w.told++
	}
	if w.inUse && len(w.watched[home]) > 0 {
		w.harm = append(w.harm, "the servers that "+home+" watches were told of a reboot")
	}
}

// boot is the machine going down and coming up: what is enabled comes up, and then guests.
func (w *toy) boot() {
	w.mark, w.inUse, w.told = false, false, 0
	w.rpcbind, w.statds = nil, nil
	clear(w.table)
	if w.box != nil {
		w.box.State = "exited"
	}
	for name := range w.units {
		w.activate(name, "inactive")
	}
	if w.units[notifyUnit].Exists() && !strings.Contains(w.files[notifyDropIn], "ConditionPathExists=!/\n") { // nfs-client.target wants it
		w.notify("host")
	}
	if w.units[socketUnit].File == "enabled" {
		_ = w.start(socketUnit)
	}
	if w.files[bootLink] != "" {
		_ = w.start(statdUnit)
	}
	for _, u := range ourUnits {
		if w.units[u].File == "enabled" {
			_ = w.start(u)
		}
	}
	if w.box != nil && !w.kollaUnits {
		_ = w.startBox()
	}
	w.inUse = true
}

func (w *toy) used(context.Context) (bool, error) { return w.inUse, nil }

func (w *toy) runStatd(home string) {
	for _, d := range w.statds {
		w.harm = append(w.harm, fmt.Sprintf("a statd in %s beside that in %s", home, d.home))
	}
	d := &daemon{home: home, pid: w.pid(), stopped: w.deaf}
	w.statds = append(w.statds, d)
	clear(w.table)
	w.table[d.pid] = true
}

// endStatds ends those at the home; a clean end unregisters.
func (w *toy) endStatds(home string, clean bool) {
	w.statds = slices.DeleteFunc(w.statds, func(d *daemon) bool {
		if d.home == home && clean {
			delete(w.table, d.pid)
		}
		return d.home == home
	})
}

func (w *toy) activate(name, active string) {
	u := w.units[name]
	u.Active = active
	w.units[name] = u
}

func (w *toy) start(name string) error {
	u := w.units[name]
	if u.Masked() {
		return errors.New(name + " is masked")
	}
	if slices.Contains(ourUnits, name) {
		w.activate(name, "active")
		return w.startBox()
	}
	if !u.Exists() {
		return errors.New(name + " not found")
	}
	switch name {
	case socketUnit, rpcUnit:
		if w.taken != "" || w.rpcbind != nil && w.rpcbind.home != "host" {
			w.harm = append(w.harm, "a second rpcbind was started")
			return errors.New("address already in use")
		}
		fresh := w.rpcbind == nil
		if fresh {
			w.rpcbind = &daemon{home: "host", pid: w.pid()}
		}
		w.activate(socketUnit, "active")
		w.activate(rpcUnit, "active")
		if _, wants := w.files[rpcLink]; fresh && wants && !w.units[statdUnit].Runs() {
			return w.start(statdUnit)
		}
	case statdUnit:
		if u.Runs() {
			return nil
		}
		if w.rpcbind == nil {
			if err := w.start(socketUnit); err != nil || w.units[statdUnit].Runs() {
				return err
			}
		}
		w.notify("host")
		w.runStatd("host")
		w.activate(statdUnit, "active")
	}
	return nil
}

func (w *toy) stop(name string) {
	switch name {
	case statdUnit:
		w.endStatds("host", true)
		w.activate(statdUnit, "inactive")
	case notifyUnit:
		w.activate(name, "inactive")
	case socketUnit, rpcUnit:
		w.stop(statdUnit) // Requires=, and PartOf= of ours
		if w.rpcbind != nil && w.rpcbind.home == "host" {
			w.rpcbind = nil
		}
		w.activate(socketUnit, "inactive")
		w.activate(rpcUnit, "inactive")
	default:
		w.activate(name, "inactive")
		w.stopBox()
	}
}

func (w *toy) startBox() error {
	if w.box == nil {
		return errors.New("no such container")
	}
	if w.box.State == "paused" {
		return errors.New("cannot start a paused container, try unpause instead")
	}
	if w.box.State == "running" {
		return nil
	}
	if w.taken != "" || w.rpcbind != nil {
		w.harm = append(w.harm, "a second rpcbind was started")
		return errors.New("address already in use")
	}
	w.box.State = "running"
	w.rpcbind = &daemon{home: "ours", pid: w.pid()}
	w.notify("ours")
	w.runStatd("ours")
	return nil
}

func (w *toy) stopBox() {
	if w.box == nil || w.box.State != "running" {
		return
	}
	w.box.State = "exited"
	w.endStatds("ours", true)
	w.rpcbind = nil
}

func (w *toy) save(r Record) error {
	w.record = r
	return nil
}

func (w *toy) do(_ context.Context, step Step) error {
	w.stepped++
	w.commands = append(w.commands, string(step.Verb)+" "+strings.Join(step.Names, " "))
	if w.stepped == w.failAt {
		return errors.New("it was told to fail")
	}
	switch step.Verb {
	case Silence:
		w.mark = true
	case Fetch:
		if !w.repository {
			return errors.New("no repository")
		}
		w.inUse = w.inUse || w.late
	case Inherit:
		w.carryTo(step.Names[0], map[Mode]string{OnHost: "host", InContainer: "ours"}[step.To])
		delete(w.watched, step.Names[0])
	case Unpause:
		w.box.State = "running"
		w.rpcbind.stopped = false
		for _, d := range w.statds {
			d.stopped = false
		}
	case Install:
		w.install()
	case Uninstall:
		if w.needed {
			return errors.New("dependency problems prevent removal")
		}
		w.installed = false
		delete(w.watched, "host") // Debian's prerm
		for _, name := range []string{notifyUnit, statdUnit, rpcUnit, socketUnit} {
			w.stop(name)
			w.units[name] = host.Unit{Load: "not-found", Active: "inactive"}
		}
	case Write, Link:
		w.files[step.Names[0]] = step.Text
		if unit := strings.TrimPrefix(step.Names[0], unitFolder); slices.Contains(ourUnits, unit) {
			w.units[unit] = host.Unit{Load: "loaded", Active: "inactive", File: "disabled"}
		}
	case Delete:
		delete(w.files, step.Names[0])
	case Reload:
	case TryImage:
		if w.poor {
			return errors.New("it lacks rpc.statd")
		}
	case TakeOver:
		return w.takeOver(step)
	case Carry:
		from, to := "ours", "host"
		if step.To == InContainer {
			from, to = to, from
		}
		if len(w.statds) > 0 {
			w.harm = append(w.harm, "state was carried while a statd ran")
		}
		w.carryTo(from, to)
	case Create:
		if w.box != nil {
			return errors.New("the name is in use")
		}
		w.volume = true
		spec := step.Spec
		if w.images[spec.Image] == "" {
			if spec = step.Plain; spec.Image != kollasImage {
				return errors.New("no such image: " + spec.Image)
			}
		}
		w.box = &OurContainer{
			ID: "b0", Name: spec.Name, State: "created", Spec: spec.Labels[kolla.RPCBindLabel], ImageID: w.images[spec.Image], Inherited: spec.Image == kollasImage,
		}
	case MakeImage:
		if !w.whole {
			w.images[step.Names[0]] = "sha256:ours of " + step.Image.ID
		}
	case RemoveImage:
		if w.box != nil && w.box.ImageID == w.images[step.Names[0]] {
			w.harm = append(w.harm, "the image that is in use was removed")
		}
		delete(w.images, step.Names[0])
	case StartBox:
		return w.startBox()
	case RestartBox:
		w.stopBox()
		return w.startBox()
	case Remove:
		if w.box != nil && w.box.State == "paused" {
			return errors.New("a paused container does not stop")
		}
		w.stopBox()
		w.box = nil
	case RemoveVolume:
		if w.box != nil {
			return errors.New("the volume is in use")
		}
		w.volume = false
		delete(w.watched, "ours")
	default:
		return w.doUnits(step)
	}
	return nil
}

func (w *toy) doUnits(step Step) error {
	for _, name := range step.Names {
		u := w.units[name]
		switch step.Verb {
		case Unmask:
			u.Load, u.File = "loaded", "disabled"
			if name == statdUnit {
				u.File = "static"
			}
		case Mask:
			u.Load, u.File = "masked", "masked"
		case Hold:
			if u.File != "masked" {
				u.Load, u.File = "masked", "masked-runtime"
			}
		case Release:
			if u.File == "masked-runtime" {
				u.Load, u.File = "loaded", map[bool]string{true: "static", false: "enabled"}[name == statdUnit || name == notifyUnit]
			}
		case Enable:
			u.File = "enabled"
		case Disable:
			u.File = "disabled"
			if also := w.units[socketUnit]; name == rpcUnit && also.Exists() { // Also= in the service
				also.File = "disabled"
				w.units[socketUnit] = also
			}
		case Start:
			if err := w.start(name); err != nil {
				return err
			}
			continue
		case Stop:
			w.stop(name)
			continue
		case Restart:
			if slices.Contains(ourUnits, name) || name == statdUnit {
				w.stop(name)
			} else {
				w.stop(rpcUnit)
			}
			if err := w.start(name); err != nil {
				return err
			}
			continue
		default:
			return fmt.Errorf("the toy does not know %q", step.Verb)
		}
		w.units[name] = u
	}
	return nil
}

func (w *toy) takeOver(step Step) error {
	i := slices.IndexFunc(w.statds, func(d *daemon) bool { return d.pid == step.PID })
	if i < 0 {
		return nil
	}
	home := w.statds[i].home
	w.endStatds(home, true)
	to := map[Mode]string{OnHost: "host", InContainer: "ours"}[step.To]
	if step.To == InContainer && !w.volume {
		return errors.New("there is no volume")
	}
	w.carryTo(home, to)
	if to != home {
		delete(w.watched, home)
	}
	return nil
}

func (w *toy) carryTo(from, to string) {
	for _, name := range w.watched[from] {
		if !slices.Contains(w.watched[to], name) {
			w.watched[to] = append(w.watched[to], name)
		}
	}
}

func (w *toy) observe(_ context.Context, o Options, _ bool) (Seen, error) {
	s := Seen{
		Systemd: true, Units: maps.Clone(w.units), Files: maps.Clone(w.files), Record: w.record, Notified: w.mark, KollaUnits: w.kollaUnits,
		EngineName: "docker", OtherNames: map[string]string{"c0": "cinder_volume"}, Image: Image{Reference: kollasImage, ID: w.base},
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1")},
	}
	if u, linked := s.Units[statdUnit], w.files[bootLink] != ""; linked && u.File == "static" {
		u.File = "enabled"
		s.Units[statdUnit] = u
	}
	if w.box != nil {
		box := *w.box
		s.Ours = &box
		s.OtherNames[box.ID] = box.Name
	}
	for name, id := range w.images {
		s.OwnImages = append(s.OwnImages, engine.Image{ID: id, References: []string{name}, Labels: map[string]string{baseLabel: strings.TrimPrefix(id, "sha256:ours of ")}})
	}
	if !w.image {
		s.Image = Image{Problem: "no image"}
	}
	if !w.installed {
		s.Missing = packages("apt", o.Statd)
		if !w.repository {
			s.Uninstall = "no repository"
		}
	}
	if names := w.watched["cinder_volume"]; o.Statd && len(names) > 0 && !slices.ContainsFunc(w.statds, func(d *daemon) bool { return d.home == "cinder_volume" }) {
		s.Left = []Left{{Container: "cinder_volume", ID: "c0", Servers: names}}
	}
	s.Watched = map[Mode][]string{OnHost: w.watched["host"], InContainer: w.watched["ours"]}
	if w.needed {
		s.Needed = map[string]string{rpcbindName: "nis needs it", "nfs-common": "nfs-kernel-server needs it"}
	}
	if w.inUse {
		s.InUse = []host.Mount{{Source: server + ":/export", Path: "/mnt", Options: "vers=3"}}
	}
	if w.taken != "" {
		s.Foreign = []string{w.taken}
	}
	if w.rpcbind != nil {
		s.Processes = append(s.Processes, w.seenDaemon(rpcbindName, rpcUnit, *w.rpcbind))
	}
	for _, d := range w.statds {
		s.Processes = append(s.Processes, w.seenDaemon(statdName, statdUnit, *d))
	}
	s.Answers = w.answers(s.Processes)
	return s, nil
}

func (w *toy) seenDaemon(name, unit string, d daemon) Daemon {
	seen := Daemon{Process: host.Process{PID: d.pid, Name: name, Stopped: d.stopped, HostNetwork: true}}
	switch d.home {
	case "host":
		seen.Where, seen.Unit = unit, unit
	case "ours":
		seen.Container, seen.Where, seen.Ours = w.box.ID, w.box.Name, true
	case "cinder_volume":
		seen.Container, seen.Where = "c0", "cinder_volume"
	}
	return seen
}

func (w *toy) answers(running []Daemon) Answers {
	switch {
	case w.rpcbind == nil:
		return Answers{RPCBind: NotThere, Statd: NotThere}
	case w.rpcbind.stopped:
		return Answers{RPCBind: Hanging, Statd: NotThere}
	}
	a := Answers{RPCBind: Answering, Statd: NotThere, Programs: []sunrpc.Registration{{Program: lockManager, Version: 4, NetID: "tcp", Address: "0.0.0.0.1.1"}}}
	for pid := range w.table {
		i := slices.IndexFunc(running, func(d Daemon) bool { return d.PID == pid })
		switch {
		case i < 0:
			a.Statd = Dead
		case running[i].Stopped:
			a.Statd = Hanging
		default:
			a.Statd = Answering
		}
	}
	if len(w.table) == 0 && len(w.statds) > 0 {
		a.Statd = Unregistered
	}
	return a
}
