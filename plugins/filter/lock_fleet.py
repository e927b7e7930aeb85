"""The filter lock_fleet, for the role nfs_lock_cure."""

from __future__ import annotations

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import fleet, inert

DOCUMENTATION = r"""
name: lock_fleet
short_description: What only the results of nfs_lock_info of all hosts together tell
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Whether NFS is mounted with version 3 anywhere, and which stores refuse locks to cinder_volume.
  - What comes from hosts is never taken for a template.
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  stores:
    description: Names of the hosts of cinder_volume, whether they are among I(hosts) or not.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: What all hosts together tell
  ansible.builtin.debug:
    msg: "{{ hostvars | nfslock.kolla.lock_fleet(ansible_play_hosts_all) }}"
"""

RETURN = r"""
_value:
  description:
    - C(nfsv3), where, or empty. C(refused), for each such store where. C(squashed), at which of these root may not write.
    - C(unseen), which of the stores' hosts have no result.
  type: dict
"""


def lock_fleet(hostvars, hosts, stores=()):
    return inert(fleet(((host, hostvars[host].get("nfs_lock_info_result")) for host in hosts), stores))


class FilterModule:
    def filters(self):
        return {"lock_fleet": lock_fleet}
