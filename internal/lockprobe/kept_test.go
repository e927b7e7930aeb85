package lockprobe

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
)

const planted = `{"schema": 1, "id": "aa", "suffix": "+nfslock1", "packages": [{"name": "qemu-utils", "version": "1"}]}`

// keep makes a folder of the modules' with what a run wrote down of a container that is gone.
func keep(t *testing.T) string {
	t.Helper()
	return etc(t, map[string]string{"baseline/cinder_volume/index.json": planted, "lock": ""})
}

// What others may have written is believed in nothing, and the diagnosis goes on.
func TestAFolderThatOthersMayWriteToIsAWarning(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(dir string) error
		says  string
	}{
		{"a file that others may write to", func(dir string) error {
			return os.Chmod(filepath.Join(dir, "baseline/cinder_volume/index.json"), 0o666)
		}, "index.json in it: others may write to it"},
		{"another's folder", func(dir string) error { return os.Chown(filepath.Join(dir, "baseline"), 1000, 1000) }, "baseline in it: it belongs to user 1000"},
		{"a link", func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "library.json")) }, "library.json in it: it is a symbolic link"},
		{"a pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "library.json"), 0o600) }, "library.json in it: it is neither a file nor a folder"},
	} {
		m, o := with(t, world{names: map[string]string{"cinder_volume": "bb"}, state: "exited"})
		m.dir = keep(t)
		if err := test.spoil(m.dir); err != nil {
			t.Skipf("needs root: %v", err)
		}
		r := report(t, m, o)
		all := strings.Join(r.Warnings, "\n")
		if !strings.Contains(all, "cannot tell what was patched here") || !strings.Contains(all, test.says) || strings.Count(all, m.dir) != 1 || len(r.Drift) > 0 || r.Verdict != OK {
			t.Errorf("%s: %q, %+v, %s", test.name, r.Warnings, r.Drift, r.Verdict)
		}
	}
	m, o := with(t, world{names: map[string]string{"other_web": "bb"}})
	m.dir = keep(t)
	if r := report(t, m, o); len(r.Warnings) > 0 || len(r.Drift) != 1 || r.Drift[0].Kind != Gone {
		t.Errorf("the same unspoilt: %q, %+v", r.Warnings, r.Drift)
	}
}

func TestAnotherRunAtWorkIsAWarning(t *testing.T) {
	m, o := with(t, world{})
	m.dir = keep(t)
	lock, err := os.Open(filepath.Join(m.dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if r := report(t, m, o); len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0], "another run of the collection is at work") {
		t.Errorf("%q", r.Warnings)
	}
}

// kolla-ansible's files may lie on a server.
func TestAConfigurationThatNeverAnswersIsAFinding(t *testing.T) {
	m, o := with(t, world{})
	o.ConfigDir = t.TempDir()
	silenttest.Mount(t, o.ConfigDir)
	r := report(t, m, o)
	if len(r.Findings) != 1 || r.Findings[0].Kind != UnreadConfig || !strings.Contains(r.Findings[0].Message, "does not answer") || r.Verdict != OK {
		t.Errorf("%+v, %s", r.Findings, r.Verdict)
	}
}
