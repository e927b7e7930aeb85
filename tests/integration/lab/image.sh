#!/usr/bin/env bash
# The lab's images, made as kolla makes its own: the same layers, users, files and QEMU packages, on a real Debian root. Which packages they lack, and
# why: kolla/left-out.
# usage: image.sh [RELEASE[-arm64]]   -arm64: cinder-volume and cinder-api of that architecture, if this machine's kernel runs its programs
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
tag=${1:-bookworm} release=${1:-bookworm} machine=$(uname -m) architecture=()
images=(cinder-api cinder-volume cinder-scheduler cinder-backup glance-api nova-compute nova-libvirt)
case $tag in *-arm64) release=${tag%-arm64} machine=aarch64 architecture=(--architectures=arm64) images=(cinder-api cinder-volume) ;; esac
distribution=$("$here/../../../patch-sets/distribution.sh" "$release")
kolla=$here/kolla/$("$here/kolla/version.sh" "$release")
root=$here/../../../patch-sets/root.sh
inputs=$(find "$here/image.sh" "$here/learn-emulators.sh" "$here/container.sh" "$here/debian-image.sh" "$root" "$here/kolla/left-out" "$here/kolla/fetch.sh" "$kolla" -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-12)

have() { [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "nfslock-lab/$1:$tag" 2>/dev/null)" = "$inputs" ]; }
have_all() {
  local image
  for image in "${images[@]}"; do have "$image" || return 1; done
}
if have_all; then exit 0; fi
echo "lab: making the images for $tag (two minutes, once)"
work=$(mktemp -d)
trap 'docker ps -aq --filter "name=^nfslock-lab-build-$$-" | xargs -r docker rm -f >/dev/null; rm -rf "$work"' EXIT

# packages IMAGE: kolla's list without what is left out
packages() {
  grep -vxFf <(sed 's/^#.*//; s/^[^:]*: //' "$here/kolla/left-out" | tr ' ' '\n' | grep .) "$kolla/$1/packages.$distribution" || true
}

# users IMAGE: commands that make its users, for a shell in it. What kolla's macro configure_user does, and base/Dockerfile.j2.
users() {
  local what name uid gid group
  while read -r what name uid gid group; do
    case $what in
    user) echo "groupadd --gid $gid $group && useradd -l -M --shell /usr/sbin/nologin --uid $uid --gid $gid $name" ;;
    groups) echo "usermod --append --home /var/lib/$name --groups $uid $name && mkdir -p /var/lib/$name && chown -R $name:$name /var/lib/$name" ;;
    esac
  done <"$kolla/$1/lines"
}

# files IMAGE FOLDER: the files that kolla copies into it, as a tree
files() {
  local what from to
  mkdir -p "$2"
  while read -r what from to; do
    case $what in
    copy) install -D "$sources/$from" "$2$to" ;;
    empty) [ -e "$2$from" ] || install -D /dev/null "$2$from" ;;
    esac
  done <"$kolla/$1/lines"
}

# Modes are those of kolla's Dockerfiles, whatever those of this checkout are.
modes='cd /usr/local/bin
chmod 755 healthcheck_* kolla_*
chmod 644 kolla_*extend_start
[ ! -e kolla_httpd_setup ] || chmod 644 kolla_httpd_setup
[ ! -e kolla_nova_libvirt_start ] || chmod 744 kolla_nova_libvirt_start
chown -R root:root /etc/sudoers /etc/sudoers.d
chmod 750 /etc/sudoers.d
find /etc/sudoers /etc/sudoers.d -type f -exec chmod 440 {} +'

# changes IMAGE: what the engine is to write down of it, an option a line
changes() {
  local maintainer='Kolla Project (https://launchpad.net/kolla)' labels
  labels="maintainer=\"$maintainer\" name=\"$1\" kolla_version=\"${kolla##*/}\" build-date=\"$(date -u +%Y%m%d)\""
  # kolla-build has these from 2026.1 on.
  case ${kolla##*/} in
  2[01].*) ;;
  *)
    local opencontainers=org.opencontainers.image
    labels+=" $opencontainers.authors=\"$maintainer\" $opencontainers.created=\"$(date -u +%FT%TZ)\" $opencontainers.description=\"OpenStack Kolla $1 image\""
    labels+=" $opencontainers.licenses=\"Apache-2.0\" $opencontainers.title=\"$1\" $opencontainers.url=\"https://opendev.org/openstack/kolla\" $opencontainers.version=\"$tag\""
    ;;
  esac
  echo "LABEL nfslock.lab=$inputs $labels"
  sed -n 's/^runs-as /USER /p' "$kolla/$1/lines"
  # Of openstack-base, whose programs would be there.
  case $1 in *-base) echo 'ENV PATH=/var/lib/kolla/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' ;; esac
}

base() {
  local file=$work/base.sh tree=$work/base
  files base "$tree"
  {
    echo 'set -e'
    users base
    echo "$modes"
    # As kolla has it, so that packages' own users stay away from kolla's.
    echo 'sed -i -e "s/#*LAST_SYSTEM_UID=999/LAST_SYSTEM_UID=59999/" -e "s/#*LAST_SYSTEM_GID=999/LAST_SYSTEM_GID=59999/" /etc/adduser.conf
sed -i "s/# en_US.UTF-8 UTF-8/en_US.UTF-8 UTF-8/" /etc/locale.gen && locale-gen en_US.UTF-8 >/dev/null 2>&1
rm -f /etc/localtime
mkdir -p /var/log/kolla && chown :kolla /var/log/kolla && chmod 2775 /var/log/kolla'
  } >"$file"
  # shellcheck disable=SC2016 # the new root's folder is mmdebstrap's to tell; that of kolla's files is for the shell that it starts
  "$here/debian-image.sh" "nfslock-lab/base:$tag" "$release" "${architecture[@]}" --include="$(packages base | paste -sd,)" \
    --setup-hook="mkdir -p \"\$1/etc/dpkg/dpkg.cfg.d\" && cp '$tree/etc/dpkg/dpkg.cfg.d/'* \"\$1/etc/dpkg/dpkg.cfg.d/\"" \
    --customize-hook="cp -rT '$tree' \"\$1\" && cp '$file' \"\$1/base.sh\" && chroot \"\$1\" sh /base.sh >&2 && rm \"\$1/base.sh\"" \
    -- "$(changes base | head -1)" 'ENV LANG=en_US.UTF-8' "ENV KOLLA_BASE_DISTRO=$distribution" "ENV KOLLA_BASE_ARCH=$machine" \
    'ENV PS1="$(tput bold)($(printenv KOLLA_SERVICE_NAME))$(tput sgr0)[$(id -un)@$(hostname -s) $(pwd)]$ "' 'ENV DEBIAN_FRONTEND=noninteractive' \
    'ENTRYPOINT ["dumb-init", "--single-child", "--"]' 'CMD ["kolla_start"]'
}

# layer IMAGE FROM [PACKAGE…]: FROM and what kolla adds to it; apt installs it in a container, as kolla's templates do. The container shares this
# machine's network, so no service of a package may start in it.
layer() {
  local image=$1 from=$2 container=nfslock-lab-build-$$-$1
  shift 2
  files "$image" "$work/$image/files"
  local list=()
  mapfile -t list < <(packages "$image")
  list+=("$@")
  {
    echo 'set -e'
    users "$image"
    if [ ${#list[@]} -gt 0 ]; then
      cat <<END
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
apt-get --error-on=any update
apt-get -y install --no-install-recommends ${list[*]}
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d
END
    fi
    [ "$image" != nova-libvirt ] || echo 'rm -f /etc/libvirt/qemu/networks/default.xml /etc/libvirt/qemu/networks/autostart/default.xml'
    # Through a copy of its own: the engine's would give the folders on the way the modes of this checkout's.
    echo 'cp -rT /root/layer/files / && rm -r /root/layer'
    echo "$modes"
  } >"$work/$image/commands"
  docker create --name "$container" --network host --entrypoint /bin/sh "nfslock-lab/$from:$tag" /root/layer/commands >/dev/null
  docker cp -q "$work/$image" "$container:/root/layer"
  if ! docker start -a "$container" >"$work/$image.log" 2>&1; then
    tail -n 20 "$work/$image.log" >&2
    echo "cannot make the image $image" >&2
    exit 1
  fi
  local options=() change
  while read -r change; do options+=(-c "$change"); done < <(changes "$image")
  docker commit "${options[@]}" -c 'ENTRYPOINT ["dumb-init", "--single-child", "--"]' -c 'CMD ["kolla_start"]' "$container" "nfslock-lab/$image:$tag" >/dev/null
  docker rm "$container" >/dev/null
}

stores() {
  layer cinder-base base
  local image
  for image in "${images[@]}"; do
    case $image in cinder-*) layer "$image" cinder-base ;; esac
  done
  [ ${#architecture[@]} = 0 ] || return 0
  layer glance-base base
  layer glance-api glance-base
}
computes() {
  layer nova-base base
  # In kolla's the emulator is what libguestfs needs.
  case $machine in x86_64) layer nova-compute nova-base qemu-system-x86 ;; *) layer nova-compute nova-base qemu-system-arm ;; esac
}

sources=$("$here/kolla/fetch.sh" "${kolla##*/}")
base
if [ ${#architecture[@]} -gt 0 ]; then
  stores
  exit 0
fi
stores &
stores=$!
computes &
computes=$!
layer nova-libvirt base
"$here/learn-emulators.sh" "$tag"
wait "$stores"
wait "$computes"
