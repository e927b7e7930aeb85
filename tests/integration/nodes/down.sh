#!/usr/bin/env bash
# Removes a node and its engine's data, unless that is a volume with a name. usage: down.sh NAME
set -euo pipefail
name=${1:?usage: down.sh NAME}
label=$(docker inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$name" 2>/dev/null) || exit 0
if [ "$label" != node ]; then
  echo "$name is no node of the lab: not touched" >&2
  exit 1
fi
docker rm -fv "$name" >/dev/null
