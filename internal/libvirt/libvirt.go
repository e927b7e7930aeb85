// Package libvirt knows what libvirt does beside QEMU when a guest starts: which locks of its own it takes, by the settings that hold in a
// container, which emulators its domains use, and how a guest that only tries is described. It runs nothing and speaks to no libvirt.
package libvirt
