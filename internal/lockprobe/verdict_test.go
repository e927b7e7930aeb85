package lockprobe

import (
	"maps"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

var (
	granted  = Probe{Result: Granted}
	noLocks  = Probe{Result: Refused, Errno: "ENOLCK"}
	untried  = Probe{Result: NotTried}
	answers  = sunrpc.Answers{RPCBind: sunrpc.Answering, Statd: sunrpc.Answering}
	all      = func(p Probe) Probes { return Probes{p, p, p} }
	services = func(rpcbind, statd sunrpc.Condition) sunrpc.Answers {
		return sunrpc.Answers{RPCBind: rpcbind, Statd: statd}
	}
	server = func(rpcbind, nlm, statd sunrpc.Condition) *sunrpc.ServerAnswers {
		return &sunrpc.ServerAnswers{Address: filer, RPCBind: rpcbind, NLM: nlm, Statd: statd}
	}
)

// The states of facts that were measured over NFSv3 in a virtual machine, of stores that operators reported, and what follows. Those
// that a filesystem of FUSE can do for real are in TestVerdicts.
func TestJudge(t *testing.T) {
	const up, absent, dead, hangs = sunrpc.Answering, sunrpc.NotThere, sunrpc.Dead, sunrpc.Hanging
	tests := []struct {
		name    string
		e       Evidence
		verdict Verdict
		fix     Fix
		says    string // in the reason, the evidence or the cure
	}{
		{"works", Evidence{Probes: all(granted)}, OK, FixNone, ""},
		{"no rpcbind", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: services(absent, absent)}, RPCBindMissing, FixRPCBind, "recover at once"},
		{"rpcbind over some ways", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: services(sunrpc.Partial, dead)}, StatdDead, FixRPCBind, ""},
		{"statd unknown to rpcbind", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: services(up, sunrpc.Unregistered)}, StatdMissing, FixRPCBind, ""},
		{"statd never registered", Evidence{Probes: Probes{Probe{Result: Hung}, untried, untried}, Hangs: "ofd", NeedsStatd: true, Services: services(up, absent)}, StatdMissing, FixRPCBind, ""},
		{"statd dead", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: services(up, dead)}, StatdDead, FixRPCBind, "ENOLCK"},
		{"the mount hangs, whatever statd does", Evidence{Probes: all(untried), Hangs: "open", NeedsStatd: true, Services: services(up, dead)}, Hangs, FixServer, "does not answer"},
		{"a process of an earlier run hangs", Evidence{Probes: all(untried), Stuck: 7}, Hangs, FixServer, "process 7"},
		{"the server has no lock manager", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: answers, Server: server(up, absent, up)}, ServerNoNLM, FixNFSv4, "vers=4.2"},
		{"the server cannot call back", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: answers, Server: server(up, up, up)}, CallbackBlocked, FixServer, "rpcinfo -T tcp HOST 100024"},
		{"the server's statd is absent", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: answers, Server: server(up, up, absent)}, CallbackBlocked, FixServer, "its rpc.statd is absent"},
		{"the server is silent", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: answers, Server: server(hangs, "", "")}, Unclear, FixLook, "cannot be asked why"},
		{"the server was not asked", Evidence{Probes: all(noLocks), NeedsStatd: true, Services: answers}, Unclear, FixLook, "it was not asked"},
		{"FUSE without OFD locks", Evidence{FSType: "fuse.x", Probes: Probes{Probe{Result: Refused, Errno: "EINVAL"}, granted, granted}}, OFDUnsupported, FixPatch, "fuse.x"},
		{"no locks, stock QEMU", Evidence{Probes: all(noLocks), QEMU: Stock}, LocksRefused, FixPatch, "nfslock.kolla.fix"},
		{"no locks, patched already", Evidence{Probes: all(noLocks), QEMU: Patched, Variant: "fallback"}, LocksRefused, FixNone, "Nothing keeps two writers"},
		{"no locks, the classic edit", Evidence{Probes: all(noLocks), QEMU: Patched, Variant: "disable_ofd"}, LocksRefused, FixPatch, ""},
		{"no locks, mixed", Evidence{Probes: all(noLocks), QEMU: Mixed, Variant: "fallback"}, LocksRefused, FixPatch, ""},
		{"the container's profile", Evidence{Container: "c", Probes: all(noLocks), Inside: true, OutsideWell: true}, LocksRefused, FixPatch, "Give c another seccomp profile"},
		{"the container's profile, NFSv3", Evidence{Container: "c", Probes: all(noLocks), Inside: true, OutsideWell: true, NeedsStatd: true, Services: services(up, dead)}, LocksRefused, FixPatch, "inside c only"},
		{"nolock", Evidence{Probes: all(granted), Nolock: "nolock", Options: "rw,nolock"}, NolockMount, FixNFSv4, "rw,nolock"},
		{"read-only", Evidence{Probes: all(untried), Problem: "it is mounted read-only"}, Unclear, FixLook, "read-only"},
		{"read-only, statd dead", Evidence{Probes: all(untried), Problem: "it is mounted read-only", NeedsStatd: true, Services: services(up, dead)}, StatdDead, FixRPCBind, "follows from the services alone; no lock was tried: it is mounted read-only"},
		{"read-only, no rpcbind", Evidence{Probes: all(untried), Problem: "it is mounted read-only", NeedsStatd: true, Services: services(absent, absent)}, RPCBindMissing, FixRPCBind, "rpcbind: absent"},
		{"full, statd unknown to rpcbind", Evidence{Probes: all(untried), Problem: "it is full", NeedsStatd: true, Services: services(up, absent)}, StatdMissing, FixRPCBind, "it is full"},
		{"read-only, statd dead, the server is watched", Evidence{Probes: all(untried), Problem: "it is mounted read-only", NeedsStatd: true, Services: services(up, dead), Watched: true}, Unclear, FixLook, "another NFSv3 mount of the same server gives locks"},
		{"read-only, all services answer", Evidence{Probes: all(untried), Problem: "it is mounted read-only", NeedsStatd: true, Services: answers}, Unclear, FixLook, "read-only"},
		{"read-only, NFSv4, statd dead", Evidence{Probes: all(untried), Problem: "it is mounted read-only", Services: services(up, dead)}, Unclear, FixLook, "read-only"},
		{"full, nolock", Evidence{Probes: all(untried), Problem: "it is full", Nolock: "nolock", Services: services(absent, absent)}, NolockMount, FixNFSv4, "no lock was tried: it is full"},
		{"read-only, local POSIX locks, statd dead", Evidence{Probes: all(untried), Problem: "it is mounted read-only", Nolock: "local_lock=posix", NeedsStatd: true, Services: services(up, dead)}, NolockMount, FixNFSv4, "local_lock=posix"},
		{"a lock that is held on a file of ours", Evidence{Probes: Probes{granted, Probe{Result: HeldBy}, granted}}, Unclear, FixLook, "does not release locks"},
		{"held image", Evidence{Image: true, Probes: Probes{Probe{Result: HeldBy}, untried, untried}}, Held, FixHolder, "fence it first"},
	}
	seen := map[Verdict]bool{}
	for _, test := range tests {
		j := judge(test.e)
		seen[j.Verdict] = true
		text := strings.Join(append([]string{j.Reason, j.Cure.Text, j.Cure.Command}, j.Evidence...), "\n")
		if j.Verdict != test.verdict || j.Cure.Fix != test.fix || j.Cure.Text == "" || !strings.HasPrefix(j.Reason, meaning[j.Verdict]) || !strings.Contains(text, test.says) {
			t.Errorf("%s: %s, %s\n%s", test.name, j.Verdict, j.Cure.Fix, text)
		}
	}
	for _, v := range worstFirst {
		if !seen[v] {
			t.Errorf("no case comes to %s", v)
		}
	}
}

func TestTheHostHasTheWorstOfItsMounts(t *testing.T) {
	for i, v := range worstFirst {
		r := emptyResult()
		for _, other := range worstFirst[i:] {
			r.Mounts = append([]Mount{{Verdict: other, Container: "c", Path: "/" + string(other), Reason: meaning[other]}}, r.Mounts...)
		}
		r.sumUp(seen{})
		if r.Verdict != v || !strings.HasPrefix(r.Msg, string(v)+": "+meaning[v]) {
			t.Errorf("%s: %s, %q", v, r.Verdict, r.Msg)
		}
	}
}

// Without rpcbind or statd mount.nfs gives up, so that there is no mount to judge.
func TestSharesThatCouldNotBeMounted(t *testing.T) {
	dir := func(share string) config {
		return readConfig(etc(t, map[string]string{"cinder-volume/nfs_shares": share}))
	}
	for _, test := range []struct {
		name  string
		c     config
		a     sunrpc.Answers
		views []*view
		want  Verdict
	}{
		{"no rpcbind", dir("filer:/a\n"), services(sunrpc.NotThere, sunrpc.NotThere), nil, RPCBindMissing},
		{"no statd", dir("filer:/a\n"), services(sunrpc.Answering, sunrpc.NotThere), nil, StatdMissing},
		{"both answer", dir("filer:/a\n"), answers, nil, OK},
		{"NFSv4 needs neither", dir("filer:/a -o vers=4.2\n"), services(sunrpc.NotThere, sunrpc.NotThere), nil, OK},
		{"no share", config{}, services(sunrpc.NotThere, sunrpc.NotThere), nil, OK},
		{"the overrides are for other hosts", readConfig(etc(t, map[string]string{"config/nfs_shares": "filer:/a\n"})), services(sunrpc.NotThere, sunrpc.NotThere), nil, OK},
	} {
		r := emptyResult()
		r.sumUp(seen{config: test.c, answers: test.a})
		if r.Verdict != test.want || r.Msg == "" {
			t.Errorf("%s: %s, %q", test.name, r.Verdict, r.Msg)
		}
	}
}

// The rows of containers that were not asked for say nothing of them.
func TestDriftIsReportedOfWhatWasLookedAt(t *testing.T) {
	patchedOnce := &baseline.Index{ID: "old", Packages: []baseline.Kept{{Name: "qemu-utils", Version: oldVersion}}}
	s := seen{names: map[string]string{"aa": "nova_compute", "bb": "cinder_volume"}, kept: map[string]*baseline.Index{"nova_compute": patchedOnce, "cinder_volume": {ID: "old"}, "cinder_api": {ID: "old"}}}
	r := emptyResult()
	r.Packages = []Packages{{Container: "nova_compute", ID: "aa", State: "running", QEMU: Stock, Installed: []QEMUPacket{{Name: "qemu-utils", Version: oldVersion, whose: baseline.Stock}}}}
	r.drift(s)
	if len(r.Drift) != 2 || r.Drift[0].Kind != Gone || r.Drift[0].Container != "cinder_api" || r.Drift[1].Kind != Recreated || r.Drift[1].Container != "nova_compute" {
		t.Errorf("%+v", r.Drift)
	}
}

// Only a lock that the server gave shows that statd was asked for it.
func TestAServerIsWatchedWhereItsLockIsGranted(t *testing.T) {
	on := func(fstype, super string, p Probe, image bool) *trial {
		return &trial{sights: []sight{{mount: host.MountPoint{FSType: fstype, Super: super}}}, attempt: attempt{Probes: Probes{OFD: p}, Image: image}}
	}
	got := watchedServers([]*trial{
		on("nfs", "vers=3,addr=192.0.2.1", granted, false),
		on("nfs", "vers=3,addr=192.0.2.2", untried, false),
		on("nfs", "vers=3,addr=192.0.2.3", noLocks, false),
		on("nfs", "vers=3,addr=192.0.2.4,nolock", granted, false),
		on("nfs", "vers=3,addr=192.0.2.5,local_lock=posix", granted, false),
		on("nfs4", "vers=4.2,addr=192.0.2.6", granted, false),
		on("nfs", "vers=3,addr=192.0.2.7", granted, true),
	})
	if want := map[string]bool{"192.0.2.1": true}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
