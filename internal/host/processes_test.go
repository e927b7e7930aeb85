package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fakeProc is a /proc with just the files that are read here.
type fakeProc struct {
	t   *testing.T
	dir string
}

func newProc(t *testing.T) fakeProc {
	p := fakeProc{t, t.TempDir()}
	p.add(1, "systemd", "S", "0::/init.scope\n", "host", "1")
	return p
}

// add makes a process; where names its namespaces, nspid is as in proc(5).
func (p fakeProc) add(pid int, name, state, cgroup, where, nspid string) {
	p.write(pid, "comm", name+"\n")
	p.write(pid, "status", fmt.Sprintf("Name:\t%s\nUmask:\t0022\nState:\t%s (whatever)\nNSpid:\t%s\n", name, state, nspid))
	p.write(pid, "cgroup", cgroup)
	net := "host"
	if where == "elsewhere" {
		net = where
	}
	for kind, ns := range map[string]string{"pid": where, "mnt": where, "net": net} {
		p.link(pid, "ns/"+kind, kind+":["+ns+"]")
	}
}

func (p fakeProc) write(pid int, name, text string) {
	path := filepath.Join(p.dir, fmt.Sprint(pid), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p fakeProc) link(pid int, name, target string) {
	path := filepath.Join(p.dir, fmt.Sprint(pid), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		p.t.Fatal(err)
	}
}

func TestProcessesAreFoundWithTheirHomes(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	p := newProc(t)
	p.add(20, "rpc.statd", "S", "12:pids:/system.slice/rpc-statd.service\n1:name=systemd:/system.slice/rpc-statd.service\n", "host", "20")
	p.add(21, "rpc.statd", "T", "1:name=systemd:/docker/"+id+"\n0::/\n", "box", "21\t9")
	p.add(22, "rpc.statd", "Z", "0::/\n", "host", "22")
	p.add(23, "rpcbind", "S", "0::/system.slice/docker-"+id+".scope\n", "host", "23")
	p.add(24, "rpcbind", "S", "0::/machine.slice/libpod-"+id+".scope/container\n", "elsewhere", "24\t1")
	p.add(25, "rpc.statd", "S", "0::/user.slice/user-0.slice/session-1.scope\n", "host", "25")
	p.add(26, "bash", "S", "0::/\n", "host", "26")
	got, err := Processes(p.dir, "rpc.statd", "rpcbind")
	if err != nil {
		t.Fatal(err)
	}
	want := []Process{
		{PID: 20, Name: "rpc.statd", Unit: "rpc-statd.service", HostNetwork: true, PIDInside: 20},
		{PID: 21, Name: "rpc.statd", Stopped: true, Container: id, OwnPIDs: true, HostNetwork: true, PIDInside: 9},
		{PID: 23, Name: "rpcbind", Container: id, HostNetwork: true, PIDInside: 23},
		{PID: 24, Name: "rpcbind", Container: id, OwnPIDs: true, PIDInside: 1},
		{PID: 25, Name: "rpc.statd", HostNetwork: true, PIDInside: 25},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What /proc/net looks like: rpcbind on every address, one connection of it, and a neighbour.
const (
	tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:006F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0000000000000000 100 0 0 10 0
   1: 0100007F:006F 0100007F:8235 01 00000000:00000000 00:00000000 00000000     0        0 1002 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1003 1 0000000000000000 100 0 0 10 0
`
	udp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: B80D0120000000000000000001000000:006F 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1004 2 0000000000000000 0
`
)

func TestBoundSocketsAndTheirHolders(t *testing.T) {
	p := newProc(t)
	p.write(1, "net/tcp", tcpTable)
	p.write(1, "net/udp6", udp6Table)
	p.link(1, "fd/5", "socket:[1001]")
	p.add(40, "rpcbind", "S", "0::/\n", "host", "40")
	p.link(40, "fd/4", "socket:[1001]")
	p.add(41, "dnsmasq", "S", "0::/\n", "host", "41")
	p.link(41, "fd/0", "/dev/null")
	p.link(41, "fd/7", "socket:[1004]")
	p.link(41, "fd/8", "socket:[1002]")
	got, err := Bound(p.dir, 111)
	if err != nil {
		t.Fatal(err)
	}
	want := []Socket{{Address: "0.0.0.0", TCP: true}, {Address: "2001:db8::1"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Socket{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	holders, err := Holders(p.dir, got, []int{40})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 40, 41}, holders); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}

const (
	shared = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /var/lib/nova/mnt/a\040b rw,relatime shared:5 master:2 - nfs filer:/export rw,vers=3,hard,local_lock=none,addr=10.0.0.2
41 22 0:51 / /v4 rw,relatime - nfs4 filer:/x rw,vers=4.2
42 22 0:52 / /sunrpc rw - rpc_pipefs sunrpc rw
`
	cinders = `22 1 0:60 / / rw - overlay overlay rw,lowerdir=/a:/b
40 22 0:50 / /var/lib/nova/mnt/a\040b rw - nfs filer:/export rw,vers=3,hard,local_lock=none,addr=10.0.0.2
43 22 0:53 / /var/lib/cinder/mnt/1 rw - nfs 10.0.0.3:/c rw,vers=3,nolock,local_lock=all
44 22 0:54 / /var/lib/cinder/mnt/2 rw - nfs 10.0.0.3:/d rw,vers=3,local_lock=none
`
)

func TestNFSMountsOfEveryNamespace(t *testing.T) {
	p := newProc(t)
	p.write(1, "mountinfo", shared)
	p.add(50, "bash", "S", "0::/\n", "host", "50")
	p.write(50, "mountinfo", "this is not read: the namespace is known\n")
	p.add(51, "cinder-volume", "S", "0::/\n", "cinder", "51")
	p.write(51, "mountinfo", cinders)
	got, err := NFSMounts(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range got {
		lines = append(lines, fmt.Sprintf("%s %s %d %v", m.Source, m.Path, m.PID, m.NeedsStatd()))
	}
	want := []string{
		"filer:/export /var/lib/nova/mnt/a b 1 true",
		"filer:/x /v4 1 false",
		"10.0.0.3:/c /var/lib/cinder/mnt/1 51 false",
		"10.0.0.3:/d /var/lib/cinder/mnt/2 51 true",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEndProcess: one that heeds SIGTERM, one that does not, one that is stopped, and a number that is another's by now.
func TestEndProcess(t *testing.T) {
	for name, script := range map[string]string{
		"heeds": "echo ready; exec sleep 60", "ignores": "trap '' TERM; echo ready; while :; do sleep 0.1; done", "stopped": "kill -STOP $$; sleep 60",
	} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		time.Sleep(200 * time.Millisecond)
		comm := CommandName("/proc", cmd.Process.Pid)
		if err := EndProcess(t.Context(), cmd.Process.Pid, "other", time.Second); err != nil {
			t.Errorf("%s, another's: %v", name, err)
		}
		if !lives(cmd.Process.Pid, comm) {
			t.Errorf("%s: ended under another's name", name)
		}
		if err := EndProcess(t.Context(), cmd.Process.Pid, comm, 500*time.Millisecond); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: it lives", name)
			_ = cmd.Process.Kill()
		}
	}
}

func TestParseUnits(t *testing.T) {
	const out = `Id=rpcbind.socket
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no

MainPID=0
Id=rpc-statd.service
LoadState=masked
ActiveState=inactive
UnitFileState=masked-runtime
NeedDaemonReload=yes
`
	units, err := parseUnits([]byte(out), []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if a := units["a"]; !a.Exists() || !a.Runs() || a.Masked() || a.Reload || a.File != "enabled" {
		t.Errorf("a: %+v", a)
	}
	if b := units["b"]; b.Exists() || b.Runs() || !b.Masked() || !b.Reload {
		t.Errorf("b: %+v", b)
	}
	if _, err := parseUnits([]byte(out), []string{"a"}); err == nil {
		t.Error("two answers to one question")
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(shared)
	f.Add(cinders)
	f.Add(`1 2 3 4 5 - nfs \04 vers=3`)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := parseMounts(strings.NewReader(text), 1)
		if err == nil && len(found) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts in %q", len(found), text)
		}
		for _, m := range found {
			m.NeedsStatd()
		}
	})
}

func FuzzParseSockets(f *testing.F) {
	f.Add(tcpTable, true)
	f.Add(udp6Table, false)
	f.Fuzz(func(t *testing.T, text string, tcp bool) {
		found, err := parseSockets(strings.NewReader(text), 111, tcp)
		if err == nil && len(found) > strings.Count(text, "\n")+1 {
			t.Errorf("%d sockets in %q", len(found), text)
		}
		for _, s := range found {
			if s.Address == "" || s.TCP != tcp {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzOwner(f *testing.F) {
	f.Add("1:name=systemd:/docker/" + strings.Repeat("a", 64) + "\n")
	f.Add("0::/system.slice/rpc-statd.service\n")
	f.Fuzz(func(t *testing.T, text string) {
		container, unit := owner(text)
		if container != "" && (len(container) != 64 || unit != "") {
			t.Errorf("%q: container %q, unit %q", text, container, unit)
		}
	})
}

func TestStartOfNamesAProcessForGood(t *testing.T) {
	proc := t.TempDir()
	for pid, stat := range map[string]string{
		"7": "7 (a) S) R 1 2) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2 3\n",
		"8": "8 (short) S 1 8\n",
	} {
		if err := errors.Join(os.Mkdir(filepath.Join(proc, pid), 0o755), os.WriteFile(filepath.Join(proc, pid, "stat"), []byte(stat), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if start, err := StartOf(proc, 7); start != 4711 || err != nil {
		t.Errorf("%d, %v", start, err)
	}
	for _, pid := range []int{8, 9} {
		if start, err := StartOf(proc, pid); err == nil {
			t.Errorf("%d: %d", pid, start)
		}
	}
	own, err := StartOf("/proc", os.Getpid())
	first, err1 := StartOf("/proc", 1)
	if own == 0 || own < first || err != nil || err1 != nil {
		t.Errorf("%d, %d, %v, %v", own, first, err, err1)
	}
}
