package lockprobe

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// TestRealServices starts and kills a real rpcbind and rpc.statd. It does so only in a container without a network that is made for it:
// tests/integration/testdata/info/services.txtar. The NFS mount is played by FUSE, and its server is the container itself, whose
// lock manager is played, too.
func TestRealServices(t *testing.T) {
	if os.Getenv("NFSLOCK_RPC_BOX") == "" {
		t.Skip("needs a container of its own, with rpcbind and rpc.statd: see services.txtar")
	}
	s := newStore(t, func(op string) unix.Errno {
		if op == "posix" || op == "flock" {
			return unix.ENOLCK
		}
		return 0
	})
	m := on(t, s, "nfs", "rw,vers=3,local_lock=none,addr=127.0.0.1", sunrpc.Client{})
	o := quick
	o.Paths = []string{s.dir}
	signal := func(sig syscall.Signal) {
		pid := strings.TrimSpace(string(output(t, "pgrep", "-x", "rpc.statd")))
		output(t, "kill", "-"+unix.SignalName(sig)[3:], pid)
	}
	for _, step := range []struct {
		name string
		do   func()
		want Verdict
		says string
	}{
		{"nothing runs", func() {}, RPCBindMissing, "rpcbind: absent"},
		{"rpcbind alone", func() { startRPCBind(t) }, StatdMissing, "rpc.statd: absent (it is not registered)"},
		{"both", func() { output(t, "rpc.statd", "--no-notify") }, ServerNoNLM, "100021) at 127.0.0.1: absent; its rpc.statd (100024): answers"},
		{"the server has a lock manager", func() { registerNLM(t) }, CallbackBlocked, "100021) at 127.0.0.1: answers; its rpc.statd (100024): answers"},
		{"statd stopped", func() { signal(unix.SIGSTOP) }, StatdDead, "rpc.statd: hangs"},
		{"statd goes on", func() { signal(unix.SIGCONT) }, CallbackBlocked, "rpc.statd: answers"},
		{"statd killed", func() { signal(unix.SIGKILL) }, StatdDead, "connection refused"},
		{"statd again", func() { output(t, "rpc.statd", "--no-notify") }, CallbackBlocked, "rpc.statd: answers"},
	} {
		step.do()
		var got Mount
		for range 50 { // a daemon registers after its first process has ended
			if got = report(t, m, o).Mounts[0]; got.Verdict == step.want {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if text := strings.Join(got.Evidence, "\n"); got.Verdict != step.want || !strings.Contains(text, step.says) {
			t.Fatalf("%s: %s, want %s\n%s", step.name, got.Verdict, step.want, text)
		}
	}
}

// startRPCBind hands it its sockets as systemd does: in a container without a network it finds no address to open any.
func startRPCBind(t *testing.T) {
	t.Helper()
	unixSocket, err1 := net.Listen("unix", "/run/rpcbind.sock")
	tcp, err2 := net.Listen("tcp4", "127.0.0.1:111")
	udp, err3 := net.ListenPacket("udp4", "127.0.0.1:111")
	err4 := os.Chmod("/run/rpcbind.sock", 0o666) // statd comes as a user of its own
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=3 exec rpcbind -f -i")
	for _, s := range []interface{ File() (*os.File, error) }{unixSocket.(*net.UnixListener), tcp.(*net.TCPListener), udp.(*net.UDPConn)} {
		file, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
}

// registerNLM plays a server's lock manager, which is the kernel's: a program that answers the NULL call, registered in rpcbind with
// the portmapper's SET (RFC 1833, section 3; rpcbind takes it over TCP with -i only).
func registerNLM(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			call := make([]byte, 44) // a record's head, and a call without arguments
			if _, err := io.ReadFull(conn, call); err == nil {
				_, _ = conn.Write(words(1<<31|24, binary.BigEndian.Uint32(call[4:]), 1, 0, 0, 0, 0))
			}
			conn.Close()
		}
	}()
	conn, err := net.Dial("tcp4", "127.0.0.1:111")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const set, tcp = 1, 6
	port := uint32(listener.Addr().(*net.TCPAddr).Port)
	if _, err := conn.Write(words(1<<31|56, 7, 0, 2, sunrpc.Portmapper, 2, set, 0, 0, 0, 0, sunrpc.NLM, 4, tcp, port)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 32)
	if _, err := io.ReadFull(conn, answer); err != nil || binary.BigEndian.Uint32(answer[28:]) != 1 {
		t.Fatalf("rpcbind does not take it: % x, %v", answer, err)
	}
}

func words(all ...uint32) []byte {
	var out []byte
	for _, w := range all {
		out = binary.BigEndian.AppendUint32(out, w)
	}
	return out
}

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return out
}
