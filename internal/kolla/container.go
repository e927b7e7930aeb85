// Package kolla knows how kolla-ansible names and runs its containers. It asks no engine.
package kolla

import "slices"

// Carriers are the containers that can have QEMU packages, in the order in which they are reported. The list and who
// has what was read in kolla's docker/nova and docker/cinder templates.
var Carriers = []string{"nova_libvirt", "nova_compute", "cinder_api", "cinder_volume", "cinder_scheduler", "cinder_backup"}

// RunsGuests is true of the container whose programs the instances are: the one to restart when they change.
func RunsGuests(name string) bool { return name == "nova_libvirt" }

// Unit is the systemd unit that owns a container since kolla-ansible 2023.1 (ansible/module_utils/kolla_systemd_worker.py
// there). Older releases leave the restart to the engine and have none.
func Unit(name string) string { return "kolla-" + name + "-container.service" }

// Sort puts names in the order of Carriers, others behind them by name.
func Sort(names []string) {
	rank := func(name string) int {
		if i := slices.Index(Carriers, name); i >= 0 {
			return i
		}
		return len(Carriers)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if a < b {
			return -1
		} else if a > b {
			return 1
		}
		return 0
	})
}
