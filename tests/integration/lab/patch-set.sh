#!/usr/bin/env bash
# Rebuilds QEMU in a container of the lab's image, with the role's own script, and prints the patch set's folder on its last line.
# It is kept for later runs: the script itself finds out whether the folder already holds this build.
# usage: patch-set.sh [VARIANT]   variant: fallback (default) or disable_ofd
# The second package is there for what can go wrong between two of them, in containers as small as these.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
variant=${1:-fallback} release=bookworm
out=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/patch-set/$release-$(dpkg --print-architecture)-$variant
mkdir -p "$out"
"$here/image.sh" "$release" >&2
docker run --rm --label nfslock.scratch=build --user root --network host --entrypoint bash \
  -v "$here/../../../roles/qemu_patched_build/files:/in:ro" -v "$out:/out" \
  "nfslock-lab/nova-compute:$release" /in/build-patch-set.sh --out /out --variant "$variant" --also qemu-block-extra \
  --image "nfslock-lab/nova-compute:$release" --image-id "$(docker image inspect -f '{{.Id}}' "nfslock-lab/nova-compute:$release")" >&2
echo "$out"
