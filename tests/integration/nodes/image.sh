#!/usr/bin/env bash
# The image of a whole host: systemd, an engine, Python. Made once; again when its recipe changes.
# usage: image.sh [RELEASE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=${1:-bookworm}
inputs=$(cat "$here/image.sh" "$here/../lab/debian-image.sh" | sha256sum | cut -c1-12)
tag=nfslock-lab/node:$release
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$tag" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
echo "nodes: making the image for $release (about a minute, once)"
packages=systemd,systemd-sysv,dbus,python3,procps,docker.io
"$here/../lab/debian-image.sh" "$tag" "$release" --include="$packages" \
  -- "LABEL nfslock.lab=$inputs" 'ENV container=docker' 'CMD ["/sbin/init"]'
