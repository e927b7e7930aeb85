#!/usr/bin/env bash
# Gives the image nova-libvirt what libvirtd finds out about each emulator. The first question to a libvirtd that knows nothing takes half a minute, and
# each test asks one. What it knows holds for the files of this image in this engine, by their times. usage: learn-emulators.sh TAG
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/lab/container.sh
. "$here/container.sh"
tag=$1 container=nfslock-lab-build-$$-libvirtd folder=/var/cache/libvirt/qemu/capabilities
trap 'docker rm -f "$container" "$container-2" >/dev/null 2>&1 || true' EXIT
docker run -d --name "$container" --network none "${privileged[@]}" --security-opt seccomp=unconfined "nfslock-lab/nova-libvirt:$tag" libvirtd >/dev/null
if ! "$here/libvirt-answers.sh" "$container" 300; then
  docker rm -f "$container" >/dev/null
  docker rmi -f "nfslock-lab/nova-libvirt:$tag" >/dev/null # the next run is not to take it for whole
  exit 1
fi
docker create --name "$container-2" "nfslock-lab/nova-libvirt:$tag" >/dev/null
docker cp -q "$container:$folder" - | docker cp -q - "$container-2:${folder%/*}"
docker commit "$container-2" "nfslock-lab/nova-libvirt:$tag" >/dev/null
