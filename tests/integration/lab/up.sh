#!/usr/bin/env bash
# Starts kolla's containers afresh, as kolla-ansible does. --only starts just those; --recreate replaces one of those that run
# and leaves the others alone, as a deploy with changed settings does. --linkless gives some a seccomp profile that refuses hard links.
# usage: up.sh [--locks refused|none|fine] [--release RELEASE] [--only NAME,…] [--restart POLICY] [--read-only NAME,…] [--linkless NAME,…] | up.sh --recreate NAME [--locks …] [--release RELEASE] [--restart POLICY]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/lab/container.sh
. "$here/container.sh"
locks=refused release=bookworm only=nova_libvirt,nova_compute,cinder_api,cinder_volume,cinder_scheduler policy=no fixed='' linkless='' recreate=''
while [ $# -gt 0 ]; do
  case $1 in
  --locks) locks=$2 ;;
  --release) release=$2 ;;
  --only) only=$2 ;;
  --restart) policy=$2 ;;
  --read-only) fixed=$2 ;;
  --linkless) linkless=$2 ;;
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
  # kolla binds the host's own folders, and a mount in them is seen on both sides. On most hosts that is so everywhere.
  mount --bind "$run" "$run"
  mount --make-shared "$run"
  chmod 755 "$run"
  install -d "$run/run" "$run/nova-mnt" "$run/cinder"
  install -d -o 42436 -g 42436 "$run/nova"
  install -d -g 42400 -m 2775 "$run/log"
fi
# What is mounted as /var/lib/kolla/config_files. Another release, another version of kolla.
etc=$run/kolla/$release
[ -d "$etc" ] || {
  mkdir -p "$etc"
  "$here/config.sh" "${release%-arm64}" "$etc"
}
case $locks in
fine) plain=() profile=unconfined ;;
refused | none)
  profile=$here/seccomp/locks-$locks.json
  plain=(--security-opt "seccomp=$profile")
  ;;
*)
  echo "up.sh: --locks is refused, none or fine, not $locks" >&2
  exit 2
  ;;
esac

# start NAME HEALTH OPTION…: where NAME is asked for
start() {
  local name=$1 service=${1//_/-} health=$2 command=()
  shift 2
  case ,$only, in *,"$name",*) ;; *) return 0 ;; esac
  # Nothing could be configured there.
  case ,$fixed, in *,"$name",*) set -- --read-only "$@" && command=(sleep infinity) ;; esac
  case ,$linkless, in *,"$name",*) set -- "${@/#seccomp=*/seccomp=$here/seccomp/links-refused.json}" ;; esac
  docker run -d --name "$name" --label nfslock.lab=up --label "nfslock.lab.folder=$run" --network none --restart "$policy" \
    "${deployed[@]}" -e "KOLLA_SERVICE_NAME=$service" --health-cmd "$health" \
    -v "$etc/$service:/var/lib/kolla/config_files:ro" -v "$run/log:/var/log/kolla" "$@" "nfslock-lab/$service:$release" "${command[@]}" >/dev/null
}
privileged+=(--security-opt "seccomp=$profile" -v "$run/run:/run:shared")
nova=(-v "$run/nova:/var/lib/nova:shared" -v "$run/nova-mnt:/var/lib/nova-mnt:shared")
cinder=(-v "$run/cinder:/var/lib/cinder:shared")
start nova_libvirt 'virsh version --daemon' --pid host "${privileged[@]}" "${nova[@]}" \
  -v nfslock-lab-libvirtd:/var/lib/libvirt -v nfslock-lab-libvirt-qemu:/etc/libvirt/qemu &
start nova_compute 'healthcheck_port nova-compute 5672' --ipc host "${privileged[@]}" "${nova[@]}" &
wait
# kolla 2025.2 would set up Apache, which is not installed.
start cinder_api 'healthcheck_curl http://127.0.0.1:8776/healthcheck' "${plain[@]}" -e KOLLA_SKIP_EXTEND_START= &
start cinder_volume 'healthcheck_port cinder-volume 5672' --ipc host "${privileged[@]}" "${cinder[@]}" &
start cinder_scheduler 'healthcheck_port cinder-scheduler 5672' "${plain[@]}" &
start cinder_backup 'healthcheck_port cinder-backup 5672' --ipc host "${privileged[@]}" "${cinder[@]}" &
start glance_api 'healthcheck_curl http://127.0.0.1:9292/healthcheck' "${plain[@]}" &
wait

# The first process is dumb-init; its child is kolla_start, until that has become the service.
serves() {
  local child
  child=$(pgrep -a -P "$(docker inspect -f '{{.State.Pid}}' "$1")")
  [ -n "$child" ] && [[ $child != *kolla_start* ]]
}
# comes_up NAME: a minute for it to start, and a minute for libvirt to answer, which may keep its caller waiting
comes_up() {
  local until=$((SECONDS + 60))
  until serves "$1" 2>/dev/null; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.1
  done
  [ "$1" != nova_libvirt ] || [[ ,$fixed, = *,nova_libvirt,* ]] || "$here/libvirt-answers.sh" nova_libvirt 60
}
for name in ${only//,/ }; do
  comes_up "$name" || {
    echo "$name does not come up in time; its log ends:" >&2
    docker logs --tail 20 "$name" >&2
    exit 1
  }
done
