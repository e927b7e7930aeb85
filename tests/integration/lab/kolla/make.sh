#!/usr/bin/env bash
# Makes the folders beside it again, from kolla's and kolla-ansible's own templates on PyPI: what kolla's images are made of, and what
# kolla-ansible configures. They are kept in the repository, so that the lab needs no kolla-ansible. Two minutes; Python 3.12 and the network are all it needs.
# kolla 21.0.0 (2025.2) is the last for Debian 12, 23.0.0 (2026.2) is for Debian 13; both are for Ubuntu, too.
# usage: make.sh [VERSION…]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/ansible/venv.sh
. "$here/../../../ansible/venv.sh"
[ $# -gt 0 ] || set -- 21.0.0 23.0.0
images=('^nova-libvirt$' '^nova-compute$' '^cinder-api$' '^cinder-volume$' '^cinder-scheduler$' '^cinder-backup$' '^glance-api$')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

: >"$work/ansible.cfg" # none of the user's
for version; do
  bin=$(venv "kolla-$version" "$(python_of 3.12)" "kolla==$version" "kolla-ansible==$version" setuptools docker)
  out=$here/$version
  rm -rf "$out"
  mkdir -p "$out"
  for distribution in debian ubuntu; do
    templates=$work/$version-$distribution
    mkdir "$templates"
    (cd "$templates" && "$bin/kolla-build" --template-only --work-dir . --base "$distribution" "${images[@]}" >log 2>&1) || {
      cat "$templates/log" >&2
      exit 1
    }
    "$bin/python" "$here/read-dockerfiles.py" "$templates/docker" "$distribution" "$out"
  done

  # The templates and the defaults of their role, as the role's own tasks use them.
  cp -r "${bin%/bin}/share/kolla-ansible/ansible" "$work/ansible-$version"
  cat >"$work/ansible-$version/lab.yml" <<END
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  vars_files: [roles/nova-cell/defaults/main.yml]
  tasks:
    - ansible.builtin.template:
        src: roles/nova-cell/templates/{{ item.from }}.j2
        dest: $out/nova-libvirt/config/{{ item.to | default(item.from) }}
        mode: "0644"
      loop:
        - {from: nova-libvirt.json, to: config.json}
        - {from: libvirtd.conf}
        - {from: qemu.conf}
END
  # All that the lab sets in kolla-ansible's globals.yml; else its defaults hold.
  cat >"$work/globals.yml" <<'END'
kolla_internal_vip_address: 127.0.0.1
network_interface: lo
migration_interface_address: 127.0.0.1 # else from the host's facts
libvirt_enable_sasl: false # it wants passwords
qemu_max_files: 4096 # machines that run tests may forbid to raise limits
qemu_max_processes: 4096
END
  mkdir -p "$out/nova-libvirt/config"
  (cd "$work/ansible-$version" && HOME=$work PATH=$bin:$PATH ANSIBLE_CONFIG=$work/ansible.cfg ANSIBLE_LOCALHOST_WARNING=false \
    "$bin/ansible-playbook" -i localhost, -e @"$work/globals.yml" lab.yml >"$work/log" 2>&1) || {
    cat "$work/log" >&2
    exit 1
  }
  echo "kolla $version: $(find "$out" -type f | wc -l) files"
done
