#!/usr/bin/env bash
# Real images of kolla, from kolla's own templates: nova-libvirt, nova-compute, cinder-volume. Made once for each recipe, which is kolla's version and the
# files here; a run that was cut short goes on with the images that are whole. Six minutes on two idle cores.
# usage: [NOVA_LIBVIRT_IMAGE=…] [NOVA_COMPUTE_IMAGE=…] [CINDER_VOLUME_IMAGE=…] images.sh
# Images that are given are taken as they are, and pulled if they are not here. Prints a line for each: NAME=IMAGE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
# shellcheck source=tests/integration/kolla/pins.sh
. "$here/pins.sh"
# shellcheck source=tests/integration/kolla/step.sh
. "$here/step.sh"
# shellcheck source=tests/ansible/venv.sh
. "$top/tests/ansible/venv.sh"
logs=${KOLLA_LOGS:-$cache/logs}
exec 3>&1 >&2 # what is done is said on stderr

# given NAME: the image that is named in its variable, or nothing
given() {
  local variable=${1^^}_IMAGE
  variable=${variable//-/_}
  printf '%s' "${!variable:-}"
}

# sources: sdists from PyPI, as kolla's "local" sources; Kolla's own are on a server of OpenStack's. openstack-base wants the list of all pins of
# the series as well, which is on that server alone: an empty one lets pip choose.
sources() {
  mkdir -p "$cache/sources/requirements/requirements-$series"
  local name
  for name in "cinder-$cinder" "nova-$nova" "blazar_nova-$blazar_nova"; do
    [ -e "$cache/sources/$name.tar.gz" ] ||
      "$bin/pip" download --no-deps --no-binary :all: --no-build-isolation -d "$cache/sources" "${name%-*}==${name##*-}" || return
  done
  : >"$cache/sources/requirements/requirements-$series/upper-constraints.txt"
  : >"$cache/sources/requirements/requirements-$series/global-requirements.txt"
  tar -C "$cache/sources/requirements" -czf "$cache/sources/requirements.tar.gz" "requirements-$series"
}

# The machine's own certificates come along, for a build behind a proxy that has one.
base() {
  "$here/../lab/debian-image.sh" "$namespace/debian:$release" "$release" --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /opt' \
    -- 'ENV PIP_CERT=/opt/ca-certificates.crt' "LABEL nfslock.kolla.recipe=$recipe" 'CMD ["bash"]'
}

configure() {
  sed "s/NFSLOCK_RECIPE/$recipe/" "$here/override.j2" >"$cache/override.j2"
  local_source() { printf '[%s]\ntype = local\nlocation = %s\n' "$1" "$cache/sources/$2"; }
  {
    printf '[DEFAULT]\nbase = debian\nbase_image = %s\nbase_tag = %s\nnamespace = %s\ntag = %s\nnetwork_mode = host\nthreads = 1\npull = false\n' \
      "$namespace/debian" "$release" "$namespace" "$tag"
    local_source openstack-base requirements.tar.gz
    local_source cinder-base "cinder-$cinder.tar.gz"
    local_source nova-base "nova-$nova.tar.gz"
    local_source nova-base-plugin-blazar "blazar_nova-$blazar_nova.tar.gz"
  } >"$cache/kolla-build.conf"
}

# What an image is made of; how long a step may take, and what is said of it, is none of it.
recipe=$({ declare -f sources base configure && cat "$here/override.j2" "$here/pins.sh"; } | sha256sum | cut -c1-12)
have() { [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.kolla.recipe"}}' "$1" 2>/dev/null)" = "$recipe" ]; }

to_build=()
for name in "${images[@]}"; do
  image=$(given "$name")
  if [ -z "$image" ]; then
    have "$namespace/$name:$tag" || to_build+=("$name")
  elif ! docker image inspect "$image" >/dev/null 2>&1; then
    must 1800 "pull-$name" "pulling $image" docker pull "$image"
  fi
done

if [ ${#to_build[@]} -gt 0 ]; then
  if ! newest_python 3.12; then
    echo "cannot build kolla's images: python3.12 or newer with its venv module is missing; or name images: NOVA_LIBVIRT_IMAGE, NOVA_COMPUTE_IMAGE, CINDER_VOLUME_IMAGE" >&2
    exit 1
  fi
  mkdir -p "$cache"
  # shellcheck disable=SC2154 # version and python are newest_python's
  tools() { venv "kolla-$kolla-py$version" "$python" "kolla==$kolla" setuptools docker; }
  must 1800 tools "kolla-build" tools
  bin=$(tools)
  # Images of another recipe are in the way: kolla-build would take them for the parents of the new ones.
  for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}' "$namespace/*"); do
    have "$image" || docker rmi "$image" >/dev/null
  done
  have "$namespace/debian:$release" || must 600 base "a Debian root for kolla's images" base
  must 600 sources "sources of nova and cinder" sources
  configure
  for name in "${to_build[@]}"; do
    # The classic builder, which every engine has; a build with network_mode host uses this machine's settings of apt and pip.
    must 3600 "image-$name" "kolla's image $name, from its templates" \
      "$bin/kolla-build" "^$name\$" --nobuildkit --skip-existing --config-file "$cache/kolla-build.conf" --template-override "$cache/override.j2"
  done
fi
for name in "${images[@]}"; do
  image=$(given "$name")
  echo "$name=${image:-$namespace/$name:$tag}" >&3
done
