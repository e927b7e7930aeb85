#!/usr/bin/env bash
# The story on real kolla: a store that refuses locks, and what the collection makes of it, by kolla-ansible's command line and by plain Ansible over ssh.
# run.sh prepares what it needs.
# usage: [KEEP=yes] test.sh NAME=IMAGE… -- [PART…]   NAME=IMAGE as images.sh prints them; NFSLOCK_PATCH_SET is the folder of the set
# Without a PART: all of them, in their order, on a node that is made for it and removed at the end. With KEEP=yes it stays; parts that are named go on there.
# shellcheck disable=SC2016 # much here is for the shell in the node
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
# shellcheck source=tests/integration/kolla/pins.sh
. "$here/pins.sh"
# shellcheck source=tests/integration/kolla/step.sh
. "$here/step.sh"
# shellcheck source=tests/integration/kolla/cloud.sh
. "$here/cloud.sh"
# shellcheck source=tests/integration/kolla/kept.sh
. "$here/kept.sh"
set=${NFSLOCK_PATCH_SET:?names the folder of a patch set: patch-set.sh makes one}
node=nfslock-kolla
work=$cache/work
logs=${KOLLA_LOGS:-$cache/logs}
pairs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do pairs+=("$1") && shift; done
[ $# = 0 ] || shift

for program in nfs_lock_fix nfs_lock_info rpcbind_ensure; do
  if [ ! -x "$top/plugins/modules/$program" ]; then
    echo "$program is not built: run make build first" >&2
    exit 1
  fi
done
mkdir -p "$work"
cleanup() {
  if [ "${KEEP:-}" = yes ]; then
    echo "kept: the node $node, and $work"
  else
    "$here/../nodes/down.sh" "$node" || true
    rm -rf "$work"
  fi
}
trap cleanup EXIT

# shellcheck source=tests/integration/nodes/check.sh
. "$here/../nodes/check.sh"

in_node() { timeout 120 docker exec -i "$node" "$@" 2>&1 || true; }
in_container() { in_node docker exec -i "$@"; } # NAME COMMAND…
virsh() { in_container nova_libvirt virsh "$@"; }
of_container() { in_node docker inspect -f "{{$2}}" "$1"; }
# patched NAME: its packages of ours
patched() { in_container "$1" dpkg-query -W -f '${Package} ${Version}\n' | sed -n 's/ .*+nfslock1$//p' | paste -sd' '; }
state_of() { virsh domstate "$1" | head -1; }
process_of() { in_node cat "/run/libvirt/qemu/$1.pid"; } # the node's /run is nova_libvirt's, and so are its processes

# run WHAT COMMAND…: a run of kolla-ansible or of Ansible. Its code is in $code, its results are asked by played.
number=0
run() {
  number=$((number + 1))
  code=0
  rm -f "$work/record"
  step 900 "$(printf %02d "$number")-$scenario" "$@" || code=$?
}
played() { jq -r -s "$1" "$work/record" 2>&1 || true; }
info() { played "([.[] | select(.action == \"nfs_lock_info\")] | last | .result) | $1"; }
said() { played "[.[] | select(.task | endswith(\"$1\")) | .result.msg | if type == \"array\" then .[] else . end] | join(\" \")"; }
became() { said "Say what became of each host"; }
changed() { played '[.[] | select(.result.changed == true)] | length'; }
rows() { played '[.[] | select(.action == "nfs_lock_fix") | .result.containers // [] | .[] | "\(.name) \(.status)"] | sort | join(", ")'; }
as_kolla() { # COMMAND PLAYBOOK OPTION…: a playbook of ours through kolla-ansible, which takes its path
  local command=$1 playbook=$2
  shift 2
  kolla "$command" -p "$top/playbooks/$playbook.yml" "$@"
}

all_patched="cinder_volume patched, nova_compute patched, nova_libvirt patched"

# libvirt_answers: waits for it, a minute at the longest
libvirt_answers() {
  for _ in $(seq 60); do
    if timeout 10 docker exec "$node" docker exec nova_libvirt virsh version --daemon >/dev/null 2>&1; then return; fi
    sleep 1
  done
}
# guest NAME IMAGE: starts one as Nova would, but for its size, and says what virsh says
guest() {
  in_container nova_libvirt sh -c "cat >/tmp/$1.xml && virsh create /tmp/$1.xml" <<END
<domain type='qemu'><name>$1</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='$2'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>
END
}
# convert: what Cinder does for a volume from an image
convert() {
  in_container cinder_volume sh -c "cd $at_cinder; rm -f a.raw a.qcow2 b.qcow2; truncate -s 1M a.raw
    qemu-img create -f qcow2 a.qcow2 1M >/dev/null; echo create \$?; qemu-img convert -f raw -O qcow2 a.raw b.qcow2; echo convert \$?"
}

part_deployed() {
  rm -rf "$work"
  mkdir "$work"
  must 1800 up "a whole host, with kolla's images" "$here/up.sh" "$node" "${pairs[@]}"
  cloud_up
  mkdir -p "$work/etc/globals.d"
  printf 'nfs_lock_fix_patch_set: %s\nnfs_lock_info_paths: [%s, %s]\n' "$set" "$at_nova" "$at_cinder" >"$work/etc/globals.d/nfslock.yml"
  run "kolla-ansible makes cinder_volume" deploy_cinder
  check "it ended with" "$code" 0
  run "kolla-ansible makes nova_libvirt and nova_compute" kolla deploy --tags nova-cell
  check "it ended with" "$code" 0
  libvirt_answers
  local name
  for name in nova_libvirt nova_compute cinder_volume; do
    check "$name" "$(of_container $name .State.Status), $(in_node systemctl is-active "kolla-$name-container.service")" "running, active"
  done
  check "QEMU's packages in nova_libvirt" "$(in_container nova_libvirt dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 'qemu*' | grep -c '^ii')" 15
  # The volume is on the store, and made elsewhere: there is nobody yet who could make it there.
  in_container nova_compute sh -c "qemu-img create -q -f qcow2 /tmp/volume 1M && cp /tmp/volume $at_nova/volume && chmod 666 $at_nova/volume"
  for _ in $(seq 60); do
    if in_container cinder_volume grep -q 'Driver initialization completed' /var/log/kolla/cinder/cinder-volume.log; then break; fi
    sleep 1
  done
  contains "Cinder's own driver on the share" "$(in_container cinder_volume cat /var/log/kolla/cinder/cinder-volume.log)" "Driver initialization completed successfully"
}

part_stock() {
  local seen
  seen=$(convert)
  contains "qemu-img create" "$seen" "Failed to lock byte 101: No locks available"
  contains "and its end" "$seen" "create 1"
  contains "qemu-img convert" "$seen" "convert 1"
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "unable to lock $at_nova/volume for metadata change: No locks available"
  in_container nova_compute sh -c 'mkdir -p /var/lib/nova/instances/before && qemu-img create -q -f qcow2 /var/lib/nova/instances/before/disk 1M'
  contains "a guest on a disk of the host" "$(guest before /var/lib/nova/instances/before/disk)" "Domain 'before' created"
  process_of before >"$work/before.pid"
}
goes_on() { check "the guest that ran before" "$(state_of before), process $(process_of before)" "running, process $(cat "$work/before.pid")"; }

part_diagnosed() {
  run "diagnose, by kolla-ansible" as_kolla deploy diagnose
  check "it ended with" "$code" 0
  check "tasks that changed something" "$(changed)" 0
  check "the verdict" "$(info .verdict)" locks_refused
  check "its QEMU" "$(info '[.packages[] | "\(.container) \(.qemu)"] | sort | join(", ")')" "cinder_volume stock, nova_compute stock, nova_libvirt stock"
  check "libvirt" "$(info '.libvirt.locks | "\(.container) \(.remember_owner) \(.dynamic_ownership) \(.own_locks)"')" "nova_libvirt true true true"
  check "whether a guest starts" "$(info '[.mounts[] | select(.container == "nova_libvirt") | .guests.start] | join(" ")')" no
  check "what keeps it from that" "$(info '[.mounts[] | select(.container == "nova_libvirt") | .guests.missing | length] | join(" ")')" 2
  contains "kolla's configuration on the host is read" "$(info '[.findings[].file] | join(" ")')" /etc/kolla/cinder-volume/nfs_shares
  local cure
  cure=$(info .cure.text)
  contains "the cure" "$cure" "put the library into the containers"
  contains "what the packages need besides" "$cure" "remember_owner = 0"
}

# library NAME: what its list of preloaded libraries has
library() { in_container "$1" cat /etc/ld.so.preload; }

# Without a build and without a change of kolla's settings: the library, in containers with stock packages.
part_library() {
  local name of_ours=/usr/lib/nfslock/libnfslock.so method=(-e nfs_lock_cure_method=library)
  run "fix by the library beside a patch set, by kolla-ansible" as_kolla deploy fix "${method[@]}"
  check "it ended with" "$code" 2
  method+=(-e nfs_lock_fix_patch_set=)
  run "fix by the library --check --diff, by kolla-ansible" as_kolla deploy fix "${method[@]}" -C -D
  contains "nova_libvirt's list then" "$(library nova_libvirt)" "No such file"
  run "fix by the library, by kolla-ansible" as_kolla deploy fix "${method[@]}"
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "$all_patched"
  contains "what became of the host" "$(became)" "$node: done"
  contains "its proof" "$(became)" "a guest started on 1 mount, WITHOUT a lock"
  for name in nova_libvirt nova_compute cinder_volume; do
    check "the list in $name" "$(library $name)" $of_ours
  done
  check "packages of ours" "$(patched nova_libvirt)$(patched nova_compute)$(patched cinder_volume)" ""
  check "what the diagnosis says of QEMU" "$(info '[.packages[] | "\(.container) \(.qemu) \(.library.state)"] | sort | join(", ")')" \
    "cinder_volume library installed, nova_compute library installed, nova_libvirt library installed"
  check "libvirt's own lock, by its settings and in truth" "$(info '.libvirt.locks | "\(.own_locks) \(.covered)"')" "true true"
  check "qemu-img in a pipe" "$(convert | paste -sd' ')" "create 0 convert 0"
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "Domain 'stored' created"
  check "it is" "$(state_of stored)" running
  contains "and says" "$(in_container nova_libvirt cat /var/log/libvirt/qemu/stored.log)" "going on WITHOUT a lock"
  goes_on
  check "guests that run without the library" "$(info '[.stale_guests[].guest] | join(" ")')" before
  run "fix by the library once more, by ansible-playbook" plain fix -e "@$work/etc/globals.d/nfslock.yml" "${method[@]}"
  check "it ended with" "$code" 0
  check "tasks that changed something" "$(changed)" 0
  virsh destroy stored >/dev/null
  run "rollback, by kolla-ansible" as_kolla deploy rollback
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "cinder_volume restored, nova_compute restored, nova_libvirt restored"
  libvirt_answers
  as_its_image nova_libvirt nova_compute cinder_volume
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "unable to lock $at_nova/volume for metadata change: No locks available"
  goes_on
}

part_patched() {
  run "fix --check --diff, by kolla-ansible" as_kolla deploy fix -C -D
  check "packages of ours then" "$(patched nova_libvirt)$(patched nova_compute)$(patched cinder_volume)" ""
  run "fix, by kolla-ansible" as_kolla deploy fix
  check "it ended with" "$code" 2
  check "containers" "$(rows)" "$all_patched"
  contains "what became of the host" "$(became)" "$node: left: patched: nova_libvirt, nova_compute, cinder_volume"
  contains "and why" "$(became)" "remember_owner = 0"
  check "nova_libvirt has of ours" "$(patched nova_libvirt)" "qemu-system-x86 qemu-utils"
  check "cinder_volume" "$(patched cinder_volume)" "qemu-utils"
  contains "qemu-img" "$(convert)" "convert 0"
  contains "its warning" "$(convert)" "image locks are refused here (No locks available); going on WITHOUT a lock"
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "for metadata change: No locks available"
  goes_on
  check "apt in nova_libvirt" "$(in_container nova_libvirt sh -c 'apt-get check >/dev/null 2>&1; echo $?')" 0
}

part_libvirt() {
  local id
  id=$(of_container nova_libvirt .Id)
  { cat "$kolla_share/ansible/roles/nova-cell/templates/qemu.conf.j2" && echo 'remember_owner = 0'; } >"$work/etc/config/nova/qemu.conf.j2"
  run "kolla-ansible reconfigure, with remember_owner = 0" kolla reconfigure --tags nova-cell
  check "it ended with" "$code" 0
  libvirt_answers
  check "nova_libvirt is the same" "$(of_container nova_libvirt .Id)" "$id"
  check "and has of ours" "$(patched nova_libvirt)" "qemu-system-x86 qemu-utils"
  goes_on
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "Domain 'stored' created"
  check "it is" "$(state_of stored)" running
  contains "and says" "$(in_container nova_libvirt cat /var/log/libvirt/qemu/stored.log)" "going on WITHOUT a lock"
  run "fix, by kolla-ansible" as_kolla deploy fix
  check "it ended with" "$code" 0
  contains "what became of the host" "$(became)" "$node: done: patched: nova_libvirt, nova_compute, cinder_volume"
  contains "its proof" "$(became)" "a guest started on 1 mount, WITHOUT a lock"
  check "the proof's guests" "$(info '[.guest_proofs[] | "\(.container) \(.result) \(.unlocked)"] | join(", ")')" "nova_libvirt works true"
  check "guests that are left of it" "$(virsh list --all --name | grep -c nfslock)" 0
  goes_on
}

part_again() {
  run "fix once more, by kolla-ansible reconfigure" as_kolla reconfigure fix
  check "it ended with" "$code" 0
  check "tasks that changed something" "$(changed)" 0
  contains "what became of the host" "$(became)" "$node: done"
  goes_on
}

part_stale() {
  run "diagnose, by kolla-ansible" as_kolla deploy diagnose
  check "guests that run the QEMU from before" "$(info '[.stale_guests[].guest] | join(" ")')" before
  contains "what is said" "$(said 'Say what is to be done')" before
  run "diagnose that wants all clean" as_kolla deploy diagnose -e nfs_lock_require_clean=true
  check "it ended with" "$code" 2
  virsh destroy before >/dev/null
  contains "the guest, started anew" "$(guest before /var/lib/nova/instances/before/disk)" "Domain 'before' created"
  process_of before >"$work/before.pid"
  run "diagnose once more" as_kolla deploy diagnose -e nfs_lock_require_clean=true
  check "guests that run the QEMU from before" "$(info '.stale_guests | length')" 0
  check "it ended with" "$code" 0
}

part_recreated() {
  local id
  id=$(of_container nova_libvirt .Id)
  printf 'nova_libvirt_extra_volumes: ["/srv:/srv:ro"]\ncinder_volume_extra_volumes: ["/srv:/srv:ro"]\n' >"$work/etc/globals.d/volumes.yml"
  run "kolla-ansible recreates nova_libvirt and cinder_volume, which get a volume more" kolla deploy-containers --tags nova-cell,cinder
  check "it ended with" "$code" 0
  libvirt_answers
  check "nova_libvirt is another" "$([ "$(of_container nova_libvirt .Id)" = "$id" ] || echo yes)" yes
  check "it has of ours" "$(patched nova_libvirt)" ""
  check "nova_compute" "$(patched nova_compute)" "qemu-system-x86 qemu-utils"
  goes_on
  run "diagnose, by kolla-ansible" as_kolla deploy diagnose
  check "drift" "$(info '[.drift[].container] | sort | join(" ")')" "cinder_volume nova_libvirt"
  contains "what is said" "$(said 'Say what is to be done')" "recreated"
  run "fix, by kolla-ansible" as_kolla deploy fix
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "cinder_volume patched, nova_compute unchanged, nova_libvirt patched"
  contains "what became of the host" "$(became)" "$node: done"
  check "drift" "$(info '.drift | length')" 0
  check "nova_libvirt has of ours" "$(patched nova_libvirt)" "qemu-system-x86 qemu-utils"
  goes_on
}

statd_state() { in_node sh -c 'cat /var/lib/docker/volumes/nfs_rpcbind/_data/kolla-test'; }
part_commands() {
  run "rpcbind_ensure makes nfs_rpcbind" ad_hoc rpcbind_ensure '{"mode": "container"}'
  check "it ended with" "$code" 0
  check "nfs_rpcbind" "$(of_container nfs_rpcbind .State.Status)" running
  in_node sh -c 'echo watched >/var/lib/docker/volumes/nfs_rpcbind/_data/kolla-test' >/dev/null

  run "kolla-ansible stop" kolla stop --tags nova-cell,cinder --yes-i-really-really-mean-it
  check "it ended with" "$code" 0
  check "nova_libvirt, cinder_volume, nfs_rpcbind" "$(of_container nova_libvirt .State.Status), $(of_container cinder_volume .State.Status), $(of_container nfs_rpcbind .State.Status)" "exited, exited, running"
  check "the guest's process" "$(in_node sh -c "[ -d /proc/$(cat "$work/before.pid") ] && echo is there")" "is there"
  run "fix, while they are stopped" as_kolla deploy fix
  check "it ended with" "$code" 0
  contains "what became of the host" "$(became)" "$node: nothing: "
  contains "and what was not seen" "$(became)" "nova_libvirt was not looked at: it is exited"
  check "nova_libvirt" "$(of_container nova_libvirt .State.Status)" exited

  in_node systemctl start kolla-cinder_volume-container.service
  check "cinder_volume, started by its unit, has of ours" "$(patched cinder_volume)" qemu-utils
  in_node systemctl stop kolla-cinder_volume-container.service

  run "kolla-ansible starts them again" kolla deploy-containers --tags nova-cell,cinder
  check "it ended with" "$code" 0
  libvirt_answers
  # For kolla-ansible a container that does not run is not what it wants, and it makes another.
  check "packages of ours then" "$(patched nova_libvirt)$(patched nova_compute)$(patched cinder_volume)" ""
  goes_on
  run "diagnose, by kolla-ansible" as_kolla deploy diagnose
  check "drift" "$(info '[.drift[].container] | sort | join(" ")')" "cinder_volume nova_compute nova_libvirt"

  # Another tag: the same image, with a label more.
  local name next=$tag-next
  for name in nova-libvirt nova-compute cinder-volume; do
    in_node sh -c "id=\$(docker create kolla/$name:$tag) && docker commit -c 'LABEL nfslock.next=yes' \$id kolla/$name:$next >/dev/null && docker rm \$id >/dev/null"
  done
  echo "openstack_tag: $next" >"$work/etc/globals.d/tag.yml"
  run "kolla-ansible upgrade, to another tag" kolla upgrade --tags nova-cell -e nova_compute_startup_delay=0
  check "it ended with" "$code" 0
  run "kolla-ansible makes cinder_volume from that tag" kolla deploy-containers --tags cinder
  check "it ended with" "$code" 0
  libvirt_answers
  check "nova_libvirt is of" "$(of_container nova_libvirt .Config.Image)" "kolla/nova-libvirt:$next"
  check "packages of ours then" "$(patched nova_libvirt)$(patched nova_compute)$(patched cinder_volume)" ""
  goes_on
  check "nfs_rpcbind" "$(of_container nfs_rpcbind .State.Status)" running
  run "fix, by kolla-ansible upgrade" as_kolla upgrade fix
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "$all_patched"
  contains "what became of the host" "$(became)" "$node: done"

  run "kolla-ansible prune-images" kolla prune-images --yes-i-really-really-mean-it
  check "it ended with" "$code" 0
  check "nfs_rpcbind" "$(of_container nfs_rpcbind .State.Status), state $(statd_state)" "running, state watched"
}

# All files as far as packages are concerned: modes, owners, times, sizes and links; and what is in QEMU's and in dpkg's. Left out are the times of folders
# and of dpkg's own files, which are of its last call, with the copy that it keeps of its status from before that; what libvirt finds out
# about QEMU; and the place where kolla mounts the kernel's modules.
listing='LC_ALL=C; export LC_ALL
find /usr /etc/apt /etc/dpkg /etc/qemu* /var/lib/dpkg /var/lib/apt /var/cache -xdev \( -path /usr/lib/modules -o -path /var/cache/libvirt -o -name status-old -o -name __pycache__ \) -prune -o \
  \( -type d -o -path "/var/lib/dpkg/*" \) -printf "%p %y %m %U:%G\n" -o -printf "%p %y %m %U:%G %s %T@ %l\n" 2>/dev/null | sort
find /var/lib/dpkg /var/lib/apt /usr/bin /usr/lib/*/qemu /usr/share/qemu /usr/libexec -xdev -type f ! -name status-old -print0 2>/dev/null | sort -z | xargs -0 sha256sum
ls -d /var/lib/nfslock /usr/sbin/policy-rc.d /etc/ld.so.preload 2>/dev/null || true'
# as_its_image NAME…: compares a container's files with what its image made
as_its_image() {
  local name
  for name in "$@"; do
    in_node docker exec -u root "$name" sh -c "$listing" >"$work/$name.after"
    in_node docker run --rm --network none --user root --entrypoint sh "$(of_container "$name" .Image)" -c "$listing" >"$work/$name.image"
    diff "$work/$name.image" "$work/$name.after" >"$logs/$name.diff" || true
    check "files of $name, of $(wc -l <"$work/$name.image") lines, that are not the image's" "$(grep -c '^[<>]' "$logs/$name.diff")" 0
  done
}

part_rolled_back() {
  run "rollback, by kolla-ansible" as_kolla deploy rollback
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "cinder_volume restored, nova_compute restored, nova_libvirt restored"
  libvirt_answers
  as_its_image nova_libvirt nova_compute cinder_volume
  check "what this host keeps" "$(in_node find /var/lib/nfslock -type f ! -name lock ! -name rpcbind.json)" ""
  goes_on
  contains "qemu-img" "$(convert)" "Failed to lock byte 100: No locks available"
}

part_plain() {
  virsh destroy stored >/dev/null
  contains "a guest on the store, with stock QEMU" "$(guest stored "$at_nova/volume")" "Failed to lock byte 100"
  run "diagnose, by ansible-playbook" plain diagnose -e "@$work/etc/globals.d/nfslock.yml"
  check "the verdict" "$(info .verdict)" locks_refused
  check "libvirt's own lock" "$(info '.libvirt.locks.own_locks')" false
  lacks "the cure" "$(info .cure.text)" remember_owner
  run "fix --check, by ansible-playbook" plain fix -e "@$work/etc/globals.d/nfslock.yml" --check
  check "packages of ours then" "$(patched nova_libvirt)" ""
  run "fix, by ansible-playbook" plain fix -e "@$work/etc/globals.d/nfslock.yml"
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "$all_patched"
  contains "what became of the host" "$(became)" "$node: done: rpcbind and rpc.statd answer; patched: nova_libvirt, nova_compute, cinder_volume"
  contains "its proof" "$(became)" "a guest started on 1 mount, WITHOUT a lock"
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "Domain 'stored' created"
  goes_on
  run "fix once more, by ansible-playbook" plain fix -e "@$work/etc/globals.d/nfslock.yml"
  check "tasks that changed something" "$(changed)" 0
  run "rollback, by ansible-playbook" plain rollback
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "cinder_volume restored, nova_compute restored, nova_libvirt restored"
  libvirt_answers
  run "fix, by ansible-playbook" plain fix -e "@$work/etc/globals.d/nfslock.yml"
  check "it ended with" "$code" 0
}

# What is left of all that when the containers are gone, and when ours is taken back as well.
part_destroyed() {
  virsh destroy stored >/dev/null
  run "kolla-ansible destroy, while a guest runs" kolla destroy --yes-i-really-really-mean-it
  check "it ended with" "$code" 2
  virsh destroy before >/dev/null
  run "kolla-ansible destroy" kolla destroy --yes-i-really-really-mean-it
  check "it ended with" "$code" 0
  check "containers that are left" "$(names)" "kolla_toolbox nfs_rpcbind nova_conductor"
  check "volumes that are left, one with a share mounted in it" "$(in_node docker volume ls -q | sort | paste -sd' ')" "cinder nfs_rpcbind"
  check "nfs_rpcbind" "$(of_container nfs_rpcbind .State.Status), state $(statd_state)" "running, state watched"
  check "its unit" "$(in_node systemctl is-active nfslock-nfs_rpcbind.service)" active
  check "units of kolla's that are left" "$(in_node find /etc/systemd/system -name 'kolla-*-container.service')" ""
  check "what is kept for containers that are gone" "$(in_node ls /var/lib/nfslock/baseline | paste -sd' ')" "cinder_volume nova_compute nova_libvirt"
  run "diagnose, where nothing of kolla is left" plain diagnose
  check "it ended with" "$code" 0
  check "the verdict" "$(info .verdict)" ok
  run "rpcbind_ensure takes nfs_rpcbind back" ad_hoc rpcbind_ensure '{"state": "absent"}'
  check "it ended with" "$code" 0
  check "containers that are left" "$(names)" "kolla_toolbox nova_conductor"
  check "images of ours that are left" "$(in_node docker image ls -q 'nfslock/*')" ""
  run "rollback, where nothing of kolla is left" plain rollback
  check "it ended with" "$code" 0
  contains "what this host keeps for containers that are gone" "$(played '[.[] | select(.action == "nfs_lock_fix") | .result.warnings // [] | .[]] | join(" ")')" \
    "does not have: \"cinder_volume\", \"nova_compute\", \"nova_libvirt\""
}
names() { in_node docker ps -a --format '{{.Names}}' | sort | paste -sd' '; }

parts=(deployed stock diagnosed library kept patched libvirt again stale recreated commands rolled_back plain destroyed)
if [ $# -gt 0 ]; then
  parts=("$@")
  [ "$1" = deployed ] || cloud_up # a node that was kept
fi
for scenario in "${parts[@]}"; do
  began=$SECONDS
  printf '\n==    %s\n' "$scenario"
  "part_$scenario"
  echo "--    $((SECONDS - began)) s"
done
tally
