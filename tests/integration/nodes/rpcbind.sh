#!/usr/bin/env bash
# rpcbind_ensure on whole hosts: the states that a host can be in, for each mode, and what reaches an NFS server meanwhile.
# usage: [KEEP=yes] rpcbind.sh [SCENARIO…]   without one: all of them; KEEP leaves the node there
# Without one, the states that hosts are found in go through real Ansible over ssh (with SHORT=yes a few of them), the rest starts the program
# itself; ANSIBLE=yes or no says so for those that are named.
# shellcheck disable=SC2016 # much here is for the shell in the node
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
program=$top/library/rpcbind_ensure
image=nfslock-lab/cinder-volume:bookworm
node=nfslock-node-rpcbind-$$
server=10.99.0.2 # in a network namespace of its own, inside the node

if [ ! -x "$program" ]; then
  echo "rpcbind_ensure is not built: run make build first" >&2
  exit 1
fi
command -v jq >/dev/null || "$here/../apt-install.sh" jq
# shellcheck source=tests/integration/lab/use-engine.sh
. "$here/../lab/use-engine.sh"
work=$(mktemp -d)
cleanup() {
  [ "${KEEP:-}" = yes ] || "$here/down.sh" "$node" || true
  docker volume rm -f "$node" >/dev/null 2>&1 || true
  rm -rf "$work"
  leave_engine
}
trap cleanup EXIT
use_engine
"$here/../lab/image.sh"

# shellcheck source=tests/integration/nodes/check.sh
. "$here/check.sh"
by_ansible=no
ANSIBLE=${ANSIBLE:-no}
in_node() { docker exec "$node" "$@" 2>&1 || true; }
sh_node() { docker exec -i "$node" sh -c "$1" 2>&1 || true; }

# module ARGUMENTS: one run in the node; its answer is in $result
module() {
  local began=${EPOCHREALTIME/./}
  if [ "$by_ansible" = yes ]; then
    result=$("$here/ansible.sh" "$node" "$1")
  else
    docker exec -i "$node" sh -c 'cat >/root/args.json' <<<"$1"
    result=$(in_node /root/rpcbind_ensure /root/args.json)
  fi
  printf -- '--    %s: %d ms: %s\n' "$1" $(((${EPOCHREALTIME/./} - began) / 1000)) "$(answer .msg | tr '\n' ' ')"
}
answer() { jq -r "$1" <<<"$result" 2>&1 || printf '%s' "$result"; }
# reports FAILED CHANGED MODE: what the module says of the run
reports() { check "the module's answer" "$(answer '[.failed, .changed, .mode] | map(tostring) | join(" ")')" "$*"; }
message() { contains "the message" "$(answer .msg)" "$1"; }
finding() { contains "the findings" "$(answer '.findings | join("; ")')" "$1"; }

# Independently of the module: rpcinfo of the distribution.
answers() {
  for how in tcp udp; do
    check "rpc.statd over $how" "$(in_node timeout 10 rpcinfo -T $how 127.0.0.1 100024 | tail -1)" "program 100024 version 1 ready and waiting"
  done
  check "statds with the host's ports" "$(statds)" 1
}
statds() { sh_node 'pgrep -c -x rpc.statd'; }
unit() { in_node systemctl is-active "$1"; }
# What a server heard. GETPORT is sm-notify asking where to; SM_NOTIFY drops the locks.
notified() { sh_node 'grep -c -e SM_NOTIFY -e GETPORT /var/wire.log'; }
silent() {
  check "calls to the server" "$(notified)" "$heard"
  [ "$(notified)" = "$heard" ] || in_node cat /var/wire.log
}

# fresh: a new node, with nothing of rpcbind on it, and an NFS server in sight
fresh() {
  local rc=0 why
  # The next node's engine would start the containers that are on the volume, and their statd would notify.
  sh_node 'docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm' >/dev/null
  why=$(NODE_BARE=yes NODE_VOLUME=$node "$here/up.sh" "$node" 2>&1 | tee >(cat >&2); exit "${PIPESTATUS[0]}") || rc=$?
  if [ "$rc" = 77 ] && [ "${CI:-}" != true ]; then
    echo "skipped: $(tail -1 <<<"$why")"
    exit 0
  fi
  [ "$rc" = 0 ] || exit 1
  docker cp -q "$program" "$node:/root/rpcbind_ensure"
  docker cp -q "$here/status-server.py" "$node:/root/status-server.py"
  docker exec -i "$node" sh -c 'cat >/etc/systemd/system/status-server.service && systemctl -q enable --now status-server' <<END
[Unit]
Before=network-online.target rpc-statd-notify.service docker.service
[Service]
ExecStartPre=-/sbin/ip netns add server
ExecStartPre=-/sbin/ip link add wire type veth peer name wire netns server
ExecStartPre=-/sbin/ip addr add 10.99.0.1/24 dev wire
ExecStartPre=/sbin/ip link set wire up
ExecStartPre=-/sbin/ip -n server addr add $server/24 dev wire
ExecStartPre=/sbin/ip -n server link set wire up
ExecStart=/sbin/ip netns exec server python3 /root/status-server.py $server /var/wire.log
[Install]
WantedBy=multi-user.target
END
  sh_node 'for i in $(seq 50); do grep -qs ready /var/wire.log && exit; sleep 0.1; done; echo "the server is not there"'
  heard=0
}
# with_image [OPTION…]: the containers' image is in the node's engine, and a cinder_volume that uses it
with_image() {
  if [ -z "$(in_node docker image ls -q "$image")" ]; then docker save "$image" | docker exec -i "$node" docker load >/dev/null; fi
  in_node docker run -d --name cinder_volume --network host -v /run:/run:shared "$@" "$image" sleep infinity >/dev/null
}
installed() {
  sh_node 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rpcbind nfs-common' >/dev/null
}
# watches: statd watches the server, as after an NFSv3 lock there. $1: the folder of its state
watches() {
  printf '0100007f 000186b5 00000003 00000010 00000000000000000000000000000000 %s node\n' "$server" |
    docker exec -i "$node" sh -c "cat >$1/sm/$server && chown --reference=$1/sm $1/sm/$server && chmod 600 $1/sm/$server"
}
# once_before_guests: the server heard of the reboot once, and the container of a guest was started after that
once_before_guests() {
  check "reboot notifications" "$(sh_node 'grep -c SM_NOTIFY /var/wire.log')" 1
  check "the notification came before guests" "$(sh_node 'told=$(awk "/SM_NOTIFY/ {print \$1; exit}" /var/wire.log)
    date -d "$(docker inspect -f "{{.State.StartedAt}}" cinder_volume)" +%s.%N | awk -v told="$told" "{print (told > 0 && \$1 > told) ? \"yes\" : told \" \" \$1}"')" yes
}
# in_use: an NFSv3 mount, as far as anybody can read. The machine's kernel need not know NFS.
in_use() {
  sh_node "{ cat /proc/1/mountinfo; echo '999 30 0:99 / /var/lib/nova/mnt/c0 rw,relatime - nfs $server:/export rw,vers=3,hard,local_lock=none,addr=$server'; } >/run/mountinfo &&
    mount --bind /run/mountinfo /proc/1/mountinfo"
}
# in_use_inside: the same for the container, which reads the kernel's own list of its network: that is played by a file
in_use_inside() {
  sh_node 'printf "NV SERVER   PORT DEV          FSID                              FSC\nv3 0a630002  801 0:45         0:0                               no\n" >/run/volumes
    docker exec nfs_rpcbind sed -i s,^VOLUMES.*,VOLUMES=\"/run/volumes\", /usr/local/lib/nfs_rpcbind.py'
}
# not_in_use: both are gone again
not_in_use() { sh_node 'umount /proc/1/mountinfo; rm -f /run/mountinfo /run/volumes'; }
marked() { sh_node 'ls /run/sm-notify.pid 2>/dev/null || echo no mark'; }
# Who listens at port 111, and who should where it is restricted to the storage network.
listening() { sh_node 'ss -Hlntu | awk "\$5 ~ /:111\$/ {print \$1, \$5}" | sort | paste -sd,'; }
at_storage="tcp 10.99.0.1:111,tcp 127.0.0.1:111,tcp [::1]:111,udp 10.99.0.1:111,udp 127.0.0.1:111,udp [::1]:111"
# A ghost: statd in another container, as mount.nfs starts it there.
ghost() { in_node docker exec -u 0 cinder_volume rpc.statd --no-notify; }

scenario_host_fresh() {
  fresh
  module '{"mode": "host", "_ansible_check_mode": true, "_ansible_diff": true}'
  reports false true host
  contains "the diff" "$(answer '.diff | tostring')" 'rpcbind: not installed'
  check "rpcbind after check mode" "$(sh_node 'command -v rpcbind || echo none; ls -A /var/lib/nfslock 2>/dev/null')" none
  module '{"mode": "host"}'
  reports false true host
  answers
  module '{"mode": "host"}'
  reports false false host
  module '{}'
  reports false false host
  contains "the reason" "$(answer .reason)" "runs on the host"
  silent
}

# The package's own scripts start sm-notify: with guests on NFSv3 and a list from earlier it would tell the servers.
scenario_host_install_in_use() {
  fresh
  in_node mkdir -p /var/lib/nfs/sm
  watches /var/lib/nfs
  in_use
  module '{"mode": "host", "_ansible_diff": true}'
  reports false true host
  contains "the diff" "$(answer '.diff | tostring')" "/run/sm-notify.pid: absent"
  answers
  sleep 1
  silent
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
}

scenario_host_already_right() {
  fresh
  installed
  in_node systemctl start rpc-statd
  module '{"mode": "auto"}' # statd is not enabled yet, and does not come back when it dies
  reports false true host
  answers
  module '{"mode": "auto"}'
  reports false false host
  module '{"state": "absent"}'
  reports false true ""
  check "what ran before" "$(unit rpcbind.socket) $(unit rpc-statd)" "active active"
  check "files of ours" "$(sh_node 'grep -rl nfslock /etc/systemd/system; ls /var/lib/nfslock')" lock
  check "the packages" "$(sh_node 'dpkg-query -W -f "\${Status}" nfs-common')" "install ok installed"
}

scenario_host_statd_killed() {
  fresh
  installed
  in_node systemctl start rpc-statd
  watches /var/lib/nfs
  in_use
  in_node systemctl stop rpc-statd-notify
  sh_node 'rm -f /run/sm-notify.pid' # statd was started by hand in this boot, so nobody has notified
  in_node pkill -9 -x rpc.statd
  module '{"mode": "host"}'
  reports false true host
  finding "rpc.statd: dead"
  answers
  sleep 1
  silent
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
  # From now on systemd brings it back.
  in_node pkill -9 -x rpc.statd
  sleep 3
  answers
  in_node pkill -9 -x rpcbind
  sleep 4
  answers
  module '{"mode": "host"}'
  reports false false host
  silent
}

scenario_host_hangs() {
  fresh
  module '{"mode": "host"}'
  in_use
  watches /var/lib/nfs
  in_node pkill -STOP -x rpcbind
  module '{"mode": "host", "_ansible_check_mode": true}'
  finding "rpcbind: hangs"
  module '{"mode": "host"}'
  reports false true host
  finding "rpcbind: hangs"
  answers
  in_node pkill -STOP -x rpc.statd
  module '{"mode": "host"}'
  reports false true host
  finding "rpc.statd: hangs"
  answers
  sleep 1
  silent
}

scenario_host_statd_elsewhere() {
  fresh
  with_image
  installed
  ghost
  in_node sh -c "docker exec -i -u 0 cinder_volume sh -c 'cat >/var/lib/nfs/sm/$server' <<<'watched'" 2>/dev/null || true
  watches "/proc/$(sh_node 'pgrep -x rpc.statd')/root/var/lib/nfs"
  in_use
  module '{"mode": "host"}'
  reports false true host
  finding "rpc.statd in container cinder_volume"
  answers
  check "the statd in cinder_volume" "$(in_node docker exec cinder_volume pgrep -c -x rpc.statd)" 0
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
  sleep 1
  silent
  module '{"mode": "host"}'
  reports false false host
}

scenario_host_masked() {
  fresh
  installed
  in_node systemctl -q mask --now rpcbind.socket rpcbind.service
  in_node systemctl -q mask --runtime rpc-statd.service
  module '{"mode": "auto"}' # no container to take an image from
  reports true false ""
  message "masked on the host"
  module '{"mode": "host"}'
  reports false true host
  answers
  module '{"state": "absent"}'
  reports false true ""
  check "the socket" "$(in_node systemctl is-enabled rpcbind.socket)" masked
  check "rpcbind" "$(in_node pgrep -c -x rpcbind)" 0
  module '{"state": "absent"}'
  reports false false ""
}

scenario_port_taken() {
  fresh
  with_image
  installed
  in_node systemctl -q stop rpcbind.socket rpcbind.service
  docker exec -d "$node" python3 -c 'import socket, time; s = socket.create_server(("", 111)); time.sleep(600)'
  sleep 0.5
  for mode in host container; do
    module "{\"mode\": \"$mode\"}"
    reports true false $mode
    message "port 111 is taken by python3"
  done
  check "containers" "$(in_node docker ps -a --format '{{.Names}}')" cinder_volume
  check "rpcbind" "$(unit rpcbind.socket)" inactive
}

scenario_second_rpcbind() {
  fresh
  with_image
  module '{"mode": "container"}'
  reports false true container
  in_node sh -c "docker run -d --name other --network host -v /run:/run:shared --user 0 $image sleep 600 && docker rm -f nfs_rpcbind &&
    docker cp /root/status-server.py other:/root/ && docker exec -d other rpcbind -f -w" >/dev/null
  sleep 1
  for mode in host container; do
    module "{\"mode\": \"$mode\"}"
    reports true false $mode
    message "rpcbind in container other"
  done
  message "rpcbind in container nfs_rpcbind beside"
  in_node docker rm -f other
  installed
  module '{"mode": "container"}'
  reports true false container
  message "beside rpcbind of the host (rpcbind.socket)"
}

scenario_no_repository() {
  fresh
  installed_rpcinfo
  sh_node 'rm -rf /srv/archive /etc/apt/sources.list /var/lib/apt/lists/*'
  module '{"mode": "host"}'
  reports true false host
  message "cannot install rpcbind and nfs-common on this host"
  module '{}'
  reports true false ""
  message "cannot choose a mode"
  with_image
  module '{}'
  reports false true container
  contains "the reason" "$(answer .reason)" "cannot be installed"
  answers
}

# reboot: the machine loses its power and comes up
reboot() {
  docker restart -t 0 "$node" >/dev/null
  for _ in $(seq 60); do
    if in_node systemctl is-active docker | grep -qx active; then break; fi
    sleep 0.5
  done
  for _ in $(seq 60); do
    if in_node timeout 5 rpcinfo -T tcp 127.0.0.1 100024 | grep -q ready; then break; fi
    sleep 0.5
  done
}

scenario_host_reboot() {
  fresh
  with_image --restart unless-stopped
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports false true host
  watches /var/lib/nfs
  reboot
  answers
  sleep 2
  once_before_guests
  heard=$(notified)
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports false false host
  in_use
  in_node systemctl restart rpcbind rpc-statd
  sleep 1
  answers
  silent
}

scenario_host_listen() {
  fresh
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports false true host
  check "who listens" "$(listening)" "$at_storage"
  answers
  in_node ip addr add 203.0.113.5/24 dev wire
  module '{"mode": "host"}'
  reports false true host
  contains "the warnings" "$(answer '.warnings | join(" ")')" "port 111 is open at 203.0.113.5"
  contains "who listens" "$(listening)" "0.0.0.0:111"
  answers
  module '{"mode": "host", "listen": ["127.0.0.1"]}'
  contains "the warnings" "$(answer '.warnings | join(" ")')" "loopback addresses only"
  answers
  sh_node 'printf "[Socket]\nListenStream=0.0.0.0:111\n" >/etc/systemd/system/rpcbind.socket.d/override.conf'
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports false true host
  check "who listens" "$(listening)" "$at_storage"
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports false false host
  sh_node 'cd /etc/systemd/system/rpcbind.socket.d && mv override.conf zzz.conf'
  module '{"mode": "host", "listen": ["10.99.0.1"]}'
  reports true false host
  message "rpcbind.socket.d/zzz.conf is read after"
  sh_node 'rm /etc/systemd/system/rpcbind.socket.d/zzz.conf'
  module '{"mode": "host", "listen": ["192.0.2.1"]}'
  reports true false host
  message "this host has no such address"
}

scenario_in_use() {
  fresh
  with_image
  module '{"mode": "host"}'
  in_use
  module '{"state": "absent"}'
  reports true false ""
  message "$server:/export at /var/lib/nova/mnt/c0"
  answers
  module '{"state": "absent", "force": true}'
  reports false true ""
  check "what is left" "$(sh_node 'command -v rpcbind || echo nothing; grep -rl nfslock /etc/systemd/system; ls /var/lib/nfslock')" "$(printf 'nothing\nlock')"
}

scenario_container() {
  fresh
  with_image
  module '{"mode": "container", "_ansible_check_mode": true}'
  reports false true container
  check "containers" "$(in_node docker ps -a --format '{{.Names}}')" cinder_volume
  module '{"mode": "container"}'
  reports false true container
  installed_rpcinfo
  answers
  local id
  id=$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)
  module '{"mode": "container"}'
  reports false false container
  module '{}'
  reports false false container
  check "the container" "$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)" "$id"
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  in_use
  sh_node 'rm -f /run/sm-notify.pid'
  module '{"mode": "container", "listen": ["10.99.0.1"]}' # another option: recreated
  reports false true container
  answers
  check "another container" "$([ "$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)" != "$id" ] && echo yes)" yes
  check "who listens" "$(listening)" "$at_storage"
  check "the servers it watches" "$(sh_node "ls $(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)/sm")" "$server"
  module '{"mode": "container", "listen": ["10.99.0.1"]}'
  reports false false container
  # An image that will not do is found out before the container that runs is given up.
  sh_node "docker run --name poor --user 0 $image rm /usr/sbin/rpc.statd && docker commit poor poor && docker rm poor" >/dev/null
  module '{"mode": "container", "image": "poor"}'
  reports true false container
  message "cannot use image poor: it lacks rpc.statd"
  check "containers" "$(in_node docker ps -a --format '{{.Names}}' | sort | paste -sd' ')" "cinder_volume nfs_rpcbind"
  answers
  in_node docker restart nfs_rpcbind
  sleep 2
  answers
  silent
  not_in_use
  module '{"state": "absent"}'
  reports false true ""
  check "what is left" "$(in_node docker ps -a --format '{{.Names}}') $(in_node docker volume ls -q)" "cinder_volume "
}
# rpcinfo for the test, and nothing started: what a host has that must stay clean otherwise
installed_rpcinfo() {
  sh_node 'dpkg-deb -x /srv/archive/rpcbind_*.deb /tmp/x && cp /tmp/x/usr/sbin/rpcinfo /usr/local/bin/'
}

scenario_container_dies() {
  fresh
  with_image
  installed_rpcinfo
  module '{"mode": "container"}'
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  in_use
  in_node pkill -9 -x rpc.statd
  sleep 3
  answers
  in_node pkill -9 -x rpcbind
  sleep 4
  answers
  module '{"mode": "container"}'
  reports false false container
  for name in rpcbind rpc.statd; do
    in_node pkill -STOP -x $name
    module '{"mode": "container"}'
    reports false true container
    finding "$name: hangs"
    answers
  done
  module '{"mode": "container"}'
  reports false false container
  silent
}

scenario_container_statd_elsewhere() {
  fresh
  with_image
  installed_rpcinfo
  module '{"mode": "container", "statd": false}'
  reports false true container
  ghost
  watches "/proc/$(sh_node 'pgrep -x rpc.statd')/root/var/lib/nfs"
  in_use
  sh_node 'rm -f /run/sm-notify.pid'
  module '{"mode": "container"}'
  reports false true container
  finding "rpc.statd in container cinder_volume"
  answers
  check "the statd in cinder_volume" "$(in_node docker exec cinder_volume pgrep -c -x rpc.statd)" 0
  check "the servers it watches" "$(sh_node "ls $(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)/sm")" "$server"
  sleep 1
  silent
}

# with_unit: cinder_volume is owned by a unit, as kolla-ansible's containers are
with_unit() {
  sh_node 'printf "[Service]\nExecStart=/usr/bin/docker start -a cinder_volume\nExecStop=/usr/bin/docker stop cinder_volume\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/kolla-cinder_volume-container.service
    systemctl daemon-reload; systemctl -q enable --now kolla-cinder_volume-container'
}
labels() { in_node docker inspect -f '{{range $name, $value := .Config.Labels}}{{$name}} {{end}}' nfs_rpcbind; }
own_images() { in_node docker images -q --filter label=nfslock.rpcbind.base | wc -l; }
# stays WHAT: the container runs on as the same one, with its volume and unit
stays() {
  check "the container after $1" "$(in_node docker inspect -f '{{.State.Status}} {{.Id}}' nfs_rpcbind)" "running $id"
  check "its unit after $1" "$(unit nfslock-nfs_rpcbind.service) $(in_node systemctl is-enabled nfslock-nfs_rpcbind.service)" "active enabled"
  check "whom it watches after $1" "$(sh_node "ls $(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)/sm")" "$server"
  answers
}

# kolla-ansible's stop, prune-images, upgrade and destroy, beside the container. What each does was read in kolla-ansible 23; destroy's tools are its own.
scenario_container_kollas_commands() {
  fresh
  with_image -v cinder:/var/lib/cinder
  with_unit
  installed_rpcinfo
  module '{"mode": "container"}'
  reports false true container
  check "its labels" "$(labels)" "nfslock.rpcbind nfslock.rpcbind.base "
  check "its environment" "$(in_node docker exec nfs_rpcbind env | grep -c KOLLA)" 0
  local id
  id=$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"

  in_node systemctl stop kolla-cinder_volume-container # kolla-ansible stop
  stays stop
  in_node systemctl start kolla-cinder_volume-container
  in_node docker image prune -f --filter label=kolla_version >/dev/null # kolla-ansible prune-images, by docker_prune
  in_node docker image prune -af >/dev/null
  stays prune-images
  check "images of ours" "$(own_images)" 1

  # kolla-ansible upgrade: another image, and a new container of it. Ours follows with the next run, and keeps its state.
  sh_node "docker run --name newer --user 0 --entrypoint sh $image -c 'echo newer >/etc/newer' && docker commit -c 'LABEL kolla_version=newer' newer cinder:newer && docker rm newer
    systemctl stop kolla-cinder_volume-container; docker rm -f cinder_volume" >/dev/null
  stays upgrade
  in_node docker create --name cinder_volume --network host -v /run:/run:shared -v cinder:/var/lib/cinder cinder:newer >/dev/null
  in_node systemctl start kolla-cinder_volume-container
  module '{"mode": "container"}'
  reports false true container
  check "the image inside" "$(in_node docker exec nfs_rpcbind cat /etc/newer)" newer
  check "images of ours" "$(own_images)" 1
  id=$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)
  stays "it followed"
  module '{"mode": "container"}'
  reports false false container

  kollas_tools
  in_node bash /root/cleanup-containers docker >/dev/null
  check "containers after destroy" "$(in_node docker ps -a --format '{{.Names}}')" nfs_rpcbind
  stays destroy
  in_node bash /root/cleanup-images --all -e docker >/dev/null # with enable_destroy_images
  check "images of kolla's" "$(in_node docker images -q --filter label=kolla_version)" ""
  stays "the images' removal"
  module '{"mode": "container"}'
  reports false false container
  reboot
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)" # those before are told, and forgotten
  stays "a reboot"
  module '{"mode": "container", "listen": ["10.99.0.1"]}' # recreated from our own image: there is no other
  reports false true container
  id=$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)
  stays "another option"
  in_node docker rm -f nfs_rpcbind >/dev/null
  module '{"mode": "container", "listen": ["10.99.0.1"]}'
  reports false true container
  answers
  module '{"state": "absent"}'
  reports false true ""
  check "what is left" "$(in_node docker ps -aq)$(in_node docker volume ls -q)$(in_node docker images -aq)$(sh_node 'ls /etc/systemd/system | grep -e rpcbind -e nfslock')" ""
}
# kollas_tools: the programs of kolla-ansible destroy are in the node
kollas_tools() {
  # shellcheck source=tests/ansible/venv.sh
  . "$top/tests/ansible/venv.sh"
  newest_python 3.11
  "$(venv "unit-$core-py$version" "$python" "ansible-core==$core" pytest==9.2.0)/python" -m pip download --quiet --no-deps --only-binary :all: --python-version 3.12 -d "$work" kolla-ansible==23.0.0
  "$python" -m zipfile -e "$work"/kolla_ansible-*.whl "$work/kolla-ansible"
  local tool
  for tool in cleanup-containers cleanup-images; do docker cp -q "$work"/kolla-ansible/*.data/data/share/kolla-ansible/tools/$tool "$node:/root/"; done
  sh_node 'command -v sudo >/dev/null || { printf "#!/bin/sh\nexec \"\$@\"\n" >/usr/local/bin/sudo; chmod 755 /usr/local/bin/sudo; }'
}

# What version 0.1.0 made: from kolla's image as it is, under a unit called as kolla's are. It is replaced once, and keeps its state.
scenario_container_older() {
  fresh
  with_image
  with_unit
  installed_rpcinfo
  module '{"mode": "container"}'
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  local old=/etc/systemd/system/kolla-nfs_rpcbind-container.service
  sh_node "systemctl -q disable --now nfslock-nfs_rpcbind; mv /etc/systemd/system/nfslock-nfs_rpcbind.service $old; systemctl daemon-reload
    docker cp nfs_rpcbind:/usr/local/lib/nfs_rpcbind.py /root/; docker rm nfs_rpcbind; docker image prune -af
    docker create --name nfs_rpcbind --network host --user 0 --label nfslock.rpcbind=0123 -v /run:/run:shared -v nfs_rpcbind:/var/lib/nfs --entrypoint python3 $image /usr/local/lib/nfs_rpcbind.py --statd
    docker cp /root/nfs_rpcbind.py nfs_rpcbind:/usr/local/lib/; systemctl -q enable --now kolla-nfs_rpcbind-container" >/dev/null
  sleep 2
  answers
  in_use
  in_use_inside
  contains "its labels before" "$(labels)" kolla_version
  module '{"mode": "container", "_ansible_check_mode": true}'
  reports false true container
  module '{"mode": "container"}'
  reports false true container
  local id
  id=$(in_node docker inspect -f '{{.Id}}' nfs_rpcbind)
  stays "the change"
  check "its labels" "$(labels)" "nfslock.rpcbind nfslock.rpcbind.base "
  check "the old unit" "$(sh_node "ls $old 2>/dev/null; systemctl is-active kolla-nfs_rpcbind-container")" inactive
  sleep 1
  silent
  module '{"mode": "container"}'
  reports false false container
}

scenario_container_unit() {
  fresh
  with_image
  installed_rpcinfo
  with_unit
  module '{"mode": "container"}'
  reports false true container
  answers
  check "its unit" "$(unit nfslock-nfs_rpcbind.service) $(in_node systemctl is-enabled nfslock-nfs_rpcbind.service)" "active enabled"
  check "its restart policy" "$(in_node docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' nfs_rpcbind)" no
  in_node docker kill nfs_rpcbind
  sleep 14
  answers
  in_node pkill -STOP -x rpcbind
  module '{"mode": "container"}'
  reports false true container
  answers
  module '{"mode": "container"}'
  reports false false container
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  reboot
  answers
  sleep 2
  once_before_guests
  module '{"mode": "container"}'
  reports false false container
  # Somebody removes the container, and its unit goes on. What is there already is a decision for mode auto, too.
  in_node docker rm -f nfs_rpcbind >/dev/null
  module '{}'
  reports false true container
  contains "the reason" "$(answer .reason)" "an earlier run put it there"
  answers
  in_node docker rm -f nfs_rpcbind >/dev/null
  module '{"state": "absent"}'
  reports false true ""
  check "its unit" "$(sh_node 'ls /etc/systemd/system | grep rpcbind; systemctl is-active nfslock-nfs_rpcbind')" inactive
  check "volumes" "$(in_node docker volume ls -q)" ""
}

# The host has both programs and the reboot notification of its own, which knows of nobody: neither may get in the container's way at boot.
scenario_container_beside_packages() {
  fresh
  with_image --restart unless-stopped
  installed
  in_node systemctl -q stop rpcbind.socket rpcbind.service
  module '{"mode": "container", "_ansible_diff": true}'
  reports false true container
  contains "the diff" "$(answer '.diff | tostring')" "ConditionPathExists=!/"
  check "the host's socket at the next boot" "$(in_node systemctl is-enabled rpcbind.socket)" disabled
  answers
  module '{"mode": "container"}'
  reports false false container
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  reboot
  answers
  sleep 2
  check "reboot notifications" "$(sh_node 'grep -c SM_NOTIFY /var/wire.log')" 1
  check "the host's own notification" "$(unit rpc-statd-notify)" inactive
  check "rpcbind of the host" "$(unit rpcbind.socket)" inactive
  module '{"mode": "container"}'
  reports false false container
  module '{"state": "absent"}'
  reports false true ""
  check "the host's socket at the next boot" "$(in_node systemctl is-enabled rpcbind.socket)" enabled
  check "files of ours" "$(sh_node 'grep -rl nfslock /etc/systemd/system; ls /var/lib/nfslock')" lock
}

# Whoever starts it: the engine, systemd, or somebody by hand.
scenario_container_started_while_in_use() {
  fresh
  with_image
  installed_rpcinfo
  module '{"mode": "container"}'
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  in_use
  in_use_inside
  in_node docker stop nfs_rpcbind
  sh_node 'rm -f /run/sm-notify.pid'
  in_node docker start nfs_rpcbind
  sleep 2
  answers
  silent
  check "the mark" "$(marked)" /run/sm-notify.pid
  contains "its log" "$(in_node docker logs nfs_rpcbind)" "NFSv3 is in use already (mounted 1 times, from $server)"
  in_node docker pause nfs_rpcbind
  module '{"mode": "container"}'
  reports false true container
  finding "rpcbind: hangs"
  answers
  silent
  module '{"state": "absent"}'
  reports true false ""
  message "$server:/export at /var/lib/nova/mnt/c0"
  answers
  # Without guests it speaks, also when it is started by hand: the test can hear.
  not_in_use
  in_node docker stop nfs_rpcbind
  sh_node 'rm -f /run/sm-notify.pid'
  in_node docker start nfs_rpcbind
  sleep 3
  check "notifications once nothing is in use" "$(sh_node 'grep -c SM_NOTIFY /var/wire.log')" 1
  heard=$(notified)
  # A server that comes up after the guests is told no more.
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  in_node docker stop nfs_rpcbind
  sh_node 'systemctl stop status-server; rm -f /run/sm-notify.pid'
  in_node docker start nfs_rpcbind
  sleep 2
  check "who still waits for the server" "$(in_node pgrep -c -x sm-notify)" 1
  in_use_inside
  sleep 1
  contains "its log" "$(in_node docker logs nfs_rpcbind)" "told of this reboot no more"
  sh_node 'systemctl start status-server'
  sleep 6
  silent
  in_node docker stop nfs_rpcbind
  # The host's rpcbind has the port, and keeps its socket file while the container starts again and again.
  installed
  in_node docker start nfs_rpcbind
  sleep 3
  contains "its log" "$(in_node docker logs nfs_rpcbind)" "port 111 is taken"
  check "rpcbind at its socket" "$(sh_node 'timeout 5 rpcinfo >/dev/null && echo answers')" answers
}

scenario_container_masked() {
  fresh
  with_image
  installed
  in_node systemctl -q mask --now rpcbind.socket rpcbind.service
  in_node systemctl -q mask rpc-statd.service
  module '{}'
  reports false true container
  contains "the reason" "$(answer .reason)" "masked on the host"
  answers
  module '{"mode": "container"}'
  reports false false container
  module '{"state": "absent"}'
  reports false true ""
  check "the units" "$(in_node systemctl is-enabled rpcbind.socket rpcbind.service rpc-statd.service | paste -sd' ')" "masked masked masked"
}

# needs_rpcbind: a package that needs rpcbind, as nis does
needs_rpcbind() {
  sh_node 'mkdir -p /tmp/nis/DEBIAN && printf "Package: nis\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDepends: rpcbind\nDescription: a test\n" >/tmp/nis/DEBIAN/control &&
    dpkg-deb -b /tmp/nis /tmp/nis.deb && dpkg -i /tmp/nis.deb' >/dev/null
}

scenario_packages_needed() {
  fresh
  with_image
  module '{"mode": "host"}'
  needs_rpcbind
  watches /var/lib/nfs
  in_use
  module '{"mode": "container"}'
  reports false true container
  contains "the warnings" "$(answer '.warnings | join(" ")')" "package rpcbind stays, though this module installed it"
  check "the packages" "$(sh_node 'dpkg-query -W -f "\${Package} \${db:Status-Status}\n" rpcbind nfs-common | paste -sd,')" "nfs-common config-files,rpcbind installed"
  check "the host's socket at the next boot" "$(in_node systemctl is-enabled rpcbind.socket)" disabled
  answers
  silent
  module '{"mode": "container"}'
  reports false false container
  not_in_use
  module '{"state": "absent"}'
  reports false true ""
  check "rpcbind, which nis needs" "$(in_node systemctl is-enabled rpcbind.socket) $(sh_node 'ls /var/lib/nfslock | paste -sd,')" "enabled lock,rpcbind.json"
  sh_node 'dpkg --purge nis' >/dev/null
  module '{"state": "absent"}'
  reports false true ""
  check "what is left" "$(sh_node 'command -v rpcbind || echo nothing; ls /var/lib/nfslock')" "$(printf 'nothing\nlock')"
}

# The mirror has newer files than apt's lists say, or none: nothing is given up for packages that are not at hand.
scenario_stale_lists() {
  fresh
  with_image
  installed_rpcinfo
  module '{"mode": "container"}'
  watches "$(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)"
  in_use
  sh_node 'apt-get update -qq && cd /srv/archive && mkdir /root/away && mv rpcbind_*.deb /root/away'
  module '{"mode": "host"}'
  reports true false host
  message "cannot download packages for this host"
  check "the container" "$(in_node docker inspect -f '{{.State.Status}}' nfs_rpcbind)" running
  answers
  # They are at hand, and dpkg fails.
  sh_node 'mv /root/away/rpcbind_*.deb /srv/archive; printf "DPkg::Pre-Invoke {\"exit 1\";};\n" >/etc/apt/apt.conf.d/broken'
  module '{"mode": "host"}'
  reports true true host
  message "cannot install packages on this host"
  check "the container" "$(in_node docker inspect -f '{{.State.Status}}' nfs_rpcbind)" running
  answers
  sh_node 'rm /etc/apt/apt.conf.d/broken; cd /srv/archive && mv rpcbind_*.deb rpcbind-newer.deb && sed -i "s,^Filename: ./rpcbind_.*,Filename: ./rpcbind-newer.deb," Packages'
  module '{"mode": "host"}'
  reports false true host
  answers
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
  check "units that are masked still" "$(sh_node 'systemctl list-unit-files --state=masked-runtime,masked --no-legend | grep -c rpc')" 0
  module '{"mode": "host"}'
  reports false false host
  silent
}

# The usual cause once more: statd died with a restart of the container, which is still there, and so is whom it watched.
scenario_host_statd_gone() {
  fresh
  with_image
  installed
  ghost
  watches "/proc/$(sh_node 'pgrep -x rpc.statd')/root/var/lib/nfs"
  in_use
  in_node docker restart -t 1 cinder_volume >/dev/null
  sh_node 'rm -f /run/sm-notify.pid'
  module '{"mode": "host"}'
  reports false true host
  finding "watched $server, from container cinder_volume"
  answers
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
  module '{"mode": "host"}'
  reports false false host
  silent
  sh_node 'rm /var/lib/nfs/sm/*'
  in_node pkill -9 -x rpc.statd
  sh_node 'systemctl stop rpc-statd; systemd-run -q --unit my-statd --property=Restart=always rpc.statd --foreground --no-notify; sleep 1'
  module '{"mode": "host"}'
  reports true false host
  message "systemctl disable --now my-statd.service"
  in_node systemctl stop my-statd
  module '{"mode": "host"}'
  reports false true host
  contains "the warnings" "$(answer '.warnings | join(" ")')" "the new rpc.statd does not watch $server"
  silent
}

scenario_mode_change() {
  fresh
  with_image
  module '{"mode": "host"}'
  answers
  watches /var/lib/nfs
  in_use
  sh_node 'systemctl stop rpc-statd-notify; rm -f /run/sm-notify.pid'
  installed_rpcinfo
  module '{"mode": "container"}'
  reports false true container
  answers
  check "the host" "$(sh_node 'command -v rpcbind || echo clean; grep -rl nfslock /etc/systemd/system')" clean
  check "the servers it watches" "$(sh_node "ls $(in_node docker volume inspect -f '{{.Mountpoint}}' nfs_rpcbind)/sm")" "$server"
  module '{"mode": "container"}'
  reports false false container
  module '{"mode": "host"}'
  reports false true host
  answers
  check "containers" "$(in_node docker ps -a --format '{{.Names}}') $(in_node docker volume ls -q)" "cinder_volume "
  check "the servers it watches" "$(in_node ls /var/lib/nfs/sm)" "$server"
  module '{"mode": "host"}'
  reports false false host
  sleep 1
  silent
  # The test can hear: a statd that notifies, as on every other host.
  sh_node 'systemctl stop rpc-statd; rm -f /run/sm-notify.pid; sm-notify; sleep 2'
  check "calls to the server after a notification by hand" "$([ "$(notified)" -gt 0 ] && echo some)" some
}

# quick: what a run without change costs
quick() {
  local cost least median memory
  cost=$(docker exec -i "$node" python3 - <<'END'
import resource, statistics, subprocess, time
took = []
for _ in range(21):
    began = time.monotonic()
    subprocess.run(["/root/rpcbind_ensure", "/root/args.json"], check=True, stdout=subprocess.DEVNULL)
    took.append((time.monotonic() - began) * 1000)
print("%d %d %d" % (min(took), statistics.median(took), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024))
END
  )
  read -r least median memory <<<"$cost"
  echo "--    a run without change, 21 times: at least $least ms, median $median ms, $memory MB"
  check "at most 25 MB of memory" "$([ "$memory" -le 25 ] && echo yes)" yes # times are shown, not judged: the machine may be busy
}
scenario_speed() {
  fresh
  with_image
  for mode in host container; do
    [ "$mode" = host ] || module '{"state": "absent"}'
    module "{\"mode\": \"$mode\"}"
    reports false true $mode
    module "{\"mode\": \"$mode\"}"
    reports false false $mode
    sh_node "echo '{\"mode\": \"$mode\"}' >/root/args.json"
    quick
  done
}

# What the fix playbook makes of the usual host: a share that may be mounted with NFSv3, and nobody who gives locks for it. No patch is asked for.
played() { jq -r "$1" <<<"$played" 2>&1 || printf '%s' "$played"; }
verdicts() { played '[.[] | select(.action == "nfs_lock_info") | .result.verdict] | join(" ")'; }
became() { played '[.[] | select(.task | endswith("Say what became of each host")) | .result.msg[]] | join(" ")'; }
scenario_playbook_fix() {
  fresh
  sh_node "mkdir -p /etc/kolla/cinder-volume && echo $server:/volumes >/etc/kolla/cinder-volume/nfs_shares"
  played=$("$here/ansible.sh" "$node" '{"_ansible_check_mode": true}' fix)
  check "verdicts in check mode" "$(verdicts)" rpcbind_missing
  check "rpcbind after check mode" "$(sh_node 'command -v rpcbind || echo none')" none
  played=$("$here/ansible.sh" "$node" '{}' fix)
  check "verdicts: before, after the cure, in the proof" "$(verdicts)" "rpcbind_missing ok ok"
  check "what became of the host" "$(became)" "$node: done: rpcbind and rpc.statd answer; there was no mount to try qemu-img on"
  answers
  silent
  played=$("$here/ansible.sh" "$node" '{}' fix)
  check "verdicts of a second run" "$(verdicts)" ok
  contains "what became of it then" "$(became)" "$node: nothing: ok"
  check "tasks that changed something then" "$(played '[.[] | select(.result.changed)] | length')" 0

  # The registration of a statd that is dead stays with rpcbind: the usual failure.
  sh_node 'systemctl stop rpc-statd 2>/dev/null; systemctl mask rpc-statd >/dev/null 2>&1; pkill -x rpc.statd; true' >/dev/null
  played=$("$here/ansible.sh" "$node" '{}' diagnose)
  contains "the diagnosis" "$(verdicts)" statd_
  contains "the plan" "$(played '[.[] | select(.task | endswith("Say what is to be done")) | .result.msg[]] | join(" ")')" "rpcbind_ensure: statd_"
  played=$("$here/ansible.sh" "$node" '{}' fix)
  contains "verdicts" "$(verdicts)" " ok ok"
  answers
}

scenario_without_run() {
  fresh
  with_image
  in_node docker run -d --name nova_compute --network host "$image" >/dev/null
  module '{"mode": "container"}'
  reports false true container
  check "containers without /run" "$(answer '.containers_without_run | join(" ")')" nova_compute
  contains "the warnings" "$(answer '.warnings | join(" ")')" 'nova_compute_extra_volumes: ["/run:/run:shared"]'
}

# playbook_fix does so by itself.
through_ansible=" host_fresh host_already_right host_statd_killed host_hangs host_statd_elsewhere host_masked host_reboot port_taken no_repository
  container_dies container_statd_elsewhere container_masked container_unit mode_change "
[ -z "${SHORT:-}" ] || through_ansible=" host_fresh host_statd_elsewhere container_dies mode_change "
through_ansible=$(tr -s ' \n' ' ' <<<"$through_ansible")
if [ $# = 0 ]; then
  mapfile -t all < <(declare -F | sed -n 's/^declare -f scenario_//p')
  set -- "${all[@]}"
  ANSIBLE=some
fi
for scenario in "$@"; do
  began=$SECONDS
  [[ $ANSIBLE$through_ansible != some*" $scenario "* ]] && by_ansible=${ANSIBLE/some/no} || by_ansible=yes
  printf '\n==    %s%s\n' "$scenario" "$([ "$by_ansible" != yes ] || echo ' (Ansible over ssh)')"
  "scenario_$scenario"
  echo "--    $((SECONDS - began)) s"
done
tally
