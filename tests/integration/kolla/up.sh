#!/usr/bin/env bash
# A whole host for kolla-ansible to deploy to: a node of Debian 13 with kolla's images in its engine, a control plane that is played, and two stores that
# refuse locks, mounted where Nova and Cinder mount theirs. Ends with 77 where this machine cannot run one.
# usage: up.sh NODE NAME=IMAGE…   the images as images.sh prints them
# The node's images are kept in the volume nfslock-kolla-node for the next one: loading them takes two minutes. One node at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/kolla/pins.sh
. "$here/pins.sh"
node=$1
shift
control=nfslock-lab/control:trixie

"$here/control-image.sh" "$control"
NODE_BARE=yes NODE_RELEASE=$release NODE_VOLUME=nfslock-kolla-node "$here/../nodes/up.sh" "$node"
in_node() { docker exec -i "$node" "$@"; }

# What a node that was cut short has left in the volume.
# shellcheck disable=SC2016 # for the shell in the node
in_node sh -c 'docker ps -aq | xargs -r docker rm -f >/dev/null; docker volume ls -q | xargs -r docker volume rm >/dev/null'

id() { docker image inspect -f '{{.Id}}' "$1"; }
there() { in_node docker image inspect -f '{{.Id}}' "$1" 2>/dev/null; }
pairs=("$@" "=$control")
wanted=() missing=()
for pair in "${pairs[@]}"; do
  name=${pair%%=*} image=${pair#*=}
  wanted+=("$([ -n "$name" ] && echo "kolla/$name:$tag" || echo "$image")")
done
for pair in "${pairs[@]}"; do [ "$(there "$(id "${pair#*=}")")" = "$(id "${pair#*=}")" ] || missing+=("${pair#*=}"); done
if [ ${#missing[@]} -gt 0 ]; then
  echo "loading into the node: ${missing[*]}"
  docker save "${missing[@]}" | in_node docker load >/dev/null # together, as they share most of their layers
fi
for pair in "$@"; do in_node docker tag "$(id "${pair#*=}")" "kolla/${pair%%=*}:$tag"; done
# Of a series before, or of a run that made more of them; their layers are gigabytes.
for image in $(in_node docker image ls --format '{{.Repository}}:{{.Tag}}'); do
  case " ${wanted[*]} " in *" $image "*) ;; *) in_node docker rmi "$image" >/dev/null 2>&1 || true ;; esac
done
in_node docker image prune -f >/dev/null

# kolla.target is kolla-ansible's own bootstrap's, which is not run here: it installs an engine.
# shellcheck disable=SC2016
in_node sh -ec '
  printf "[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/kolla.target
  systemctl daemon-reload
  mkdir -p /lib/modules
  for name in kolla_toolbox nova_conductor; do docker run -d --name $name --network host "$1" >/dev/null; done' - "$control"
