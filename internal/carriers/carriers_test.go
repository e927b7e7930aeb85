package carriers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

// house is an engine whose containers' files are folders of the test.
type house struct {
	*engine.Engine
	server *enginetest.Server
	roots  map[string]string                                                // by container
	open   func(ctx context.Context, name string) (handled bool, err error) // what happens there instead

	mu     sync.Mutex
	opened []string
}

func (h *house) OpenRoot(ctx context.Context, c engine.Container) (*os.Root, error) {
	h.mu.Lock()
	h.opened = append(h.opened, "open "+c.Name)
	h.mu.Unlock()
	if h.open != nil {
		if handled, err := h.open(ctx, c.Name); handled {
			return nil, err
		}
	}
	return os.OpenRoot(h.roots[c.Name])
}

// calls are the questions to the engine and to containers' files, without those by which a client gets to know its engine.
func (h *house) calls() (all []string) {
	for _, p := range h.server.Paths() {
		if strings.Contains(p, "/containers/") {
			all = append(all, strings.TrimSuffix(strings.TrimPrefix(p, "/v1.41/containers/"), "/json"))
		}
	}
	all = append(all, h.opened...)
	slices.Sort(all)
	return all
}

// box is a container and the files in it.
type box struct {
	enginetest.Container
	files []string
}

func build(t *testing.T, boxes ...box) *house {
	t.Helper()
	h := &house{roots: map[string]string{}}
	world := enginetest.Engine{Version: "20.10.24", API: "1.41"}
	for i, b := range boxes {
		c := b.Container
		c.ID = fmt.Sprintf("%064x", i+1)
		if c.State == "" || c.State == "paused" {
			c.PID = 1000 + i
		}
		world.Containers = append(world.Containers, c)
		h.roots[c.Name] = tree(t, b.files...)
	}
	socket := filepath.Join(t.TempDir(), "docker.sock")
	var err error
	if h.server, err = enginetest.Listen(socket, world); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.server.Close() })
	if h.Engine, err = engine.Connect(t.Context(), engine.Docker, socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

var (
	kollas = map[string]string{"kolla_version": "23.0.0"}
	tools  = []string{path.Join(infoDir, "qemu-utils.list")}
)

func of(name, state string, labels map[string]string, files ...string) box {
	return box{enginetest.Container{Name: name, State: state, Labels: labels}, files}
}

// kept is a folder with what this host keeps of some containers.
func kept(t *testing.T, names ...string) string {
	t.Helper()
	var files []string
	for _, name := range names {
		files = append(files, path.Join("baseline", name, "index.json"))
	}
	return tree(t, files...)
}

func TestCarriersAreKollasContainersWithQEMU(t *testing.T) {
	flattened, foreign := of("flattened", "", nil, tools...), of("foreign", "", nil, tools...)
	flattened.Env = []string{"PATH=/usr/bin", "KOLLA_SERVICE_NAME=flattened"}
	foreign.Env = []string{"PATH=/usr/bin"}
	ours, built := of("nfs_rpcbind", "", map[string]string{"kolla_version": "23.0.0", "nfslock.rpcbind": "x"}, tools...), of("build", "", map[string]string{"kolla_version": "23.0.0", "nfslock.scratch": "x"}, tools...)
	for _, test := range []struct {
		name  string
		boxes []box
		kept  []string
		want  []string // of calls, too: list, names of those that the engine was asked of, and of those that were opened
	}{
		{name: "an empty host", want: []string{"json"}},
		{
			name:  "the six are known, running or not, with QEMU or without, and nothing is asked of them",
			boxes: []box{of("cinder_volume", "exited", kollas), of("nova_libvirt", "", kollas, tools...), of("nova_compute", "", kollas, "var/lib/rpm/rpmdb.sqlite"), of("cinder_api", "paused", kollas)},
			want:  []string{"+nova_libvirt", "+nova_compute", "+cinder_api", "+cinder_volume", "json"},
		},
		{
			name:  "others are looked into",
			boxes: []box{of("keystone", "", kollas, infoDir+"/dpkg.list"), of("zun_compute", "", kollas, tools...), of("ironic_conductor", "", kollas, tools...), of("glance_api", "", kollas, tools...)},
			want:  []string{"+glance_api", "+ironic_conductor", "+zun_compute", "glance_api", "ironic_conductor", "json", "keystone", "open glance_api", "open ironic_conductor", "open keystone", "open zun_compute", "zun_compute"},
		},
		{name: "unless they do not run: then they are nobody's carrier", boxes: []box{of("glance_api", "exited", kollas, tools...), of("ironic_conductor", "created", kollas, tools...), of("heat", "restarting", kollas, tools...)}, want: []string{"json"}},
		{
			name: "but for one of which this host keeps packages", kept: []string{"glance_api", "gone"},
			boxes: []box{of("glance_api", "exited", kollas, tools...), of("ironic_conductor", "exited", kollas, tools...)}, want: []string{"+glance_api", "json"},
		},
		{name: "one that is paused has files", boxes: []box{of("glance_api", "paused", kollas, tools...)}, want: []string{"+glance_api", "glance_api", "json", "open glance_api"}},
		{name: "without the label the environment tells", boxes: []box{flattened}, want: []string{"+flattened", "flattened", "json", "open flattened"}},
		{
			name: "what is not kolla's is not touched, whatever it has and is called", kept: []string{"kept"},
			boxes: []box{foreign, of("nova_compute", "", nil, tools...), of("kept", "", nil, tools...), of("stopped", "exited", nil, tools...), of("emptied", "", map[string]string{"kolla_version": ""}, tools...)},
			want:  []string{"emptied", "foreign", "json", "kept", "nova_compute"},
		},
		{name: "nor what we make from kolla's images", boxes: []box{ours, built}, want: []string{"json"}},
		{name: "rpm packages are no reason", boxes: []box{of("glance_api", "", kollas, "var/lib/rpm/rpmdb.sqlite")}, want: []string{"glance_api", "json", "open glance_api"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := build(t, test.boxes...)
			c, err := Choose(t.Context(), h, kept(t, test.kept...), nil)
			if err != nil || len(c.Notes) > 0 || len(c.IDs) != len(test.boxes) {
				t.Fatalf("%v, %q, %v", err, c.Notes, c.IDs)
			}
			got := []string{}
			for _, name := range c.Names {
				got = append(got, "+"+name)
			}
			if diff := cmp.Diff(test.want, append(got, h.calls()...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The folder in which the program was started is not taken for it.
func TestWithoutAFolderNothingIsKept(t *testing.T) {
	t.Chdir(kept(t, "glance_api"))
	h := build(t, of("glance_api", "exited", kollas, tools...))
	if c, err := Choose(t.Context(), h, "", nil); err != nil || len(c.Names)+len(c.Gone) > 0 {
		t.Errorf("%v, %+v", err, c)
	}
}

func TestWhatIsNamedMustExistAndIsNotLookedInto(t *testing.T) {
	h := build(t, of("glance_api", "exited", kollas), of("nova_libvirt", "", kollas), of("web", "", nil))
	c, err := Choose(t.Context(), h, "/nonexistent", []string{"web", "glance_api", "web", "nova_libvirt"})
	if diff := cmp.Diff([]string{"nova_libvirt", "glance_api", "web"}, c.Names); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"json"}, h.calls()); diff != "" {
		t.Error(diff)
	}
	for names, want := range map[string]string{
		"nova_compute":                `cannot find container "nova_compute" on this host`,
		"x nova_compute nova_libvirt": `cannot find containers "nova_compute", "x" on this host`,
	} {
		if _, err := Choose(t.Context(), h, "/nonexistent", strings.Fields(names)); err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
	}
}

// One container in which nothing answers, or that goes away, says so and keeps none of the others waiting.
func TestAContainerThatCannotBeLookedIntoIsLeftOutAndSaid(t *testing.T) {
	for _, test := range []struct {
		name string
		open func(ctx context.Context) error
		want string
	}{
		{"hangs", func(context.Context) error { select {} }, "cannot tell whether heat has QEMU, so it was left out: a filesystem there does not answer (context deadline exceeded)"},
		{"fails", func(context.Context) error {
			return errors.New("cannot open the files of heat: it was restarted meanwhile")
		}, "cannot tell whether heat has QEMU, so it was left out: cannot open the files of heat: it was restarted meanwhile"},
		{"ended", func(context.Context) error { return fmt.Errorf("cannot open the files of heat: %w", fs.ErrNotExist) }, ""},
		{"was removed", func(context.Context) error {
			return fmt.Errorf("cannot open the files of heat: %w", engine.ErrNotFound)
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := build(t, of("heat", "", kollas, tools...), of("glance_api", "", kollas, tools...), of("nova_compute", "", kollas))
			h.open = func(ctx context.Context, name string) (bool, error) {
				if name != "heat" {
					return false, nil
				}
				return true, test.open(ctx)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			c, err := Choose(ctx, h, "/nonexistent", nil)
			if diff := cmp.Diff([]string{"nova_compute", "glance_api"}, c.Names); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
			if got := strings.Join(c.Notes, "; "); got != test.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestAListThatFailsIsAnError(t *testing.T) {
	h := build(t)
	h.server.Close()
	if _, err := Choose(t.Context(), h, "/nonexistent", nil); err == nil || !strings.Contains(err.Error(), "cannot list containers") {
		t.Errorf("%v", err)
	}
}

// TestFortyContainersAreAskedOneQuestionEach: one for the list, one for each that may have QEMU, and none for those that are known or do not run.
func TestFortyContainersAreAskedOneQuestionEach(t *testing.T) {
	boxes := []box{of("nova_libvirt", "", kollas), of("nova_compute", "", kollas), of("cinder_volume", "", kollas), of("glance_api", "", kollas, tools...)}
	for i := range 36 {
		boxes = append(boxes, of(fmt.Sprintf("service_%d", i), []string{"", "exited"}[i%2], kollas, infoDir+"/dpkg.list"))
	}
	h := build(t, boxes...)
	c, err := Choose(t.Context(), h, "/nonexistent", nil)
	if err != nil || len(c.Names) != 4 || len(h.opened) != 19 || len(h.calls()) != 1+19+19 {
		t.Errorf("%v, %q, %q", err, c.Names, h.calls())
	}
}
