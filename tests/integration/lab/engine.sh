#!/usr/bin/env bash
# A container engine for the tests: the one that runs, or a private one. Tests that stop an engine use a private one, always. NFSLOCK_ENGINE_RUN (/run/nfslock-lab)
# is for one more beside it, whose NFSLOCK_CACHE is another, too.
# usage: engine.sh up|beside|env|down|stop|start|kill|live-restore yes|no
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/engine
run=${NFSLOCK_ENGINE_RUN:-/run/nfslock-lab} # short: a socket's path has 107 bytes at most
socket=$run/docker.sock

# ours: the private engine runs. One that was killed and not yet collected by its parent (state Z) does not.
ours() {
  local pid
  pid=$(cat "$state/pid" 2>/dev/null) || return 1 # an engine removes it as it ends
  grep -qs '^Name:	dockerd$' "/proc/$pid/status" && ! grep -qs '^State:	Z' "/proc/$pid/status"
}

# gone: waits for the end of the private engine, a minute at the longest
gone() {
  for _ in $(seq 600); do
    ours || return 0
    sleep 0.1
  done
  echo "the private engine does not end" >&2
  exit 1
}

must_be_ours() {
  ours || {
    echo "no private engine runs here, and the lab stops no other" >&2
    exit 1
  }
}

# A bridge and packet filters are tried first; where the kernel or the machine forbids them the lab does without, from then on.
start() {
  mkdir -p "$state" "$(dirname "$socket")"
  # A file of its own, not the machine's /etc/docker/daemon.json. Values are told outright: one that is left out stays as it was.
  [ -f "$state/daemon.json" ] || echo '{"live-restore": false}' >"$state/daemon.json"
  local options=(--host "unix://$socket" --data-root "$state/data" --exec-root "$run/exec" --pidfile "$state/pid" --config-file "$state/daemon.json")
  for extra in "" "--bridge=none --iptables=false"; do
    if [ -f "$state/extra" ] && [ "$(cat "$state/extra")" != "$extra" ]; then continue; fi
    rm -f "$state/pid"
    # shellcheck disable=SC2086 # two options
    (cd / && unset TMPDIR && exec setsid dockerd "${options[@]}" $extra) >"$state/log" 2>&1 </dev/null &
    local pid=$!
    for _ in $(seq 300); do
      if docker -H "unix://$socket" info >/dev/null 2>&1; then
        echo "$extra" >"$state/extra"
        return
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -f "$state/extra"
  echo "cannot start an engine; its log ends:" >&2
  tail -5 "$state/log" >&2
  exit 1
}

# beside starts a private engine also where another runs, with that one's images of the lab. The lab's containers are in one engine
# at a time: what the host keeps for them has one place.
beside() {
  if [ "${DOCKER_HOST:-}" != "unix://$socket" ] && docker info >/dev/null 2>&1; then "$here/down.sh"; fi
  if ours; then return; fi
  command -v dockerd >/dev/null || "$here/../apt-install.sh" docker.io
  rm -f "$state/daemon.json"
  start
  local image made='{{index .Config.Labels "nfslock.lab"}}'
  for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}' 'nfslock-lab/*'); do
    if [ "$(docker -H "unix://$socket" image inspect -f "$made" "$image" 2>/dev/null)" = "$(docker image inspect -f "$made" "$image")" ]; then continue; fi
    docker save "$image" | docker -H "unix://$socket" load >/dev/null
    case $image in */nova-libvirt:*) DOCKER_HOST=unix://$socket "$here/learn-emulators.sh" "${image##*:}" ;; esac
  done
}

case ${1:-} in
up)
  command -v docker >/dev/null || "$here/../apt-install.sh" docker.io
  if ours; then echo "engine: the lab's own at $socket"; exit 0; fi
  if docker info >/dev/null 2>&1; then echo "engine: the one that runs already"; exit 0; fi
  command -v dockerd >/dev/null || "$here/../apt-install.sh" docker.io
  # The package may just have started one.
  if docker info >/dev/null 2>&1; then echo "engine: the one that runs already"; exit 0; fi
  rm -f "$state/daemon.json"
  start
  echo "engine: started a private one at $socket; end it with $0 down"
  ;;
beside) beside ;;
env) if ours; then echo "export DOCKER_HOST=unix://$socket"; fi ;;
down)
  ours || exit 0
  kill "$(cat "$state/pid")"
  gone
  echo "engine: ended"
  ;;
stop) # as systemctl stop docker does
  must_be_ours
  kill "$(cat "$state/pid")"
  gone
  ;;
kill) # as by the kernel when memory is short
  must_be_ours
  containerd=$(cat "$run/exec/containerd/containerd.pid")
  kill -9 "$(cat "$state/pid")"
  gone
  # The kernel ends it with its parent; an engine that starts before that takes it for alive and waits for it in vain.
  for _ in $(seq 100); do
    kill -0 "$containerd" 2>/dev/null || break
    sleep 0.1
  done
  ;;
start) ours || start ;;
live-restore)
  must_be_ours
  case ${2:-} in
  yes) echo '{"live-restore": true}' ;;
  no) echo '{"live-restore": false}' ;;
  *) exit 2 ;;
  esac >"$state/daemon.json"
  kill -HUP "$(cat "$state/pid")" # dockerd(8): this option is read again
  want=false
  if [ "$2" = yes ]; then want=true; fi
  for _ in $(seq 100); do
    if [ "$(docker -H "unix://$socket" info -f '{{.LiveRestoreEnabled}}')" = $want ]; then exit 0; fi
    sleep 0.1
  done
  echo "the engine does not take up live-restore: $2" >&2
  exit 1
  ;;
*)
  sed -n '4s/^# //p' "$0" >&2
  exit 2
  ;;
esac
