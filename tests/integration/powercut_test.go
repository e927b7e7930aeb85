//go:build lab

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// powerLab is a machine whose engine and state folder are on one disk: a filesystem in a file. A copy of that file, as it is at some moment, is what the disk
// has when the power goes at that moment. The disks' files are on an XFS, where a copy is made at once.
type powerLab struct {
	*faultLab
	kind  string // of the filesystem
	disks string // the folder of the disks' files
	disk  string // where this machine's disk is mounted
	base  string // the file of a machine that has just been set up
}

const (
	powerRun   = "/run/nfslock-powercut"
	powerState = "/var/lib/nfslock"
)

// TestPowerCut cuts the power at each named step of a run, and right after its end, on ext4 and XFS, with dpkg as images have it (force-unsafe-io) and without,
// on the way there, on the way back, and while it rolls back. What a run has said is there when the machine comes up, and one more run makes all whole.
//
// NFSLOCK_POWERCUT=all has every step of every way on every disk (make powercut). Else all ends, and the steps of one way on one disk; with -short a handful.
func TestPowerCut(t *testing.T) {
	if os.Getenv("NFSLOCK_PATCH_SET") == "" {
		t.Fatal("no patch set: start this through tests/integration/run.sh")
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("mkfs.xfs is not installed: tests/integration/run.sh does that")
	}
	if out, err := exec.Command("lab/down.sh").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(powerState); err == nil {
		t.Fatalf("%s holds what real runs of the module keep. If it is left over from tests, remove it", powerState)
	}
	disks := t.TempDir()
	script := `truncate -s 30G "$1.img"; mkfs.xfs -q "$1.img"; mount -o loop "$1.img" "$1"`
	if out, err := exec.Command("sh", "-ec", script, "sh", disks).CombinedOutput(); err != nil {
		t.Skipf("no disk can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		unmount(t, disks)
		_ = os.Remove(disks + ".img")
	})
	program := filepath.Join(t.TempDir(), "nfs_lock_fix")
	for _, kind := range []string{"xfs", "ext4"} {
		for _, care := range []string{"force-unsafe-io", "safe"} {
			t.Run(kind+"/"+care, func(t *testing.T) {
				if testing.Short() && care == "safe" {
					t.Skip("left out with -short")
				}
				newPowerLab(t, program, disks, kind, care).ways(func(way string) bool {
					return os.Getenv("NFSLOCK_POWERCUT") == "all" || kind == "xfs" && care != "safe" && way == "present"
				})
			})
		}
	}
}

func newPowerLab(t *testing.T, program, disks, kind, care string) *powerLab {
	l := &powerLab{
		faultLab: &faultLab{t: t, containers: []string{"nova_libvirt", "cinder_volume"}, program: program, set: os.Getenv("NFSLOCK_PATCH_SET")},
		kind:     kind, disks: disks, disk: t.TempDir(), base: filepath.Join(disks, kind+"-"+care),
	}
	l.env = append(os.Environ(), "SET="+l.set)
	if _, err := os.Stat(program); err != nil {
		l.must("go", "build", "-tags", "faultpoints", "-o", program, "../../modules/nfs_lock_fix")
	}
	const image = "nfslock-lab/cinder-volume:bookworm"
	saved := filepath.Join(disks, "image.tar")
	if _, err := os.Stat(saved); err != nil {
		l.must("docker", "save", "-o", saved, image)
	}
	l.env = append(l.env, "NFSLOCK_CACHE="+l.disk, "NFSLOCK_ENGINE_RUN="+powerRun, "DOCKER_HOST=unix://"+powerRun+"/docker.sock")
	t.Cleanup(func() { l.off(); _ = os.Remove(l.file()); _ = os.Remove(l.base) })
	l.must("truncate", "-s", "8G", l.file())
	l.must("mkfs."+kind, "-q", l.file())
	l.mount()
	if err := os.MkdirAll(filepath.Join(l.disk, "engine"), 0o700); err != nil {
		t.Fatal(err)
	}
	// No bridge: another engine may have it.
	if err := os.WriteFile(filepath.Join(l.disk, "engine/extra"), []byte("--bridge=none --iptables=false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.must("lab/engine.sh", "start")
	l.must("docker", "load", "-q", "-i", saved)
	for _, name := range l.containers {
		// As the service is of no matter, so is what it is: the programs of one container do for both. It ends at once.
		l.must("docker", "run", "-d", "--name", name, "--network", "none", "--restart", "always", "--stop-signal", "KILL", "--user", "root",
			"--entrypoint", "sleep", image, "infinity")
		script := `cd /etc/dpkg; sed -i /force-unsafe-io/d dpkg.cfg dpkg.cfg.d/*`
		if care != "safe" {
			script += `; echo force-unsafe-io >dpkg.cfg.d/unsafe`
		}
		l.must("docker", "exec", "-u", "root", name, "sh", "-c", script)
	}
	l.stopEngine()
	l.unmount()
	l.must("cp", "--remove-destination", "--reflink=auto", "--sparse=always", l.file(), l.base)
	return l
}

// file is that of the disk that the machine has now.
func (l *powerLab) file() string { return filepath.Join(l.disks, "disk") }

func (l *powerLab) mount() {
	l.t.Helper()
	options := "loop"
	if l.kind == "xfs" {
		options += ",nouuid" // of all copies it is the same
	}
	l.must("mount", "-o", options, l.file(), l.disk)
	for _, dir := range []string{filepath.Join(l.disk, "nfslock"), powerState} {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			l.t.Fatal(err)
		}
	}
	l.must("mount", "--bind", filepath.Join(l.disk, "nfslock"), powerState)
}

func (l *powerLab) unmount() {
	l.t.Helper()
	unmount(l.t, powerState)
	unmount(l.t, l.disk)
	if err := os.Remove(powerState); err != nil && !os.IsNotExist(err) { // the program of another test is to find none
		l.t.Error(err)
	}
}

// unmount waits for what is just ending there.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var out []byte
	for range 100 {
		if exec.Command("mountpoint", "-q", dir).Run() != nil {
			return
		}
		var err error
		if out, err = exec.Command("umount", "--recursive", dir).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s stays mounted: %s", dir, out)
	_ = exec.Command("umount", "--lazy", dir).Run()
}

func (l *powerLab) stopEngine() {
	l.t.Helper()
	l.must("lab/engine.sh", "down") // does nothing where none runs
}

// off is the end of a machine, in whatever state.
func (l *powerLab) off() {
	l.t.Helper()
	l.stopEngine()
	l.unmount()
}

// comeUp is the machine with a disk, and its engine and containers.
func (l *powerLab) comeUp(disk string) {
	l.t.Helper()
	l.must("cp", "--remove-destination", "--reflink=auto", "--sparse=always", disk, l.file())
	l.mount()
	_ = os.Remove(filepath.Join(l.disk, "engine/pid")) // of a process that is gone; another may have its number by now
	l.must("lab/engine.sh", "start")
	for range 300 {
		if n := strings.Count(l.must("docker", "ps", "-q", "--filter", "status=running"), "\n"); n == len(l.containers) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.t.Fatalf("the containers do not come up with the engine:\n%s", l.must("docker", "ps", "-a"))
}

// cut lets the power go: what the disk has at this moment is what the next machine comes up with.
func (l *powerLab) cut() {
	l.t.Helper()
	cut := l.file() + ".cut"
	l.must("cp", "--remove-destination", "--reflink=auto", "--sparse=always", l.file(), cut)
	l.off()
	l.comeUp(cut)
	if err := os.Remove(cut); err != nil {
		l.t.Fatal(err)
	}
}

// synced has on the disk what was done before the run that is tried.
func (l *powerLab) synced() {
	l.t.Helper()
	l.must("sync", "--file-system", l.disk)
}

// ways are tried one after the other, those with steps also at each of theirs.
func (l *powerLab) ways(steps func(way string) bool) {
	scripted := l.scripted()
	for _, way := range []struct {
		name string
		args func() map[string]any
		set  func()                // what there is before
		next func() map[string]any // of the run after it
		end  string                // how the containers are when it has ended
		to   string                // and when the next has
	}{
		{"present", l.present, func() {}, l.present, "new", "new"},
		{"absent", l.absent, func() { l.well(l.present()) }, l.absent, "old", "old"},
		{"rollback", scripted, l.failing, l.present, "old", "new"},
		{"library", l.library, func() {}, l.library, "library", "library"},
		{"library absent", l.withoutLibrary, func() { l.well(l.library()) }, l.withoutLibrary, "old", "old"},
	} {
		l.t.Run(way.name, func(t *testing.T) {
			ends := l.in(t)
			defer ends()
			if testing.Short() && strings.HasPrefix(way.name, "library") {
				t.Skip("left out with -short")
			}
			var points []string
			if steps(way.name) {
				l.fresh(way.set)
				points = l.points(way.args())
				l.off()
				if len(points) < 8 {
					t.Fatalf("only %v", points)
				}
			}
			for i, point := range append(points, "end") {
				switch {
				case point != "end" && l.twin(point, points[:i]):
					continue // the same step in the other container
				case point != "end" && testing.Short() && !strings.HasPrefix(point, "unpacked") && !strings.HasPrefix(point, "ended "):
					continue
				}
				t.Run(point, func(t *testing.T) {
					ends := l.in(t)
					defer ends()
					l.fresh(way.set)
					defer l.off()
					r := l.run(way.args(), "NFSLOCK_DIE_AT="+point)
					if (r == nil) != (point != "end") {
						t.Fatalf("it did not come to %q: %v", point, r["msg"])
					}
					l.cut()
					if point == "end" {
						l.whole(way.end)
					}
					next := l.well(way.next())
					if point == "end" && way.end == way.to && next["changed"] != false {
						t.Errorf("the next run changed something: %v", next["msg"])
					}
					l.whole(way.to)
					if r := l.well(way.next()); r["changed"] != false {
						t.Errorf("the run after that changed something: %v", r["msg"])
					}
					if way.to != "old" {
						l.well(l.absent())
						l.whole("old")
					}
				})
			}
		})
	}
}

// in makes t the test that fails.
func (l *powerLab) in(t *testing.T) (ends func()) {
	outer := l.t
	l.t = t
	return func() { l.t = outer }
}

// fresh is a machine that has just been set up, with what there is before the run that is tried.
func (l *powerLab) fresh(set func()) {
	l.t.Helper()
	l.off() // where a case before this one failed
	l.comeUp(l.base)
	set()
	l.synced()
}
