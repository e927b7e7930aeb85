#!/usr/bin/env bash
# One run of rpcbind_ensure on a node through real Ansible, over real ssh; prints the module's result. The node needs no network:
# ssh speaks to an sshd that the engine starts in it. usage: ansible.sh NODE ARGUMENTS_AS_JSON [PLAYBOOK]
# _ansible_check_mode and _ansible_diff become --check and --diff. With a playbook of the collection's the arguments are extra variables, the node is in
# kolla's groups compute and cinder-volume, and what is printed is a list of all its results.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
node=$1 arguments=$2 playbook=${3:-}
# shellcheck source=tests/ansible/venv.sh
. "$top/tests/ansible/venv.sh"
if ! newest_python 3.11; then
  echo "cannot run Ansible: python3.11 or newer with its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2
  exit 1
fi
bin=$(venv "unit-$core-py$version" "$python" "ansible-core==$core" pytest==9.2.0)
command -v ssh >/dev/null || "$here/../apt-install.sh" openssh-client >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
docker exec -i "$node" sh -c 'ssh-keygen -A >/dev/null; mkdir -p /run/sshd /root/.ssh && chmod 700 /root/.ssh && cat >/root/.ssh/authorized_keys' <"$work/key.pub"
# While the node still boots, its own ssh.service may come, go, and take /run/sshd along.
cat >"$work/connect" <<END
#!/bin/sh
exec docker exec -i $node sh -c 'mkdir -p /run/sshd && exec /usr/sbin/sshd -i'
END
chmod 700 "$work/connect"
mkdir -p "$work/ansible_collections/nfslock"
ln -s "$top" "$work/ansible_collections/nfslock/kolla"
cat >"$work/inventory" <<END
[cinder-volume]
$node
[compute]
$node ansible_connection=ssh ansible_user=root ansible_ssh_private_key_file=$work/key ansible_ssh_common_args='-F none -o ProxyCommand=$work/connect -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'
END
: >"$work/ansible.cfg" # none of the user's
options=()
for option in check_mode:--check diff:--diff; do
  [ "$(jq -r "._ansible_${option%:*}" <<<"$arguments")" != true ] || options+=("${option#*:}")
done
command=("$bin/ansible" -i "$work/inventory" "$node" "${options[@]}" -m nfslock.kolla.rpcbind_ensure
  -a "$(jq -c '{state: "present"} + with_entries(select(.key | startswith("_ansible_") | not))' <<<"$arguments")")
[ -z "$playbook" ] || command=("$bin/ansible-playbook" -i "$work/inventory" "${options[@]}" "nfslock.kolla.$playbook"
  -e "$(jq -c '{nfs_lock_hosts: "compute:cinder-volume"} + with_entries(select(.key | startswith("_ansible_") | not))' <<<"$arguments")")
# A failed module is a result, too.
HOME=$work PATH=$bin:$PATH ANSIBLE_CONFIG=$work/ansible.cfg ANSIBLE_COLLECTIONS_PATH=$work ANSIBLE_SSH_CONTROL_PATH_DIR=$work ANSIBLE_SSH_RETRIES=3 ANSIBLE_LOCALHOST_WARNING=false \
  ANSIBLE_CALLBACK_PLUGINS=$top/tests/ansible/callback ANSIBLE_CALLBACKS_ENABLED=record ANSIBLE_LOAD_CALLBACK_PLUGINS=true RECORD_FILE=$work/record \
  ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS=ignore "${command[@]}" >"$work/out" 2>&1 || true
if [ ! -s "$work/record" ]; then
  cat "$work/out" >&2
  exit 1
fi
if [ -n "$playbook" ]; then
  cat "$work/out" >&2
  jq -c -s . "$work/record"
  exit
fi
# Newer cores keep "failed" out of what a callback gets.
jq -c '.result + {failed: (.status == "failed")}' "$work/record"
