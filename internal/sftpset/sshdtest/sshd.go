// Package sshdtest starts a real OpenSSH server for a test, with keys and settings of its own, and a proxy that disturbs
// connections to it.
package sshdtest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const program = "/usr/sbin/sshd"

// Server is an sshd on an address of the loopback network.
type Server struct {
	Host    string
	Port    int
	User    string // who logs in: nobody where the tests run as root, as root may read everything
	Folder  string // absolute; what User can read
	Key     string // file of a private key that may log in
	HostKey map[string]string
	dir     string
	log     lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// Log is what sshd said so far.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.text.String()
}

// Start starts an sshd with host keys of the named types (ssh-keygen's words), which ends with the test. Without
// OpenSSH's server the test is skipped, or fails where NFSLOCK_SSHD is "required".
func Start(t testing.TB, hostKeys ...string) *Server {
	t.Helper()
	for _, need := range []string{program, "ssh-keygen"} {
		if _, err := exec.LookPath(need); err != nil {
			if os.Getenv("NFSLOCK_SSHD") == "required" {
				t.Fatalf("this test needs OpenSSH: tests/integration/apt-install.sh openssh-server openssh-client: %v", err)
			}
			t.Skipf("no OpenSSH server here: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "sshdtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{User: me.Username, Folder: filepath.Join(dir, "set"), Key: filepath.Join(dir, "key"), HostKey: map[string]string{}, dir: dir}
	if os.Geteuid() == 0 {
		s.User = "nobody"
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(s.Folder, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Keygen(t, s.Key, "-t", "ed25519")
	s.Authorize(t, s.Key)
	config := "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\nMaxStartups 100\n" +
		"Subsystem sftp internal-sftp\nPidFile none\nAuthorizedKeysFile " + filepath.Join(dir, "authorized_keys") + "\n"
	for _, kind := range hostKeys {
		name := filepath.Join(dir, "host_"+kind)
		s.Keygen(t, name, "-t", kind)
		s.HostKey[kind] = name + ".pub"
		config += "HostKey " + name + "\n"
	}
	var last [1]byte
	_, _ = rand.Read(last[:])
	s.Host = fmt.Sprintf("127.0.0.%d", 2+last[0]%200)
	free, err := net.Listen("tcp", s.Host+":0")
	if err != nil {
		t.Fatal(err)
	}
	s.Port = free.Addr().(*net.TCPAddr).Port
	free.Close()
	config += fmt.Sprintf("ListenAddress %s\nPort %d\n", s.Host, s.Port)
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	sshd, err := s.listen(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sshd.end(); err != nil {
			t.Error(err)
		}
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.Addr())
		if err == nil {
			conn.Close()
			return s
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("sshd does not listen: %v\n%s", err, s.Log())
		}
	}
}

// listen starts sshd with these settings.
func (s *Server) listen(config string) (*listener, error) {
	sessions.Lock()
	defer sessions.Unlock()
	if err := adopt(); err != nil {
		return nil, err
	}
	args := []string{"-D", "-e", "-f", config}
	// From 9.8 on sshd turns away for a while whom it has refused before; an older one does not know the word.
	if penalties := []string{"-o", "PerSourcePenalties=no"}; exec.Command(program, append([]string{"-t", "-f", config}, penalties...)...).Run() == nil {
		args = append(args, penalties...)
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &listener{process: cmd.Process, ended: make(chan struct{})}
	sessions.listeners[l.process.Pid] = l
	go func() {
		_ = cmd.Wait()
		close(l.ended)
	}()
	return l, nil
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Keygen makes a key pair without a passphrase, or as the further arguments say.
func (s *Server) Keygen(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-f", name}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

// Authorize lets the owners of these keys in, and nobody else.
func (s *Server) Authorize(t testing.TB, keys ...string) {
	t.Helper()
	var all []byte
	for _, k := range keys {
		all = append(all, read(t, k+".pub")...)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "authorized_keys"), all, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Known writes a known_hosts file that says that addr (host:port) has these host keys, and returns its name. The mark goes
// before each line: @revoked, or nothing.
func (s *Server) Known(t testing.TB, addr, mark string, publicKeys ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if port != "22" {
		host = "[" + host + "]:" + port
	}
	var text strings.Builder
	for _, k := range publicKeys {
		fields := strings.Fields(string(read(t, k)))
		fmt.Fprintln(&text, strings.TrimSpace(mark+" "+host+" "+fields[0]+" "+fields[1]))
	}
	file, err := os.CreateTemp(s.dir, "known")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text.String()); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// Put writes a file into the set's folder, for everybody to read.
func (s *Server) Put(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(s.Folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
