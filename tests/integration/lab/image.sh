#!/usr/bin/env bash
# The lab's images: a real Debian root with the distribution's own QEMU packages, and kolla's rules for dpkg.
# usage: image.sh [RELEASE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=${1:-bookworm}
inputs=$(cat "$here/image.sh" "$here/dpkg_reducing_disk_footprint" | sha256sum | cut -c1-12)

have() { [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "nfslock-lab/$1:$release" 2>/dev/null)" = "$inputs" ]; }

# layer NAME FROM SERVICE PACKAGE…: FROM and some packages, installed by apt in a container as kolla's templates do
layer() {
  local name=$1 from=$2 service=$3 container
  shift 3
  container=nfslock-lab-build-$$
  docker run --name "$container" --network host --entrypoint /bin/sh "$from" -c \
    "apt-get update -qq && apt-get install -y -qq --no-install-recommends $* >/dev/null 2>&1 && apt-get clean && rm -rf /var/lib/apt/lists/*" >/dev/null
  docker commit -c "LABEL nfslock.lab=$inputs name=$name kolla_version=lab" -c "ENV KOLLA_SERVICE_NAME=$service" \
    -c 'ENTRYPOINT ["dumb-init", "--single-child", "--"]' -c 'CMD ["sleep", "infinity"]' "$container" "nfslock-lab/$name:$release" >/dev/null
  docker rm "$container" >/dev/null
}

if have cinder && have nova-compute && have nova-libvirt; then exit 0; fi
echo "lab: making the images for $release (about two minutes, once)"
"$here/../apt-install.sh" mmdebstrap
mmdebstrap --quiet --variant=minbase --include=ca-certificates,dumb-init,procps,passwd \
  --setup-hook="mkdir -p \"\$1/etc/dpkg/dpkg.cfg.d\" && cp '$here/dpkg_reducing_disk_footprint' \"\$1/etc/dpkg/dpkg.cfg.d/\"" \
  --customize-hook="chroot \"\$1\" useradd --uid 42436 --create-home nova" \
  --customize-hook="chroot \"\$1\" useradd --uid 42407 --create-home cinder" \
  "$release" - | docker import \
  -c 'ENV KOLLA_BASE_DISTRO=debian' -c "ENV KOLLA_BASE_ARCH=$(uname -m)" -c 'ENV DEBIAN_FRONTEND=noninteractive' -c 'ENV LANG=C.UTF-8' \
  -c 'ENV PATH=/var/lib/kolla/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  - "nfslock-lab/base:$release" >/dev/null
layer cinder "nfslock-lab/base:$release" cinder qemu-utils
layer nova-compute "nfslock-lab/cinder:$release" nova-compute qemu-block-extra
layer nova-libvirt "nfslock-lab/nova-compute:$release" nova-libvirt qemu-system-x86
