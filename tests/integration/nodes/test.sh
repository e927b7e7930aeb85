#!/usr/bin/env bash
# nova_libvirt on a whole host: nfs_lock_fix has to restart it through the systemd unit that owns it, once, and only when
# packages changed. The engine's own restart would make the unit stop the container and start it once more after RestartSec.
# Then two hosts that are not as kolla-ansible left them: the unit stopped beside a running container, and masked while it runs.
# usage: [NFSLOCK_PATCH_SET=FOLDER] [NODE_VOLUME=NAME] test.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$here/../../../library/nfs_lock_fix
node=nfslock-node-test-$$
unit=kolla-nova_libvirt-container.service
restart_sec=11 # the unit's

if [ ! -x "$program" ]; then
  echo "nfs_lock_fix is not built: run make build first" >&2
  exit 1
fi
command -v jq >/dev/null || "$here/../apt-install.sh" jq
# shellcheck source=tests/integration/lab/use-engine.sh
. "$here/../lab/use-engine.sh"
cleanup() {
  "$here/down.sh" "$node" || true
  leave_engine
}
trap cleanup EXIT
use_engine
set=${NFSLOCK_PATCH_SET:-$("$here/../lab/patch-set.sh" | tail -1)}

SECONDS=0
rc=0
why=$("$here/up.sh" "$node" 2>&1 | tee >(cat >&2); exit "${PIPESTATUS[0]}") || rc=$?
if [ "$rc" = 77 ] && [ "${CI:-}" != true ]; then
  echo "skipped: $(tail -1 <<<"$why")"
  exit 0
fi
[ "$rc" = 0 ] || exit 1
docker exec "$node" mkdir -p /srv/patch-set
docker cp -q "$program" "$node:/root/nfs_lock_fix"
docker cp -q "$set/." "$node:/srv/patch-set"
echo "a node is up after $SECONDS s"

# shellcheck source=tests/integration/nodes/check.sh
. "$here/check.sh"
in_node() { docker exec "$node" "$@" 2>&1 || true; }
property() { in_node systemctl show --value --property="$1" "$unit"; }
container() { in_node docker inspect -f "{{$1}}" nova_libvirt; }
# shellcheck disable=SC2016 # for dpkg-query
versions() { in_node docker exec nova_libvirt dpkg-query -W -f '${Package} ${Version}\n' qemu-utils qemu-block-extra | sort | paste -sd' '; }

# How often systemd started the unit since boot: the message's id is SD_MESSAGE_UNIT_STARTED of sd-messages.h.
starts() {
  in_node journalctl -q --sync
  in_node journalctl -q -o cat -u "$unit" MESSAGE_ID=39f53479d3a045ac8e11786248231fbf | wc -l
}

# module ARGUMENTS: one run in the node; its answer is in $result
module() {
  local began=${EPOCHREALTIME/./}
  docker exec -i "$node" sh -c 'cat >/root/args.json' <<<"$1"
  result=$(in_node /root/nfs_lock_fix /root/args.json)
  printf -- '--    %s: %d ms\n' "$1" $(((${EPOCHREALTIME/./} - began) / 1000))
}
answer() { jq -r "$1" <<<"$result" 2>&1 || true; }
# reports CHANGED STATUS RESTARTED
reports() {
  check "the module's answer" "$(answer '[.failed, .changed, .containers[0].status, .containers[0].restarted] | map(tostring) | join(" ")')" "false $*"
  [ "$(answer .failed)" = false ] || printf '      %s\n' "$result"
}

look() {
  seen_starts=$(starts)
  seen_main=$(property ExecMainStartTimestampMonotonic)
  seen_started=$(container .State.StartedAt)
}
# Restart= counts in NRestarts; a restart by hand does not.
one_more_start() {
  check "starts of the unit since then" $(($(starts) - seen_starts)) 1
  check "starts by Restart=" "$(property NRestarts)" "$automatic"
  check "the unit" "$(property ActiveState) $(property SubState)" "active running"
  check "its process was started later" "$([ "$(property ExecMainStartTimestampMonotonic)" -gt "$seen_main" ] && echo yes)" yes
  check "the container" "$(container .State.Status), $(container .Id)" "running, $id"
  check "the container was started later" "$([[ $(container .State.StartedAt) > $seen_started ]] && echo yes)" yes
}
no_more_start() {
  check "starts of the unit since then" $(($(starts) - seen_starts)) 0
  check "its process started at" "$(property ExecMainStartTimestampMonotonic)" "$seen_main"
  check "the container started at" "$(container .State.StartedAt)" "$seen_started"
}

id=$(container .Id)
automatic=$(property NRestarts)
stock=$(versions)
present='{"patch_set": "/srv/patch-set", "remote_src": true}'
patched=$(awk '$2 == "name:" {n = $3} $1 == "version:" && n ~ /^qemu-(utils|block-extra)$/ {print n, $2}' "$set/manifest.yml" | sort | paste -sd' ')

look
module "$present"
reports true patched true
check "packages" "$(versions)" "$patched"
one_more_start

look
module "$present"
reports false unchanged false
no_more_start

look
module '{"state": "absent"}'
reports true restored true
check "packages" "$(versions)" "$stock"
one_more_start

look
echo "--    after $((restart_sec + 2)) s, when a restart by the unit would be over"
sleep $((restart_sec + 2))
no_more_start
check "starts by Restart=" "$(property NRestarts)" "$automatic"
check "the unit" "$(property ActiveState) $(property SubState)" "active running"

echo "--    the unit is stopped, and somebody started the container: the engine restarts it, and the unit stays out of it"
in_node systemctl stop "$unit"
in_node docker start nova_libvirt >/dev/null
look
module "$present"
reports true patched true
check "starts of the unit since then" $(($(starts) - seen_starts)) 0
check "the unit" "$(property ActiveState) $(property SubState)" "inactive dead"
check "the container" "$(container .State.Status), $(container .Id)" "running, $id"
check "the container was started later" "$([[ $(container .State.StartedAt) > $seen_started ]] && echo yes)" yes

echo "--    the unit runs and is masked: systemd refuses to restart it, so the host ends as it began, and the answer names the way out"
in_node systemctl start "$unit"
# systemctl mask refuses where the file lies in /etc; people move it away first.
in_node sh -c "mv /etc/systemd/system/$unit /root && systemctl mask -q $unit"
check "the unit" "$(property LoadState) $(property ActiveState)" "masked active"
look
module '{"state": "absent"}'
check "the module failed" "$(answer .failed)" true
check "the way out" "$(answer .msg | grep -o 'systemctl unmask it .* by hand' | sed 's/ by hand.*/ by hand/')" \
  "systemctl unmask it and have kolla-ansible write it again, or set restart: never, and restart the container by hand"
check "packages" "$(versions)" "$patched"
no_more_start

module '{"state": "absent", "restart": "never"}'
reports true restored false
check "packages" "$(versions)" "$stock"
no_more_start
in_node sh -c "systemctl unmask -q $unit && mv /root/$unit /etc/systemd/system && systemctl daemon-reload"
module "$present"
reports true patched true
one_more_start

tally
