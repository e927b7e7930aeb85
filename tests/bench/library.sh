#!/usr/bin/env bash
# The preloaded library into five containers, by this module, against the shell loop that puts seven packages there, in turn, in one run; and a run with
# nothing to do. It fails where the library takes more than 0.3 of the loop's time, or such a run more than 40 ms. usage: library.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
lab=tests/integration/lab
tests/integration/apt-install.sh time jq
$lab/engine.sh up
eval "$($lab/engine.sh env)"
work=$(mktemp -d)
trap 'rm -rf "$work"; $lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh
set=$($lab/patch-set.sh | tail -1)
names=(nova_libvirt nova_compute cinder_api cinder_volume cinder_scheduler)
socket=${DOCKER_HOST:-}
# The loop restarts nothing, so the module does not either.
jq -n --arg socket "${socket#unix://}" '{method: "library", restart: "never"} + (if $socket == "" then {} else {engine_socket: $socket} end)' >"$work/args.json"

# seconds NAME COMMAND…: adds wall time and peak memory to a list
seconds() {
  local list=$work/$1 began
  shift
  began=${EPOCHREALTIME/./}
  /usr/bin/time -o "$work/memory" -f '%M' "$@" >"$work/out" || { cat "$work/out"; exit 1; }
  echo "$((${EPOCHREALTIME/./} - began)) $(cat "$work/memory")" >>"$list" # microseconds, KiB
}
median() { sort -n "$work/$1" | awk '{v[NR]=$1; if ($2>m) m=$2} END {printf "%.3f s (median of %d, %.3f to %.3f), peak memory %.1f MB\n", v[int((NR+1)/2)]/1e6, NR, v[1]/1e6, v[NR]/1e6, m/1024}'; }
middle() { sort -n "$work/$1" | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }
# said FILTER: what the last run answered is as it should be
said() { jq -e "$1" "$work/out" >/dev/null || { cat "$work/out"; exit 1; }; }

for ((i = 0; i < rounds; i++)); do
  $lab/up.sh --locks fine
  seconds loop tests/bench/shell-loop.sh "$set" "${names[@]}"
  $lab/up.sh --locks fine
  seconds library library/nfs_lock_fix "$work/args.json"
  said '.msg == "5 patched"'
  for _ in 1 2 3 4 5; do
    seconds unchanged library/nfs_lock_fix "$work/args.json"
    said '.changed == false and .msg == "5 unchanged"'
  done
done
echo "shell loop, packages: $(median loop)"
echo "library:              $(median library)"
echo "library, unchanged:   $(median unchanged)"
awk -v a="$(middle library)" -v l="$(middle loop)" 'BEGIN {printf "library / shell loop: %.3f\n", a / l; exit a > 0.3 * l}' || { echo "the library takes more than 0.3 of the loop's time" >&2; exit 1; }
awk -v u="$(middle unchanged)" 'BEGIN {exit u > 40000}' || { echo "a run with nothing to do takes more than 40 ms" >&2; exit 1; }
