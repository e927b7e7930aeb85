#!/usr/bin/env bash
# Waits until libvirtd in a container answers; what it said last, where it does not. usage: libvirt-answers.sh CONTAINER SECONDS
set -euo pipefail
# The engine's command is ended as well where the engine does not answer. A virsh that waits in the container ends by itself.
if ! said=$(timeout -k 5 "$(($2 + 5))" docker exec "$1" timeout "$2" sh -c 'until virsh version --daemon; do sleep 0.2; done' 2>&1); then
  tail -n 5 <<<"$said" >&2
  echo "libvirtd does not answer in $1 within $2 s" >&2
  exit 1
fi
