#!/usr/bin/env bash
# The image nfslock-lab/cinder of arm64, tagged so that up.sh --release RELEASE-arm64 takes it. This machine's kernel has to run arm64
# programs: tests/integration/arm64.sh sees to that.
# usage: arm64-image.sh [RELEASE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=${1:-trixie}
name=nfslock-lab/cinder:$release-arm64
inputs=$(cat "$here/arm64-image.sh" "$here/debian-image.sh" "$here/../../../patch-sets/root.sh" "$here/dpkg_reducing_disk_footprint" | sha256sum | cut -c1-12)
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$name" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
echo "lab: making the arm64 image for $release (three minutes, once)"
"$here/debian-image.sh" "$name" "$release" --architectures=arm64 --include=ca-certificates,dumb-init,procps,passwd,qemu-utils \
  --setup-hook="mkdir -p \"\$1/etc/dpkg/dpkg.cfg.d\" && cp '$here/dpkg_reducing_disk_footprint' \"\$1/etc/dpkg/dpkg.cfg.d/\"" \
  --customize-hook="chroot \"\$1\" useradd --uid 42407 --create-home cinder" \
  -- "LABEL nfslock.lab=$inputs name=cinder kolla_version=lab" 'ENV KOLLA_BASE_DISTRO=debian' 'ENV KOLLA_BASE_ARCH=aarch64' \
  'ENV KOLLA_SERVICE_NAME=cinder' 'ENV DEBIAN_FRONTEND=noninteractive' 'ENV LANG=C.UTF-8' \
  'ENV PATH=/var/lib/kolla/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  'ENTRYPOINT ["dumb-init", "--single-child", "--"]' 'CMD ["sleep", "infinity"]'
