package kolla

// RunsEmulators is true of the containers whose own work runs QEMU's emulators: Nova's guests in one, libguestfs in the other. The others that
// carry QEMU use its tools only. Read in kolla's docker/nova templates.
func RunsEmulators(name string) bool { return name == "nova_libvirt" || name == "nova_compute" }
