package main

import (
	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset"
)

var spec = ansible.Spec{
	"state": {
		Default: "present", Choices: []string{"present", "absent"},
		Description: []string{
			"C(present) brings what I(method) says into each container.",
			"C(absent) brings back what was there before, in the containers' packages and in their list of preloaded libraries.",
		},
	},
	"method": {
		Choices: []string{"library", "packages"},
		Description: []string{
			"C(library) puts the preloaded library there, and its line into C(/etc/ld.so.preload).",
			"Packages are left as they are, and so are other libraries of that list.",
			"C(packages) installs the packages of the patch set that are installed in each container.",
			"C(state=absent) installs those from before again, and removes the hold.",
			"By default C(packages) where I(patch_set) is given and C(library) where it is not; with C(state=absent) both are taken back.",
			"A library that kolla's volumes bind into a container is left alone.",
			"It is an error to name such a container with C(state=absent) and C(method=library).",
		},
	},
	"patch_set": {
		Secret: sftpset.HoldsPassword,
		Description: []string{
			"Folder with C(manifest.yml) and the .deb files it names, on the controller, or on the target with C(remote_src=true).",
			"Or C(sftp://USER@HOST[:PORT]/PATH), a folder that the target itself fetches from, what its store lacks and its containers need.",
			"The path is absolute there. In it C(%), C(?), C(#) and C(@) are written C(%25), C(%3F), C(%23) and C(%40). An IPv6 address stands in brackets.",
			"An address with a password in it is refused. So is a server whose host key the target does not know.",
			"Required with C(method=packages) and C(state=present), and an error with C(method=library) and C(state=present).",
		},
	},
	"remote_src": {
		Type: ansible.Bool, Default: false,
		Description: []string{"Whether I(patch_set) is a folder on the target. Not for C(sftp://)."},
	},
	"manifest_sha256": {
		Description: []string{"Refuse any manifest whose SHA-256 checksum, in lower-case hexadecimal, is another one."},
	},
	"allowed_signers": {
		Description: []string{
			"Refuse any manifest without a good signature, in C(manifest.yml.sig) beside it, by one of these signers, before anything in it is believed.",
			"The lines of a list as ALLOWED SIGNERS in ssh-keygen(1) describes it, or, where it begins with a slash, the absolute path of one on the target.",
			"Such a file, and each folder above it, must be root's, with no link among them, and writable by nobody else.",
			"C(ssh-keygen -Y sign -f KEY -n patch-set@nfslock.kolla manifest.yml) makes the signature.",
			"Keys of Ed25519, ECDSA and RSA from 2048 bits on, hardware keys that were touched, and user certificates with C(cert-authority).",
			"C(namespaces), C(valid-after) and C(valid-before) count, the latter by the target's clock. A line that is not understood is an error.",
			"An older set that was signed once stays good: I(manifest_sha256) pins one. See the collection's C(docs/patch-sets.md).",
			"Not looked at with C(state=absent).",
		},
	},
	"sftp_private_key_file": {
		Type: ansible.Path,
		Description: []string{
			"Private key on the target, for C(sftp://). Nobody but its owner may have any right on the file, and no passphrase protects it.",
			"Without it the agent is asked whose socket the environment variable C(SSH_AUTH_SOCK) of the task names.",
		},
	},
	"sftp_known_hosts_file": {
		Type: ansible.Path,
		Description: []string{
			"File on the target with the server's host keys, for C(sftp://), as OpenSSH's C(known_hosts). An unknown, changed or revoked key is an error.",
			"By default C(~/.ssh/known_hosts) of the user that the task runs as, which is root's, and C(/etc/ssh/ssh_known_hosts).",
		},
	},
	"containers": {
		Type: ansible.List, NotEmpty: true,
		Description: []string{
			"Names of containers to work in. Each must exist. An empty list is an error.",
			"By default every container of kolla's that has QEMU, running or paused, as glance_api and ironic_conductor beside Nova's and Cinder's.",
			"A container is kolla's by the label C(kolla_version) or by kolla's variables in its environment.",
			"It has QEMU by dpkg's database in it or, where it has none, by the programs C(qemu-kvm) or C(qemu-img).",
			"No other one is touched.",
			"nova_libvirt, nova_compute, cinder_api, cinder_volume, cinder_scheduler, cinder_backup and those in which this host put something count in any state.",
			"One of those that was stopped is passed over with a warning. A container that is named must run.",
		},
	},
	"engine": {
		Default: "auto", Choices: []string{"auto", "docker", "podman"},
		Description: []string{"Container engine. C(podman) is refused for now."},
	},
	"engine_socket": {
		Type:        ansible.Path,
		Description: []string{"Unix socket of the engine, where it is not the usual one."},
	},
	"restart": {
		Default: "auto", Choices: []string{"auto", "always", "never"},
		Description: []string{
			"C(auto) restarts nova_libvirt when its packages or its library changed, or when its libvirt runs without the library that is there.",
			"C(always) restarts it in any case, C(never) leaves it to you. No other container needs it.",
			"Running instances survive the restart. They keep the program they were started with until a hard reboot or a live migration: see I(containers).",
		},
	},
	"hold": {
		Type: ansible.Bool, Default: true,
		Description: []string{"Put the packages on hold, so that apt in the container does not replace them. C(false) leaves holds as they are."},
	},
	"on_error": {
		Default: "rollback", Choices: []string{"rollback", "keep"},
		Description: []string{
			"C(rollback) brings all containers of the host back to what they had when one fails, and begins nowhere when one cannot be patched.",
			"C(keep) leaves the containers that succeeded patched, and one that failed as it is.",
			"One that cannot be brought back is alone with it, in this run and in later ones.",
			"A run that is for it tries it again, and no other container goes back with it.",
		},
	},
	"allow_version_change": {
		Type: ansible.Bool, Default: false,
		Description: []string{"Whether a package may be replaced by one that was built from another source version than the installed one."},
	},
	"timeout": {
		Type: ansible.Int, Default: 900,
		Description: []string{"Seconds that the run may take, and before that as many for waiting until another run on the same host ends. A rollback may go on after it."},
	},
	"_manifest":  {Internal: true},
	"_signature": {Internal: true},
	"_uploads":   {Type: ansible.Dict, Internal: true},
}
