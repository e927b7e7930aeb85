package rpcbind

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// startStatd starts a process that is called as statd is, and gives its number.
func startStatd(t *testing.T) *exec.Cmd {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	path := filepath.Join(t.TempDir(), statdName)
	if err = errors.Join(err, os.WriteFile(path, program, 0o700)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	return cmd
}

// TestAStatdIsEndedOnlyWhereAnotherCanTakeOver: without a folder for whom it watches it goes on.
func TestAStatdIsEndedOnlyWhereAnotherCanTakeOver(t *testing.T) {
	cmd := startStatd(t)
	m := &machine{proc: "/proc", state: filepath.Join(t.TempDir(), "none")}
	step := Step{Verb: TakeOver, Names: []string{"rpc.statd (process 7)"}, PID: cmd.Process.Pid, To: OnHost}
	if err := m.do(t.Context(), step); err == nil || !strings.Contains(err.Error(), "there is no folder") {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "comm")); err != nil || string(text) != statdName+"\n" {
		t.Errorf("it ended: %q, %v", text, err)
	}
	m.state = stateDirOf(t, nil)
	if err := m.do(t.Context(), step); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status")); strings.Contains(string(text), "State:\tS") {
		t.Errorf("it runs:\n%s", text)
	}
}
