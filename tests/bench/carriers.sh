#!/usr/bin/env bash
# What containers cost that have no QEMU: a diagnosis of six that have, beside one with 34 more on the host, in turn, in one run; and the same of nfs_lock_fix,
# which has nothing to do. They are stopped and started between, and are made from one small image, so that they cost little. usage: carriers.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
lab=tests/integration/lab
tests/integration/apt-install.sh jq
$lab/engine.sh up
eval "$($lab/engine.sh env)"
work=$(mktemp -d)
# The engine may be somebody else's, and have containers of its own: only those with the label are ours.
ours() { docker ps -aq --filter label=nfslock.bench=carriers; }
trap 'rm -rf "$work"; ours | xargs -r docker rm -f >/dev/null; $lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh
$lab/up.sh --locks fine
socket=${DOCKER_HOST:-}
jq -n --arg socket "${socket#unix://}" '{timeout: 60} + if $socket == "" then {} else {engine_socket: $socket} end' >"$work/info.json"
jq '{state: "absent"} + if .engine_socket then {engine_socket} else {} end' "$work/info.json" >"$work/fix.json"

run() { docker run -d --label nfslock.bench=carriers --network none "$@" sleep infinity >/dev/null; }
# glance_api is the sixth: the lab has five.
run --name bench-glance nfslock-lab/cinder-volume:bookworm
services=()
for n in $(seq 34); do
  services+=("bench-service-$n")
  run --name "bench-service-$n" --label kolla_version=lab nfslock-lab/base:bookworm
done

# seconds NAME PROGRAM ARGUMENTS: adds the wall time, in microseconds, to a list, and keeps the answer
seconds() {
  local began=${EPOCHREALTIME/./}
  "library/$2" "$3" >"$work/$1.answer" || { cat "$work/$1.answer"; exit 1; }
  echo "$((${EPOCHREALTIME/./} - began))" >>"$work/$1"
}
measure() {
  for _ in 1 2 3 4 5; do
    seconds "info-$1" nfs_lock_info "$work/info.json"
    seconds "fix-$1" nfs_lock_fix "$work/fix.json"
  done
}
for ((i = 0; i < rounds; i++)); do
  measure 40
  docker stop -t 0 "${services[@]}" >/dev/null
  measure 6
  docker start "${services[@]}" >/dev/null
done

# The shortest of many: what else the machine does only makes them longer.
shortest() { sort -n "$work/$1" | head -1; }
worst=0
for job in info fix; do
  rows=$(jq -c '[(.packages // .containers)[] | .container // .name] | sort' "$work/$job-6.answer")
  [ "$rows" = "$(jq -c '[(.packages // .containers)[] | .container // .name] | sort' "$work/$job-40.answer")" ] ||
    { echo "nfs_lock_$job found others among the 40" >&2; exit 1; }
  awk -v job="$job" -v six="$(shortest "$job-6")" -v forty="$(shortest "$job-40")" -v n="$(wc -l <"$work/$job-6")" -v rows="$(jq length <<<"$rows")" \
    'BEGIN {printf "nfs_lock_%s, %d rows: 6 containers %.0f ms, 40 containers %.0f ms, %+.0f ms, %.2f times as long (shortest of %d)\n", job, rows, six/1e3, forty/1e3, (forty-six)/1e3, forty/six, n}'
  if awk -v six="$(shortest "$job-6")" -v forty="$(shortest "$job-40")" 'BEGIN {exit !(forty > 2 * six)}'; then worst=1; fi
done
[ "$worst" = 0 ] || { echo "34 containers without QEMU cost as much as six with it, or more" >&2; exit 1; }
