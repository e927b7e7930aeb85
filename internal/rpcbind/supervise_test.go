package rpcbind

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// python runs lines with supervise.py imported as s, its files below a folder of the test's and its children being echo.
func python(t *testing.T, dir, lines string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := "import sys\nsys.dont_write_bytecode = True\nimport supervise as s\ndir = sys.argv[1]\n" +
		"s.MARK, s.VOLUMES, s.SERVER, s.SOCKET = (dir + '/' + f for f in ('mark', 'volumes', 'nfsd', 'rpcbind.sock'))\n" +
		"s.start = lambda args, passed=(): print('starts', *args)\n" + lines
	cmd := exec.CommandContext(t.Context(), "python3", "-c", program, dir)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+here)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

const volumesHead = "NV SERVER   PORT DEV          FSID                              FSC\n"

// TestTheContainerNotifiesOnlyWhereNobodyUsesNFSv3, whoever started it: /run has no mark in any of these.
func TestTheContainerNotifiesOnlyWhereNobodyUsesNFSv3(t *testing.T) {
	tests := map[string]struct {
		volumes, nfsd string
		silent        bool
		says          string
	}{
		"no NFS in the kernel": {"", "", false, ""},
		"nothing mounted":      {volumesHead, "", false, ""},
		"version 4":            {volumesHead + "v4 0a630002  801 0:45   0:0                               no \n", "", false, ""},
		"version 3":            {volumesHead + "v3 0a630002  801 0:45   0:0                               no \n", "", true, "mounted 1 times, from 10.99.0.2"},
		"version 2 over IPv6":  {volumesHead + "v2 fd000000000000000000000000000001  801 0:45 0:0 no \n", "", true, "from fd00::1"},
		"a server that sleeps": {volumesHead, "rc 0 0 0\nth 0 0 0.000\n", false, ""},
		"a server":             {volumesHead, "rc 0 0 0\nth 8 0 0.000\n", true, "served here, by 8 threads"},
		"garbage of a server":  {volumesHead, "th \n", true, "perhaps served here"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"volumes": test.volumes, "nfsd": test.nfsd} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out := python(t, dir, "s.notify()")
			if marked := exists(filepath.Join(dir, "mark")); marked != test.silent || !strings.Contains(out, test.says) || strings.Contains(out, "in use") != test.silent {
				t.Errorf("marked %v: %s", marked, out)
			}
			if strings.Contains(out, "starts sm-notify") == test.silent {
				t.Errorf("%s", out)
			}
		})
	}
}

// TestInDoubtTheContainerIsSilent: the list is there and cannot be read.
func TestInDoubtTheContainerIsSilent(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "volumes"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out := python(t, dir, "s.notify()"); !exists(filepath.Join(dir, "mark")) || !strings.Contains(out, "perhaps mounted") {
		t.Error(out)
	}
}

// TestGuestsEndANotificationThatIsStillOnItsWay: the server did not answer at boot, and would drop their locks when it does.
func TestGuestsEndANotificationThatIsStillOnItsWay(t *testing.T) {
	dir := t.TempDir()
	out := python(t, dir, `import subprocess, threading, time
child = subprocess.Popen(["sleep", "60"])
s.RUNNING[child.pid] = "sm-notify"
def mount():
  time.sleep(0.5)
  assert child.pid in s.RUNNING
  with open(s.VOLUMES, "w") as f:
    f.write("v3 0a630002 801 0:45 0:0 no\n")
threading.Thread(target=mount).start()
pid, status = s.wait()
print(pid == child.pid, s.how(status))
`)
	if !strings.Contains(out, "True signal 15") || !strings.Contains(out, "told of this reboot no more") {
		t.Error(out)
	}
}

// TestAMarkThatIsThereStays: sm-notify's own has its number.
func TestAMarkThatIsThereStays(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "volumes"), []byte(volumesHead+"v3 0a630002 801 0:45 0:0 no\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "mark"), []byte("812\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	out := python(t, dir, "s.notify()")
	text, err := os.ReadFile(filepath.Join(dir, "mark"))
	if err != nil || string(text) != "812\n" || strings.Contains(out, "in use") {
		t.Errorf("%q, %v, %s", text, err, out)
	}
}

// TestWhoHasPort111KeepsItsSocketFile: it may be the host's rpcbind, and the container crash-loops beside it.
func TestWhoHasPort111KeepsItsSocketFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rpcbind.sock"), []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := "import socket\nclass Taken(socket.socket):\n  def bind(self, at):\n    raise OSError(s.errno.EADDRINUSE, 'taken')\ns.socket.socket = Taken\n"
	out := python(t, dir, taken+"s.listeners(['127.0.0.1'])")
	if text, err := os.ReadFile(filepath.Join(dir, "rpcbind.sock")); err != nil || string(text) != "the host's" {
		t.Errorf("%q, %v", text, err)
	}
	if !strings.Contains(out, "port 111 is taken") || strings.Contains(out, "Traceback") {
		t.Error(out)
	}
	free := "class Free(s.socket.socket):\n  def bind(self, at):\n    at == s.SOCKET and super().bind(at)\n  def listen(self):\n    pass\ns.socket.socket = Free\n"
	out = python(t, dir, free+"print(len(s.listeners(['127.0.0.1'])))")
	if info, err := os.Stat(filepath.Join(dir, "rpcbind.sock")); err != nil || info.Mode().Type() != os.ModeSocket || strings.TrimSpace(out) != "3" {
		t.Errorf("%v, %v, %s", info, err, out)
	}
}

// TestHowAProgramEnded is told without what Python 3.8 lacks.
func TestHowAProgramEnded(t *testing.T) {
	out := python(t, t.TempDir(), "print(s.how(9), s.how(3 << 8))")
	if strings.TrimSpace(out) != "signal 9 status 3" {
		t.Error(out)
	}
	text, err := os.ReadFile("supervise.py")
	if err != nil || strings.Contains(string(text), "os.waitstatus_to_exitcode(") {
		t.Errorf("%v", err)
	}
}
