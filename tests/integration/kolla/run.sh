#!/usr/bin/env bash
# make kolla: real kolla from nothing. Its images, the patch set that is built in one of them, a whole host, and the story of test.sh on it.
# usage: [NOVA_LIBVIRT_IMAGE=…] [NOVA_COMPUTE_IMAGE=…] [CINDER_VOLUME_IMAGE=…] [NFSLOCK_PATCH_SET=FOLDER] [KEEP=yes] run.sh [PART…]
# What was made is kept in ~/.cache/nfslock/kolla and in the engine. KEEP=yes leaves the node, and test.sh PART… goes on there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/kolla/pins.sh
. "$here/pins.sh"
# shellcheck source=tests/integration/kolla/step.sh
. "$here/step.sh"
# shellcheck source=tests/integration/lab/use-engine.sh
. "$here/../lab/use-engine.sh"
export KOLLA_LOGS=$cache/logs
logs=$KOLLA_LOGS
began=$SECONDS

if [ "$(dpkg --print-architecture)" != amd64 ]; then
  echo "cannot run: the story is written for amd64" >&2
  exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || {
  echo "cannot start: another run is at work, and there is one node" >&2
  exit 1
}
rm -rf "$logs"
trap leave_engine EXIT
use_engine 9>&- # an engine that is started must not keep the lock
"$here/../apt-install.sh" jq
echo "==    images"
pairs=$("$here/images.sh")
mapfile -t pairs <<<"$pairs"
echo "==    the patch set"
set_log=$logs/patch-set.log
if [ -z "${NFSLOCK_PATCH_SET:-}" ]; then
  must 7200 patch-set "a patch set of profile host, built in ${pairs[0]#*=}" "$here/patch-set.sh" "${pairs[0]#*=}"
  NFSLOCK_PATCH_SET=$(tail -1 "$set_log")
fi
export NFSLOCK_PATCH_SET
rc=0
"$here/test.sh" "${pairs[@]}" -- "$@" || rc=$?
echo "==    times"
cat "$logs/times"
echo "$((SECONDS - began)) s in all"
exit "$rc"
