package engine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

const kollas = "registry:5000/kolla/cinder-volume:1"

func withImage(store enginetest.Store) enginetest.Engine {
	return enginetest.Engine{
		Version: "20.10.24", API: "1.41", Store: store, Images: map[string]string{kollas: "sha256:1"}, Layers: map[string][]string{"sha256:1": {"sha256:a1", "sha256:b2"}},
		ImageLabels: map[string]map[string]string{"sha256:1": {"kolla_version": "23.0.0", "name": "cinder-volume"}},
	}
}

func TestABareImageHasNoLabelsButOurs(t *testing.T) {
	for name, store := range map[string]enginetest.Store{"docker's store": enginetest.ByContent, "containerd's store": enginetest.ByManifest} {
		t.Run(name, func(t *testing.T) {
			e, _ := connectTo(t, withImage(store))
			labels := map[string]string{"mine": "sha256:1"}
			for range 2 { // it may be there already
				if err := e.BareImage(t.Context(), kollas, "mine/image:1", labels); err != nil {
					t.Fatal(err)
				}
			}
			of := spec
			of.Image = "mine/image:1"
			if _, err := e.Create(t.Context(), of); err != nil {
				t.Fatal(err)
			}
			list, err := e.List(t.Context())
			if diff := cmp.Diff(map[string]string{"mine": "yes"}, list[0].Labels); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			images, err := e.Images(t.Context(), "mine")
			if err != nil || len(images) != 1 || !cmp.Equal(images[0].References, []string{"mine/image:1"}) || !cmp.Equal(images[0].Labels, labels) {
				t.Fatalf("%v, %+v", err, images)
			}
			// One in use stays; one that is gone is no failure.
			for _, want := range []int{1, 0, 0} {
				if err := e.RemoveImage(t.Context(), images[0].ID); err != nil {
					t.Error(err)
				}
				if left, err := e.Images(t.Context(), "mine"); err != nil || len(left) != want {
					t.Errorf("%d, not %d: %v", len(left), want, err)
				}
				if err := e.Remove(t.Context(), of.Name); err != nil {
					t.Error(err)
				}
			}
			if id, err := e.ImageID(t.Context(), kollas); err != nil || id != "sha256:1" {
				t.Errorf("kolla's own image: %q, %v", id, err)
			}
		})
	}
}

func TestAnEngineThatWantsEveryLayerSaysSo(t *testing.T) {
	e, _ := connectTo(t, withImage(enginetest.Complete))
	err := e.BareImage(t.Context(), kollas, "mine/image:1", nil)
	if err == nil || !strings.Contains(err.Error(), "cannot make image mine/image:1 of "+kollas) || !strings.Contains(err.Error(), "layer 0 is not in the archive") || !strings.Contains(err.Error(), "cannot find the manifest") {
		t.Error(err)
	}
	if err := e.BareImage(t.Context(), "none", "mine/image:1", nil); err == nil || !strings.Contains(err.Error(), "cannot find image none") {
		t.Error(err)
	}
}
