"""The filter lock_stop, for the role nfs_lock_cure."""

from __future__ import annotations

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import inert
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_outcome import stop

DOCUMENTATION = r"""
name: lock_stop
short_description: Why the fix playbook begins no further host
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Looks at what became of the hosts before.
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
  canary:
    description: How many hosts went first. One of these that fails stops the run; with 0, only a host that went alone.
    type: int
    default: 1
  any_errors_fatal:
    description: Whether any host that fails stops the run.
    type: bool
    default: false
  max_fail_percentage:
    description: How many of the hosts so far may fail.
    type: float
    default: 100
"""

EXAMPLES = r"""
- name: Whether to go on
  ansible.builtin.debug:
    msg: "{{ hostvars | nfslock.kolla.lock_stop(ansible_play_hosts_all) }}"
"""

RETURN = r"""
_value:
  description: The reason, empty if there is none.
  type: str
"""


def lock_stop(hostvars, hosts, canary=1, any_errors_fatal=False, max_fail_percentage=100):
    ends = ((host, hostvars[host].get("nfs_lock_cure_outcome")) for host in hosts)
    ended = [(host, end) for host, end in ends if end and end.get("status") != "stopped"]
    batch = int(hostvars[ended[-1][0]].get("nfs_lock_cure_batch") or 1) if ended else 1
    return inert(stop(ended, int(canary), boolean(any_errors_fatal), float(max_fail_percentage), batch))


class FilterModule:
    def filters(self):
        return {"lock_stop": lock_stop}
