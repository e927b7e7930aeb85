# shellcheck shell=bash
# shellcheck disable=SC2154 # top, work, node are the sourcing script's, the versions of pins.sh
# Sourced. The controller of a small cloud: kolla-ansible with its configuration, and plain Ansible, for one node. $work is its folder, $node the node.
# control is where kolla-ansible believes the control plane: the same machine under another name, which is asked and never deployed to.

# Where Nova and Cinder mount a share: its MD5 names the folder.
share=127.0.0.1:/volumes
hash=$(printf %s "$share" | md5sum | cut -d' ' -f1)
at_nova=/var/lib/nova-mnt/$hash
at_cinder=/var/lib/cinder/mnt/$hash

tools() {
  # shellcheck source=tests/ansible/venv.sh
  . "$top/tests/ansible/venv.sh" || return
  if ! newest_python 3.12; then
    echo "cannot run kolla-ansible: python3.12 or newer with its venv module is missing" >&2
    return 1
  fi
  kolla_bin=$(venv "kolla-ansible-$kolla_ansible-py$version" "$python" "kolla-ansible==$kolla_ansible" "ansible==$ansible") || return
  plain_bin=$(venv "unit-$core-py$version" "$python" "ansible-core==$core" pytest==9.2.0) || return
  kolla_share=${kolla_bin%/bin}/share/kolla-ansible
  "$top/tests/integration/apt-install.sh" openssh-client
}

# cloud_up: the tools, and once for each node its configuration, inventory and keys
cloud_up() {
  must 1800 tools "kolla-ansible and Ansible" tools
  tools # where they are, now that they are there
  reach
  [ ! -e "$work/etc/passwords.yml" ] || return 0 # a node that was kept
  mkdir -p "$work/etc/config/nova" "$work/collections/ansible_collections/nfslock"
  ln -sfn "$top" "$work/collections/ansible_collections/nfslock/kolla"
  : >"$work/ansible.cfg" # none of the user's
  install -m 600 "$kolla_share/etc_examples/kolla/passwords.yml" "$work/etc/"
  configure
  "$kolla_bin/kolla-genpwd" -p "$work/etc/passwords.yml"
}

# configure: globals.yml, what is to be merged into the services' own files, and the inventory
configure() {
  cat >"$work/etc/globals.yml" <<END
kolla_base_distro: debian
openstack_tag: $tag
node_config: $work/etc # the controller's, which is not /etc/kolla here
docker_registry: ""
docker_namespace: kolla
kolla_internal_vip_address: 127.0.0.1
network_interface: lo
neutron_external_interface: lo
nova_compute_virt_type: qemu # few machines that run tests have KVM
enable_nova_ssh: false
libvirt_enable_sasl: false
enable_cinder: true
enable_cinder_backend_nfs: true
enable_cinder_backup: false
nova_conductor_image_full: nfslock-lab/control:trixie # it is asked for the cells, and not deployed
# A node has this machine's kernel: no module is loaded (the list is that of kolla-ansible's role module-load), no sysctl set, and without CAP_SYS_RESOURCE no
# limit is above the machine's own.
modules: []
set_sysctl: false
default_container_dimensions: {}
nova_libvirt_default_dimensions: {}
qemu_max_processes: 4096
qemu_max_files: 4096
END
  echo "$share" >"$work/etc/config/nfs_shares"
  # Without RabbitMQ and a database the services stay up with these, and wait.
  printf '[DEFAULT]\ntransport_url = fake:/\n' | tee "$work/etc/config/nova.conf" >"$work/etc/config/cinder.conf"
  printf '[database]\nconnection = sqlite:////var/lib/cinder/cinder.sqlite\n' >>"$work/etc/config/cinder.conf"
  local group
  {
    printf '[all:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\nansible_ssh_private_key_file=%s\n' "$work/key"
    printf "ansible_ssh_common_args='-F none -o ProxyCommand=%s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'\n" "$work/connect"
    for group in compute cinder-volume baremetal; do printf '[%s]\n%s\n' "$group" "$node"; done
    for group in nova-conductor rabbitmq mariadb memcached keystone; do printf '[%s]\ncontrol\n' "$group"; done
    for group in cinder-api cinder-scheduler cinder-backup nova-compute-ironic nova-novncproxy nova-serialproxy nova-spicehtml5proxy glance-api; do printf '[%s]\n' "$group"; done
  } >"$work/inventory"
}

# reach: ssh to the node, which needs no network for that
reach() {
  [ -e "$work/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$work/key"
  docker exec -i "$node" sh -c 'ssh-keygen -A >/dev/null; mkdir -p /run/sshd /root/.ssh && chmod 700 /root/.ssh && cat >/root/.ssh/authorized_keys' <"$work/key.pub"
  printf '#!/bin/sh\nexec docker exec -i %s sh -c "mkdir -p /run/sshd && exec /usr/sbin/sshd -i"\n' "$node" >"$work/connect"
  chmod 700 "$work/connect"
}

# ansible_environment BIN COMMAND…: nothing of the user's own settings
ansible_environment() {
  local bin=$1
  shift
  env HOME="$work" PATH="$bin:$PATH" ANSIBLE_CONFIG="$work/ansible.cfg" ANSIBLE_COLLECTIONS_PATH="$work/collections" ANSIBLE_SSH_CONTROL_PATH_DIR="$work/ssh" \
    ANSIBLE_SSH_RETRIES=3 ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_NOCOLOR=1 ANSIBLE_CALLBACK_PLUGINS="$top/tests/ansible/callback" ANSIBLE_CALLBACKS_ENABLED=record \
    ANSIBLE_LOAD_CALLBACK_PLUGINS=true RECORD_FILE="$work/record" "$@"
}

# kolla COMMAND OPTION…: kolla-ansible's own command line, on the node alone
kolla() {
  local command=$1
  shift
  ansible_environment "$kolla_bin" kolla-ansible "$command" --configdir "$work/etc" -i "$work/inventory" -l "$node" "$@"
}

# plain PLAYBOOK OPTION…: a playbook of the collection's by ansible-playbook
plain() {
  local playbook=$1
  shift
  ansible_environment "$plain_bin" ansible-playbook -i "$work/inventory" -l "$node" "nfslock.kolla.$playbook" "$@"
}

# ad_hoc MODULE ARGUMENTS
ad_hoc() {
  ansible_environment "$plain_bin" ansible -i "$work/inventory" "$node" -m "nfslock.kolla.$1" -a "$2"
}

# mount_store: the share at both places, as a filesystem that refuses every lock; Nova and Cinder find it mounted already
mount_store() {
  (cd "$top" && CGO_ENABLED=0 go build -o "$work/nolocks" ./tests/integration/nolocks) || return
  docker cp -q "$work/nolocks" "$node:/usr/local/bin/nolocks" || return
  # shellcheck disable=SC2016 # for the shell in the node
  docker exec "$node" sh -ec '
    [ -e /dev/fuse ] || mknod /dev/fuse c 10 229
    mkdir -p /srv/volumes
    chmod 777 /srv/volumes
    for at in "$2" "/var/lib/docker/volumes/cinder/_data/${3#/var/lib/cinder/}"; do
      mkdir -p "$at"
      mountpoint -q "$at" || nolocks /srv/volumes "$at" "$1"
    done' - "$share" "$at_nova" "$at_cinder"
}

# deploy_cinder: the configuration and the container alone. The rest of kolla-ansible's role registers Cinder in Keystone, and makes its database in MariaDB.
deploy_cinder() {
  kolla genconfig --tags cinder || return
  # shellcheck disable=SC2016 # for the shell in the container
  docker exec "$node" docker run --rm --user root --network none -v cinder:/var/lib/cinder -v /etc/kolla/cinder-volume:/c:ro --entrypoint sh \
    "kolla/cinder-volume:$tag" -ec 'sed s,^log_dir.*,, /c/cinder.conf >/tmp/c; cinder-manage --config-file /tmp/c db sync
      mkdir -p /var/lib/cinder/mnt; chown cinder: /var/lib/cinder/*' || return
  mount_store || return
  kolla deploy-containers --tags cinder
}
