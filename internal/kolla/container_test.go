package kolla

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSortPutsTheGuestsContainersFirstAndOthersByName(t *testing.T) {
	for _, test := range []struct{ in, want []string }{
		{in: nil, want: nil},
		{in: []string{"cinder_backup", "nova_compute", "cinder_api", "nova_libvirt"}, want: []string{"nova_libvirt", "nova_compute", "cinder_api", "cinder_backup"}},
		{in: []string{"zun_compute", "ironic_conductor", "blazar", "cinder_volume", "glance_api", "nova_libvirt"}, want: []string{"nova_libvirt", "cinder_volume", "glance_api", "ironic_conductor", "blazar", "zun_compute"}},
		{in: []string{"nova_compute", "nova_compute", "nova_libvirt"}, want: []string{"nova_libvirt", "nova_compute", "nova_compute"}},
	} {
		got := slices.Clone(test.in)
		Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v: -want +got:\n%s", test.in, diff)
		}
		slices.Reverse(got)
		Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v from behind: -want +got:\n%s", test.in, diff)
		}
	}
}

func TestUnitIsTheOneOfKollaAnsible(t *testing.T) {
	if got := Unit("nova_libvirt"); got != "kolla-nova_libvirt-container.service" {
		t.Error(got)
	}
}

func TestOneContainerRunsGuests(t *testing.T) {
	var found []string
	for _, name := range first {
		if RunsGuests(name) {
			found = append(found, name)
		}
	}
	if diff := cmp.Diff([]string{"nova_libvirt"}, found); diff != "" {
		t.Error(diff)
	}
}

func TestCarriersThatAreKnownAreNovasAndCindersOnly(t *testing.T) {
	for name, want := range map[string]bool{
		"nova_libvirt": true, "nova_compute": true, "cinder_api": true, "cinder_volume": true, "cinder_scheduler": true, "cinder_backup": true,
		"glance_api": false, "ironic_conductor": false, "nova_ssh": false, "": false,
	} {
		if Carries(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
