package sshdtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/sftpset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

func TestMain(m *testing.M) { os.Exit(sshdtest.Alone(m).Run()) }

// One session hangs and its client is gone, another one's client is there to the end and beyond.
func TestNoSessionOutlivesTheServer(t *testing.T) {
	var there *sftpset.Set
	started := false
	t.Run("server", func(t *testing.T) {
		s := sshdtest.Start(t, "ed25519")
		s.Put(t, "manifest.yml", []byte("x"))
		if err := os.Mkdir(filepath.Join(s.Folder, "fifo"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(s.Folder, "fifo/manifest.yml"), 0o644); err != nil {
			t.Fatal(err)
		}
		config := sftpset.Config{
			Address: sftpset.Address{User: s.User, Host: s.Host, Port: s.Port, Path: s.Folder}, PrivateKeyFile: s.Key,
			KnownHostsFile: s.Known(t, s.Addr(), "", s.HostKey["ed25519"]),
		}
		there = sftpset.New(config)
		if _, err := there.Manifest(t.Context()); err != nil {
			t.Fatal(err)
		}
		withOne := len(children(os.Getpid()))
		config.Address.Path, config.Idle, config.Pause = s.Folder+"/fifo", 200*time.Millisecond, time.Millisecond
		gone := sftpset.New(config)
		_, err := gone.Manifest(t.Context())
		gone.Close()
		if err == nil || !strings.Contains(err.Error(), "the server is silent") {
			t.Fatalf("a FIFO was read: %v", err)
		}
		time.Sleep(500 * time.Millisecond) // enough for those that do not hang
		if n := len(children(os.Getpid())); n <= withOne {
			t.Errorf("no session hangs: %d processes, %d before", n, withOne)
		}
		started = true
	})
	if !started {
		t.SkipNow() // for the reason that the server gave
	}
	defer there.Close()
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// children is the processes that a process started, those that they started, and so on, dead ones included.
func children(of int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, _ := os.ReadFile(name)
		_, tail, _ := strings.Cut(string(text), ") ") // pid (comm) state ppid: proc_pid_stat(5)
		fields := strings.Fields(tail)
		if len(fields) > 1 && fields[1] == strconv.Itoa(of) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, slices.Concat([]int{pid}, children(pid))...)
		}
	}
	return pids
}
