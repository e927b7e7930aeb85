package lockprobe

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// Run is the module: it looks, tries and reports, in check mode too. The result is valid also beside an error.
func Run(ctx context.Context, o Options, _ ansible.Call) (Result, error) {
	began := time.Now()
	result := emptyResult()
	if err := o.check(); err != nil {
		return result, err
	}
	ctx, cancel := ansible.WithTimeout(ctx, o.limit(), o.timeIsUp())
	defer cancel()
	m := &machine{caller: sunrpc.Client{}, proc: "/proc", dir: statedir.Path, fstab: "/etc/fstab", try: start}
	defer m.progress.keepTelling(ctx)()
	// An engine that is stuck is not to take the time of the host's own mounts.
	done := m.progress.begin("the container engine")
	m.progress.find(ctx, func(*Result) {})
	connecting, connected := context.WithTimeout(ctx, o.perMount())
	e, err := engine.Connect(connecting, o.Engine, o.EngineSocket)
	connected()
	done()
	if err == nil {
		defer e.Close()
		m.engine = e
		result.Engine.Name, result.Engine.Version = e.Name, e.Version
	} else {
		if len(o.Containers) > 0 {
			return result, err // what the user names cannot be looked at
		}
		result.Engine.Error = err.Error()
	}
	err = m.run(ctx, o, &result)
	result.TookMS = milliseconds(time.Since(began))
	return result, err
}

func emptyResult() Result {
	return Result{
		Verdict: Unclear, Cure: Cure{Fix: FixLook}, Evidence: []string{}, Mounts: []Mount{}, Packages: []Packages{}, StaleGuests: []Guest{}, Drift: []Drift{},
		Findings: []Finding{}, Settings: []Setting{}, Leftovers: []LeftProbe{}, Guests: -1, Proofs: []Proof{}, GuestProofs: []Proof{},
	}
}

func (m *machine) run(ctx context.Context, o Options, r *Result) error {
	s, err := m.observe(ctx, o)
	defer func() {
		for _, v := range s.views {
			v.close()
		}
	}()
	if err != nil {
		return err
	}
	if s.engineError != nil {
		r.Engine.Error = s.engineError.Error()
	}
	r.Warnings = append(r.Warnings, s.left...)
	for _, v := range s.views[1:] {
		r.Packages = append(r.Packages, v.row)
	}
	m.progress.find(ctx, func(known *Result) {
		known.Engine, known.Warnings, known.Packages = r.Engine, slices.Clone(r.Warnings), slices.Clone(r.Packages)
	})
	s.virsh = s.callVirsh(r.Engine.Name)
	all := trials(s, o.Paths)
	m.tryAll(ctx, all, o.perMount())
	if o.Prove {
		m.prove(ctx, s, all, o.perMount(), r)
	}
	servers, watched := m.askServers(ctx, all), watchedServers(all)
	holders, err := m.holders(s, all)
	if err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	}
	for _, t := range all {
		t.attempt.settle()
		for i, sight := range t.sights {
			if sight.named && t.attempt.Missing {
				continue
			}
			r.Mounts = append(r.Mounts, t.row(i, s, servers, watched, holders))
		}
		if t.attempt.Removed > 0 {
			r.Findings = append(r.Findings, Finding{Kind: LeftoverRemoved, Message: fmt.Sprintf("removed %d files or folders of earlier runs, which had been killed, from %s", t.attempt.Removed, t.sights[0].path)})
		}
	}
	slices.SortStableFunc(r.Mounts, func(a, b Mount) int { return s.order(a.Container) - s.order(b.Container) })
	for _, p := range s.stuck {
		r.Leftovers = append(r.Leftovers, LeftProbe{p.pid, p.device})
	}
	m.progress.find(ctx, func(known *Result) { known.Mounts = slices.Clone(r.Mounts) })
	r.RPCBind = s.service(rpcbindName, s.answers.RPCBind, s.answers.RPCBindMS, s.answers.RPCDetail)
	r.Statd = s.service(statdName, s.answers.Statd, s.answers.StatdMS, s.answers.StatdInfo)
	r.Libvirt.Locks = s.libvirtLocks()
	m.guests(ctx, o, s, r)
	r.drift(s)
	r.find(o, s, all)
	r.sumUp(s)
	if ctx.Err() != nil {
		return fmt.Errorf("cannot finish, and what is not reported was not looked at: %w", context.Cause(ctx))
	}
	return nil
}

// order is where a container's rows go: the host first, then as kolla.Sort has them.
func (s seen) order(name string) int {
	return slices.IndexFunc(s.views, func(v *view) bool { return v.name == name })
}

// askServers asks the servers of NFSv3 mounts whose locks fail, each once, at most serversAsked of them.
func (m *machine) askServers(ctx context.Context, all []*trial) map[string]*sunrpc.ServerAnswers {
	const serversAsked = 16
	found := map[string]*sunrpc.ServerAnswers{}
	var wait sync.WaitGroup
	for _, t := range all {
		mount := t.sights[0].mount
		address := serverOf(mount)
		if !mount.NeedsStatd() || !t.fails() || address == "" || found[address] != nil || len(found) == serversAsked {
			continue
		}
		answers := &sunrpc.ServerAnswers{}
		found[address] = answers
		wait.Go(func() { *answers = sunrpc.AskServer(ctx, m.caller, address) })
	}
	wait.Wait()
	return found
}

// watchedServers are the servers of which an NFSv3 lock was granted. Before the first lock the kernel has rpc.statd watch a server; it does
// not ask again, so that a statd that died since does no harm there.
func watchedServers(all []*trial) map[string]bool {
	found := map[string]bool{}
	for _, t := range all {
		mount := t.sights[0].mount
		if mount.NeedsStatd() && nolock(mount) == "" && !t.attempt.Image && t.attempt.Probes.OFD.Result == Granted {
			found[serverOf(mount)] = true
		}
	}
	return found
}

// holders finds who on this host holds the images that were asked for. Locks of the same host do not keep each other out over some
// filesystems as they should, so it looks for them whatever the answer was.
func (m *machine) holders(s seen, all []*trial) (map[fileID][]Holder, error) {
	files := map[fileID]bool{}
	for _, t := range all {
		if t.attempt.Image {
			files[imageID(t.attempt.Device, t.attempt.Inode)] = true
		}
	}
	if len(files) == 0 {
		return nil, nil
	}
	return findHolders(m.proc, files, s.nameOf)
}

func (s seen) nameOf(id string) string {
	if name := s.names[id]; name != "" {
		return name
	}
	return id[:min(12, len(id))]
}

// callVirsh is how a person reaches the libvirt of the guests. A host has no virsh where that is in a container.
func (s seen) callVirsh(engine string) string {
	for _, name := range s.names {
		if kolla.RunsGuests(name) {
			return engine + " exec " + name + " virsh"
		}
	}
	return "virsh"
}

// row is what the i-th of those who see a spot is told.
func (t *trial) row(i int, s seen, servers map[string]*sunrpc.ServerAnswers, watched map[string]bool, holders map[fileID][]Holder) Mount {
	sight := t.sights[i]
	mount := sight.mount
	options := allOptions(mount)
	e := Evidence{
		Container: sight.view.name, Path: sight.path, Source: mount.Source, FSType: mount.FSType, Options: options,
		NeedsStatd: mount.NeedsStatd(), Nolock: nolock(mount), Image: t.attempt.Image,
		Probes: t.attempt.Probes, Problem: t.attempt.Problem, Hangs: t.attempt.Hangs, Stuck: t.stuck, As: t.attempt.As,
		Services: s.answers, Watched: watched[serverOf(mount)], Server: servers[serverOf(mount)], QEMU: sight.view.row.QEMU, Variant: sight.view.row.Variant,
		Unpatched: sight.view.row.Unpatched, Library: sight.view.row.Library.active(), Libvirt: sight.view.libvirt, Covered: sight.view.covered, Virsh: s.virsh,
	}
	if e.Server != nil && !t.fails() {
		e.Server = nil
	}
	if t.attempt.Image {
		e.Holders = holders[imageID(t.attempt.Device, t.attempt.Inode)]
	}
	if t.outside != nil {
		e.Inside = true
		e.OutsideWell = t.outside.Probes.OFD.Result == Granted && t.attempt.Probes.OFD.Result == Refused
	}
	j := judge(e)
	row := Mount{
		Container: sight.view.name, Path: sight.path, Source: mount.Source, FSType: mount.FSType, Vers: vers(mount), Options: options,
		Image: t.attempt.Image, Probes: t.attempt.Probes, Verdict: j.Verdict, Reason: j.Reason, Evidence: j.Evidence, Fix: j.Cure.Fix, Cure: j.Cure, Guests: j.Guests, Squashed: e.squashed(),
		Holders: append([]Holder{}, e.Holders...),
	}
	switch {
	case row.Probes.OFD.Result == NotTried && row.Probes.POSIX.Result == NotTried:
	case i > 0:
		row.Probed = "with " + t.sights[0].view.name
	case t.outside != nil:
		row.Probed = "inside"
	default:
		row.Probed = "outside"
	}
	return row
}

// allOptions are the mount's and the filesystem's own, each once.
func allOptions(m host.MountPoint) string {
	all := strings.Split(m.Options, ",")
	for o := range strings.SplitSeq(m.Super, ",") {
		if !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return strings.Join(all, ",")
}

func (s seen) service(name string, c sunrpc.Condition, ms float64, detail string) Service {
	v := Service{State: string(c), Detail: detail}
	if c == sunrpc.Answering || c == sunrpc.Partial {
		v.AnswersMS = ms
	}
	for _, p := range s.processes {
		if p.Name == name && p.HostNetwork {
			v.Where = Host
			if p.Container != "" {
				v.Where = s.nameOf(p.Container)
			}
		}
	}
	return v
}

// guests counts those that run, and looks for those of nova_libvirt that run another program than the one that is there now, or without the library.
func (m *machine) guests(ctx context.Context, o Options, s seen, r *Result) {
	if s.guestsError != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("cannot tell how many guests run: %v", s.guestsError))
		return
	}
	found := s.guests
	r.Guests = len(found)
	defer m.progress.begin("the programs of guests")()
	v := s.runsGuests()
	if v == nil {
		return
	}
	var stale, without []host.Guest
	var err error
	if len(found) > 0 {
		looking, cancel := o.looking(ctx)
		defer cancel()
		stale, err = foreign.Within(looking, func() ([]host.Guest, error) { return host.Stale(found, v.root) })
	}
	if err != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("cannot tell which guests still run an old program: %v", err))
		return
	}
	if v.row.QEMU == ByLibrary {
		if without, err = m.without(ctx, found); err != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("cannot tell of each guest whether it has the library: %v", err))
		}
	}
	for _, g := range found {
		advice := "hard reboot or live-migrate it: "
		switch {
		case slices.Contains(stale, g):
			advice += "it runs a QEMU that was replaced"
		case slices.Contains(without, g):
			advice += "it was started before the library was there, and runs without it"
		default:
			continue
		}
		n := imageLocks(locksOf(m.proc, g.PID))
		if n == 0 {
			advice += ", and holds no image locks"
		}
		r.StaleGuests = append(r.StaleGuests, Guest{PID: g.PID, Guest: g.Name, Locks: n, Advice: advice})
	}
}

func (r *Result) drift(s seen) {
	if s.keptError != nil {
		r.Warnings = append(r.Warnings, s.keptError.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(s.kept)) {
		var now *Packages
		for i := range r.Packages {
			if r.Packages[i].Container == name {
				now = &r.Packages[i]
			}
		}
		if now == nil && (s.names == nil || s.exists(name)) {
			continue // it was not to be looked at, or no engine answers
		}
		if d, ok := drift(name, s.kept[name], now); ok {
			r.Drift = append(r.Drift, d)
		}
	}
	if s.putError != nil {
		r.Warnings = append(r.Warnings, s.putError.Error())
	}
	for _, p := range r.Packages {
		if put, ok := s.put.Containers[p.Container]; ok {
			if d, ok := lostLibrary(put, p); ok {
				r.Drift = append(r.Drift, d)
			}
		}
	}
	slices.SortStableFunc(r.Drift, func(a, b Drift) int { return cmp.Compare(a.Container, b.Container) })
}

func (s seen) exists(name string) bool {
	for _, n := range s.names {
		if n == name {
			return true
		}
	}
	return false
}

// sumUp gives the host its verdict.
func (r *Result) sumUp(s seen) {
	worst, found := sum(r.Mounts)
	if found {
		r.Verdict, r.Reason, r.Evidence, r.Cure = worst.Verdict, worst.Reason, worst.Evidence, worst.Cure
	}
	if v, e, ok := s.unmounted(); ok && rank(v) < rank(r.Verdict) || ok && !found {
		r.Verdict, r.Reason, r.Evidence, r.Cure = v, meaning[v], e, Evidence{}.cure(v)
		r.Msg = fmt.Sprintf("%s: %s; shares are configured that may be mounted with NFSv3", v, r.Reason)
		return
	}
	if found {
		more := 0
		for _, m := range r.Mounts {
			if m.Verdict == worst.Verdict {
				more++
			}
		}
		r.Msg = fmt.Sprintf("%s: %s (%s at %s %s%s)", worst.Verdict, worst.Reason, worst.Source, worst.Path, in(worst.Container), andMore(more-1))
		return
	}
	r.Verdict, r.Cure = OK, Evidence{}.cure(OK)
	r.Reason = "there is no NFS mount on this host, so nothing was tried"
	switch {
	case len(r.Packages) == 0 && r.Engine.Error != "":
		r.Reason = "no container engine answers, and the host itself has no NFS mount, so nothing was tried"
		r.Verdict, r.Cure = Unclear, Evidence{}.cure(Unclear)
	case len(r.Packages) == 0:
		r.Reason = "this host has no kolla container and no NFS mount, so nothing was tried"
	}
	r.Msg = string(r.Verdict) + ": " + r.Reason
}

func in(container string) string {
	if container == Host {
		return "on the host"
	}
	return "in " + container
}

func rank(v Verdict) int { return slices.Index(worstFirst, v) }

func andMore(n int) string {
	switch {
	case n <= 0:
		return ""
	case n == 1:
		return ", and one more"
	}
	return fmt.Sprintf(", and %d more", n)
}

// unmounted judges shares that are configured, may be mounted with version 3, and are not: without rpcbind or statd mount.nfs ends with
// 32 after a while, so that there is no mount to try locks on.
func (s seen) unmounted() (Verdict, []string, bool) {
	mounted := map[string]bool{}
	for _, v := range s.views {
		for _, m := range v.mounts {
			mounted[m.Source] = true
		}
	}
	var wanted []share
	for _, share := range s.config.shares {
		if !strings.Contains(share.file, "/config/") && !mounted[share.export] && !s.config.onlyV4(share) {
			wanted = append(wanted, share) // neither of the deployment host, for other hosts, nor mounted, and judged by its locks
		}
	}
	for _, store := range s.missingStores() {
		if readOptions(store.options).mayBeV3() {
			wanted = append(wanted, store.share)
		}
	}
	v := Evidence{NeedsStatd: true, Services: s.answers}.service()
	if len(wanted) == 0 || v == OK {
		return OK, nil, false
	}
	return v, []string{
		fmt.Sprintf("%s is configured in %s, line %d, and not mounted", wanted[0].export, wanted[0].file, wanted[0].line),
		fmt.Sprintf("rpcbind: %s%s", s.answers.RPCBind, inBrackets(s.answers.RPCDetail)), fmt.Sprintf("rpc.statd: %s%s", s.answers.Statd, inBrackets(s.answers.StatdInfo)),
	}, true
}

func (c config) onlyV4(s share) bool {
	all := slices.Concat(c.cinder, c.nova)
	if len(all) == 0 {
		return !readOptions(s.options).mayBeV3()
	}
	return !slices.ContainsFunc(all, func(own setting) bool { return join(own.value, s.options).mayBeV3() })
}
