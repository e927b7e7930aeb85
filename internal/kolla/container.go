// Package kolla knows how kolla-ansible names and runs its containers. It asks no engine.
package kolla

import (
	"cmp"
	"slices"
)

// first are the names that are reported first, in this order: the guests' containers, then those that serve them images and volumes.
var first = []string{"nova_libvirt", "nova_compute", "cinder_api", "cinder_volume", "cinder_scheduler", "cinder_backup", "glance_api", "ironic_conductor"}

// Carries is true of the containers that are looked at whether they run or not, and whatever is in them: QEMU is what Nova and Cinder work with, so that
// one of theirs without it is to be seen, too. Read in kolla's docker/nova and docker/cinder templates.
func Carries(name string) bool { return slices.Contains(first[:6], name) }

// RunsGuests is true of the container whose programs the instances are: the one to restart when they change.
func RunsGuests(name string) bool { return name == "nova_libvirt" }

// HealthTest is the command that tells whether a container is well: its own test or, where that was left out (enable_container_healthchecks), kolla's
// of libvirt, whose client has to reach the service. Nil where there is none.
func HealthTest(name string, own []string) []string {
	if len(own) == 0 && RunsGuests(name) {
		return []string{"virsh", "version", "--daemon"}
	}
	return own
}

// Unit is the systemd unit that owns a container since kolla-ansible 2023.1 (ansible/module_utils/kolla_systemd_worker.py
// there). Older releases leave the restart to the engine and have none.
func Unit(name string) string { return "kolla-" + name + "-container.service" }

// Sort puts names in the order in which they are reported, those that have no place of their own behind them by name.
func Sort(names []string) {
	rank := func(name string) int {
		if i := slices.Index(first, name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b)) })
}
