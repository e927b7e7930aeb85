#!/usr/bin/env bash
# Writes what kolla-ansible has in /etc/kolla for its containers: a folder for each service.
# usage: config.sh RELEASE FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=$1 folder=$2
kolla=$here/kolla/$("$here/kolla/version.sh" "$release")

# libvirtd is real, with kolla-ansible's own files, and what stands in qemu.conf beside this script is added.
mkdir "$folder/nova-libvirt"
cp "$kolla/nova-libvirt/config/"* "$folder/nova-libvirt/"
cat "$here/qemu.conf" >>"$folder/nova-libvirt/qemu.conf"

# stands_for SERVICE [PORT]: one of OpenStack's
stands_for() {
  mkdir "$folder/$1"
  cp "$here/service.py" "$folder/$1/"
  echo "{\"command\": \"python3 /var/lib/kolla/config_files/service.py $*\", \"config_files\": []}" >"$folder/$1/config.json"
}
stands_for nova-compute
stands_for cinder-api 8776
stands_for cinder-scheduler
stands_for cinder-backup
stands_for glance-api 9292
# Without a message queue: unhealthy for ever, as where RabbitMQ is away.
mkdir "$folder/cinder-volume"
echo '{"command": "sleep infinity", "config_files": []}' >"$folder/cinder-volume/config.json"
chmod -R u+rwX,go+rX "$folder"
