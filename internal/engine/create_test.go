package engine

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

func connectTo(t *testing.T, world enginetest.Engine) (*Engine, *enginetest.Server) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	server, err := enginetest.Listen(socket, world)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	e, err := Connect(t.Context(), Docker, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, server
}

var spec = Spec{
	Name: "nfs_rpcbind", Image: "kolla/cinder-volume:1", Command: []string{"python3", "/usr/local/lib/x.py"},
	Binds: []string{"/run:/run:shared", "state:/var/lib/nfs/"}, Labels: map[string]string{"mine": "yes"}, Restart: "unless-stopped",
	Files: map[string]string{"/usr/local/lib/x.py": "print()"}, Volumes: []string{"state"},
}

func TestAContainerIsMadeListedAndRemoved(t *testing.T) {
	e, server := connectTo(t, enginetest.Engine{
		Version: "20.10.24", API: "1.41", Images: map[string]string{"kolla/cinder-volume:1": "sha256:1"},
	})
	ctx := t.Context()
	id, err := e.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	server.Edit(spec.Name, func(c *enginetest.Container) {
		if c.RestartMode != "unless-stopped" || !cmp.Equal(c.Command, spec.Command) || !cmp.Equal(c.Files, spec.Files) || !cmp.Equal(c.SecurityOptions, []string{"label=disable"}) {
			t.Errorf("%+v", c)
		}
		c.Aliases = []string{"/other/alias"}
	})
	want := []Listed{{
		ID: id, Name: "nfs_rpcbind", State: "created", Image: "kolla/cinder-volume:1", ImageID: "sha256:1",
		Labels: spec.Labels, HostNetwork: true, Mounts: []string{"/run", "/var/lib/nfs"},
	}}
	list, err := e.List(ctx)
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	state := func(want string) {
		t.Helper()
		if list, err := e.List(ctx); err != nil || list[0].State != want {
			t.Errorf("%v, %v", list, err)
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := e.Start(ctx, spec.Name); err != nil {
			t.Error(err)
		}
		state("running")
	}
	for range 2 {
		if err := e.Stop(ctx, id, time.Second); err != nil {
			t.Error(err)
		}
		state("exited")
	}
	for range 2 {
		if err := errors.Join(e.Remove(ctx, id), e.RemoveVolume(ctx, "state", "mine")); err != nil {
			t.Error(err)
		}
	}
	if list, err := e.List(ctx); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := e.VolumeFolder(ctx, "state"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the volume: %v", err)
	}
}

// TestAVolumeOfSomebodyElseStays: it was there before, so it has no label of ours.
func TestAVolumeOfSomebodyElseStays(t *testing.T) {
	e, _ := connectTo(t, enginetest.Engine{
		Version: "20.10.24", API: "1.41", Images: map[string]string{"kolla/cinder-volume:1": "sha256:1"}, Volumes: map[string]string{"state": "/srv/state"},
	})
	id, err := e.Create(t.Context(), spec)
	if err == nil {
		err = errors.Join(e.Remove(t.Context(), id), e.RemoveVolume(t.Context(), "state", "mine"))
	}
	if folder, err2 := e.VolumeFolder(t.Context(), "state"); err != nil || err2 != nil || folder != "/srv/state" {
		t.Errorf("%q, %v, %v", folder, err, err2)
	}
}

func TestAFrozenContainerGoesOn(t *testing.T) {
	e, _ := connectTo(t, enginetest.Engine{
		Version: "20.10.24", API: "1.41", Containers: []enginetest.Container{{ID: strings.Repeat("a", 64), Name: "nfs_rpcbind", State: "paused"}},
	})
	if err := e.Start(t.Context(), "nfs_rpcbind"); err == nil {
		t.Error("the engine starts a paused container, so nothing has to be unpaused")
	}
	if err := e.Unpause(t.Context(), "nfs_rpcbind"); err != nil {
		t.Error(err)
	}
	if list, err := e.List(t.Context()); err != nil || list[0].State != "running" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestAContainerThatCannotGetItsFilesIsRemoved(t *testing.T) {
	e, _ := connectTo(t, enginetest.Engine{Version: "20.10.24", API: "1.41", Images: map[string]string{"kolla/cinder-volume:1": "sha256:1"}})
	bad := spec
	bad.Files = map[string]string{"/usr/nowhere/x.py": "print()"}
	if _, err := e.Create(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "/usr/nowhere/x.py") {
		t.Errorf("%v", err)
	}
	if list, err := e.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := e.Create(t.Context(), Spec{Name: "x", Image: "none"}); err == nil || !strings.Contains(err.Error(), "cannot make container x from none") {
		t.Errorf("%v", err)
	}
}

func TestWhatAnImageLacks(t *testing.T) {
	e, _ := connectTo(t, enginetest.Engine{
		Version: "20.10.24", API: "1.41", Images: map[string]string{"kolla/cinder-volume:1": "sha256:1"}, InImages: []string{"/usr/sbin/rpcbind", "/usr/bin/python3"},
	})
	got, err := e.Lacks(t.Context(), "kolla/cinder-volume:1", []string{"python3", "rpcbind", "rpc.statd"})
	if err != nil || !cmp.Equal(got, []string{"rpc.statd"}) {
		t.Errorf("%v, %v", got, err)
	}
	if list, err := e.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

func TestImagesAndVolumes(t *testing.T) {
	e, _ := connectTo(t, enginetest.Engine{
		Version: "20.10.24", API: "1.41", Images: map[string]string{"registry:5000/kolla/cinder-volume:1": "sha256:1"}, Volumes: map[string]string{"a": "/srv/a", "far": ""},
	})
	if id, err := e.ImageID(t.Context(), "registry:5000/kolla/cinder-volume:1"); err != nil || id != "sha256:1" {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := e.ImageID(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if folder, err := e.VolumeFolder(t.Context(), "a"); err != nil || folder != "/srv/a" {
		t.Errorf("%q, %v", folder, err)
	}
	if _, err := e.VolumeFolder(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := e.VolumeFolder(t.Context(), "far"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a volume of another driver: %v", err)
	}
}
