#!/usr/bin/env bash
# The main job from start to end, shown: the failure and its diagnosis, and its two cures. First the library, which needs no build: the plan, the fix with a
# guest for a proof, the second run, the way back. Then packages rebuilt from the distribution's source, the same way, and the report.
# It prepares a fresh Debian or Ubuntu machine by itself; images and rebuilt packages are kept for the next time. The store is a filesystem of FUSE that
# refuses locks: over real NFSv3 what refuses them at once is a dead rpc.statd, and the cure for that is rpcbind_ensure, on the machine itself.
# The program that runs guests takes more than the demo's time to compile. With a set that has it for Debian 12, as host-profile.sh bookworm builds it,
# guests are part of the packages' half, too. usage: [NFSLOCK_HOST_SET=FOLDER] demo.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab
began=$SECONDS
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() {
  printf '$ %s\n' "$*"
  "$@"
}
# fails COMMAND…: shows a command that has to fail
fails() {
  printf '$ %s\n' "$*"
  if "$@"; then
    echo "this was to fail" >&2
    exit 1
  fi
}

say "1. an engine, kolla's containers, and a store that refuses locks"
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh
started=$SECONDS
$lab/up.sh --locks fine
{ read -r volumes && read -r guests; } < <($lab/store.sh)
show docker ps --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'
show docker exec cinder_volume df -hT "$volumes"

# The collection under its own name, and Ansible in a folder of its own.
. tests/ansible/venv.sh
tests/integration/apt-install.sh python3-venv
ansible=$(venv demo "$(python_of 3)" 'ansible-core>=2.15')
export PATH=$ansible:$PATH
collections=$(mktemp -d)
trap 'rm -rf "$collections"; $lab/down.sh; $lab/engine.sh down' EXIT
mkdir -p "$collections/ansible_collections/nfslock"
ln -s "$PWD" "$collections/ansible_collections/nfslock/kolla"
export ANSIBLE_COLLECTIONS_PATH=$collections ANSIBLE_NOCOWS=1
inventory=$collections/inventory
cat >"$inventory" <<END
[compute]
localhost ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"
[cinder-volume]
localhost
END
# This machine's own rpcbind is none of the demo's business; and as no filesystem of NFS's is mounted, the paths are named.
all=(-i "$inventory" -e nfs_lock_cure_rpcbind=never -e "{\"nfs_lock_info_paths\": [\"$volumes\", \"$guests\"]}")
[ -z "${DOCKER_HOST:-}" ] || all+=(-e nfs_lock_fix_engine_socket="${DOCKER_HOST#unix://}" -e nfs_lock_info_engine_socket="${DOCKER_HOST#unix://}")
report=$PWD/dist/demo

image() { docker exec cinder_volume sh -c "cd $volumes; truncate -s 1M $1.raw; qemu-img create -f qcow2 $1.qcow2 1M && qemu-img convert -f raw -O qcow2 $1.raw $1-converted.qcow2"; }

say "2. the stock QEMU cannot make an image where locks are refused"
fails image before

say "3. the diagnosis: what is wrong, where, and the smallest cure. Nothing is changed"
show ansible-playbook nfslock.kolla.diagnose "${all[@]}"

say "4. check mode: what a run would do. The library takes no build and replaces no package"
show ansible-playbook nfslock.kolla.fix "${all[@]}" --check --diff

say "5. the fix, only where locks are refused, and its proof: images on each mount, and a guest that libvirt starts"
show ansible-playbook nfslock.kolla.fix "${all[@]}"
show docker exec cinder_volume cat /etc/ld.so.preload

say "6. it works. In a pipe qemu-img says nothing, for callers that take any word for a failure; it says that there is no lock where it is asked to"
show image after
show docker exec -e NFSLOCK_WARN=1 cinder_volume qemu-img info "$volumes/after.qcow2"

say "7. a second run changes nothing"
show ansible-playbook nfslock.kolla.fix "${all[@]}"

say "8. the way back: both files are gone, and the failure is as before"
show ansible-playbook nfslock.kolla.rollback "${all[@]}"
fails image again
echo
echo "that was the library's half, $((SECONDS - started)) s with the images there"

say "9. the other cure: packages rebuilt from the distribution's source"
set=${NFSLOCK_HOST_SET:-}
[ -n "$set" ] || set=$($lab/patch-set.sh | tail -1)
echo "patch set: $set"
ours=("${all[@]}" -e nfs_lock_fix_patch_set="$set")
[ -n "${NFSLOCK_HOST_SET:-}" ] || ours+=(-e '{"nfs_lock_info_containers": ["cinder_api", "cinder_volume", "cinder_scheduler"]}')
show ansible-playbook nfslock.kolla.fix "${ours[@]}" --check --diff

if [ -z "${NFSLOCK_HOST_SET:-}" ]; then
  say "10. the fix for volumes, and the report. Guests would need their own program rebuilt (a set of the profile host), and libvirt's own lock off"
  show ansible-playbook nfslock.kolla.fix "${ours[@]}" -e nfs_lock_report_dir="$report"
else
  say "10. the fix. It says what libvirt still lacks"
  fails ansible-playbook nfslock.kolla.fix "${ours[@]}"
  say "    that is set in kolla-ansible's configuration, and deployed; then a guest starts"
  show tests/integration/testdata/bin/reconfigure nova_libvirt qemu.conf 'remember_owner = 0'
  show ansible-playbook nfslock.kolla.fix "${ours[@]}" -e nfs_lock_report_dir="$report"
fi
show image patched
show cat "$report/nfs-lock-report.md"

say "11. the way back: the packages from before, and the failure from before"
show ansible-playbook nfslock.kolla.rollback "${ours[@]}"
fails image again
say "done in $((SECONDS - began)) s. The report as a page: $report/nfs-lock-report.html"
