package sshdtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Each session of sshd is two processes in process groups of their own, which the listener's end does not end. The one that
// serves the files notices that its client has gone only when it reads the next request, and one that hangs in open(2) of a
// FIFO never does.

// sessions holds what may be alive of the sshds that this process started.
var sessions = struct {
	sync.Mutex                   // whoever holds it sees no sshd that is about to be started
	adopts     bool              // the orphans of this process's children become its own children: PR_SET_CHILD_SUBREAPER, prctl(2)
	listeners  map[int]*listener // by process id
}{listeners: map[int]*listener{}}

// listener is an sshd that waits for clients.
type listener struct {
	process *os.Process
	ended   chan struct{} // closed when it has been waited for and nobody can write to its log any more
}

// adopt makes this process the parent of each session whose own parent ends, so that it is found again.
func adopt() error {
	if sessions.adopts {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot make the test the parent of sshd's sessions: %w", err)
	}
	sessions.adopts = true
	return nil
}

// end ends one listener, and all sessions that have none. Those of another listener may be among them: such a session has lost its
// parent, and serves nobody.
func (l *listener) end() error {
	sessions.Lock()
	defer sessions.Unlock()
	defer delete(sessions.listeners, l.process.Pid)
	_ = l.process.Kill()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		ended := false
		select {
		case <-l.ended:
			ended = true
		default:
		}
		orphans, err := orphans() // after the look at ended, as it is the listener's end that makes them
		if err != nil || ended && len(orphans) == 0 {
			return err
		}
		// Children only, never theirs: a child's number stays its own until it is waited for. Its children come to us in turn.
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
		if time.Since(began) > 10*time.Second {
			return fmt.Errorf("cannot end sshd: listener ended %t, sessions %v are still there", ended, orphans)
		}
	}
}

// orphans is this process's children that are sshds and no listeners, dead ones included.
func orphans() (pids []int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (comm) state ppid: proc_pid_stat(5). From OpenSSH 9.8 on the program of a session is sshd-session.
		head, tail, _ := strings.Cut(string(text), ") ")
		number, comm, _ := strings.Cut(head, " (")
		fields := strings.Fields(tail)
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) || !strings.HasPrefix(comm, "sshd") {
			continue
		}
		pid, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		if sessions.listeners[pid] == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Alone is the package's tests and then one more, that no process is left which they started, nor one that such a process started. It is
// for TestMain.
func Alone(m interface{ Run() int }) interface{ Run() int } { return alone{m} }

type alone struct{ tests interface{ Run() int } }

func (a alone) Run() int {
	code := a.tests.Run()
	// The kernel's word, not orphans': it knows no names. Without an sshd started only children are asked for, not theirs.
	pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	if errors.Is(err, syscall.ECHILD) {
		return code
	}
	fmt.Fprintf(os.Stderr, "FAIL: processes are left that the tests started (wait4: %d, %v)\n", pid, err)
	return max(code, 1)
}
