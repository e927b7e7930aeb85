#!/usr/bin/env bash
# One patch set of one release, built in a throwaway container by the role's own script.
# usage: build.sh RELEASE ARCHITECTURE PROFILE OUT VARIANT…
# Several variants are built into OUT-VARIANT each, from one compilation. IMAGE names the image to build in; BUILD_OPTIONS more options of
# build-patch-set.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=$1 architecture=$2 profile=$3 out=$4
shift 4
image=${IMAGE:-}
# An image of this machine's own architecture: the script itself builds across.
[ -n "$image" ] || image=$("$here/image.sh" "$release")
docker image inspect "$image" >/dev/null 2>&1 || docker pull "$image" >&2
id=$(docker image inspect -f '{{.Id}}' "$image")
cache=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}
work=${WORK:-$cache/build}
mkdir -p "$work"
container=nfslock-build-$release-$architecture-$$
trap 'docker rm -f "$container" >/dev/null 2>&1 || true' EXIT
read -ra more <<<"${BUILD_OPTIONS:-}"
for variant in "$@"; do
  folder=$out
  [ $# = 1 ] || folder=$out-$variant
  mkdir -p "$folder"
  folder=$(realpath "$folder")
  # The label keeps nfs_lock_fix out of it, should this be a kolla host: its image is kolla's, and has QEMU.
  docker run --rm --name "$container" --label nfslock.scratch=build --user root --network host --entrypoint bash \
    -v "$here/../roles/qemu_patched_build/files:/recipe:ro" -v "$folder:/patch-set" -v "$(realpath "$work"):/work" "$image" \
    /recipe/build-patch-set.sh --out /patch-set --work /work --variant "$variant" --profile "$profile" --architecture "$architecture" \
    --image "$image" --image-id "$id" "${more[@]}"
  echo "$folder"
done
