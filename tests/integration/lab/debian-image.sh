#!/usr/bin/env bash
# An image from a real Debian or Ubuntu root. usage: debian-image.sh TAG RELEASE MMDEBSTRAP-OPTION… -- CHANGE…
# CHANGE: what docker import takes with -c. Through a file, not a pipe: the engine cannot tell a root whose making was cut short from a whole one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tag=$1 release=$2
shift 2
options=() changes=()
while [ "$1" != -- ]; do options+=("$1") && shift; done
shift
for change in "$@"; do changes+=(-c "$change"); done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$here/../../../patch-sets/root.sh" "$release" "$scratch/root.tar" "${options[@]}"
docker import "${changes[@]}" "$scratch/root.tar" "$tag" >/dev/null
