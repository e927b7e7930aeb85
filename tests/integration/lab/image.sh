#!/usr/bin/env bash
# The lab's images: a real Debian root with the distribution's own QEMU packages, and kolla's rules for dpkg.
# usage: image.sh [--whole-host] [RELEASE]   --whole-host: nova-compute-whole and nova-libvirt-whole as well, with libvirt and every
#   QEMU package that kolla's have
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
whole=''
if [ "${1:-}" = --whole-host ]; then whole=yes && shift; fi
release=${1:-bookworm}
inputs=$(cat "$here/image.sh" "$here/debian-image.sh" "$here/dpkg_reducing_disk_footprint" | sha256sum | cut -c1-12)

have() { [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "nfslock-lab/$1:$release" 2>/dev/null)" = "$inputs" ]; }

# layer NAME FROM SERVICE PACKAGE…: FROM and some packages, installed by apt in a container as kolla's templates do. The container shares
# this machine's network, so no service of a package may start in it.
layer() {
  local name=$1 from=$2 service=$3
  shift 3
  # shellcheck disable=SC2016 # for the shell in the container
  if ! docker run --name "$container" --network host --entrypoint /bin/sh "$from" -ec '
    printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    apt-get update
    apt-get install -y --no-install-recommends "$@"
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d' - "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "cannot install $* in an image" >&2
    exit 1
  fi
  docker commit -c "LABEL nfslock.lab=$inputs name=$name kolla_version=lab" -c "ENV KOLLA_SERVICE_NAME=$service" \
    -c 'ENTRYPOINT ["dumb-init", "--single-child", "--"]' -c 'CMD ["sleep", "infinity"]' "$container" "nfslock-lab/$name:$release" >/dev/null
  docker rm "$container" >/dev/null
}

have_plain() { have cinder && have nova-compute && have nova-libvirt; }
have_whole() { [ -z "$whole" ] || { have nova-compute-whole && have nova-libvirt-whole; }; }
if have_plain && have_whole; then exit 0; fi
echo "lab: making the images for $release (about two minutes, once)"
container=nfslock-lab-build-$$
log=$(mktemp)
trap 'docker rm -f "$container" >/dev/null 2>&1 || true; rm -f "$log"' EXIT
if ! have_plain; then
  "$here/debian-image.sh" "nfslock-lab/base:$release" "$release" --include=ca-certificates,dumb-init,procps,passwd \
    --setup-hook="mkdir -p \"\$1/etc/dpkg/dpkg.cfg.d\" && cp '$here/dpkg_reducing_disk_footprint' \"\$1/etc/dpkg/dpkg.cfg.d/\"" \
    --customize-hook="chroot \"\$1\" useradd --uid 42436 --create-home nova" \
    --customize-hook="chroot \"\$1\" useradd --uid 42407 --create-home cinder" \
    -- 'ENV KOLLA_BASE_DISTRO=debian' "ENV KOLLA_BASE_ARCH=$(uname -m)" 'ENV DEBIAN_FRONTEND=noninteractive' 'ENV LANG=C.UTF-8' \
    'ENV PATH=/var/lib/kolla/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  layer cinder "nfslock-lab/base:$release" cinder qemu-utils nfs-common python3
  layer nova-compute "nfslock-lab/cinder:$release" nova-compute qemu-block-extra
  layer nova-libvirt "nfslock-lab/nova-compute:$release" nova-libvirt qemu-system-x86
fi
if ! have_whole; then
  layer nova-compute-whole "nfslock-lab/nova-compute:$release" nova-compute qemu-system-x86
  # Packages of modules are recommended only. Before Debian 13 there are none: the modules are in qemu-system-common and qemu-system-gui.
  modules=()
  case $release in bullseye | bookworm) ;; *) modules=(qemu-system-modules-opengl qemu-system-modules-spice) ;; esac
  layer nova-libvirt-whole "nfslock-lab/nova-libvirt:$release" nova-libvirt \
    qemu-system "${modules[@]}" libvirt-daemon-system libvirt-clients
fi
