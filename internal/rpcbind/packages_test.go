package rpcbind

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// TestALockOfAnotherToolIsNoReasonForAContainer: it says nothing of what can be installed.
func TestALockOfAnotherToolIsNoReasonForAContainer(t *testing.T) {
	former := host.SearchPath
	t.Cleanup(func() { host.SearchPath = former })
	for name, test := range map[string]struct{ says, fails, uninstall string }{
		"a lock":     {"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)", "run again when it is done", ""},
		"no package": {"E: Unable to locate package rpcbind", "", "Unable to locate package rpcbind"},
	} {
		dir := t.TempDir()
		script := "#!/bin/sh\necho '" + test.says + "'\nexit 100\n"
		if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		host.SearchPath = dir + ":" + former
		synctest.Test(t, func(t *testing.T) { // the lock is waited for
			s := Seen{Missing: []string{"rpcbind"}}
			err := s.cannotInstall(installableNow(t.Context(), host.Apt, s.Missing, false))
			if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s: %v", name, err)
			}
			if (s.Uninstall == "") != (test.uninstall == "") || !strings.Contains(s.Uninstall, test.uninstall) {
				t.Errorf("%s: %q", name, s.Uninstall)
			}
		})
	}
}
