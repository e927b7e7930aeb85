package lockprobe

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// otherServer is this test program when it is started under the name of another NFS server, see TestMain: it holds a port.
func otherServer() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer l.Close()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the test is over
}

func TestAnotherServersLockManagerIsNamed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ganesha.nfsd")
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(own, name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil || cmd.Start() != nil {
		t.Fatal("cannot start it")
	}
	defer func() { _, _ = in.Close(), cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	// The first process's network may not be this test's, so the test itself stands for it.
	proc := t.TempDir()
	for link, pid := range map[string]int{"1": os.Getpid(), strconv.Itoa(cmd.Process.Pid): cmd.Process.Pid} {
		if err := os.Symlink(fmt.Sprintf("/proc/%d", pid), filepath.Join(proc, link)); err != nil {
			t.Fatal(err)
		}
	}
	processes, err := host.Processes(proc, otherServers...)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(program uint32, port int) sunrpc.Answers {
		return sunrpc.Answers{Programs: []sunrpc.Registration{{Program: program, Version: 4, NetID: "tcp", Address: fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&0xff)}}}
	}
	want := fmt.Sprintf("ganesha.nfsd (process %d) has port %d, which rpcbind names for program 100021", cmd.Process.Pid, port)
	if found := findOtherServers(proc, processes, rows(sunrpc.NLM, port)); len(found) != 1 || found[0] != want {
		t.Errorf("%q", found)
	}
	// It runs, and the kernel's lock manager has the registration, or it serves something else.
	for _, a := range []sunrpc.Answers{rows(sunrpc.NLM, 1), rows(100003, port), {}} {
		if found := findOtherServers(proc, processes, a); len(found) != 0 {
			t.Errorf("%+v: %q", a, found)
		}
	}
}

func TestFindingsOfServices(t *testing.T) {
	inVolume := host.Process{PID: 7, Name: statdName, Container: strings.Repeat("a", 64), HostNetwork: true}
	inOurs := host.Process{PID: 8, Name: statdName, Container: strings.Repeat("b", 64), HostNetwork: true}
	names := map[string]string{inVolume.Container: "cinder_volume", inOurs.Container: "nfs_rpcbind"}
	nlm := []sunrpc.Registration{nlmRow}
	fine := []Mount{{Verdict: OK, Vers: "3"}}
	for _, test := range []struct {
		name   string
		s      seen
		mounts []Mount
		inUse  bool
		want   []FindingKind
	}{
		{"well", seen{answers: sunrpc.Answers{Statd: sunrpc.Answering, Programs: nlm}}, fine, true, nil},
		{"statd in cinder_volume", seen{names: names, processes: []host.Process{inVolume, inOurs}}, nil, false, []FindingKind{StrayStatd}},
		{"its own container", seen{names: names, processes: []host.Process{inOurs}}, nil, false, nil},
		{"statd died, locks go on", seen{answers: sunrpc.Answers{Statd: sunrpc.Dead, Programs: nlm}}, fine, true, []FindingKind{NoRestartStatd}},
		{"statd died, locks fail: the verdict says it", seen{answers: sunrpc.Answers{Statd: sunrpc.Dead, Programs: nlm}}, []Mount{{Verdict: StatdDead, Vers: "3"}}, true, nil},
		{"rpcbind was started anew", seen{answers: sunrpc.Answers{Statd: sunrpc.Answering, Programs: []sunrpc.Registration{statdRow}}}, fine, true, []FindingKind{NoLockManager}},
		{"nothing uses NFSv3", seen{answers: sunrpc.Answers{Statd: sunrpc.Dead, Programs: []sunrpc.Registration{statdRow}}}, nil, false, nil},
		{"Ganesha", seen{otherServers: []string{"ganesha.nfsd (process 9) has port 1"}}, nil, false, []FindingKind{ForeignProgram}},
	} {
		var got []FindingKind
		r := Result{Mounts: test.mounts}
		r.findServices(test.s, test.inUse, func(kind FindingKind, _ string, _ ...any) { got = append(got, kind) })
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

func TestServicesSayWhereTheyRun(t *testing.T) {
	id := strings.Repeat("a", 64)
	s := seen{names: map[string]string{id: "cinder_volume"}, processes: []host.Process{
		{Name: rpcbindName, HostNetwork: true}, {Name: statdName, Container: id, HostNetwork: true}, {Name: statdName, Container: strings.Repeat("b", 64)},
	}}
	if v := s.service(rpcbindName, sunrpc.Answering, 0.5, ""); v != (Service{State: "answers", AnswersMS: 0.5, Where: Host}) {
		t.Errorf("%+v", v)
	}
	if v := s.service(statdName, sunrpc.Dead, 0.5, "connection refused"); v != (Service{State: "dead", Detail: "connection refused", Where: "cinder_volume"}) {
		t.Errorf("%+v", v)
	}
}
