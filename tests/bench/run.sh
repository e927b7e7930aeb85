#!/usr/bin/env bash
# Five containers: seven packages by this module and by the shell loop, and the library by this module, in turn, in one run; and what a diagnosis of them takes,
# with two folders in each. With WITH also another build of the module, to tell what a change costs. It fails where the library takes more than 0.3 of the
# loop's time, or a run with nothing to do for it more than 40 ms. usage: [WITH=PROGRAM] run.sh [ROUNDS]
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
jq -n --arg set "$set" --arg socket "${socket#unix://}" \
  '{patch_set: $set, remote_src: true, restart: "never"} + (if $socket == "" then {} else {engine_socket: $socket} end)' >"$work/args.json"

jq 'del(.patch_set, .remote_src) + {method: "library"}' "$work/args.json" >"$work/library.json"
jq '{paths: ["/tmp", "/var/tmp"]} + if .engine_socket then {engine_socket} else {} end' "$work/args.json" >"$work/diagnosis.json"

# seconds NAME COMMAND…: adds wall time and peak memory to a list
seconds() {
  local list=$work/$1 began
  shift
  began=${EPOCHREALTIME/./}
  /usr/bin/time -o "$work/memory" -f '%M' "$@" >"$work/out" || { cat "$work/out"; exit 1; }
  echo "$((${EPOCHREALTIME/./} - began)) $(cat "$work/memory")" >>"$list" # microseconds, KiB
}
median() { sort -n "$work/$1" | awk '{v[NR]=$1; if ($2>m) m=$2} END {printf "%.3f s (median of %d, %.3f to %.3f), peak memory %.1f MB\n", v[int((NR+1)/2)]/1e6, NR, v[1]/1e6, v[NR]/1e6, m/1024}'; }
# said FILTER: what the last run answered is as it should be
said() { jq -e "$1" "$work/out" >/dev/null || { cat "$work/out"; exit 1; }; }
middle() { sort -n "$work/$1" | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }

for ((i = 0; i < rounds; i++)); do
  $lab/up.sh --locks fine
  seconds loop tests/bench/shell-loop.sh "$set" "${names[@]}"
  $lab/up.sh --locks fine
  seconds apply library/nfs_lock_fix "$work/args.json"
  for _ in 1 2 3 4 5; do
    seconds unchanged library/nfs_lock_fix "$work/args.json"
    seconds diagnosis library/nfs_lock_info "$work/diagnosis.json"
    [ -z "${WITH:-}" ] || seconds with-unchanged "$WITH" "$work/args.json"
  done
  $lab/up.sh --locks fine
  seconds library library/nfs_lock_fix "$work/library.json"
  said '.msg == "5 patched"'
  for _ in 1 2 3 4 5; do
    seconds library-unchanged library/nfs_lock_fix "$work/library.json"
    said '.changed == false and .msg == "5 unchanged"'
  done
  if [ -n "${WITH:-}" ]; then
    $lab/up.sh --locks fine
    seconds with-apply "$WITH" "$work/args.json"
  fi
done
echo "shell loop: $(median loop)"
echo "apply:      $(median apply)"
echo "unchanged:  $(median unchanged)"
echo "library:    $(median library)"
echo "unchanged:  $(median library-unchanged)"
echo "diagnosis:  $(median diagnosis)"
awk -v a="$(middle apply)" -v b="$(middle library)" -v l="$(middle loop)" 'BEGIN {printf "apply / shell loop: %.2f\nlibrary / shell loop: %.3f\n", a / l, b / l}'
if [ -n "${WITH:-}" ]; then
  echo "$WITH:"
  echo "  apply:     $(median with-apply)"
  echo "  unchanged: $(median with-unchanged)"
  awk -v a="$(middle apply)" -v b="$(middle with-apply)" -v c="$(middle unchanged)" -v d="$(middle with-unchanged)" \
    'BEGIN {printf "  against it: apply %+.0f %%, unchanged %+.1f ms\n", (a / b - 1) * 100, (c - d) / 1000}'
fi
echo "program:    $(stat -c %s library/nfs_lock_fix) bytes"
awk -v a="$(middle library)" -v l="$(middle loop)" 'BEGIN {exit a > 0.3 * l}' || { echo "the library takes more than 0.3 of the loop's time" >&2; exit 1; }
awk -v u="$(middle library-unchanged)" 'BEGIN {exit u > 40000}' || { echo "a run with nothing to do for the library takes more than 40 ms" >&2; exit 1; }
