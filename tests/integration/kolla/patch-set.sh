#!/usr/bin/env bash
# A patch set of profile host, built in kolla's real nova-libvirt image, once for each version that is installed there: the build script itself finds out.
# Eight minutes on two idle cores. The last line is its folder.
# usage: patch-set.sh IMAGE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/kolla/pins.sh
. "$here/pins.sh"
IMAGE=$1 "$here/../../../patch-sets/build.sh" "$release" "$(dpkg --print-architecture)" host "${cache%/*}/patch-set/kolla-$release-host" fallback
