package lockprobe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// Verdict is what is wrong with locks.
type Verdict string

// Verdicts.
const (
	OK              Verdict = "ok"
	RPCBindMissing  Verdict = "rpcbind_missing"
	StatdMissing    Verdict = "statd_missing"
	StatdDead       Verdict = "statd_dead"
	CallbackBlocked Verdict = "callback_blocked"
	ServerNoNLM     Verdict = "server_no_nlm"
	OFDUnsupported  Verdict = "ofd_unsupported"
	LocksRefused    Verdict = "locks_refused"
	NolockMount     Verdict = "nolock_mount"
	Held            Verdict = "held"
	Hangs           Verdict = "hangs"
	Unclear         Verdict = "unknown"
)

// worstFirst is the order in which a host's mounts are summed up: what is mended on the host comes first, because it often mends what
// follows; then what hangs, what the server has to mend, what the filesystem cannot do, what is a choice of the operator, and what
// is nobody's fault.
var worstFirst = []Verdict{
	RPCBindMissing, StatdMissing, StatdDead, Hangs, ServerNoNLM, CallbackBlocked, LocksRefused, OFDUnsupported, NolockMount, Held, Unclear, OK,
}

// meaning is the sentence for each verdict.
var meaning = map[Verdict]string{
	OK:              "locks work",
	RPCBindMissing:  "rpcbind does not answer on this host, so that NFSv3 locks fail",
	StatdMissing:    "rpc.statd is not registered on this host, so that NFSv3 locks fail or hang",
	StatdDead:       "rpc.statd is registered on this host and does not answer, so that NFSv3 locks fail",
	CallbackBlocked: "this host and the NFS server have every service that NFSv3 locks need, so the server cannot reach this host, or its own rpc.statd is down",
	ServerNoNLM:     "the NFS server has no lock manager registered, so that NFSv3 has no locks",
	OFDUnsupported:  "the filesystem refuses OFD locks, the kind that QEMU takes; POSIX locks work",
	LocksRefused:    "the filesystem refuses every kind of lock that QEMU can take",
	NolockMount:     "locks are local to this host by a mount option: two hosts may write to one image",
	Held:            "somebody holds locks on the image",
	Hangs:           "a call does not return in time",
	Unclear:         "no lock could be tried",
}

// Evidence is all that a mount's verdict depends on.
type Evidence struct {
	Container   string
	Path        string
	Source      string
	FSType      string
	Options     string // the mount's and the filesystem's
	NeedsStatd  bool   // its locks go through rpc.statd
	Nolock      string
	Image       bool
	Probes      Probes
	Problem     string // why no lock was tried, or not all
	Hangs       string // what does not return: "open", "create", "ofd", …
	Stuck       int    // a process of an earlier run that still hangs in this mount
	As          *user  // the locks were tried as this user, not root
	Services    sunrpc.Answers
	Watched     bool                  // an NFSv3 lock of the same server is granted: the kernel need not ask statd for it again
	Server      *sunrpc.ServerAnswers // asked only where an NFSv3 lock fails
	QEMU        QEMU                  // of the container
	Variant     string
	Unpatched   []string       // packages that count and are stock
	Library     bool           // programs that start in the container have the preloaded library
	Libvirt     *libvirt.Locks // of the container that runs guests, else nil
	Covered     bool           // that libvirt has the library loaded
	Inside      bool           // the locks were tried inside, because of the container's own seccomp profile
	OutsideWell bool           // … and outside they are granted
	Holders     []Holder
	Virsh       string // how a person on this host calls it
}

// Finding of a mount: Verdict, what led to it, and the smallest cure.
type judgement struct {
	Verdict  Verdict
	Reason   string
	Evidence []string
	Cure     Cure
	Guests   Guests
}

// judge is a pure function: the same evidence, the same verdict.
func judge(e Evidence) judgement {
	v, why := e.verdict()
	j := judgement{Verdict: v, Reason: meaning[v], Evidence: e.lines()}
	if why != "" {
		j.Reason += ": " + why
	}
	j.Cure = e.cure(v)
	j.Guests = e.guests()
	return j
}

// verdict gives the verdict and, where its meaning alone does not say enough, why.
func (e Evidence) verdict() (Verdict, string) {
	ofd, posix := e.Probes.OFD, e.Probes.POSIX
	if e.Image {
		return e.image()
	}
	if e.Stuck != 0 {
		return Hangs, fmt.Sprintf("process %d of an earlier run still waits for this mount, so it was not tried again", e.Stuck)
	}
	if e.Hangs != "" {
		if v := e.service(); v != OK && ofd.Result != NotTried {
			return v, ""
		}
		if s := e.Server; s != nil && s.RPCBind == sunrpc.Answering && s.NLM != sunrpc.Answering && ofd.Result != NotTried {
			return e.server()
		}
		return Hangs, e.hanging()
	}
	if ofd.Result == NotTried {
		return e.untried()
	}
	if e.Nolock != "" {
		return NolockMount, e.Nolock
	}
	switch {
	case ofd.Result == Granted && posix.Result == Granted:
		return OK, ""
	case ofd.Result == HeldBy || ofd.Result == Granted && posix.Result == HeldBy:
		return Unclear, "a lock on a file that nobody else knows is refused as if somebody held it: the store does not release locks, or a security module refuses them"
	case ofd.Result == Granted:
		return OK, "though POSIX locks are refused, which QEMU does not need here"
	}
	if e.NeedsStatd && !e.OutsideWell { // which clears the NFS client and the server
		if v := e.service(); v != OK {
			return v, ""
		}
		return e.server()
	}
	why := ""
	if e.OutsideWell {
		why = "inside " + e.Container + " only, whose seccomp profile or another protection refuses what the mount grants"
	}
	if posix.Result == Granted {
		return OFDUnsupported, why
	}
	return LocksRefused, why
}

// untried judges a mount where no file of ours can be made: it is read-only, full, or root may not write there. Options and services
// are known all the same. A lock on somebody's file instead would tell more, and could keep its owner out.
func (e Evidence) untried() (Verdict, string) {
	if e.Nolock != "" {
		return NolockMount, e.Nolock + "; no lock was tried: " + e.Problem
	}
	if v := e.service(); v != OK && !e.Watched {
		return v, "this follows from the services alone; no lock was tried: " + e.Problem
	}
	return Unclear, e.Problem
}

// image judges a file, whose locks were only asked for.
func (e Evidence) image() (Verdict, string) {
	switch p := e.Probes.OFD; {
	case e.Stuck != 0 || e.Hangs != "":
		return Hangs, e.hanging()
	case p.Result == HeldBy || len(e.Holders) > 0:
		return Held, e.who()
	case p.Result == Granted:
		return OK, "nobody is known to hold a lock on the image"
	case p.Result == NotTried:
		return Unclear, e.Problem
	case e.NeedsStatd:
		if v := e.service(); v != OK {
			return v, ""
		}
		return e.server()
	case p.Result == Refused:
		return OFDUnsupported, ""
	}
	return Unclear, ""
}

func (e Evidence) who() string {
	if len(e.Holders) == 0 {
		return "none of this host's processes, so another client of the store, or one that died"
	}
	var names []string
	for _, h := range e.Holders {
		names = append(names, h.String())
	}
	return strings.Join(names, ", ")
}

func (h Holder) String() string {
	text := fmt.Sprintf("%s (process %d", h.Program, h.PID)
	if h.Guest != "" {
		text += ", guest " + h.Guest
	}
	if h.Container != Host {
		text += ", in " + h.Container
	}
	return text + ")"
}

// hanging names the call.
func (e Evidence) hanging() string {
	switch e.Hangs {
	case "open":
		return "the mount itself does not answer"
	case "create":
		return "no file can be made"
	case "folder":
		return "no folder can be made"
	case "remove":
		return "no file can be removed"
	case "":
		return ""
	}
	return fmt.Sprintf("%s locks", strings.ToUpper(e.Hangs))
}

// service tells whether this host's own rpcbind and statd explain that an NFSv3 lock fails.
func (e Evidence) service() Verdict {
	if !e.NeedsStatd {
		return OK
	}
	a := e.Services
	switch a.RPCBind {
	case sunrpc.Answering, sunrpc.Partial:
	default:
		return RPCBindMissing
	}
	switch a.Statd {
	case sunrpc.Answering:
		return OK
	case sunrpc.Dead, sunrpc.Hanging:
		return StatdDead
	}
	return StatdMissing
}

// server explains an NFSv3 lock that fails though this host has all that it needs.
func (e Evidence) server() (Verdict, string) {
	s := e.Server
	switch {
	case s == nil || s.RPCBind != sunrpc.Answering:
		detail := "it was not asked"
		if s != nil {
			detail = s.Detail
		}
		return Unclear, "rpcbind and rpc.statd answer here, the lock fails, and the server's rpcbind cannot be asked why (" + detail + ")"
	case s.NLM == sunrpc.NotThere:
		return ServerNoNLM, ""
	case s.NLM != sunrpc.Answering:
		return ServerNoNLM, "it is registered and does not answer"
	case s.Statd != sunrpc.Answering:
		return CallbackBlocked, "its rpc.statd is " + string(s.Statd)
	}
	return CallbackBlocked, ""
}

// lines are the evidence in words.
func (e Evidence) lines() []string {
	all := []string{}
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if p := e.Probes; p.OFD.Result == NotTried && p.POSIX.Result == NotTried && p.Flock.Result == NotTried {
		add("no lock was tried: %s", p.OFD.Detail)
	} else {
		e.addProbes(add)
	}
	if e.As != nil {
		add("root may not create files there (root_squash, or the folder's mode); the locks were tried as user %d", e.As.UID)
	}
	if e.Inside && e.Probes.OFD.Result != NotTried {
		add("tried inside %s, which has a seccomp profile of its own", e.Container)
		if e.OutsideWell {
			add("outside of %s the same locks are granted: its seccomp profile, or another protection of the container, refuses them", e.Container)
		}
	}
	if e.Nolock != "" {
		add("mount options: %s", e.Options)
	}
	if e.Watched && e.Probes.OFD.Result == NotTried && e.service() != OK {
		add("another NFSv3 mount of the same server gives locks: the kernel had rpc.statd watch that server while it answered")
	}
	if e.NeedsStatd {
		add("rpcbind: %s%s", e.Services.RPCBind, inBrackets(e.Services.RPCDetail))
		add("rpc.statd: %s%s", e.Services.Statd, inBrackets(e.Services.StatdInfo))
	}
	if s := e.Server; s != nil {
		if s.RPCBind != sunrpc.Answering {
			add("the server's rpcbind at %s: %s%s", s.Address, s.RPCBind, inBrackets(s.Detail))
		} else {
			add("the server's lock manager (100021) at %s: %s; its rpc.statd (100024): %s%s", s.Address, s.NLM, s.Statd, inBrackets(s.Detail))
		}
	}
	if e.Image && e.NeedsStatd {
		add("over NFSv3 some servers do not tell of another client's shared lock, so that an image may be in use though nobody is named")
	}
	for _, h := range e.Holders {
		add("%s has %s locks on bytes %s", h, h.Kind, h.Bytes)
	}
	if e.QEMU == Patched || e.QEMU == Mixed || e.QEMU == ByLibrary {
		add("QEMU in %s: %s%s", e.Container, e.QEMU, inBrackets(e.Variant))
	}
	if e.Libvirt != nil && e.Probes.POSIX.Result == Refused {
		add("%s", e.libvirtSettings())
	}
	return all
}

func (e Evidence) addProbes(add func(string, ...any)) {
	for _, k := range []struct {
		name string
		p    Probe
	}{{"OFD lock", e.Probes.OFD}, {"POSIX lock", e.Probes.POSIX}, {"flock", e.Probes.Flock}} {
		text := string(k.p.Result)
		if k.p.Errno != "" {
			text += " (" + k.p.Errno + ")"
		}
		if k.p.Detail != "" {
			text += ", " + k.p.Detail
		}
		add("%s: %s", k.name, text)
	}
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// sum gives the host the worst of its mounts; of several alike, the one with most to be done, and a container's before the host's own view.
func sum(mounts []Mount) (worst Mount, found bool) {
	for _, v := range worstFirst {
		for _, m := range mounts {
			more, same := most(m.Fix) > most(worst.Fix), most(m.Fix) == most(worst.Fix)
			if m.Verdict == v && (!found || more || same && worst.Container == Host && m.Container != Host) {
				worst, found = m, true
			}
		}
		if found {
			return worst, true
		}
	}
	return Mount{}, false
}

func most(f Fix) int { return slices.Index([]Fix{FixNone, FixLook, FixLibvirt, FixPatch}, f) }
