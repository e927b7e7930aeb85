"""The filter lock_outcomes, for the role nfs_lock_cure."""

from __future__ import annotations

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import inert
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_outcome import outcomes

DOCUMENTATION = r"""
name: lock_outcomes
short_description: What became of each host in a run of the fix playbook
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - One line for each host, those that want a person first.
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
"""

EXAMPLES = r"""
- name: What became of the hosts
  ansible.builtin.debug:
    msg: "{{ (hostvars | nfslock.kolla.lock_outcomes(ansible_play_hosts_all)).lines }}"
"""

RETURN = r"""
_value:
  description: C(lines), and C(bad), for each host that is to fail why.
  type: dict
"""


def lock_outcomes(hostvars, hosts):
    return inert(outcomes(lambda host: hostvars[host], list(hosts)))


class FilterModule:
    def filters(self):
        return {"lock_outcomes": lock_outcomes}
