package kolla

// NFSUsers are the containers that mount NFS or keep guests' images on it.
var NFSUsers = []string{"nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup"}

// NFSImages are the containers whose images have rpcbind and nfs-common, the likelier ones first. Read in kolla's docker/cinder and
// docker/nova templates.
var NFSImages = []string{"cinder_volume", "nova_compute"}

// ExtraVolumes is the variable of kolla-ansible that adds volumes to a container.
func ExtraVolumes(name string) string { return name + "_extra_volumes" }
