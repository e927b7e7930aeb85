package host

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProgramsSpeakEnglishWhateverTheTaskWasStartedWith: sudo and PAM hand on LANGUAGE, and what apt then says is not understood.
func TestProgramsSpeakEnglishWhateverTheTaskWasStartedWith(t *testing.T) {
	former := SearchPath
	SearchPath = t.TempDir()
	t.Cleanup(func() { SearchPath = former })
	write := func(folder, text string) {
		if err := os.WriteFile(filepath.Join(folder, "systemctl"), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(SearchPath, "#!/bin/sh\n/usr/bin/env\n")
	trap := t.TempDir()
	write(trap, "#!/bin/sh\necho of the task's own PATH\n")
	for name, value := range map[string]string{
		"LANGUAGE": "de", "LANG": "de_DE.UTF-8", "LC_MESSAGES": "de_DE.UTF-8", "PATH": trap, "APT_CONFIG": "/tmp/x", "DPKG_ROOT": "/tmp", "LD_PRELOAD": "",
		"https_proxy": "http://proxy:3128", "NO_PROXY": "mirror",
	} {
		t.Setenv(name, value)
	}
	out, err := systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	got = slices.DeleteFunc(got, func(pair string) bool {
		return strings.HasPrefix(pair, "PWD=") || strings.HasPrefix(pair, "_=") || strings.HasPrefix(pair, "SHLVL=")
	})
	slices.Sort(got)
	want := []string{"DEBIAN_FRONTEND=noninteractive", "HOME=/root", "LC_ALL=C", "NO_PROXY=mirror", "PATH=" + SearchPath, "https_proxy=http://proxy:3128"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := command(t.Context(), "nowhere").Run(); err == nil || !strings.Contains(err.Error(), "nowhere: executable file not found") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestAServiceThatKeepsTheOutputOpenIsNotWaitedFor: a package's script may start one.
func TestAServiceThatKeepsTheOutputOpenIsNotWaitedFor(t *testing.T) {
	former := pipeLimit
	pipeLimit = 100 * time.Millisecond
	pid := filepath.Join(t.TempDir(), "pid")
	t.Cleanup(func() {
		pipeLimit = former
		text, _ := os.ReadFile(pid)
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	})
	asked := tool(t, "sleep 60 & echo $! >"+pid+"\nexit 0\n")
	if err := run(t.Context(), "apt-get", "install"); err != nil {
		t.Error(err)
	}
	if n := len(asked()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
