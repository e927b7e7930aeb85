package deb

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRefusedLinksAreTold(t *testing.T) {
	for output, want := range map[string]string{
		"":                          "",
		"0 /usr/bin/x\n":            "",
		"17 /var/lib/dpkg/status\n": "",
		"2 /usr/bin/gone\n":         "",
		"18 /var/lib/dpkg/status\n": "/var/lib/dpkg/status",
		"0 /a\n1 /usr/bin/x y\n":    "/usr/bin/x y",
		"38 /a\n31 /b":              "/a /b",
		"sh: 1: perl: not found\n":  "",
		"18\n18 \n18 relative\n-1 ": "",
	} {
		if got := places(ReadLinks(output)); got != want {
			t.Errorf("%q: %s", output, got)
		}
	}
}

// TestLinksAreTriedAsDpkgMakesThem lets strace refuse them as a seccomp profile does.
func TestLinksAreTriedAsDpkgMakesThem(t *testing.T) {
	run(t, "perl", "-v") // or skip
	dir := t.TempDir()
	file, left := filepath.Join(dir, "a b"), filepath.Join(dir, "a b"+trialSuffix)
	for _, name := range []string{file, left} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := TrialLinks([]string{file}); !slices.Equal(got, []string{"/" + statusFile + trialSuffix, left}) {
		t.Error(got)
	}
	check, trial := LinkCheck(), LinkTrial([]string{file})
	check[3], trial[3] = file, file // the machine's own status file is left alone
	names := func() (names []string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if got := ReadLinks(run(t, check[0], check[1:]...)); len(got) > 0 || !slices.Equal(names(), []string{"a b", filepath.Base(left)}) {
		t.Error(got, names())
	}
	if got := ReadLinks(run(t, trial[0], trial[1:]...)); len(got) > 0 || !slices.Equal(names(), []string{"a b"}) {
		t.Error(got, names())
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	for _, command := range [][]string{check, trial} {
		out, err := exec.Command("strace", append([]string{"-o", "/dev/null", "-e", "trace=link,linkat", "-e", "inject=link,linkat:error=EXDEV"}, command...)...).CombinedOutput()
		if err != nil && strings.Contains(string(out), "ptrace") {
			t.Skipf("nothing can be traced: %s", out)
		}
		if got := ReadLinks(string(out)); len(got) == 0 || !strings.Contains(got[0].Why, "cross-device") || !slices.Equal(names(), []string{"a b"}) {
			t.Errorf("%v: %v, %q, %v", err, got, out, names())
		}
	}
}
