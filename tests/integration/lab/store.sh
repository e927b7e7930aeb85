#!/usr/bin/env bash
# Mounts a store that refuses locks, as Cinder mounts a share in cinder_volume, and Nova in nova_compute, and prints its folder in these, a line each.
# Their files are the same. down.sh takes it away.
# usage: store.sh [OPTION OF NOLOCKS…]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=filer:/volumes
folder=$(printf %s "$source" | md5sum | cut -d' ' -f1) # as both call it
container=$(docker ps -aq --filter label=nfslock.lab=up | head -1)
[ -n "$container" ] || {
  echo "the lab does not run: up.sh" >&2
  exit 1
}
run=$(docker inspect -f '{{index .Config.Labels "nfslock.lab.folder"}}' "$container")
program=$run/nolocks
(cd "$here" && CGO_ENABLED=0 go build -o "$program" ../nolocks)
install -d -o 42407 -g 42400 -m 2775 "$run/store" "$run/cinder/mnt" # cinder and kolla
for mountpoint in "$run/cinder/mnt/$folder" "$run/nova-mnt/$folder"; do
  mkdir -p "$mountpoint"
  "$program" "$@" "$run/store" "$mountpoint" "$source"
done
echo "/var/lib/cinder/mnt/$folder"
echo "/var/lib/nova-mnt/$folder"
