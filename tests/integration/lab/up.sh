#!/usr/bin/env bash
# Starts kolla's containers afresh, in the lab's shape. --only starts just those; --recreate replaces one of those that run
# and leaves the others alone, as a deploy with changed settings does.
# usage: up.sh [--locks refused|none|fine] [--release RELEASE] [--host whole] [--only NAME,…] [--restart POLICY] [--read-only NAME,…] | up.sh --recreate NAME [--locks …] [--release RELEASE]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
locks=refused release=bookworm only=nova_libvirt,nova_compute,cinder_api,cinder_volume,cinder_scheduler policy=no fixed='' recreate='' whole=''
while [ $# -gt 0 ]; do
  case $1 in
  --locks) locks=$2 ;;
  --release) release=$2 ;;
  --host) whole=-$2 ;;
  --only) only=$2 ;;
  --restart) policy=$2 ;;
  --read-only) fixed=$2 ;;
  --recreate) recreate=$2 only=$2 locks=fine ;;
  *)
    sed -n '4s/^# //p' "$0" >&2
    exit 2
    ;;
  esac
  shift 2
done
if [ -n "$recreate" ]; then
  run=$(docker inspect -f '{{index .Config.Labels "nfslock.lab.folder"}}' "$recreate")
  [ -n "$run" ] || {
    echo "the lab does not touch $recreate: it is not its own. Is this a kolla host?" >&2
    exit 1
  }
  docker rm -f "$recreate" >/dev/null
else
  "$here/down.sh"
  if [ -e /var/lib/nfslock ]; then
    echo "the lab does not start here: /var/lib/nfslock holds what real runs of the module keep. If it is left over from tests, remove it" >&2
    exit 1
  fi
  run=$(mktemp -d /tmp/nfslock-lab-run.XXXXXX)
  mkdir "$run/run" "$run/kolla"
  chmod 755 "$run"
  echo '{"command": "sleep infinity", "config_files": [], "permissions": []}' >"$run/kolla/config.json"
fi
profile=()
case $locks in
fine) ;;
refused | none) profile=(--security-opt "seccomp=$here/seccomp/locks-$locks.json") ;;
*)
  echo "up.sh: --locks is refused, none or fine, not $locks" >&2
  exit 2
  ;;
esac

# start NAME IMAGE USER HEALTH OPTION…: where NAME is asked for
start() {
  local name=$1 image=$2 user=$3 health=$4
  shift 4
  case ,$only, in *,"$name",*) ;; *) return ;; esac
  case ,$fixed, in *,"$name",*) set -- --read-only "$@" ;; esac
  docker run -d --name "$name" --label nfslock.lab=up --label "nfslock.lab.folder=$run" --network none --user "$user" --restart "$policy" \
    -e KOLLA_CONFIG_STRATEGY=COPY_ALWAYS --health-cmd "$health" --health-interval 30s \
    -v "$run/kolla:/var/lib/kolla/config_files:ro" "${profile[@]}" "$@" "nfslock-lab/$image:$release" >/dev/null
}
bind=(-v "$run/run:/run")
start nova_libvirt "nova-libvirt$whole" root 'pgrep -x sleep' --pid host "${bind[@]}" &
start nova_compute "nova-compute$whole" nova 'pgrep -x sleep' --ipc host "${bind[@]}" &
wait
start cinder_api cinder root 'pgrep -x sleep' &
start cinder_volume cinder cinder "bash -c '</dev/tcp/127.0.0.1/5672'" --ipc host "${bind[@]}" &
start cinder_scheduler cinder cinder 'pgrep -x sleep' &
wait
