#!/usr/bin/env bash
# The peer: what operators did by hand, one container after the other. usage: shell-loop.sh PATCH_SET CONTAINER…
set -euo pipefail
set_folder=$1
shift
for c in "$@"; do
  debs=()
  for deb in "$set_folder"/*.deb; do
    name=$(basename "$deb" | cut -d_ -f1)
    docker exec "$c" dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || continue
    docker cp -q "$deb" "$c:/tmp/$name.deb" 2>/dev/null || docker cp "$deb" "$c:/tmp/$name.deb"
    debs+=("/tmp/$name.deb")
  done
  docker exec -u root "$c" dpkg -i "${debs[@]}" >/dev/null
  docker exec -u root "$c" rm "${debs[@]}"
done
