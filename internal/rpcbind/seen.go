package rpcbind

import (
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

// The units of both distributions' packages.
const (
	socketUnit = "rpcbind.socket"
	rpcUnit    = "rpcbind.service"
	statdUnit  = "rpc-statd.service"
	notifyUnit = "rpc-statd-notify.service"
)

// The programs' names as processes.
const (
	rpcbindName = "rpcbind"
	statdName   = "rpc.statd"
)

// Seen is what a host looks like: everything that a plan depends on.
type Seen struct {
	Systemd      bool
	Tool         host.PackageTool
	Distribution string   // for messages: "debian"
	Missing      []string // packages that mode host needs and whose programs are not there
	Uninstall    string   // why Missing cannot be installed; empty if it can, or was not asked
	Units        map[string]host.Unit
	Files        map[string]string // those of ours that exist: path to text, of a link its target
	Record       Record
	Needed       map[string]string // packages of the record that cannot be removed, and why
	Listeners    []string          // files of others that add to where rpcbind.socket listens, whatever ours says

	Addresses []netip.Addr // the host's own
	IPv6      bool         // the kernel has it
	Sockets   []host.Socket
	Foreign   []string // who holds port 111 and is neither rpcbind nor the first process: "dnsmasq (process 812)"
	Processes []Daemon
	StalePID  int // the number in /run/rpc.statd.pid, if it is no statd's
	Notified  bool
	InUse     []host.Mount      // whose locks need statd
	Threads   int               // of the kernel's NFS server, whose clients are told of a reboot, too
	Left      []Left            // whom statds watched that are dead, in containers that are still there
	Watched   map[Mode][]string // names and addresses of servers, by whose statd watches them
	Answers   Answers

	EngineName  string // "docker"; its program's name, too
	EngineError string // why there is no engine to speak to; empty if there is one
	Ours        *OurContainer
	Image       Image             // for mode container
	OtherNames  map[string]string // ids of containers to names
	OwnImages   []engine.Image    // of this module, and used by no other container than ours
	NoImage     string            // why none could be made, in this run
	Unbound     []Unbound
	KollaUnits  bool // kolla's containers are owned by systemd units here

	holders   []holder // of port 111 beside rpcbind, before containers have names
	unitFiles []string // where the unit of our container may be
}

// Daemon is a running rpcbind or statd that has the host's ports.
type Daemon struct {
	host.Process
	Where string // "nova_compute", "rpc-statd.service", "" for one that nobody looks after
	Ours  bool   // in the container that this module made
	Main  bool   // the process of the unit Where, which would start another one
}

// Left is what a statd kept in a container, and nobody reads any more.
type Left struct {
	Container string
	ID        string
	Servers   []string
}

// OurContainer is the one with our label.
type OurContainer struct {
	ID    string
	Name  string
	State string
	Spec  string // the checksum of what it was made from

	ImageID   string
	Inherited bool // it has the label by which kolla-ansible takes a container for its own
}

// Image is what a container would be made from.
type Image struct {
	Reference string
	ID        string
	Ours      bool   // it is one of this module's already; the ID is that of the image whose layers it has
	Problem   string // why there is none
}

// Unbound is a container that uses NFS and does not bind /run.
type Unbound struct {
	Name        string
	HostNetwork bool
}

// Condition is how a service fares when it is asked: sunrpc's words are used here as they are.
type Condition = sunrpc.Condition

// Answers is what asking rpcbind and statd came to.
type Answers = sunrpc.Answers

// Conditions of a service. Only answering is well.
const (
	Answering    = sunrpc.Answering
	Hanging      = sunrpc.Hanging
	NotThere     = sunrpc.NotThere
	Unregistered = sunrpc.Unregistered
	Dead         = sunrpc.Dead
	Partial      = sunrpc.Partial
)

// statd gives the running ones outside of our own container, and not under the unit.
func (s Seen) strayStatds() []Daemon {
	var strays []Daemon
	for _, d := range s.Processes {
		if d.Name == statdName && !d.Ours && d.Where != statdUnit {
			strays = append(strays, d)
		}
	}
	return strays
}

// foreignRPCBinds are those that are neither the unit's nor ours.
func (s Seen) foreignRPCBinds() []Daemon {
	var strays []Daemon
	for _, d := range s.Processes {
		if d.Name == rpcbindName && !d.Ours && d.Where != rpcUnit && d.Where != socketUnit {
			strays = append(strays, d)
		}
	}
	return strays
}

func (d Daemon) String() string {
	switch {
	case d.Where == "" && d.OwnPIDs:
		return fmt.Sprintf("%s (process %d, in another PID namespace)", d.Name, d.PID)
	case d.Where == "":
		return fmt.Sprintf("%s (process %d, started by hand)", d.Name, d.PID)
	case d.Container == "":
		return fmt.Sprintf("%s (process %d of %s)", d.Name, d.PID, d.Where)
	}
	return fmt.Sprintf("%s in container %s (process %d)", d.Name, d.Where, d.PID)
}

// hostActive: the host's own rpcbind is started, or would be by the next connection.
func (s Seen) hostActive() bool { return s.Units[socketUnit].Runs() || s.Units[rpcUnit].Runs() }

// findings are in words what is not as it should be, for the report.
func (s Seen) findings(o Options) (found []string) {
	if a := s.Answers; a.RPCBind != Answering {
		found = append(found, fmt.Sprintf("rpcbind: %s (%s)", a.RPCBind, a.RPCDetail))
	}
	if a := s.Answers; o.Statd && a.RPCBind == Answering && a.Statd != Answering {
		found = append(found, fmt.Sprintf("rpc.statd: %s (%s)", a.Statd, a.StatdInfo))
	}
	for _, d := range s.strayStatds() {
		found = append(found, fmt.Sprintf("a statd that will not outlive its home: %s", d))
	}
	for _, l := range s.Left {
		found = append(found, fmt.Sprintf("a statd that is gone watched %s, from container %s", strings.Join(l.Servers, ", "), l.Container))
	}
	for _, d := range s.foreignRPCBinds() {
		found = append(found, fmt.Sprintf("another rpcbind: %s", d))
	}
	if s.StalePID != 0 {
		found = append(found, fmt.Sprintf("/run/rpc.statd.pid is stale: process %d is no statd of this host", s.StalePID))
	}
	return found
}

// exposed tells at which public addresses port 111 can be reached.
func (s Seen) exposed() []string {
	var public []string
	for _, sock := range s.Sockets {
		ip, err := netip.ParseAddr(sock.Address)
		if err != nil {
			continue
		}
		for _, own := range s.Addresses {
			if reaches := ip == own || ip.IsUnspecified() && ip.Is4() == own.Is4(); reaches && isPublic(own) && !slices.Contains(public, own.String()) {
				public = append(public, own.String())
			}
		}
	}
	slices.Sort(public)
	return public
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: carrier-grade NAT

func isPublic(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !sharedSpace.Contains(ip)
}

// listensAt compares what is bound with what is wanted; wanted empty is whatever the distribution does.
func (s Seen) listensAt(wanted []string) bool {
	if len(wanted) == 0 {
		return true
	}
	var tcp, udp []string
	for _, sock := range s.Sockets {
		if sock.TCP {
			tcp = append(tcp, sock.Address)
		} else {
			udp = append(udp, sock.Address)
		}
	}
	want := slices.Sorted(slices.Values(wanted))
	for _, have := range [][]string{tcp, udp} {
		slices.Sort(have)
		if !slices.Equal(slices.Compact(have), want) {
			return false
		}
	}
	return true
}

// used: somebody's locks depend on what is told to whom.
func (s Seen) used() bool { return len(s.InUse) > 0 || s.Threads > 0 }

// users names a few of the mounts in use, and the server.
func (s Seen) users() string {
	const shown = 3
	var names []string
	for _, m := range s.InUse[:min(shown, len(s.InUse))] {
		names = append(names, m.Source+" at "+m.Path)
	}
	text := strings.Join(names, ", ")
	if more := len(s.InUse) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if s.Threads > 0 {
		text = strings.TrimPrefix(fmt.Sprintf("%s, this host's own NFS server (%d threads)", text, s.Threads), ", ")
	}
	return text
}

// warnings are what holds whatever is done.
func (s Seen) warnings(o Options, mode Mode) (all []string) {
	if o.absent() || mode == InContainer {
		for _, name := range slices.Sorted(maps.Keys(s.Needed)) {
			all = append(all, fmt.Sprintf("package %s stays, though this module installed it: %s", name, s.Needed[name]))
		}
	}
	for _, u := range s.Unbound {
		reach := "and it has no host network, so it reaches no rpcbind of this host"
		if u.HostNetwork {
			reach = "so it reaches rpcbind at 127.0.0.1:111 only, which the probe found to be: " + string(s.Answers.RPCBind)
		}
		all = append(all, fmt.Sprintf("%s does not bind /run: /run/rpcbind.sock and the mark that statd has notified are not the host's there, %s. "+
			"In kolla-ansible: %s: [\"/run:/run:shared\"]", u.Name, reach, kolla.ExtraVolumes(u.Name)))
	}
	if s.Ours != nil && s.Ours.Inherited && mode == InContainer {
		why := ""
		if s.NoImage != "" {
			why = " (" + s.NoImage + ")"
		}
		all = append(all, fmt.Sprintf("container %s has the labels of kolla's image, as the engine made none of this module's own%s: "+
			"kolla-ansible destroy would remove it, with its volume, in which statd's state is", s.Ours.Name, why))
	}
	if public := s.exposed(); len(o.Listen) == 0 && len(public) > 0 && !o.absent() {
		all = append(all, fmt.Sprintf("port 111 is open at %s: anybody there can list this host's RPC services, and have rpcbind's larger answers sent elsewhere; "+
			"set listen to the storage network's addresses", strings.Join(public, ", ")))
	}
	if len(o.Listen) > 0 && !slices.ContainsFunc(o.Listen, func(a string) bool { return !netip.MustParseAddr(a).IsLoopback() }) {
		all = append(all, "listen has loopback addresses only: a server that restarts asks this host's rpcbind for statd and cannot reach it, so locks are not taken again; "+
			"add the storage network's address unless the server is this host")
	}
	if s.Answers.RPCBind == Answering && len(s.InUse) > 0 && !slices.ContainsFunc(s.Answers.Programs, func(r sunrpc.Registration) bool { return r.Program == lockManager }) {
		all = append(all, "the kernel's lock manager (program 100021) is not registered though NFSv3 is in use: rpcbind was killed since it started; "+
			"servers cannot tell waiting clients that a lock is free. It registers again when the last NFSv3 mount is gone and one comes back")
	}
	return all
}

// unwatched warns of servers whose locks the statd before may have watched over, and this one does not: the kernel asks for it once, and
// goes by the server's address (fs/lockd/mon.c). Where no lock was ever asked for there is none to watch, and nothing is amiss.
func (s Seen) unwatched(mode Mode) (all []string) {
	var without []string
	for _, m := range s.InUse {
		names := m.Servers()
		known := slices.ContainsFunc(names, func(name string) bool { return slices.Contains(s.Watched[mode], name) })
		if !known && len(names) > 0 && !slices.Contains(without, names[0]) {
			without = append(without, names[0])
		}
	}
	if len(without) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the new rpc.statd does not watch %s: if guests have held locks there since before, they are not taken again when that server "+
		"restarts; mount there anew, or move the guests away and back, when convenient", strings.Join(without, ", "))}
}

// lockManager is NLM, which the kernel registers: RFC 1833's registry.
const lockManager uint32 = 100021
