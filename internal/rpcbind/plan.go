package rpcbind

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// Verb is what a step does.
type Verb string

// The verbs, opposites beside each other.
const (
	Silence      Verb = "silence"  // forbid the reboot notification in this boot: servers would drop locks that are in use
	Fetch        Verb = "download" // packages, before anything is given up for them
	Install      Verb = "install"
	Uninstall    Verb = "uninstall"
	Hold         Verb = "hold back" // mask until the next boot
	Release      Verb = "release"
	Unmask       Verb = "unmask"
	Mask         Verb = "mask"
	Enable       Verb = "enable"
	Disable      Verb = "disable"
	Start        Verb = "start" // units
	Stop         Verb = "stop"
	Restart      Verb = "restart"
	Write        Verb = "write"
	Link         Verb = "link"
	Delete       Verb = "delete" // either
	Reload       Verb = "daemon-reload"
	TakeOver     Verb = "take over" // end a statd and carry its state to where the next one runs
	Inherit      Verb = "inherit"   // the state of a statd that is dead, from the container that it was in
	Carry        Verb = "carry"     // statd's state from the host to the volume, or back
	TryImage     Verb = "try image" // whether it has the programs, before anything that runs is given up for it
	MakeImage    Verb = "make image"
	RemoveImage  Verb = "remove image"
	Create       Verb = "create"
	Remove       Verb = "remove"
	StartBox     Verb = "start container"
	Unpause      Verb = "unpause container"
	RestartBox   Verb = "restart container"
	RemoveVolume Verb = "remove volume"
)

// Step is one change. It says what, not how.
type Step struct {
	Verb  Verb
	Names []string    // units, packages, a path, a container, a volume
	Text  string      // Write: the file's; Link: its target
	PID   int         // TakeOver
	To    Mode        // TakeOver, Inherit, Carry: whose state folder
	Spec  engine.Spec // Create
	Plain engine.Spec // Create, where MakeImage could not
	Image Image       // MakeImage: of which
	Why   string
}

// Plan is what a run is to do.
type Plan struct {
	Mode   Mode   // where the services are to run; empty for state: absent
	Reason string // for the mode
	Steps  []Step
	Record Record // what will have been changed by then, by this run and those before
}

// MakePlan turns what was seen into steps. It asks nobody: the same input gives the same plan.
func MakePlan(o Options, s Seen) (Plan, error) {
	p := &Plan{Record: s.Record}
	var err error
	switch {
	case s.Record.Volume && s.EngineError != "":
		err = fmt.Errorf("cannot reach the engine, in whose volume %s statd's state is: %s", volume, s.EngineError)
	case o.absent():
		err = p.remove(o, s)
	default:
		err = p.ensure(o, s)
	}
	if err != nil {
		return Plan{Mode: p.Mode, Reason: p.Reason, Record: s.Record}, err
	}
	p.silence(s)
	return *p, nil
}

func (p *Plan) ensure(o Options, s Seen) (err error) {
	if p.Mode, p.Reason, err = s.choose(o); err != nil {
		return err
	}
	if err := s.collision(p.Mode, o); err != nil {
		return err
	}
	if p.Mode == OnHost {
		return p.onHost(o, s)
	}
	return p.inContainer(o, s)
}

func (p *Plan) add(verb Verb, why string, names ...string) {
	if len(names) > 0 {
		p.Steps = append(p.Steps, Step{Verb: verb, Names: names, Why: why})
	}
}

// silence puts the mark in front that keeps sm-notify still, when something is started that wants it while locks are in use. Where
// none are, the once-per-boot notification goes its usual way.
func (p *Plan) silence(s Seen) {
	if s.used() && !s.Notified && slices.ContainsFunc(p.Steps, Step.notifies) {
		step := Step{Verb: Silence, Names: []string{notifiedMark}, Why: "NFSv3 is in use: " + s.users()}
		p.Steps = slices.Insert(p.Steps, 0, step)
	}
}

// notifies: the step may start sm-notify.
func (step Step) notifies() bool {
	return slices.Contains([]Verb{Install, Start, Restart, StartBox, RestartBox, Unpause}, step.Verb)
}

// notifiedMark is sm-notify's own: it does nothing while the file exists (sm-notify(8)), and /run is empty after a boot.
const notifiedMark = "/run/sm-notify.pid"

// choose decides where the services are to run.
func (s Seen) choose(o Options) (Mode, string, error) {
	masked := s.masked(o)
	switch {
	case o.Mode != Auto:
		return o.Mode, "asked for", nil
	case s.Ours != nil:
		return InContainer, fmt.Sprintf("container %s is there", s.Ours.Name), nil
	case s.hostActive():
		return OnHost, socketUnit + " runs on the host", nil
	case s.Record.Mode != "": // a container may have been removed by hand
		return s.Record.Mode, "an earlier run put it there", nil
	case s.Systemd && len(masked) == 0 && len(s.Missing) == 0:
		return OnHost, "the packages are installed", nil
	case s.Systemd && len(masked) == 0 && s.Uninstall == "":
		return OnHost, "the packages can be installed: " + strings.Join(s.Missing, ", "), nil
	}
	why := "systemd does not run this host"
	if len(masked) > 0 {
		why = strings.Join(masked, " and ") + " masked on the host"
	} else if s.Systemd {
		why = fmt.Sprintf("the host lacks %s, which cannot be installed (%s)", strings.Join(s.Missing, " and "), s.Uninstall)
	}
	if problem := s.noContainer(); problem != "" {
		return "", "", fmt.Errorf("cannot choose a mode: not host, because %s; not container, because %s", why, problem)
	}
	return InContainer, why, nil
}

func (s Seen) noContainer() string {
	if s.EngineError != "" {
		return s.EngineError
	}
	return s.Image.Problem
}

// units are those that mode host needs.
func hostUnits(o Options) []string {
	if o.Statd {
		return []string{socketUnit, rpcUnit, statdUnit}
	}
	return []string{socketUnit, rpcUnit}
}

func (s Seen) masked(o Options) (masked []string) {
	for _, name := range hostUnits(o) {
		if s.Units[name].Masked() {
			masked = append(masked, name)
		}
	}
	return masked
}

// collision finds who would stand in the way of an rpcbind of that mode, before anything is started.
func (s Seen) collision(m Mode, o Options) error {
	ours := "rpcbind of the host (" + socketUnit + ")"
	if m == InContainer {
		ours = "rpcbind in container " + o.ContainerName
	}
	if strays := s.foreignRPCBinds(); len(strays) > 0 {
		return fmt.Errorf("cannot run %s beside %s: both want port 111 and /run/rpcbind.sock; stop the latter first", ours, strays[0])
	}
	if len(s.Foreign) > 0 {
		return fmt.Errorf("cannot run %s: port 111 is taken by %s; stop it first, or move it to another port", ours, strings.Join(s.Foreign, ", "))
	}
	if m == InContainer && s.hostActive() && !slices.Contains(s.Record.Started, socketUnit) {
		return fmt.Errorf("cannot run %s beside rpcbind of the host (%s), which was there before: "+
			"use mode: host, or first: systemctl disable --now %s %s", ours, socketUnit, socketUnit, rpcUnit)
	}
	for _, d := range s.takeOvers(o) {
		if d.Main {
			return fmt.Errorf("cannot run %s beside %s: that unit would start it again; first: systemctl disable --now %s", statdName, d, d.Where)
		}
	}
	statd := slices.ContainsFunc(s.Processes, func(d Daemon) bool { return d.Name == statdName })
	if o.Statd && s.Answers.Statd == Answering && !statd {
		return fmt.Errorf("cannot run %s: program %d, the status monitor, answers already, and it is no %s of this host's; an NFS-Ganesha has one of its own, "+
			"and cannot share a host with NFSv3 mounts that take locks", statdName, sunrpc.Status, statdName)
	}
	for _, text := range o.Listen {
		if !slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return a.String() == text }) {
			return fmt.Errorf("cannot listen at %s: this host has no such address", text)
		}
	}
	if m == OnHost && len(o.Listen) > 0 && len(s.Listeners) > 0 {
		return fmt.Errorf("cannot restrict where %s listens: %s is read after %s and has ListenStream= or ListenDatagram=; remove those lines, or leave listen out",
			socketUnit, strings.Join(s.Listeners, " and "), listenDropIn)
	}
	return nil
}

func (p *Plan) onHost(o Options, s Seen) error {
	if !s.Systemd {
		return errors.New("cannot use mode host: systemd does not run this host; use mode: container")
	}
	if len(s.Missing) > 0 && s.Uninstall != "" {
		return fmt.Errorf("cannot install %s on this host: %s; give the host a repository that has them, or use mode: container", strings.Join(s.Missing, " and "), s.Uninstall)
	}
	masked := s.masked(o)
	p.add(Fetch, "they are to be at hand before anything is given up for them", s.Missing...)
	change := s.Ours != nil || s.Record.Volume
	// Who installs rpcbind starts it, and there must not be two. Nor may there be none if the packages will not install.
	held := s.Ours != nil && len(s.Missing) > 0
	if held {
		p.add(Hold, "their packages start them, and the container still runs", socketUnit, rpcUnit, statdUnit, notifyUnit)
		p.add(Install, "its programs are not on the host", s.Missing...)
	}
	if s.Ours != nil {
		p.dropContainer(s, false)
	}
	p.dropOrphans(s, "")
	if held {
		p.add(Release, "the container is gone", socketUnit, rpcUnit, statdUnit, notifyUnit)
	}
	p.add(Unmask, "a masked unit cannot be started", masked...)
	listens := p.writeDropIns(o, s)
	if !held {
		p.add(Install, "its programs are not on the host", s.Missing...)
	}
	p.takeOver(o, s, OnHost)
	if change {
		if s.Units[statdUnit].Runs() {
			p.add(Stop, "its state is about to change", statdUnit)
		}
		p.Steps = append(p.Steps, Step{Verb: Carry, To: OnHost, Names: []string{volume}, Why: "whom statd watches is in the container's volume"})
		p.add(RemoveVolume, "its state is on the host", volume)
	}
	p.removeImages(s, func(engine.Image) bool { return false })
	p.writeLinks(o, s) // after that: from here on statd starts along with rpcbind
	var disabled []string
	for _, name := range []string{socketUnit, rpcUnit} {
		if file := s.Units[name].File; file != "enabled" && file != "static" && file != "indirect" {
			disabled = append(disabled, name)
		}
	}
	p.add(Enable, "it must be there at boot", disabled...)
	restarted := p.startRPCBind(o, s, listens)
	if o.Statd {
		why := ""
		switch {
		case !s.Units[statdUnit].Runs(), change:
			why = "it does not run"
		case len(s.takeOvers(o)) > 0, len(s.inheritance(o)) > 0:
			why = "it takes over"
		case restarted:
			why = "rpcbind was restarted"
		case s.Answers.Statd != Answering:
			why = string(s.Answers.Statd) + ": " + s.Answers.StatdInfo
		}
		if why != "" {
			p.add(Restart, why, statdUnit)
		}
	}
	found := s.found()
	made := Record{Mode: OnHost, Packages: s.Missing, Found: found}
	for _, name := range masked { // not by a run that held it back, and was cut off
		if strings.HasPrefix(found[name].File, "masked") {
			made.Unmasked = append(made.Unmasked, name)
		}
	}
	for _, name := range disabled {
		if !found[name].enabled() {
			made.Enabled = append(made.Enabled, name)
		}
	}
	for _, name := range hostUnits(o) {
		if !s.Units[name].Runs() && !found[name].Runs {
			made.Started = append(made.Started, name)
		}
	}
	for _, step := range p.Steps {
		if step.Verb == Link {
			made.Links = append(made.Links, step.Names...)
		}
	}
	p.Record = made.join(s.Record)
	p.Record.Volume, p.Record.Container, p.Record.Disabled = false, "", nil // those are enabled again
	return nil
}

// found is how the first run found the units.
func (s Seen) found() map[string]Was {
	if !s.Record.empty() {
		return s.Record.Found
	}
	found := map[string]Was{}
	for _, name := range []string{socketUnit, rpcUnit, statdUnit} {
		if u := s.Units[name]; u.Exists() || u.Masked() {
			found[name] = Was{u.File, u.Runs()}
		}
	}
	return found
}

// takeOver ends statds elsewhere and brings together whom they watched, and whom dead ones did.
func (p *Plan) takeOver(o Options, s Seen, to Mode) {
	for _, d := range s.takeOvers(o) {
		p.Steps = append(p.Steps, Step{Verb: TakeOver, Names: []string{d.String()}, PID: d.PID, To: to, Why: "it ends with its home, and two statds must not be"})
	}
	for _, l := range s.inheritance(o) {
		p.Steps = append(p.Steps, Step{Verb: Inherit, Names: []string{l.Container}, Text: l.ID, To: to, Why: "a statd that is gone watched from there: " + strings.Join(l.Servers, ", ")})
	}
}

func (s Seen) inheritance(o Options) []Left {
	if !o.Statd {
		return nil
	}
	return s.Left
}

// takeOvers are the statds that must not be beside ours.
func (s Seen) takeOvers(o Options) []Daemon {
	if !o.Statd {
		return nil
	}
	return s.strayStatds()
}

// writeDropIns tells whether rpcbind's socket has to be opened anew.
func (p *Plan) writeDropIns(o Options, s Seen) (listens bool) {
	before := len(p.Steps)
	wanted := hostFiles(o, s)
	for _, path := range dropIns {
		have, there := s.Files[path]
		switch want := wanted[path]; {
		case have == want:
			continue
		case want != "":
			p.Steps = append(p.Steps, Step{Verb: Write, Names: []string{path}, Text: want})
		case there:
			p.add(Delete, "it is no longer wanted", path)
		}
		listens = listens || path == listenDropIn || path == oldListen
	}
	if len(p.Steps) > before || slices.ContainsFunc(hostUnits(o), func(name string) bool { return s.Units[name].Reload }) {
		p.Steps = append(p.Steps, Step{Verb: Reload})
	}
	return listens
}

// writeLinks makes statd start at boot and along with rpcbind.
func (p *Plan) writeLinks(o Options, s Seen) {
	before := len(p.Steps)
	if o.Statd {
		for _, path := range []string{bootLink, rpcLink} {
			if _, there := s.Files[path]; !there {
				p.Steps = append(p.Steps, Step{Verb: Link, Names: []string{path}, Text: linkTarget, Why: "the unit is static: nothing starts it"})
			}
		}
	} else {
		p.deleteLinks(s)
	}
	if len(p.Steps) > before {
		p.Steps = append(p.Steps, Step{Verb: Reload})
	}
}

func (p *Plan) deleteLinks(s Seen) {
	for _, path := range s.Record.Links {
		if _, there := s.Files[path]; there {
			p.add(Delete, "", path)
		}
	}
}

// startRPCBind tells whether rpcbind will be another process than before.
func (p *Plan) startRPCBind(o Options, s Seen, listens bool) bool {
	socket, service := s.Units[socketUnit], s.Units[rpcUnit]
	switch why := string(s.Answers.RPCBind) + ": " + s.Answers.RPCDetail; {
	case !socket.Runs() && !service.Runs():
		p.add(Start, "it does not run", socketUnit, rpcUnit)
	// A socket cannot be opened while its service runs, so both are stopped. statd, which requires the socket, stops with it.
	case listens:
		p.add(Stop, "it is to listen elsewhere", rpcUnit, socketUnit)
		p.add(Start, "it is to listen elsewhere", socketUnit, rpcUnit)
	case !socket.Runs(), !s.listensAt(o.addresses(s.IPv6)), s.Answers.RPCBind == Partial, s.Answers.RPCBind == NotThere:
		p.add(Stop, why, rpcUnit, socketUnit)
		p.add(Start, why, socketUnit, rpcUnit)
	case s.Answers.RPCBind == Hanging:
		p.add(Restart, why, rpcUnit)
	default:
		return false
	}
	return true
}

func (p *Plan) inContainer(o Options, s Seen) error {
	if s.EngineError != "" {
		return fmt.Errorf("cannot use mode container: %s", s.EngineError)
	}
	if s.Image.Problem != "" {
		return fmt.Errorf("cannot use mode container: %s", s.Image.Problem)
	}
	spec, plain := containerSpec(o, s)
	if id, name := s.nameTaken(o); id != "" {
		return fmt.Errorf("cannot make container %s: there is one of that name that this module did not make; choose another container_name", name)
	}
	leave := s.Record.onHost(s.Needed)
	besides := o.Statd && s.Units[statdUnit].Runs() // its own rpcbind may be dead
	running := s.Ours != nil && (s.Ours.State == "running" || s.Ours.State == "restarting" || s.Ours.State == "paused")
	same := s.Ours != nil && (s.Ours.Spec == spec.Labels[kolla.RPCBindLabel] || s.Ours.Spec == plain.Labels[kolla.RPCBindLabel])
	fresh := !same || besides && running
	if fresh {
		p.Steps = append(p.Steps, Step{Verb: TryImage, Names: containerPrograms(o), Text: s.Image.Reference})
	}
	if fresh && !s.Image.Ours {
		p.Steps = append(p.Steps, Step{Verb: MakeImage, Names: []string{spec.Image}, Image: s.Image, Why: "a container inherits the labels of its image, and kolla-ansible destroy goes by them"})
	}
	if leave {
		p.stopHost(s, nil)
	}
	if besides && (!leave || !slices.Contains(s.toStop(nil), statdUnit)) {
		p.add(Stop, "two statds must not be", statdUnit)
	}
	keep := ""
	if s.KollaUnits {
		keep = ownUnit(spec.Name)
	}
	p.dropOrphans(s, keep)
	if fresh {
		why := "there is none"
		if s.Ours != nil {
			p.dropContainer(s, ownUnit(s.Ours.Name) == keep)
			why = "its options or its image changed"
		}
		p.Steps = append(p.Steps, Step{Verb: Create, Names: []string{spec.Name}, Spec: spec, Plain: plain, Why: why})
	}
	p.takeOver(o, s, InContainer)
	// A container that runs has had it: a run before this one got as far as that, and not to the end of leaving the host.
	if (leave || besides) && (fresh || !running) {
		p.Steps = append(p.Steps, Step{Verb: Carry, To: InContainer, Names: []string{volume}, Why: "whom statd watches is on the host"})
	}
	removing := s.removing()
	if !leave {
		removing = nil
	}
	wanted := containerFiles(o, s, removing)
	for path, text := range wanted {
		if s.Files[path] != text {
			p.Steps = append(p.Steps, Step{Verb: Write, Names: []string{path}, Text: text, Why: "the container notifies"}, Step{Verb: Reload})
		}
	}
	p.runContainer(o, s, spec, fresh)
	// Only now: whatever of this fails, both services run.
	p.removeImages(s, func(i engine.Image) bool {
		return fresh && slices.Contains(i.References, spec.Image) || !fresh && i.ID == s.Ours.ImageID
	})
	disabled := s.wouldReturn(removing)
	p.add(Disable, "at the next boot it would take port 111 before the container does", disabled...)
	if leave {
		p.restoreHost(s, wanted, disabled)
	} else if _, there := s.Files[notifyDropIn]; there && wanted[notifyDropIn] == "" {
		p.add(Delete, "it is no longer wanted", notifyDropIn)
		p.Steps = append(p.Steps, Step{Verb: Reload})
	}
	p.Record = Record{Mode: InContainer, Volume: true, Container: spec.Name, Found: s.found(), Disabled: slices.Clone(s.Record.Disabled)}
	for _, name := range disabled {
		// Not what mode host enabled, unless it came, enabled, with a package that stays.
		ours := slices.Contains(s.Record.Enabled, name) && s.Record.Found[name].File != ""
		if !ours && !slices.Contains(p.Record.Disabled, name) {
			p.Record.Disabled = append(p.Record.Disabled, name)
		}
	}
	for _, name := range s.Record.Packages {
		if s.Needed[name] != "" {
			p.Record.Packages = append(p.Record.Packages, name)
		}
	}
	return nil
}

// wouldReturn are the host's units that start at boot, and are not to go with their package.
func (s Seen) wouldReturn(removing []string) (names []string) {
	if slices.Contains(removing, rpcbindName) {
		return nil
	}
	for _, name := range []string{rpcUnit, socketUnit} {
		if s.Units[name].Exists() && s.Units[name].File == "enabled" {
			names = append(names, name)
		}
	}
	return names
}

// removing are the packages that go with mode host, those first that need others.
func (s Seen) removing() (names []string) {
	for _, name := range s.Record.Packages {
		if s.Needed[name] == "" {
			names = append(names, name)
		}
	}
	return names
}

// packageOf is the package that a unit is of, by both distributions' names.
func packageOf(unit string) []string {
	if unit == statdUnit || unit == notifyUnit {
		return []string{"nfs-common", "nfs-utils"}
	}
	return []string{rpcbindName}
}

// nameTaken finds a container with the name that is not ours.
func (s Seen) nameTaken(o Options) (id, name string) {
	for id, name := range s.OtherNames {
		if name == o.ContainerName && (s.Ours == nil || s.Ours.ID != id) {
			return id, name
		}
	}
	return "", ""
}

// runContainer starts the container as kolla's are: by a unit where those have one, else by the engine's restart policy.
func (p *Plan) runContainer(o Options, s Seen, spec engine.Spec, fresh bool) {
	why := ""
	switch {
	case fresh:
		why = "it is new"
	case s.Ours.State == "paused":
		p.add(Unpause, "it is paused", spec.Name)
	case s.Ours.State != "running":
		why = "it is " + s.Ours.State
	case s.Answers.RPCBind != Answering:
		why = "rpcbind " + string(s.Answers.RPCBind) + ": " + s.Answers.RPCDetail
	case !s.listensAt(o.addresses(s.IPv6)):
		why = "it listens elsewhere"
	case len(s.takeOvers(o)) > 0, len(s.inheritance(o)) > 0:
		why = "its statd takes over"
	case o.Statd && s.Answers.Statd != Answering:
		why = "statd " + string(s.Answers.Statd) + ": " + s.Answers.StatdInfo
	}
	running := !fresh && (s.Ours.State == "running" || s.Ours.State == "restarting")
	if !s.KollaUnits {
		switch {
		case why != "" && running:
			p.add(RestartBox, why, spec.Name)
		case why != "":
			p.add(StartBox, why, spec.Name)
		}
		return
	}
	unit := ownUnit(spec.Name)
	path, text := unitFolder+unit, containerUnitText(spec.Name, s.EngineName, o.Statd)
	if s.Files[path] != text {
		p.Steps = append(p.Steps, Step{Verb: Write, Names: []string{path}, Text: text}, Step{Verb: Reload})
	}
	if s.Units[unit].File != "enabled" {
		p.add(Enable, "it must be there at boot", unit)
	}
	switch {
	case why != "" && s.Units[unit].Runs() && !fresh:
		p.add(Restart, why, unit)
	case why != "":
		p.add(Start, why, unit)
	case !s.Units[unit].Runs():
		p.add(Start, "the container is not the unit's", unit)
	}
}

// dropContainer removes our container, not the volume. Its unit, which would start the container again, is stopped, and removed unless
// it is for the next container, too.
func (p *Plan) dropContainer(s Seen, keepUnit bool) {
	if s.Ours.State == "paused" { // and would not end
		p.add(Unpause, "", s.Ours.Name)
	}
	p.dropUnit(s, ownUnit(s.Ours.Name), keepUnit)
	p.dropUnit(s, kolla.Unit(s.Ours.Name), false)
	p.add(Remove, "", s.Ours.Name)
}

// removeImages removes images of ours, but for those to be kept.
func (p *Plan) removeImages(s Seen, keep func(engine.Image) bool) {
	for _, i := range s.OwnImages {
		if !keep(i) {
			p.add(RemoveImage, "no container needs it", cmp.Or(strings.Join(i.References, ""), i.ID))
		}
	}
}

func (p *Plan) dropUnit(s Seen, unit string, keep bool) {
	if !strings.HasPrefix(s.Files[unitFolder+unit], mark) {
		return
	}
	p.add(Stop, "", unit)
	if !keep {
		p.add(Disable, "", unit)
		p.add(Delete, "", unitFolder+unit)
		p.Steps = append(p.Steps, Step{Verb: Reload})
	}
}

// dropOrphans sees to units of ours whose container somebody removed: systemd starts them again and again. The one to be kept is stopped, so that
// it does not start the next container too early.
func (p *Plan) dropOrphans(s Seen, keep string) {
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		unit, isUnit := strings.CutPrefix(path, unitFolder)
		ofOurs := s.Ours != nil && (unit == ownUnit(s.Ours.Name) || unit == kolla.Unit(s.Ours.Name))
		if isUnit && !strings.Contains(unit, "/") && !ofOurs { // all others of ours are in folders of units, or links
			p.dropUnit(s, unit, unit == keep)
		}
	}
}

// stopHost stops what did not run before the first run of mode host.
func (p *Plan) stopHost(s Seen, staying []string) {
	p.add(Stop, "", s.toStop(staying)...)
}

// toStop leaves out the units of packages that stay because others need them: those need them to run, too.
func (s Seen) toStop(staying []string) (names []string) {
	for _, name := range []string{statdUnit, rpcUnit, socketUnit} { // who needs the other first
		if slices.Contains(s.Record.Started, name) && s.Units[name].Runs() && !belongs(name, staying) {
			names = append(names, name)
		}
	}
	return names
}

// belongs: the unit is of one of the packages.
func belongs(unit string, packages []string) bool {
	return slices.ContainsFunc(packageOf(unit), func(name string) bool { return slices.Contains(packages, name) })
}

// restoreHost takes back the rest of what runs of mode host did, but for the files that are wanted, and units that are to stay disabled.
func (p *Plan) restoreHost(s Seen, wanted map[string]string, disabled []string) {
	before := len(p.Steps)
	for _, path := range dropIns {
		if _, there := s.Files[path]; there && wanted[path] == "" {
			p.add(Delete, "", path)
		}
	}
	p.deleteLinks(s)
	if len(p.Steps) > before {
		p.Steps = append(p.Steps, Step{Verb: Reload})
	}
	inContainer := p.Mode == InContainer
	staying := s.staying(inContainer)
	stopped := s.toStop(staying)
	if _, listened := s.Files[listenDropIn]; listened && !inContainer && s.hostActive() && !slices.Contains(stopped, socketUnit) {
		p.add(Stop, "it is to listen as the distribution does", rpcUnit, socketUnit)
		p.add(Start, "it is to listen as the distribution does", socketUnit, rpcUnit)
		if s.Units[statdUnit].Runs() && !slices.Contains(stopped, statdUnit) {
			p.add(Start, "it stopped with rpcbind's socket", statdUnit)
		}
	}
	var enabled []string
	for _, name := range s.Record.Enabled {
		if !slices.Contains(disabled, name) && !belongs(name, staying) {
			enabled = append(enabled, name)
		}
	}
	p.add(Disable, "", enabled...)
	if !inContainer {
		p.enableAgain(s, enabled)
	}
	p.add(Mask, "", s.Record.Unmasked...)
	p.add(Uninstall, "", s.removing()...)
}

// staying are the packages of ours that others need, unless it is about what is to give way to a container.
func (s Seen) staying(inContainer bool) (names []string) {
	for _, name := range s.Record.Packages {
		if s.Needed[name] != "" && !inContainer {
			names = append(names, name)
		}
	}
	return names
}

// enableAgain enables what was enabled before the first run: mode container disabled it, or it went along with another one, as systemctl disable
// rpcbind.service takes the socket with it (Also=).
func (p *Plan) enableAgain(s Seen, disabled []string) {
	var names []string
	for _, name := range []string{socketUnit, rpcUnit} {
		along := slices.Contains(disabled, rpcUnit) && name == socketUnit && s.Record.Found[name].enabled()
		if (along || slices.Contains(s.Record.Disabled, name)) && !slices.Contains(s.removing(), rpcbindName) {
			names = append(names, name)
		}
	}
	p.add(Enable, "as it was", names...)
}

// remove is state: absent.
func (p *Plan) remove(o Options, s Seen) error {
	if s.Ours != nil {
		p.dropContainer(s, false)
	}
	p.dropOrphans(s, "")
	p.stopHost(s, s.staying(false))
	p.restoreHost(s, nil, nil)
	if s.Ours != nil || s.Record.Volume {
		p.add(RemoveVolume, "", volume)
	}
	p.removeImages(s, func(engine.Image) bool { return false })
	p.Record = Record{Packages: s.staying(false)}
	if len(p.Record.Packages) > 0 {
		p.Record.Found = s.Record.Found
	}
	if len(p.Steps) > 0 && s.used() && !o.Force {
		return fmt.Errorf("cannot remove rpcbind and statd: NFSv3 locks depend on them: %s; unmount first, or set force: true", s.users())
	}
	return nil
}
