package kolla

import (
	"slices"
	"strings"
)

// RPCBindLabel marks the container that rpcbind_ensure makes; its value is the checksum of all else. ScratchLabel marks one in which a patch set is built or
// tried. Both are made from images of kolla's, so that QEMU is in them, and are nobody's service.
const (
	RPCBindLabel = "nfslock.rpcbind"
	ScratchLabel = "nfslock.scratch"
)

// Ours is true of those.
func Ours(labels map[string]string) bool {
	return labels[RPCBindLabel] != "" || labels[ScratchLabel] != ""
}

// Labelled is true of a container that was made from an image of kolla's: its base image has had this label since December 2015
// (docker/base/Dockerfile.j2), every image inherits it, and a container its image's.
func Labelled(labels map[string]string) bool { return labels["kolla_version"] != "" }

// marks are what kolla's images have in their environment (the first, docker/base/Dockerfile.j2), and what kolla-ansible gives each container
// whatever its image is (docker_common_options, and ansible/module_utils/kolla_container_worker.py).
var marks = []string{"KOLLA_BASE_DISTRO", "KOLLA_CONFIG_STRATEGY", "KOLLA_SERVICE_NAME"}

// Deployed is true of a container with such an environment: its image may be kolla's though a tool that flattened it has lost the label.
func Deployed(env []string) bool {
	return slices.ContainsFunc(env, func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(marks, name)
	})
}
