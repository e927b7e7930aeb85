package lockprobe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// network answers as this host's services and an NFS server's would.
type network struct {
	rpcbind, statd          error // of this host; statd of ports
	unregistered            bool  // statd is not in rpcbind's table
	server, nlm, serverStat error
	serverRows              []sunrpc.Registration
	asked                   *atomic.Int32 // how often the server was
}

const filer = "192.0.2.7"

var (
	nlmRow   = sunrpc.Registration{Program: sunrpc.NLM, Version: 4, NetID: "tcp", Address: "0.0.0.0.156.64"}
	statdRow = sunrpc.Registration{Program: sunrpc.Status, Version: 1, NetID: "tcp", Address: "0.0.0.0.156.65"}
)

func (n network) Null(_ context.Context, t sunrpc.Target, program, _ uint32) (time.Duration, error) {
	local := !strings.HasPrefix(t.Address, filer)
	switch {
	case program == sunrpc.Portmapper:
		return time.Millisecond, n.rpcbind
	case local && program == sunrpc.Status:
		return time.Millisecond, n.statd
	case program == sunrpc.NLM:
		return time.Millisecond, n.nlm
	}
	return time.Millisecond, n.serverStat
}

func (n network) Dump(_ context.Context, t sunrpc.Target) ([]sunrpc.Registration, uint32, error) {
	if strings.HasPrefix(t.Address, filer) {
		if n.asked != nil {
			n.asked.Add(1)
		}
		return n.serverRows, 4, n.server
	}
	if n.unregistered {
		return []sunrpc.Registration{nlmRow}, 4, n.rpcbind
	}
	return []sunrpc.Registration{nlmRow, statdRow}, 4, n.rpcbind
}

// well is a network in which everybody answers.
func well() network { return network{serverRows: []sunrpc.Registration{nlmRow, statdRow}} }

// on makes a machine that sees the store as a mount of that type with those options, and nothing of its other mounts' being NFS.
func on(t *testing.T, s *store, fstype, super string, caller sunrpc.Caller) *machine {
	t.Helper()
	proc := t.TempDir()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " "+s.dir+" ") {
			before, _, _ := strings.Cut(line, " - ")
			line = fmt.Sprintf("%s - %s filer:/export %s\n", before, fstype, super)
		}
		lines.WriteString(line)
	}
	own := filepath.Join(proc, strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "mountinfo"), []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &machine{proc: proc, dir: t.TempDir(), caller: caller, try: start}
}

const (
	v3 = "rw,vers=3,local_lock=none,addr=" + filer
	v4 = "rw,vers=4.2,addr=" + filer
)

// quick is a run's time that lets a mount's locks hang for a second.
var quick = Options{Timeout: 3, ConfigDir: "/nonexistent"}

func report(t *testing.T, m *machine, o Options) Result {
	t.Helper()
	r := emptyResult()
	if err := m.run(t.Context(), o, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Each verdict, by a filesystem that really does it; the NFS client's part is played by what stands in the table of mounts, and the
// services by what they answer.
func TestVerdicts(t *testing.T) {
	only := func(no unix.Errno, ops ...string) func(string) unix.Errno {
		return func(op string) unix.Errno {
			if slices.Contains(ops, op) {
				return no
			}
			return 0
		}
	}
	locks := []string{"posix", "flock"}
	without := func(change func(*network)) network {
		n := well()
		change(&n)
		return n
	}
	refused := syscall.ECONNREFUSED
	tests := []struct {
		name    string
		rule    func(string) unix.Errno
		fstype  string
		super   string
		net     network
		verdict Verdict
		fix     Fix
		says    string // in the reason or the evidence
	}{
		{"locks work", nil, "nfs", v3, well(), OK, FixNone, "OFD lock: granted"},
		{"no locks at all", only(unix.ENOLCK, locks...), "fuse.store", "rw", well(), LocksRefused, FixPatch, "refused (ENOLCK)"},
		{"NFSv4 without locks", only(unix.EOPNOTSUPP, locks...), "nfs4", v4, well(), LocksRefused, FixPatch, "refused (EOPNOTSUPP)"},
		{"no rpcbind", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.rpcbind = refused }), RPCBindMissing, FixRPCBind, "rpcbind: absent"},
		{"rpcbind hangs", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.rpcbind = sunrpc.ErrHangs }), RPCBindMissing, FixRPCBind, "rpcbind: hangs"},
		{"statd never registered, locks hang", only(hang, locks...), "nfs", v3, without(func(n *network) { n.unregistered = true }), StatdMissing, FixRPCBind, "rpc.statd: absent"},
		{"statd dead", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.statd = refused }), StatdDead, FixRPCBind, "rpc.statd: dead"},
		{"statd stopped", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.statd = sunrpc.ErrHangs }), StatdDead, FixRPCBind, "rpc.statd: hangs"},
		{"statd dead, NFSv4", only(unix.ENOLCK, locks...), "nfs4", v4, without(func(n *network) { n.statd = refused }), LocksRefused, FixPatch, ""},
		{"statd dead, locks go on", nil, "nfs", v3, without(func(n *network) { n.statd = refused }), OK, FixNone, "rpc.statd: dead"},
		{"the server cannot call back", only(unix.ENOLCK, locks...), "nfs", v3, well(), CallbackBlocked, FixServer, "lock manager (100021) at 192.0.2.7: answers; its rpc.statd (100024): answers"},
		{"the server's statd is dead", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.serverStat = refused }), CallbackBlocked, FixServer, "its rpc.statd is dead"},
		{"the server has no lock manager", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.serverRows = []sunrpc.Registration{statdRow} }), ServerNoNLM, FixNFSv4, "100021) at 192.0.2.7: absent"},
		{"the server's lock manager is silent", only(hang, locks...), "nfs", v3, without(func(n *network) { n.nlm = sunrpc.ErrHangs }), ServerNoNLM, FixNFSv4, "100021) at 192.0.2.7: hangs"},
		{"the server says nothing", only(unix.ENOLCK, locks...), "nfs", v3, without(func(n *network) { n.server = sunrpc.ErrHangs }), Unclear, FixLook, "cannot be asked why"},
		{"nolock", nil, "nfs", "rw,vers=3,nolock,local_lock=all,addr=" + filer, well(), NolockMount, FixNFSv4, "local_lock=all"},
		{"only flock is local", nil, "nfs", "rw,vers=3,local_lock=flock,addr=" + filer, well(), OK, FixNone, ""},
		{"locks hang", only(hang, locks...), "nfs4", v4, well(), Hangs, FixServer, "OFD locks"},
		{"the mount hangs", only(hang, "open"), "nfs", v3, well(), Hangs, FixServer, "the mount itself does not answer"},
		{"no file can be made", only(hang, "create"), "nfs", v3, well(), Hangs, FixServer, "no file can be made"},
		{"held by nobody", only(unix.EAGAIN, "posix"), "fuse.store", "rw", well(), Unclear, FixLook, "does not release locks"},
		{"full", only(unix.ENOSPC, "create"), "nfs", v3, well(), Unclear, FixLook, "it is full"},
		{"over quota", only(unix.EDQUOT, "create"), "nfs", v3, well(), Unclear, FixLook, "its quota is used up"},
		{"read-only at the server", only(unix.EROFS, "create"), "nfs", v3, well(), Unclear, FixLook, "it is read-only"},
		{"read-only at the server, statd dead", only(unix.EROFS, "create"), "nfs", v3, without(func(n *network) { n.statd = refused }), StatdDead, FixRPCBind, "no lock was tried"},
		{"full, nolock", only(unix.ENOSPC, "create"), "nfs", "rw,vers=3,nolock,local_lock=all,addr=" + filer, well(), NolockMount, FixNFSv4, "it is full"},
		{"nobody may write", only(unix.EACCES, "create"), "nfs", v3, well(), Unclear, FixLook, "root_squash"},
		{"only flock is refused", only(unix.ENOLCK, "flock"), "nfs", v3, well(), OK, FixNone, "flock: refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, test.rule)
			o := quick
			o.Paths = []string{s.dir}
			r := report(t, on(t, s, test.fstype, test.super, test.net), o)
			if len(r.Mounts) != 1 {
				t.Fatalf("%d mounts: %+v", len(r.Mounts), r.Mounts)
			}
			m := r.Mounts[0]
			if m.Verdict != test.verdict || m.Fix != test.fix || m.Cure.Fix != test.fix || m.Cure.Text == "" || r.Verdict != m.Verdict {
				t.Errorf("%s, %s: %s\n%s\nhost: %s", m.Verdict, m.Fix, m.Reason, strings.Join(m.Evidence, "\n"), r.Verdict)
			}
			if all := m.Reason + "\n" + strings.Join(m.Evidence, "\n"); !strings.Contains(all, test.says) {
				t.Errorf("it does not say %q:\n%s", test.says, all)
			}
			if names := s.names(); len(names) > 0 {
				t.Errorf("left behind: %q", names)
			}
			if r.Changed || !slices.ContainsFunc(worstFirst, func(v Verdict) bool { return v == m.Verdict }) {
				t.Errorf("changed %v, verdict %q", r.Changed, m.Verdict)
			}
		})
	}
}

// Every verdict has its meaning and its place in the order.
func TestEveryVerdictIsExplained(t *testing.T) {
	if len(worstFirst) != len(meaning) || len(slices.Compact(slices.Sorted(slices.Values(worstFirst)))) != len(meaning) {
		t.Errorf("%d in the order, %d meanings", len(worstFirst), len(meaning))
	}
	for _, v := range worstFirst {
		if meaning[v] == "" || (Evidence{}).cure(v).Text == "" {
			t.Errorf("%s: %q, %+v", v, meaning[v], Evidence{}.cure(v))
		}
	}
}

// A server that squashes root refuses its file. The locks are then those of the folder's owner, and the file is removed as him.
func TestRootSquashedLocksAreTriedAsTheFoldersOwner(t *testing.T) {
	s := newStore(t, nil)
	s.mu.Lock()
	s.uid = 42436
	s.mu.Unlock()
	o := quick
	o.Paths = []string{s.dir}
	m := report(t, on(t, s, "nfs", v3, well()), o).Mounts[0]
	if m.Verdict != OK || !strings.Contains(strings.Join(m.Evidence, "\n"), "tried as user 42436") || len(s.names()) > 0 || !s.owners["42436"] {
		t.Errorf("%s: %q; left %q", m.Verdict, m.Evidence, s.names())
	}
}

// The process that hangs cannot be killed: its request is with the store. The run ends in time all the same, the file is gone, and the
// next run finds the process and leaves the mount alone.
func TestAMountThatHangsBlocksNeitherThisRunNorTheNext(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	s := newStore(t, func(op string) unix.Errno {
		if op == "posix" {
			requests.Add(1)
			return hang
		}
		return 0
	})
	m := on(t, s, "nfs4", v4, well())
	o := quick
	o.Paths = []string{s.dir}
	began := time.Now()
	first := report(t, m, o)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if v := first.Mounts[0]; v.Verdict != Hangs || v.Probes.OFD.Result != Hung || v.Probes.POSIX.Result != NotTried {
		t.Errorf("%+v", v)
	}
	if names := s.names(); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
	deadline := time.Now().Add(30 * time.Second)
	var stuck []stuckProbe
	for ; len(stuck) == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		all, err := findStuck("/proc", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.device == deviceOf(t, s.dir) {
				stuck = append(stuck, p)
			}
		}
	}
	if len(stuck) != 1 {
		t.Fatalf("%d processes hang in it", len(stuck))
	}
	// The fake proc has no processes: that of the first run is put there.
	dir := filepath.Join(m.proc, strconv.Itoa(stuck[0].pid))
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", stuck[0].pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cmdline"), line, 0o600); err != nil {
		t.Fatal(err)
	}
	before := requests.Load()
	second := report(t, m, o)
	if v := second.Mounts[0]; v.Verdict != Hangs || !strings.Contains(v.Reason, fmt.Sprintf("process %d of an earlier run", stuck[0].pid)) || len(second.Leftovers) != 1 {
		t.Errorf("%s: %s, %+v", v.Verdict, v.Reason, second.Leftovers)
	}
	if requests.Load() != before {
		t.Error("the mount was tried again")
	}
}

func deviceOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor)
}

// Not even the file can be taken away: the run still ends, and says what hangs. A later run removes the file.
func TestAFileThatCannotBeRemovedIsSaid(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(op string) unix.Errno {
		if op == "unlink" {
			return hang
		}
		return 0
	})
	o := quick
	o.Paths = []string{s.dir}
	began := time.Now()
	m := report(t, on(t, s, "nfs4", v4, well()), o).Mounts[0]
	if m.Verdict != Hangs || !strings.Contains(m.Reason, "no file can be removed") || m.Probes.OFD.Result != Granted {
		t.Errorf("%s: %s, %+v", m.Verdict, m.Reason, m.Probes)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
