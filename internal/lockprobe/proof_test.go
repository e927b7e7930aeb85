package lockprobe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// house is a host with containers whose root is a folder of the test's, and which see one mount of NFS there.
type house struct {
	*engine.Engine
	server *enginetest.Server
	dir    string // the containers' root
	proc   string
	m      *machine
}

// OpenRoot takes the place of the engine's, whose containers have processes.
func (h *house) OpenRoot(context.Context, engine.Container) (*os.Root, error) {
	return os.OpenRoot(h.dir)
}

// firstProcess is that of each container, in the house's own /proc.
const firstProcess = 4000001

// build makes one whose containers see a mount at that path.
func build(t *testing.T, mount, options string, containers ...enginetest.Container) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), proc: t.TempDir()}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"usr/bin/qemu-img", "usr/bin/timeout", mount + "/volume"} {
		write(filepath.Join(h.dir, name), "x")
	}
	root, err := os.Open(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	id, err := host.MountID(int(root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%d 1 8:1 / / rw - ext4 /dev/vda rw\n", id)
	write(fmt.Sprintf("%s/%d/mountinfo", h.proc, os.Getpid()), line)
	write(fmt.Sprintf("%s/%d/mountinfo", h.proc, firstProcess), line+fmt.Sprintf("%d 1 0:77 / %s %s - nfs4 filer:/a rw,vers=4.2,addr=%s\n", id, mount, options, filer))
	write(fmt.Sprintf("%s/%d/status", h.proc, firstProcess), "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
	for i := range containers {
		containers[i].ID, containers[i].PID, containers[i].Labels = fmt.Sprintf("%064x", i+1), firstProcess, map[string]string{"kolla_version": "20.0.0"}
	}
	socket := filepath.Join(h.proc, "engine.sock")
	if h.server, err = enginetest.Listen(socket, enginetest.Engine{Version: "24.0.7", API: "1.43", Containers: containers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.server.Close() })
	if h.Engine, err = engine.Connect(t.Context(), engine.Docker, socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.m = &machine{engine: h, proc: h.proc, dir: t.TempDir(), caller: well(), try: start}
	return h
}

// call is a command of qemu-img that a container was told to run.
type call struct {
	*enginetest.Process
	house  *house
	step   string // "create" or "convert"
	folder string // of the images, as this test sees it
}

// make does what qemu-img does.
func (c call) make(name string) int {
	if err := os.WriteFile(filepath.Join(c.folder, name), []byte("QFI\xfb"), 0o600); err != nil {
		fmt.Fprintln(c.Stderr, err)
		return 1
	}
	return 0
}

func (c call) well() int {
	if c.step == "create" {
		return c.make(firstImage)
	}
	return c.make(secondImage)
}

// carrier is a container with a qemu-img that does that.
func carrier(t *testing.T, h **house, name string, do func(call) int) enginetest.Container {
	return enginetest.Container{Name: name, Programs: map[string]func(*enginetest.Process) int{"timeout": func(p *enginetest.Process) int {
		a := p.Args
		if len(a) < 10 || strings.Join(a[:3], " ") != "timeout -s KILL" || a[4] != "qemu-img" || !strings.HasPrefix(a[9], "/") && !strings.HasPrefix(a[10], "/") {
			t.Errorf("it was told to run %q", a)
			return 1
		}
		if !slices.Contains(p.Env, preload.WarnVariable+"=1") {
			t.Errorf("the library would not warn: %q", p.Env)
		}
		image := a[9]
		if a[5] == "convert" {
			image = a[10]
		}
		return do(call{p, *h, a[5], filepath.Join((*h).dir, filepath.Dir(image))})
	}}}
}

// proving leaves three seconds to each step.
var proving = Options{Timeout: 15, ConfigDir: "/nonexistent", Prove: true}

func proved(t *testing.T, h *house) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), proving.limit())
	defer cancel()
	r := emptyResult()
	if err := h.m.run(ctx, proving, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Each way in which qemu-img can end, and what a container may do to the folder meanwhile.
func TestProofs(t *testing.T) {
	t.Parallel()
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	tests := []struct {
		name     string
		do       func(*testing.T, call) int
		result   ProofResult
		step     ProofStep
		unlocked bool
		says     string // in the detail
		left     string // what is still in the mount, beside the volume
		warns    string // in a warning
	}{
		{name: "works", do: func(t *testing.T, c call) int {
			if c.User != "0" {
				t.Errorf("as %q", c.User)
			}
			info, err := os.Lstat(c.folder)
			if err != nil || info.Mode() != os.ModeDir|0o700 || !folderName.MatchString(info.Name()) {
				t.Errorf("%v, %v", info, err)
			}
			return c.well()
		}, result: Works},
		{name: "works without a lock", do: func(_ *testing.T, c call) int {
			fmt.Fprintf(c.Stderr, "qemu-img: warning: %s: image locks are refused here (No locks available); going on WITHOUT a lock, nothing keeps a second writer out\n", c.folder)
			return c.well()
		}, result: Works, unlocked: true, says: "WITHOUT a lock"},
		{name: "no locks", do: func(_ *testing.T, c call) int {
			fmt.Fprint(c.Stderr, "qemu-img: /mnt/a/image: Failed to lock byte 101\n")
			return 1
		}, result: Fails, step: StepCreate, says: "Failed to lock byte 101"},
		{name: "no locks for converting", do: func(_ *testing.T, c call) int {
			if c.step == "create" {
				return c.well()
			}
			fmt.Fprint(c.Stderr, "qemu-img: Failed to lock byte 100\n")
			return 1
		}, result: Fails, step: StepConvert, says: "Failed to lock byte 100"},
		{name: "fails in silence", do: func(*testing.T, call) int { return 3 }, result: Fails, step: StepCreate, says: "it ended with 3 and said nothing"},
		{name: "says too much, in no encoding", do: func(_ *testing.T, c call) int {
			fmt.Fprint(c.Stderr, strings.Repeat("\xff\xfe never ", 20000), "the end")
			return 1
		}, result: Fails, step: StepCreate, says: "the end"},
		{name: "made nothing", do: func(*testing.T, call) int { return 0 }, result: Fails, step: StepCreate, says: "no image is there"},
		{name: "made no second image", do: func(_ *testing.T, c call) int { return c.make(firstImage) }, result: Fails, step: StepConvert, says: "no second image is there"},
		{name: "made a link", do: func(_ *testing.T, c call) int {
			_ = os.Symlink("/etc/passwd", filepath.Join(c.folder, firstImage))
			return c.make(secondImage)
		}, result: Fails, step: StepCreate, says: "no image is there"},
		{name: "killed by timeout", do: func(*testing.T, call) int {
			time.Sleep(3500 * time.Millisecond)
			return 137
		}, result: Stalls, step: StepCreate, says: "was killed"},
		{name: "killed by somebody else", do: func(*testing.T, call) int { return 137 }, result: Fails, step: StepCreate, says: "killed by somebody else"},
		{name: "cannot be killed", do: func(_ *testing.T, c call) int {
			if c.step == "convert" {
				<-c.Done
			}
			return c.well()
		}, result: Stalls, step: StepConvert, says: "cannot even be killed"},
		{name: "lost", do: func(_ *testing.T, c call) int {
			c.HangUp()
			return 0
		}, result: Fails, step: StepCreate, says: "its outcome is unknown"},
		{name: "stopped between the two", do: func(_ *testing.T, c call) int {
			c.house.server.Edit("cinder_volume", func(c *enginetest.Container) { c.State = "exited" })
			return c.well()
		}, result: Fails, step: StepConvert, says: "cannot run qemu-img"},
		{name: "a link in place of the folder", do: func(t *testing.T, c call) int {
			if c.step == "convert" {
				must(t, os.Rename(c.folder, filepath.Join(c.house.dir, "away")))
				must(t, os.Symlink("../../victim", c.folder))
			}
			return 0
		}, result: Fails, step: StepCreate, says: "cannot open the folder of the images again: ENOTDIR", left: folderPrefix, warns: "cannot clear away"},
		{name: "another folder in its place", do: func(t *testing.T, c call) int {
			if c.step == "convert" {
				must(t, os.Rename(c.folder, filepath.Join(c.house.dir, "away")))
				must(t, os.Mkdir(c.folder, 0o700))
				c.make(firstImage)
				c.make(secondImage)
			}
			return 0
		}, result: Fails, step: StepCreate, says: "is left alone", left: folderPrefix, warns: "another folder is where"},
		{name: "something else in it", do: func(_ *testing.T, c call) int {
			c.make("own")
			return c.well()
		}, result: Works, left: folderPrefix, warns: "ENOTEMPTY"},
		{name: "the folder is gone", do: func(t *testing.T, c call) int {
			must(t, os.RemoveAll(c.folder))
			return 0
		}, result: Fails, step: StepCreate, says: "ENOENT", warns: "ENOENT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var h *house
			h = build(t, "/mnt/a", "rw", carrier(t, &h, "cinder_volume", func(c call) int { return test.do(t, c) }))
			victim := filepath.Join(h.dir, "victim")
			must(t, os.Mkdir(victim, 0o755))
			for _, name := range []string{firstImage, secondImage} {
				must(t, os.WriteFile(filepath.Join(victim, name), []byte("precious"), 0o600))
			}
			r := proved(t, h)
			if len(r.Proofs) != 1 {
				t.Fatalf("%+v", r.Proofs)
			}
			p := r.Proofs[0]
			if p.Container != "cinder_volume" || p.Path != "/mnt/a" || p.Result != test.result || p.Step != test.step || p.Unlocked != test.unlocked || p.MS <= 0 {
				t.Errorf("%+v", p)
			}
			if !strings.Contains(p.Detail, test.says) || test.says == "" && p.Detail != "" || len(p.Detail) > 3000 {
				t.Errorf("%d bytes: %s", len(p.Detail), p.Detail)
			}
			if warnings := strings.Join(r.Warnings, "\n"); !strings.Contains(warnings, test.warns) || test.warns == "" && strings.Contains(warnings, "clear away") {
				t.Errorf("it warns: %s", warnings)
			}
			names, _ := filepath.Glob(filepath.Join(h.dir, "mnt/a/.*"))
			if (test.left == "") != (len(names) == 0) || len(names) > 1 {
				t.Errorf("left behind: %q", names)
			}
			for _, name := range []string{"victim/image", "victim/copy", "mnt/a/volume"} {
				if _, err := os.Stat(filepath.Join(h.dir, name)); err != nil {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

// Where qemu-img is not to be run it is not, with the reason.
func TestWhatIsNotProved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		mount   string
		options string
		change  func(*house)
		says    string // empty: there is no row
	}{
		{name: "read-only", mount: "/mnt/a", options: "ro", says: "it is mounted read-only"},
		{name: "no UTF-8", mount: "/mnt/\xff", options: "rw", says: "not valid UTF-8"},
		{name: "no QEMU", mount: "/mnt/a", options: "rw", change: func(h *house) { os.Remove(filepath.Join(h.dir, "usr/bin/qemu-img")) }},
		{name: "no timeout", mount: "/mnt/a", options: "rw", change: func(h *house) { os.Remove(filepath.Join(h.dir, "usr/bin/timeout")) }, says: "no timeout(1)"},
		{name: "another filesystem at the path", mount: "/mnt/a", options: "rw", change: func(h *house) {
			os.RemoveAll(filepath.Join(h.dir, "mnt/a"))
			_ = os.Symlink("/etc", filepath.Join(h.dir, "mnt/a"))
		}, says: "symbolic link"},
		{name: "no time", mount: "/mnt/a", options: "rw", change: func(h *house) {
			h.m.try = func(ctx context.Context, root *os.File, device string, t task) attempt {
				time.Sleep(5 * time.Second)
				return start(ctx, root, device, t)
			}
		}, says: "too little of the run's time"},
		{name: "stopped just now", mount: "/mnt/a", options: "rw", change: func(h *house) {
			h.m.try = func(ctx context.Context, root *os.File, device string, t task) attempt {
				h.server.Edit("cinder_volume", func(c *enginetest.Container) { c.State = "exited" })
				return start(ctx, root, device, t)
			}
		}, says: "cannot run qemu-img: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var h *house
			h = build(t, test.mount, test.options, carrier(t, &h, "cinder_volume", func(call) int {
				t.Error("it was run")
				return 0
			}))
			if test.change != nil {
				test.change(h)
			}
			r := proved(t, h)
			if test.says == "" {
				if len(r.Proofs) > 0 || len(r.Mounts) != 1 {
					t.Errorf("%+v, %d mounts", r.Proofs, len(r.Mounts))
				}
				return
			}
			if len(r.Proofs) != 1 || r.Proofs[0].Result != Unproved || r.Proofs[0].Step != "" || !strings.Contains(r.Proofs[0].Detail, test.says) {
				t.Errorf("%+v", r.Proofs)
			}
			if names, _ := filepath.Glob(filepath.Join(h.dir, "mnt/*/"+folderPrefix+"*")); len(names) > 0 {
				t.Errorf("left behind: %q", names)
			}
		})
	}
}

// Each container that sees a mount has its own QEMU, so each is proved, in the order of the other rows; without the option nothing is run.
func TestEachContainerIsProved(t *testing.T) {
	t.Parallel()
	var h *house
	var runs atomic.Int32
	do := func(c call) int {
		runs.Add(1)
		return c.well()
	}
	h = build(t, "/mnt/a", "rw", carrier(t, &h, "cinder_volume", func(call) int { return 1 }), carrier(t, &h, "nova_compute", do), carrier(t, &h, "cinder_backup", do))
	r := proved(t, h)
	var got []string
	for _, p := range r.Proofs {
		got = append(got, p.Container+" "+string(p.Result))
	}
	if want := "[nova_compute works cinder_volume fails cinder_backup works]"; fmt.Sprint(got) != want || runs.Load() != 4 {
		t.Errorf("%v after %d runs, want %s", got, runs.Load(), want)
	}
	runs.Store(0)
	o := proving
	o.Prove = false
	r = report(t, h.m, o)
	if runs.Load() != 0 || r.Proofs == nil || len(r.Proofs) > 0 || r.Libvirt != (Libvirt{}) {
		t.Errorf("%d runs, %+v, %+v", runs.Load(), r.Proofs, r.Libvirt)
	}
}

func TestHealthOfLibvirt(t *testing.T) {
	t.Parallel()
	ends := func(code int) func(*enginetest.Process) int {
		return func(p *enginetest.Process) int {
			if p.User != "" {
				t.Errorf("as %q", p.User)
			}
			fmt.Fprint(p.Stdout, "socket is not there\n")
			return code
		}
	}
	for _, test := range []struct {
		name    string
		test    []string
		program func(*enginetest.Process) int
		state   string
		other   string // the container's name
		want    Libvirt
	}{
		{name: "healthy", test: []string{"CMD", "test"}, program: ends(0), want: Libvirt{Container: "nova_libvirt", Healthy: true}},
		{name: "sick", test: []string{"CMD", "test"}, program: ends(1), want: Libvirt{Container: "nova_libvirt", Detail: `its health test "test" ended with 1 (socket is not there)`}},
		{name: "no test of its own", program: ends(1), want: Libvirt{Container: "nova_libvirt", Detail: `its health test "virsh version --daemon" ended with 1 (socket is not there)`}},
		{name: "no test of its own, healthy", program: ends(0), want: Libvirt{Container: "nova_libvirt", Healthy: true}},
		{name: "switched off", test: []string{"NONE"}, program: ends(0), want: Libvirt{Container: "nova_libvirt", Healthy: true}},
		{name: "hangs", test: []string{"CMD", "test"}, program: func(p *enginetest.Process) int {
			<-p.Done
			return 0
		}, want: Libvirt{Container: "nova_libvirt", Detail: `its health test "test" did not end within`}},
		{name: "stopped", program: ends(0), state: "exited"},
		{name: "another container", program: ends(0), other: "nova_compute"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := enginetest.Container{Name: "nova_libvirt", State: test.state, Health: test.test, Programs: map[string]func(*enginetest.Process) int{"test": test.program, "virsh": test.program}}
			if test.other != "" {
				c.Name = test.other
			}
			h := build(t, "/mnt/a", "ro", c)
			got := proved(t, h).Libvirt
			if test.name == "hangs" { // how long depends on what was left of the run's time
				got.Detail = got.Detail[:min(len(got.Detail), len(test.want.Detail))]
			}
			if got != test.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

// storeProof is a proof in a container whose mount is a store.
func storeProof(t *testing.T, s *store, do func(p *enginetest.Process) int) (*machine, *proof) {
	t.Helper()
	h := build(t, "/mnt/a", "rw", enginetest.Container{Name: "cinder_volume", Programs: map[string]func(*enginetest.Process) int{"timeout": do}})
	folder, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	root, err := os.OpenRoot(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	m := on(t, s, "nfs", v3, well())
	own := &view{}
	if err := m.lookAtHost(own); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.close)
	i := slices.IndexFunc(own.mounts, func(m host.MountPoint) bool { return m.Path == s.dir })
	v := &view{name: "cinder_volume", Container: engine.Container{ID: fmt.Sprintf("%064x", 1)}, root: root, folder: folder}
	v.readPrograms()
	at := sight{view: v, mount: own.mounts[i], path: s.dir}
	return h.m, &proof{trial: &trial{spot: spot{device: deviceOf(t, s.dir)}, sights: []sight{at}}, sight: at}
}

// A server that squashes root: the folder is made, qemu-img run and all of it removed as somebody whom the server knows.
func TestRootSquashedProof(t *testing.T) {
	s := newStore(t, nil)
	s.mu.Lock()
	s.uid = 42436
	s.mu.Unlock()
	m, p := storeProof(t, s, func(p *enginetest.Process) int {
		if p.User != "42436:0" {
			t.Errorf("as %q", p.User)
		}
		folder := slices.DeleteFunc(s.names(), func(name string) bool { return strings.Contains(name, "/") })[0]
		if p.Args[5] == "create" {
			s.put(folder, firstImage)
		} else {
			s.put(folder, secondImage)
		}
		return 0
	})
	p.make(t.Context(), m, 5*time.Second)
	if p.Result != Works || p.left != "" || len(s.names()) > 0 {
		t.Errorf("%+v, %s; left %q", p.Proof, p.left, s.names())
	}
}

// A mount that falls silent at the folder, or at what is in it, costs the run its limits and no more.
func TestAMountThatHangsAtTheFolder(t *testing.T) {
	for _, test := range []struct {
		op     string
		result ProofResult
		says   string
		left   string
	}{
		{"mkdir", Stalls, "no folder can be made", ""},
		{"rmdir", Works, "", "no file can be removed: that did not end in time"},
	} {
		t.Run(test.op, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, func(op string) unix.Errno {
				if op == test.op {
					return hang
				}
				return 0
			})
			m, p := storeProof(t, s, func(p *enginetest.Process) int {
				if p.Args[5] == "create" {
					s.put(s.names()[0], firstImage)
				} else {
					s.put(slices.DeleteFunc(s.names(), func(name string) bool { return strings.Contains(name, "/") })[0], secondImage)
				}
				return 0
			})
			began := time.Now()
			p.make(t.Context(), m, proofLeast)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if p.Result != test.result || p.Detail != test.says || p.left != test.left {
				t.Errorf("%+v, %q", p.Proof, p.left)
			}
		})
	}
}

func TestTheStepsFitIntoTheRun(t *testing.T) {
	for _, left := range []time.Duration{time.Second, 10 * time.Second, 29 * time.Second, 5 * time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		got := stepLimit(ctx, lockLimit)
		cancel()
		if got > lockLimit || got >= proofLeast && 3*got+proofReserve > left || left > time.Minute && got != lockLimit {
			t.Errorf("%v of %v", got, left)
		}
	}
}
