#!/usr/bin/env bash
# A container engine for the tests: the one that runs, or a private one.
# usage: engine.sh up|env|down
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/engine
socket=/run/nfslock-lab/docker.sock # short: a socket's path has 107 bytes at most

ours() { [ -f "$state/pid" ] && [ "$(cat "/proc/$(cat "$state/pid")/comm" 2>/dev/null)" = dockerd ]; }

# A bridge and packet filters are tried first; where the kernel or the machine forbids them the lab does without.
start() {
  mkdir -p "$state" "$(dirname "$socket")"
  local options=(--host "unix://$socket" --data-root "$state/data" --exec-root /run/nfslock-lab/exec --pidfile "$state/pid")
  for extra in "" "--bridge=none --iptables=false"; do
    rm -f "$state/pid"
    # shellcheck disable=SC2086 # two options
    setsid dockerd "${options[@]}" $extra >"$state/log" 2>&1 </dev/null &
    local pid=$!
    for _ in $(seq 60); do
      if docker -H "unix://$socket" info >/dev/null 2>&1; then return; fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.5
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  echo "cannot start an engine; its log ends:" >&2
  tail -5 "$state/log" >&2
  exit 1
}

case ${1:-} in
up)
  command -v docker >/dev/null || "$here/../apt-install.sh" docker.io
  if ours; then echo "engine: the lab's own at $socket"; exit 0; fi
  if docker info >/dev/null 2>&1; then echo "engine: the one that runs already"; exit 0; fi
  command -v dockerd >/dev/null || "$here/../apt-install.sh" docker.io
  # The package may just have started one.
  if docker info >/dev/null 2>&1; then echo "engine: the one that runs already"; exit 0; fi
  start
  echo "engine: started a private one at $socket; end it with $0 down"
  ;;
env) if ours; then echo "export DOCKER_HOST=unix://$socket"; fi ;;
down)
  ours || exit 0
  kill "$(cat "$state/pid")"
  for _ in $(seq 60); do ours || break; sleep 0.5; done
  echo "engine: ended"
  ;;
*)
  sed -n '2,3s/^# //p' "$0" >&2
  exit 2
  ;;
esac
