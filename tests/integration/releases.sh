#!/usr/bin/env bash
# One patch set for several releases, installed into containers of each, and into such of one host in the middle of an upgrade.
# usage: [NFSLOCK_RELEASES_SET=FOLDER] releases.sh [go test's options]
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab
set=${NFSLOCK_RELEASES_SET:-${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/patch-set/releases}
export NFSLOCK_RELEASE='bullseye bookworm trixie'
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
for release in $NFSLOCK_RELEASE; do
  $lab/image.sh "$release"
  [ -n "${NFSLOCK_RELEASES_SET:-}" ] || IMAGE=nfslock-lab/nova-libvirt:$release patch-sets/build.sh "$release" "$(dpkg --print-architecture)" tools "$set" fallback
done
export NFSLOCK_RELEASES_SET=$set
go test -tags lab -count=1 -timeout 30m -v -run TestReleases ./tests/integration "$@"
