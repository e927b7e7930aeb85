package lockprobe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// One mount that several containers see is tried once; one below another path of the same filesystem, read-only, or inside a container
// with a profile of its own, is another.
func TestTheSameSpotIsTriedOnce(t *testing.T) {
	nfs := func(id int, path, root, options string) host.MountPoint {
		return host.MountPoint{ID: id, Device: "0:57", Root: root, Path: path, Options: options, FSType: "nfs4", Source: "filer:/nova", Super: "rw,vers=4.2"}
	}
	root := host.MountPoint{ID: 1, Device: "8:1", Root: "/", Path: "/", FSType: "ext4"}
	sees := func(name string, mounts ...host.MountPoint) *view {
		return &view{name: name, Container: engine.Container{ID: name}, mounts: append([]host.MountPoint{root}, mounts...)}
	}
	custom := sees("cinder_backup", nfs(60, "/mnt/a", "/", "rw"))
	custom.row.Seccomp = "custom"
	s := seen{views: []*view{
		{name: Host, mounts: []host.MountPoint{root, nfs(50, "/var/lib/nova/mnt/a", "/", "rw")}},
		sees("nova_compute", nfs(51, "/var/lib/nova/mnt/a", "/", "rw"), nfs(52, "/other", "/deep", "rw")),
		sees("cinder_volume", nfs(53, "/mnt/ro", "/", "ro")),
		custom,
		sees("covered", nfs(54, "/mnt/a", "/", "rw"), host.MountPoint{ID: 55, Device: "0:9", Root: "/", Path: "/mnt/a", FSType: "tmpfs"}),
	}}
	var got []string
	for _, tr := range trials(s, []string{"/var/lib/nova/mnt/a/deep", "/other/x"}) {
		var who []string
		for _, si := range tr.sights {
			who = append(who, si.view.name+":"+si.path)
		}
		got = append(got, tr.device+" "+tr.folder+" "+strings.Join(who, " "))
	}
	want := []string{
		"8:1 /other/x host:/other/x cinder_volume:/other/x covered:/other/x",
		"0:57 / host:/var/lib/nova/mnt/a nova_compute:/var/lib/nova/mnt/a",
		"0:57 /deep host:/var/lib/nova/mnt/a/deep nova_compute:/other nova_compute:/var/lib/nova/mnt/a/deep",
		"0:57 /deep/x nova_compute:/other/x",
		"0:57 / cinder_volume:/mnt/ro",
		"8:1 /var/lib/nova/mnt/a/deep cinder_volume:/var/lib/nova/mnt/a/deep covered:/var/lib/nova/mnt/a/deep",
		"0:57 / cinder_backup:/mnt/a",
		"8:1 /other/x cinder_backup:/other/x",
		"8:1 /var/lib/nova/mnt/a/deep cinder_backup:/var/lib/nova/mnt/a/deep",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// ownRoot is this process's root folder, and the mounts that can be seen there.
func ownRoot(t *testing.T) (*os.File, []host.MountPoint) {
	t.Helper()
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	all, err := host.ReadMounts("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return root, visible(all)
}

// A container can put a link, or another filesystem, where the table of mounts names a mount.
func TestAPlantedLinkIsNotFollowed(t *testing.T) {
	s := newStore(t, nil)
	dir := t.TempDir()
	for _, name := range []string{"a", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere", filepath.Join(dir, "a", "way")); err != nil {
		t.Fatal(err)
	}
	root, mounts := ownRoot(t)
	here, _ := mountOf(mounts, dir)
	there, _ := mountOf(mounts, s.dir)
	for _, test := range []struct {
		path string
		id   int
		want string // empty: the locks are tried
	}{
		{dir + "/a/b", here.ID, ""},
		{s.dir, there.ID, ""},
		{dir + "/a/link", here.ID, "symbolic link"},
		{dir + "/a/way/b", here.ID, "symbolic link"},
		{dir + "/a/b", there.ID, "another filesystem, or a planted link"},
		{s.dir, here.ID, "another filesystem, or a planted link"},
		{dir + "/a/../a/b", here.ID, "no plain path"},
		{dir + "/none", here.ID, "ENOENT"},
	} {
		a := start(t.Context(), root, "x", task{Path: []byte(test.path), MountID: test.id, LimitMS: 2000})
		if (test.want == "") != (a.Problem == "") || !strings.Contains(a.Problem, test.want) || a.Missing != (test.want == "ENOENT") {
			t.Errorf("%s in mount %d: %q", test.path, test.id, a.Problem)
		}
		if test.want == "" && a.Probes.OFD.Result != Granted {
			t.Errorf("%s: %+v", test.path, a.Probes)
		}
	}
	if found, _ := filepath.Glob("/etc/" + filePrefix + "*"); len(found) > 0 {
		t.Errorf("it wrote to %q", found)
	}
}

// A run that is ended takes its file with it, even while a lock hangs.
func TestACancelledRunLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(op string) unix.Errno {
		if op == "posix" {
			return hang
		}
		return 0
	})
	root, mounts := ownRoot(t)
	mount, _ := mountOf(mounts, s.dir)
	ctx, cancel := contextThatEnds(t, s)
	defer cancel()
	began := time.Now()
	a := start(ctx, root, "x", task{Path: []byte(s.dir), MountID: mount.ID, LimitMS: 60000})
	if took := time.Since(began); took > 30*time.Second || a.Hangs != "ofd" {
		t.Errorf("%v, hangs %q", took, a.Hangs)
	}
	if names := s.names(); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
}

func TestParseStuck(t *testing.T) {
	now := time.Unix(2000, 0)
	for line, want := range map[string]string{
		"nfslock-probe\x000:57\x001000\x00{}\x00":                       "0:57",
		"/tmp/nfslock-probe-ab/nfslock-probe\x000:57\x001000\x00{}\x00": "0:57",
		"nfslock-probe\x000:57\x003000\x00{}\x00":                       "", // it still has time
		"nfslock-probe\x000:57\x00soon\x00{}\x00":                       "",
		"nfslock-probe\x000:57\x001000\x00":                             "",
		"sh\x00nfslock-probe\x001000\x00{}\x00":                         "",
		"":                                                              "",
	} {
		device, past := parseStuck([]byte(line), now)
		if past != (want != "") || past && device != want {
			t.Errorf("%q: %q, %v", line, device, past)
		}
	}
}

func FuzzParseStuck(f *testing.F) {
	f.Add([]byte("nfslock-probe\x000:57\x001000\x00{}\x00"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, past := parseStuck(line, time.Unix(1<<40, 0)); past && !strings.Contains(string(line), ProbeName) {
			t.Errorf("%q", line)
		}
	})
}
