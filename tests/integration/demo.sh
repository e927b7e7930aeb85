#!/usr/bin/env bash
# The main job from start to end, shown: the failure and its diagnosis, the plan, the fix, the second run, the way back, the report.
# It prepares a fresh Debian or Ubuntu machine by itself; images and rebuilt packages are kept for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab
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

say "1. an engine, kolla's containers, packages rebuilt from the distribution's source"
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh
set=$($lab/patch-set.sh | tail -1)
echo "patch set: $set"
$lab/up.sh --locks refused
show docker ps --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'

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
# Locks are refused by a seccomp profile here, not by a dead statd, and no NFS is mounted: the folder where Cinder would mount it stands for that. This
# machine's own rpcbind is none of the demo's business.
volumes=/var/lib/cinder/mnt
docker exec -u root cinder_volume install -d -o cinder -g cinder $volumes
extra=(-i "$inventory" -e nfs_lock_fix_patch_set="$set" -e nfs_lock_cure_rpcbind=never -e "{\"nfs_lock_info_paths\": [\"$volumes\"]}")
[ -z "${DOCKER_HOST:-}" ] || extra+=(-e nfs_lock_fix_engine_socket="${DOCKER_HOST#unix://}" -e nfs_lock_info_engine_socket="${DOCKER_HOST#unix://}")
report=$PWD/dist/demo

image() { docker exec cinder_volume sh -c "cd $volumes; truncate -s 1M $1.raw; qemu-img create -f qcow2 $1.qcow2 1M && qemu-img convert -f raw -O qcow2 $1.raw $1-converted.qcow2"; }

say "2. the stock QEMU cannot make an image where locks are refused"
fails image before

say "3. the diagnosis: what is wrong, where, and the smallest cure. Nothing is changed"
show ansible-playbook nfslock.kolla.diagnose "${extra[@]}"

say "4. check mode: what a run would do"
show ansible-playbook nfslock.kolla.fix "${extra[@]}" --check --diff

say "5. the fix, only where locks are refused, and its proof"
show ansible-playbook nfslock.kolla.fix "${extra[@]}"

say "6. it works, and says that there is no lock"
show image after

say "7. a second run changes nothing"
show ansible-playbook nfslock.kolla.fix "${extra[@]}"

say "8. the way back: the packages from before, and the failure from before"
show ansible-playbook nfslock.kolla.rollback "${extra[@]}"
fails image again

say "9. the fix once more, with the report"
show ansible-playbook nfslock.kolla.fix "${extra[@]}" -e nfs_lock_report_dir="$report"
show cat "$report/nfs-lock-report.md"
say "done. The report as a page: $report/nfs-lock-report.html"
