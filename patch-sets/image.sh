#!/usr/bin/env bash
# A minimal image of a Debian or Ubuntu release. It is made once a day, since a build wants the archive's present versions. Prints its name.
# usage: image.sh RELEASE [ARCHITECTURE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=$1 architecture=${2:-$(dpkg --print-architecture)}
distribution=$("$here/distribution.sh" "$release")
image=nfslock-build/$distribution:$release-$architecture
inputs=$(cat "$here/image.sh" "$here/root.sh" <(date +%F) | sha256sum | cut -c1-12)
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.build"}}' "$image" 2>/dev/null)" = "$inputs" ]; then
  echo "$image"
  exit
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "making a minimal image of $distribution $release $architecture" >&2
"$here/root.sh" "$release" "$scratch/root.tar" --include=ca-certificates "--architectures=$architecture"
# Through a file: the engine cannot tell a root whose making was cut short from a whole one.
docker import --platform "linux/$architecture" -c "LABEL nfslock.build=$inputs" "$scratch/root.tar" "$image" >/dev/null
echo "$image"
