#!/usr/bin/env bash
# The image of a whole host: systemd, an engine, Python. Made once; again when this script changes.
# usage: image.sh [RELEASE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=${1:-bookworm}
inputs=$(sha256sum <"$here/image.sh" | cut -c1-12)
tag=nfslock-lab/node:$release
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$tag" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
echo "nodes: making the image for $release (about a minute, once)"
"$here/../apt-install.sh" mmdebstrap
packages=systemd,systemd-sysv,dbus,python3,procps,docker.io
mmdebstrap --quiet --variant=minbase --include="$packages" "$release" - |
  docker import -c "LABEL nfslock.lab=$inputs" -c 'ENV container=docker' -c 'CMD ["/sbin/init"]' - "$tag" >/dev/null
