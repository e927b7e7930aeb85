#!/usr/bin/env bash
# Removes the lab's containers and what this host keeps for them; stops where a container of somebody else has such a name.
set -euo pipefail
for name in nova_libvirt nova_compute cinder_api cinder_volume cinder_scheduler cinder_backup glance_api; do
  label=$(docker inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$name" 2>/dev/null) || continue
  if [ "$label" != up ]; then
    echo "the lab does not touch $name: it is not its own. Is this a kolla host?" >&2
    exit 1
  fi
done
ids=$(docker ps -aq --filter label=nfslock.lab=up)
if [ -n "$ids" ]; then
  # shellcheck disable=SC2086 # a list
  folders=$(docker inspect -f '{{index .Config.Labels "nfslock.lab.folder"}}' $ids | sort -u)
  # shellcheck disable=SC2086
  docker rm -f $ids >/dev/null
  docker volume rm -f nfslock-lab-libvirtd nfslock-lab-libvirt-qemu >/dev/null
  rm -rf /var/lib/nfslock # up.sh starts only where there was none; while the folders are there, it is known for the lab's
  for f in $folders; do
    case $f in
    /tmp/nfslock-lab-run.*)
      umount --recursive --lazy "$f" 2>/dev/null || true # it is a mount of its own, and stores may be mounted in it
      rm -rf --one-file-system "$f"
      ;;
    esac
  done
fi
