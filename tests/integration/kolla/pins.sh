# shellcheck shell=bash
# Sourced. What of kolla is used here: one series, so that a newer one is a change in one place.
# shellcheck disable=SC2034 # for the scripts that source it

# The series' releases on PyPI. Packages of one series belong together, and the package ansible has the collections that kolla-ansible uses.
series=2026.2
release=trixie
kolla=23.0.0
kolla_ansible=23.0.0
ansible=14.5.0
nova=34.0.0
cinder=29.0.0
blazar_nova=10.0.0

# The tag as kolla-ansible puts it together for Debian.
tag=$series-debian-$release
# The images that the story needs; what PyPI has under these names is built into namespace/NAME:tag.
images=(nova-libvirt nova-compute cinder-volume)
namespace=nfslock-kolla

cache=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/kolla
