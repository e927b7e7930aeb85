package rpcbind

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// TestAnEngineThatIsStuckIsNone: it says that it is there, and lists no containers. Mode host does without it.
func TestAnEngineThatIsStuckIsNone(t *testing.T) {
	t.Parallel() // it waits for real
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stuck := make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case strings.HasSuffix(r.URL.Path, "/version"):
			_, _ = w.Write([]byte(`{"Version": "20.10.24", "ApiVersion": "1.41"}`))
		default:
			<-stuck
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { close(stuck); server.Close() })
	m := &machine{proc: "/proc", connect: func(ctx context.Context) (*engine.Engine, string) {
		e, err := engine.Connect(ctx, engine.Docker, socket)
		if err != nil {
			return nil, err.Error()
		}
		return e, ""
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	var s Seen
	err = m.lookAtContainers(ctx, options(OnHost), &s)
	if err != nil || !strings.Contains(s.EngineError, "cannot list containers") || time.Since(began) > 2*engineLimit {
		t.Errorf("after %v: %v, %q", time.Since(began), err, s.EngineError)
	}
}

// TestTheImageIsFound where kolla's containers are there, where ours is all that is left of them, and where that is gone, too.
func TestTheImageIsFound(t *testing.T) {
	const own, base = "nfslock/rpcbind:1", "sha256:1"
	cinder := enginetest.Container{ID: strings.Repeat("c", 64), Name: "cinder_volume", Image: "kolla/cinder-volume:1", ImageID: base, State: "exited", Labels: map[string]string{"kolla_version": "23"}}
	ours := enginetest.Container{
		ID: strings.Repeat("a", 64), Name: "nfs_rpcbind", Image: own, ImageID: "sha256:own", State: "exited", Labels: map[string]string{kolla.RPCBindLabel: "x", baseLabel: base},
	}
	before := ours // of a version that took kolla's image as it is
	before.Image, before.ImageID, before.Labels = "kolla/cinder-volume:1", base, map[string]string{kolla.RPCBindLabel: "x", "kolla_version": "23"}
	another := ours
	another.Name, another.ID, another.Labels = "another", strings.Repeat("b", 64), nil
	images := map[string]string{"kolla/cinder-volume:1": base, own: "sha256:own"}
	for name, test := range map[string]struct {
		containers []enginetest.Container
		images     map[string]string
		want       Image
		own        int
		inherited  bool
	}{
		"kolla's and ours":           {[]enginetest.Container{cinder, ours}, images, Image{Reference: "kolla/cinder-volume:1", ID: base}, 1, false},
		"kolla's and an older ours":  {[]enginetest.Container{cinder, before}, images, Image{Reference: "kolla/cinder-volume:1", ID: base}, 1, true},
		"ours alone":                 {[]enginetest.Container{ours}, images, Image{Reference: own, ID: base, Ours: true}, 1, false},
		"its image alone":            {nil, images, Image{Reference: own, ID: base, Ours: true}, 1, false},
		"somebody else runs from it": {[]enginetest.Container{another}, images, Image{Problem: "no image is named, and the host has none of cinder_volume, nova_compute to take one from"}, 0, false},
		"nothing":                    {nil, nil, Image{Problem: "no image is named, and the host has none of cinder_volume, nova_compute to take one from"}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "docker.sock")
			server, err := enginetest.Listen(socket, enginetest.Engine{
				Version: "20.10.24", API: "1.41", Containers: test.containers, Images: test.images, ImageLabels: map[string]map[string]string{"sha256:own": {baseLabel: base}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			e, err := engine.Connect(t.Context(), engine.Docker, socket)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			m := &machine{engine: e, proc: "/proc", state: t.TempDir()}
			var s Seen
			if err := m.lookAtContainers(t.Context(), options(InContainer), &s); err != nil || s.EngineError != "" {
				t.Fatal(err, s.EngineError)
			}
			if diff := cmp.Diff(test.want, s.Image); diff != "" || len(s.OwnImages) != test.own || s.Ours != nil && s.Ours.Inherited != test.inherited {
				t.Errorf("%d of ours, %+v (-want +got):\n%s", len(s.OwnImages), s.Ours, diff)
			}
		})
	}
}
