package main

import "github.com/nfslock/ansible-collection-kolla/internal/ansible"

var spec = ansible.Spec{
	"state": {
		Default: "present", Choices: []string{"present", "absent"},
		Description: []string{
			"C(present) sees to it that both services run, come back at boot and when they die, and answer.",
			"C(absent) removes what this module made, and only that. What ran before its first run goes on.",
		},
	},
	"mode": {
		Default: "auto", Choices: []string{"auto", "host", "container"},
		Description: []string{
			"C(host) uses the distribution's packages and units.",
			"C(container) keeps the host clean. It runs both in a container of their own, from an image that is on the host already.",
			"C(auto) takes what is there already. Otherwise it is C(host) when the packages are installed or can be, else C(container). I(reason) says why.",
			"The other mode than before moves them, and the state of rpc.statd with them. What was before is removed when the new one runs.",
		},
	},
	"statd": {
		Type: ansible.Bool, Default: true,
		Description: []string{"Whether rpc.statd is wanted, without which NFSv3 has no locks. C(false) leaves it as it is with I(mode=host)."},
	},
	"image": {
		Description: []string{
			"Image for I(mode=container), with C(rpcbind), C(rpc.statd) and C(python3). It must be on the host already.",
			"By default the image of the container cinder_volume on that host, then of nova_compute.",
		},
	},
	"container_name": {
		Default:     "nfs_rpcbind",
		Description: []string{"Name of the container of I(mode=container)."},
	},
	"listen": {
		Type: ansible.List, NotEmpty: true,
		Description: []string{
			"Addresses of the host at which rpcbind listens, in addition to loopback. By default every address, as the distributions have it.",
			"An empty list is an error.",
			"Link-local addresses are refused, and so is a drop-in of somebody else's for rpcbind.socket that is read later and adds addresses.",
			"Give those of the storage network. NFSv3 servers call back, so that loopback alone is wrong unless the server is the host itself.",
			"The ports of rpc.statd and of the kernel's lock manager are not restricted by this.",
		},
	},
	"force": {
		Type: ansible.Bool, Default: false,
		Description: []string{"Whether I(state=absent) goes on although NFSv3 mounts, whose locks depend on the services, are in use."},
	},
	"engine": {
		Default: "auto", Choices: []string{"auto", "docker", "podman"},
		Description: []string{"Container engine. I(mode=host) works without one. C(podman) is refused for now."},
	},
	"engine_socket": {
		Type:        ansible.Path,
		Description: []string{"Unix socket of the engine, where it is not the usual one."},
	},
	"timeout": {
		Type: ansible.Int, Default: 300,
		Description: []string{
			"Seconds that the run may take, and before that as many for waiting until another run on the same host ends.",
			"What apt or dnf take is not counted, and is ten minutes at most for each of downloading, installing and removing.",
		},
	},
}
