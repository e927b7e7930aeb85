#!/usr/bin/env bash
# The proof of the profile host: qemu-utils and qemu-system-x86 are rebuilt, if no such set is kept yet, and put into containers that have
# every QEMU package of kolla's; the others stay the distribution's. A quarter of an hour on two cores the first time, some minutes later.
# usage: [NFSLOCK_HOST_SET=FOLDER] host-profile.sh [RELEASE [go test's options]]
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab release=${1:-trixie}
sets=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/patch-set
[ $# = 0 ] || shift
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh "$release"
if [ -z "${NFSLOCK_HOST_SET:-}" ]; then
  NFSLOCK_HOST_SET=$sets/$release-host
  IMAGE=nfslock-lab/nova-libvirt:$release patch-sets/build.sh "$release" "$(dpkg --print-architecture)" host "$NFSLOCK_HOST_SET" fallback
fi
export NFSLOCK_HOST_SET NFSLOCK_RELEASE=$release
tests/integration/apt-install.sh dpkg-dev xz-utils
go test -tags lab -count=1 -timeout 30m -v -run TestHostProfile ./tests/integration "$@"
