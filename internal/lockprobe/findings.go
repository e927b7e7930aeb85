package lockprobe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// find adds what is to be known beside the verdicts.
func (r *Result) find(o Options, s seen, all []*trial) {
	add := func(kind FindingKind, format string, args ...any) {
		r.Findings = append(r.Findings, Finding{Kind: kind, Message: fmt.Sprintf(format, args...)})
	}
	for _, p := range o.Paths {
		if !slices.ContainsFunc(r.Mounts, func(m Mount) bool { return m.Path == p }) {
			add(PathNotFound, "%s is neither on the host nor in a container that was looked at", p)
		}
	}
	for _, v := range s.views[1:] {
		if v.ID != "" && v.State != "running" {
			add(ContainerAbsent, "%s is %s, so nothing could be tried in it", v.name, v.State)
		}
	}
	for _, t := range all {
		if t.outside != nil && t.outside.Probes.OFD.Result == Granted && t.attempt.Probes.OFD.Result == Refused {
			add(SeccompRefuses, "a protection of %s (it has a seccomp profile of its own) refuses locks at %s that the mount grants outside", t.inside.name, t.sights[0].path)
		}
	}
	if s.names != nil { // else nobody looked into the containers
		findUnseen(s.volumes, s.views, add)
	}
	inUse := slices.ContainsFunc(all, func(t *trial) bool { return t.sights[0].mount.NeedsStatd() })
	r.findServices(s, inUse, add)
	r.findPatched(add)
	r.findLibraries(add)
	for _, m := range r.Mounts {
		if m.Verdict == NolockMount {
			add(NoLockOption, "%s is mounted with %s at %s %s", m.Source, readOptions(m.Options).local, m.Path, in(m.Container))
		}
	}
	r.Findings = append(r.Findings, s.config.lint()...)
	for _, m := range s.missingStores() {
		r.Findings = append(r.Findings, m.finding())
	}
	r.Settings = s.config.settings()
	r.Findings = append(r.Findings, s.config.lintMounts(r.Mounts)...)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.File, b.File), a.Line-b.Line)
	})
	r.Findings = slices.Compact(r.Findings)
}

type adder = func(kind FindingKind, format string, args ...any)

// findServices names who serves, where that is not as it should be: a statd that dies with its container, and programs that bring a
// lock manager of their own.
func (r *Result) findServices(s seen, inUse bool, add adder) {
	for _, p := range s.processes {
		if p.Name != statdName || !p.HostNetwork || p.Container == "" {
			continue
		}
		if name := s.nameOf(p.Container); slices.Contains(kolla.NFSUsers, name) {
			add(StrayStatd, "rpc.statd (process %d) runs in %s and dies with it, and all NFSv3 locks with that: rpcbind_ensure gives it a home that lasts", p.PID, name)
		}
	}
	for _, text := range s.otherServers {
		add(ForeignProgram, "%s: NFSv3 locks of this host's mounts are sent there and fail; move that server to another host, or mount with NFSv4", text)
	}
	if !inUse {
		return
	}
	answers := s.answers
	if r.well() && (answers.Statd == sunrpc.Dead || answers.Statd == sunrpc.Hanging) {
		add(NoRestartStatd, "rpc.statd does not answer (%s): the kernel still has the locks of servers that it knows, and will not get those of another: run rpcbind_ensure", answers.StatdInfo)
	}
	if answers.Programs == nil {
		return
	}
	if !slices.ContainsFunc(answers.Programs, func(row sunrpc.Registration) bool { return row.Program == sunrpc.NLM }) {
		add(NoLockManager, "the kernel's lock manager (program 100021) is not registered in rpcbind though NFSv3 is in use: rpcbind was killed since it started, and servers cannot tell waiting clients that a lock is free")
	}
}

// otherServers are NFS servers beside the kernel's. They register a lock manager, and some a status monitor, of their own, which the
// NFS client of the same host is then sent to. glusterfs is also its FUSE client, which registers nothing.
var otherServers = []string{"ganesha.nfsd", "glusterfs", "unfsd"}

// findOtherServers names those that hold a port which rpcbind names for the lock manager or the status monitor.
func findOtherServers(proc string, processes []host.Process, answers sunrpc.Answers) (found []string) {
	var pids []int
	for _, p := range processes {
		if slices.Contains(otherServers, p.Name) && p.HostNetwork {
			pids = append(pids, p.PID)
		}
	}
	if len(pids) == 0 {
		return nil
	}
	for _, row := range answers.Programs {
		port, ok := row.Port()
		if !ok || row.Program != sunrpc.NLM && row.Program != sunrpc.Status {
			continue
		}
		sockets, err := host.Bound(proc, port)
		if err != nil {
			continue
		}
		for _, pid := range host.HoldersAmong(proc, sockets, pids) {
			text := fmt.Sprintf("%s (process %d) has port %d, which rpcbind names for program %d", host.CommandName(proc, pid), pid, port, row.Program)
			if !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
	}
	return found
}

func (r *Result) well() bool {
	return slices.ContainsFunc(r.Mounts, func(m Mount) bool { return m.Verdict == OK && strings.HasPrefix(m.Vers, "3") })
}

func (r *Result) findPatched(add adder) {
	for _, p := range r.Packages {
		for _, have := range p.Installed {
			if have.whose == baseline.Doubtful {
				add(DoubtfulPackage, "whose %s %s in %s is cannot be told: %s", have.Name, have.Version, p.Container, have.doubt)
			}
		}
		put := p.QEMU == ByLibrary && p.Library.State != preloaded.Bound // kolla itself puts a bound one into each container alike
		if p.QEMU != Patched && p.QEMU != Mixed && !put {
			continue
		}
		if p.Variant == "disable_ofd" {
			add(ClassicVariant, "QEMU in %s has the classic edit, which turns its own locking off: nothing keeps two writers of one image apart, wherever it lies", p.Container)
		}
		mine := slices.DeleteFunc(slices.Clone(r.Mounts), func(m Mount) bool { return m.Container != p.Container })
		if len(mine) > 0 && !slices.ContainsFunc(mine, func(m Mount) bool { return m.Verdict != OK || m.Probes.POSIX.Result == Refused }) {
			what := "QEMU in %s is patched, and all locks there work: it needs no patch any more"
			if put {
				what = "%s has the library, and all locks there work: it does not need it any more"
			}
			add(PatchNotNeeded, what, p.Container)
		}
	}
}
