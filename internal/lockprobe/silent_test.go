package lockprobe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign/silenttest"
)

// rooms is a world whose containers have files of their own.
type rooms struct {
	world
	dirs map[string]string // by name
	lost bool              // their files cannot be opened
}

// OpenRoot waits no longer than the engine's.
func (r rooms) OpenRoot(ctx context.Context, c engine.Container) (*os.Root, error) {
	if r.lost {
		return nil, fmt.Errorf("cannot open the files of %s: it was restarted meanwhile", c.Name)
	}
	root, err := foreign.Within(ctx, func() (*os.Root, error) { return os.OpenRoot(r.dirs[c.Name]) })
	if err != nil {
		return nil, fmt.Errorf("cannot open the files of %s: %w", c.Name, err)
	}
	return root, nil
}

// furnish makes containers with stock QEMU.
func furnish(t *testing.T, names ...string) rooms {
	t.Helper()
	r := rooms{world{names: map[string]string{}}, map[string]string{}, false}
	for i, name := range names {
		r.names[name] = fmt.Sprint(i)
		r.dirs[name] = container(t, "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"+stanza("qemu-utils", "install", oldVersion), nil).Name()
	}
	return r
}

// Over dpkg's database, the library's list, an emulator or all of it: the container is a row with an error, its mounts are tried, and the others are
// looked at.
func TestAContainerWhoseFilesNeverAnswerKeepsNobodyWaiting(t *testing.T) {
	for _, place := range []string{"var/lib/dpkg", "etc", "usr/bin", "."} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			r := furnish(t, "nova_libvirt", "nova_compute", "cinder_volume")
			silent := filepath.Join(r.dirs["nova_libvirt"], place)
			if err := os.MkdirAll(silent, 0o755); err != nil {
				t.Fatal(err)
			}
			silenttest.Mount(t, silent)
			m := &machine{engine: r, proc: "/proc", dir: etc(t, map[string]string{"lock": ""}), caller: well(), try: start}
			o := quick
			o.Paths = []string{t.TempDir()}
			began := time.Now()
			got := report(t, m, o)
			if took := time.Since(began); took > o.limit() {
				t.Errorf("it took %v", took)
			}
			lock, err := os.Open(filepath.Join(m.dir, "lock"))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
				t.Errorf("this host's lock: %v", err)
			}
			var rows []string
			for _, p := range got.Packages {
				rows = append(rows, p.Container+" "+string(p.QEMU))
				if p.Container == "nova_libvirt" && (!strings.Contains(p.Error, "nova_libvirt") || !strings.Contains(p.Error, "a filesystem there does not answer")) || p.Container != "nova_libvirt" && p.Error != "" {
					t.Errorf("%s: %q", p.Container, p.Error)
				}
				if p.Container == "nova_libvirt" && place != "." && !strings.Contains(p.Error, "fuse.silent") {
					t.Errorf("it does not say where: %q", p.Error)
				}
			}
			if want := "[nova_libvirt unknown nova_compute stock cinder_volume stock]"; fmt.Sprint(rows) != want {
				t.Errorf("%v, want %s", rows, want)
			}
			i := slices.IndexFunc(got.Mounts, func(m Mount) bool { return m.Container == "cinder_volume" })
			if i < 0 || got.Mounts[i].Verdict != OK || got.Verdict != OK {
				t.Errorf("%s: %+v", got.Msg, got.Mounts)
			}
		})
	}
}

// What is not known to be the container's is not tried as its.
func TestTheMountsOfAContainerThatWasRestartedMeanwhileAreNotTried(t *testing.T) {
	r := furnish(t, "nova_compute")
	r.lost = true
	m := &machine{engine: r, proc: "/proc", dir: t.TempDir(), caller: well(), try: start}
	o := quick
	o.Paths = []string{t.TempDir()}
	got := report(t, m, o)
	if slices.ContainsFunc(got.Mounts, func(m Mount) bool { return m.Container != Host }) || len(got.Packages) != 1 || !strings.Contains(got.Packages[0].Error, "restarted") {
		t.Errorf("%+v, %+v", got.Mounts, got.Packages)
	}
}

// A container with a seccomp profile of its own gets no program where its files do not answer.
func TestNoProgramIsPutWhereNothingAnswers(t *testing.T) {
	programs := &insidePrograms{in: map[*view]func() (*guest, error){}}
	if _, err := programs.get(t.Context(), &view{name: "nova_compute"}); err == nil || !strings.Contains(err.Error(), "do not answer") {
		t.Errorf("%v", err)
	}
	programs.remove(t.Context())
}
