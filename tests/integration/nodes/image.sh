#!/usr/bin/env bash
# The image of a whole host: systemd, an engine, sshd, Python. Made once; again when its recipe changes. rpcbind and
# nfs-common are not installed: they lie in /srv/archive, from which apt takes them without a network.
# usage: image.sh [RELEASE]
# shellcheck disable=SC2016 # $1 is the new root's folder, and the rest is for the shell in it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=${1:-bookworm}
inputs=$(cat "$here/image.sh" "$here/../lab/debian-image.sh" | sha256sum | cut -c1-12)
tag=nfslock-lab/node:$release
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$tag" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
echo "nodes: making the image for $release (about a minute, once)"
packages=systemd,systemd-sysv,dbus,python3,procps,docker.io,openssh-server,iproute2
# From Debian 13 on the engine's command line is a package of its own. The last three are what kolla-ansible wants of a host.
[ "$release" = bookworm ] || packages+=,docker-cli,python3-docker,python3-dbus,sudo
# An archive of .debs without dpkg-dev: what apt needs of a Packages file are the control fields, path, size and checksum.
archive='mkdir -p /srv/archive/partial && cd /srv/archive
apt-get install -qq --download-only --no-install-recommends -o Dir::Cache::archives=/srv/archive rpcbind nfs-common
rm -rf partial lock
for f in *.deb; do
  dpkg-deb -f "$f"
  printf "Filename: ./%s\nSize: %s\nSHA256: %s\n\n" "$f" "$(stat -c %s "$f")" "$(sha256sum <"$f" | cut -d" " -f1)"
done >Packages'
"$here/../lab/debian-image.sh" "$tag" "$release" --include="$packages" \
  --customize-hook="chroot \"\$1\" sh -ec '$archive'" \
  --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*; echo "deb [trusted=yes] file:/srv/archive ./" >"$1/etc/apt/sources.list"' \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  -- "LABEL nfslock.lab=$inputs" 'ENV container=docker' 'CMD ["/sbin/init"]'
