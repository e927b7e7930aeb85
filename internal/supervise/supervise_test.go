package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
)

// TestMain: the test program is also the one that is supervised, by what its first argument says.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "module" {
		Start()
		if file := CrashOutput(); file != nil {
			_ = debug.SetCrashOutput(file, debug.CrashOptions{})
		}
		os.Exit(behave(os.Args[1]))
	}
	os.Exit(m.Run())
}

func behave(argument string) int {
	what, path, _ := strings.Cut(argument, ":")
	say := func(text string) {
		if err := Answer(strings.Contains(text, `"failed":true`), []byte(text+"\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	switch what {
	case "answer":
		fmt.Println("a stray line")
		say(`{"changed":true,"failed":false,"supervised":` + strconv.FormatBool(Supervised()) + `}`)
	case "fail":
		say(`{"failed":true}`)
		return 1
	case "large":
		say(`{"failed":false,"rows":"` + strings.Repeat("x", 1<<20) + `"}`)
	case "panic":
		_ = Known([]byte(`{"changed":true,"rows":["a"]}`))
		go func() { panic("boom \x1b[2J \"\\\t\xff") }()
		time.Sleep(time.Minute)
	case "fatal":
		table := map[int]int{}
		for range 8 {
			go func() {
				for i := 0; ; i++ {
					table[i%7] = i
				}
			}()
		}
		time.Sleep(time.Minute)
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "chatter":
		say(`{"failed":false}`)
		_, _ = os.Stderr.WriteString(strings.Repeat("x", 1<<20))
	case "silent":
	case "wait":
		fmt.Fprintln(os.Stderr, os.Getpid())
		time.Sleep(time.Minute)
	case "stuck", "stuck-panic":
		lock, err := os.OpenFile(path+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		Lend(lock)
		go func() { _ = unix.Access(path+"/silent/x", unix.F_OK) }()
		time.Sleep(100 * time.Millisecond)
		if what == "stuck-panic" {
			go func() { panic("boom") }()
			time.Sleep(time.Minute)
		}
		say(`{"changed":false,"failed":true,"msg":"one container is stuck"}`)
		return 1
	}
	return 0
}

func module(t *testing.T, argument string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "module")
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, argument)
	cmd.Args[0] = link
	return cmd
}

// run gives the one object, which is all of standard output, and the exit code.
func run(t *testing.T, cmd *exec.Cmd) (report map[string]any, code int) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(&out)
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("something follows the object: %v", err)
	}
	return report, cmd.ProcessState.ExitCode()
}

func TestThereIsOneAnswerWhateverBecomesOfTheWorker(t *testing.T) {
	for argument, want := range map[string]struct {
		code    int
		msg     string
		changed bool
	}{
		"answer": {0, "", true},
		"fail":   {1, "", false},
		"large":  {0, "", false},
		"panic":  {1, "internal error, please report it: boom \\u001b[2J \"\\\t\ufffd", true},
		"fatal":  {1, "internal error, please report it: the program was ended by its runtime: exit status 2", false},
		"killed": {1, "the program ended without a result: signal: killed", false},
		"silent": {1, "the program ended without a result: exit status 0", false},
	} {
		t.Run(argument, func(t *testing.T) {
			t.Parallel()
			report, code := run(t, module(t, argument))
			msg, _ := report["msg"].(string)
			if code != want.code || msg != want.msg || report["failed"] != (code != 0) || (report["changed"] == true) != want.changed {
				t.Errorf("exit code %d, %.200v", code, report)
			}
			if argument == "answer" && report["supervised"] != true {
				t.Error("nobody supervises it")
			}
			if argument == "panic" && !strings.Contains(fmt.Sprint(report["exception"]), "supervise_test.go") {
				t.Errorf("no stack: %v", report["exception"])
			}
		})
	}
}

func TestASignalReachesTheWorkerAndItsEndIsTold(t *testing.T) {
	cmd := module(t, "wait")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readPID(t, stderr)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !strings.Contains(out.String(), "signal: terminated") || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%s, %v", out.String(), cmd.ProcessState)
	}
}

func readPID(t *testing.T, r io.Reader) int {
	t.Helper()
	text := make([]byte, 32)
	n, err := r.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestTheWorkerDiesWithTheOneThatSupervisesIt, as a run that is killed did before there were two.
func TestTheWorkerDiesWithTheOneThatSupervisesIt(t *testing.T) {
	cmd := module(t, "wait")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, stderr)
	if pid == cmd.Process.Pid {
		t.Fatal("there is one process")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for began := time.Now(); syscall.Kill(pid, 0) == nil && !ending(pid); time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the worker lives")
		}
	}
}

// TestNothingThatTheWorkerWritesIsLost, however much it is and however soon it ends.
func TestNothingThatTheWorkerWritesIsLost(t *testing.T) {
	cmd := module(t, "chatter")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if report, code := run(t, cmd); code != 0 || report["failed"] != false || stderr.Len() != 1<<20 {
		t.Errorf("exit code %d, %v, %d bytes", code, report, stderr.Len())
	}
}

// TestNoSecondProcessIsNoFailure: with so few open files none can be had.
func TestNoSecondProcessIsNoFailure(t *testing.T) {
	cmd := module(t, "answer")
	cmd.Args = []string{"sh", "-c", `ulimit -n 5; exec -a "$0" "$@"`, cmd.Args[0], cmd.Path, "answer"}
	cmd.Path = "/bin/bash"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Stdout = nil
	if err := cmd.Run(); err != nil || !strings.Contains(stderr.String(), "nobody supervises this process") {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// TestAThreadThatNobodyCanKillKeepsNobodyWaiting, and the lock is given up.
func TestAThreadThatNobodyCanKillKeepsNobodyWaiting(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/silent", 0o755); err != nil {
		t.Fatal(err)
	}
	silenttest.Mount(t, dir+"/silent")
	for argument, msg := range map[string]string{"stuck": "one container is stuck", "stuck-panic": "internal error, please report it: boom"} {
		began := time.Now()
		cmd := module(t, argument+":"+dir)
		cmd.Stderr = io.Discard // a pipe, which whoever has started a module reads to its end
		report, code := run(t, cmd)
		if took := time.Since(began); report["msg"] != msg || code != 1 || took > 20*time.Second {
			t.Errorf("%s: %v, exit code %d after %v", argument, report, code, took)
		}
		lock, err := os.Open(dir + "/lock")
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Errorf("%s: the lock: %v", argument, err)
		}
		lock.Close()
	}
}
