package kolla

import "testing"

func TestKollasContainersAreToldByLabelOrEnvironment(t *testing.T) {
	for _, test := range []struct {
		name   string
		labels map[string]string
		env    []string
		want   bool
	}{
		{
			name: "one of these days", want: true,
			labels: map[string]string{"kolla_version": "23.0.0", "name": "nova-libvirt", "maintainer": "Kolla Project (https://launchpad.net/kolla)"},
			env:    []string{"KOLLA_CONFIG_STRATEGY=COPY_ALWAYS", "KOLLA_SERVICE_NAME=nova-libvirt", "PATH=/usr/bin", "KOLLA_BASE_DISTRO=debian"},
		},
		{name: "flattened, and deployed by kolla-ansible", env: []string{"PATH=/usr/bin", "KOLLA_CONFIG_STRATEGY=COPY_ALWAYS"}, want: true},
		{name: "the image's environment alone", env: []string{"KOLLA_BASE_DISTRO=ubuntu"}, want: true},
		{name: "another one", labels: map[string]string{"name": "nova-libvirt"}, env: []string{"PATH=/usr/bin", "LANG=C"}},
		{name: "a label that was taken away, as far as that goes", labels: map[string]string{"kolla_version": ""}},
		{name: "names that only begin or end so", env: []string{"KOLLA_ANSIBLE=1", "MY_KOLLA_BASE_DISTRO=debian", "KOLLA_BASE_DISTROS=debian"}},
	} {
		if got := Labelled(test.labels) || Deployed(test.env); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestOurOwnContainersAreTold(t *testing.T) {
	for label, want := range map[string]bool{RPCBindLabel: true, ScratchLabel: true, "nfslock.lab": false} {
		if Ours(map[string]string{"kolla_version": "23.0.0", label: "x"}) != want {
			t.Errorf("%s: %v", label, !want)
		}
	}
}
