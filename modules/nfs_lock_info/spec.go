package main

import "github.com/nfslock/ansible-collection-kolla/internal/ansible"

var spec = ansible.Spec{
	"containers": {
		Type: ansible.List, NotEmpty: true,
		Description: []string{
			"Names of containers to look at. Each must exist. An empty list is an error.",
			"By default every container of kolla's that has QEMU, running or paused, as glance_api and ironic_conductor beside Nova's and Cinder's.",
			"A container is kolla's by the label C(kolla_version) or by kolla's variables in its environment, and has QEMU by dpkg's database in it.",
			"No other one is touched.",
			"nova_libvirt, nova_compute, cinder_api, cinder_volume, cinder_scheduler, cinder_backup and what this host keeps packages of are listed in any state.",
			"The host itself is looked at in any case.",
		},
	},
	"paths": {
		Type: ansible.List, Elements: ansible.Path,
		Description: []string{
			"Absolute paths to look at beside the NFS mounts, each in every container that has it and on the host.",
			"Locks are tried in a folder, whatever its filesystem. Of a file, such as a guest's image, it is only asked who holds its locks.",
			"A path that goes through a symbolic link is not followed.",
		},
	},
	"config_dir": {
		Type: ansible.Path, Default: "/etc/kolla",
		Description: []string{"Folder of kolla-ansible's configuration on the target, in which mount options of Cinder and Nova are compared."},
	},
	"engine": {
		Default: "auto", Choices: []string{"auto", "docker", "podman"},
		Description: []string{"Container engine. Without one that answers, only the host's own mounts are looked at. C(podman) is refused for now."},
	},
	"engine_socket": {
		Type:        ansible.Path,
		Description: []string{"Unix socket of the engine, where it is not the usual one."},
	},
	"timeout": {
		Type: ansible.Int, Default: 30,
		Description: []string{
			"Seconds that the run may take. The locks of one mount may take a third of it, at most 10 seconds, and count as hanging after that.",
		},
	},
	"prove": {
		Type: ansible.Bool, Default: false,
		Description: []string{
			"Also let each container's own qemu-img make an image of 1 MiB on each mount and convert it, as for a volume.",
			"And have libvirt start a guest from an image on each mount that nova_libvirt sees, and end it at once.",
			"And run the health test of nova_libvirt.",
			"It takes about half a second for each container and mount, and a second for each guest, some at once, of the time in I(timeout).",
			"With less than 15 seconds there may be none left for it.",
		},
	},
}
