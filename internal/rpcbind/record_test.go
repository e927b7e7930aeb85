package rpcbind

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

func kept(t *testing.T) (*statedir.Folder, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nfslock")
	dir, err := statedir.Make(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, filepath.Join(path, recordName)
}

func TestARecordIsReadAsItWasSaved(t *testing.T) {
	dir, path := kept(t)
	want := Record{
		Mode: OnHost, Packages: packages("apt", true), Unmasked: []string{rpcUnit}, Enabled: []string{socketUnit}, Started: []string{statdUnit},
		Links: []string{bootLink, rpcLink}, Disabled: []string{socketUnit}, Found: map[string]Was{statdUnit: {File: "enabled"}},
	}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readRecord(dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := (Record{}).save(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if got, err := readRecord(dir); !got.empty() || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := readRecord(nil); !got.empty() || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHostileRecordsAreRefused: state absent removes what a record names.
func TestHostileRecordsAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a package":   {`{"mode": "host", "packages": ["rpcbind", "bash"]}`, `it names a package "bash", which this module never installs`},
		"an option":   {`{"mode": "host", "packages": ["--force-all"]}`, `it names a package "--force-all"`},
		"a link":      {`{"mode": "host", "links": ["/etc/passwd"]}`, `it names a link "/etc/passwd", which this module never makes`},
		"a unit":      {`{"mode": "host", "started": ["ssh.service"]}`, `it names a unit "ssh.service", which this module never touches`},
		"another":     {`{"mode": "container", "disabled": ["docker.service"]}`, `it names a unit "docker.service"`},
		"no object":   {`[]`, "cannot unmarshal array"},
		"too large":   {`{"mode": "host"}` + strings.Repeat(" ", recordLimit), "it has more than"},
		"cut short":   {`{"mode": "ho`, "unexpected end of JSON input"},
		"is a pipe":   {"", "not a regular file"},
		"is a folder": {"", "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := kept(t)
			var err error
			switch name {
			case "is a pipe":
				err = syscall.Mkfifo(path, 0o600)
			case "is a folder":
				err = os.Mkdir(path, 0o700)
			default:
				err = os.WriteFile(path, []byte(c.text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readRecord(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestAContainerThatNeverAnswersIsNotTakenOver, and nobody waits for it.
func TestAContainerThatNeverAnswersIsNotTakenOver(t *testing.T) {
	proc := t.TempDir()
	home := filepath.Join(proc, "4711/root", stateFolder)
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	silenttest.Mount(t, home)
	m := &machine{proc: proc, state: stateDirOf(t, nil)}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := m.takeOver(ctx, Step{Verb: TakeOver, Names: []string{"cinder_volume"}, PID: 4711, To: OnHost})
	if !errors.Is(err, foreign.ErrNoAnswer) || !strings.HasPrefix(err.Error(), "cannot take over from cinder_volume: a filesystem there does not answer") {
		t.Errorf("%v", err)
	}
}
