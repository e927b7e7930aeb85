"""The filter lock_proof, for the role nfs_lock_cure."""

from __future__ import annotations

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import inert
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_proof import proof

DOCUMENTATION = r"""
name: lock_proof
short_description: What the proof of nfs_lock_info says against a host that was cured
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Reads the rows that the option I(prove) of M(nfslock.kolla.nfs_lock_info) makes.
  - What comes from hosts is never taken for a template.
options:
  _input:
    description: The result of M(nfslock.kolla.nfs_lock_info) with I(prove).
    type: dict
    required: true
  plan:
    description: What the filter C(nfslock.kolla.lock_cure) returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Whether QEMU works
  ansible.builtin.debug:
    msg: "{{ nfs_lock_info_result | nfslock.kolla.lock_proof(nfs_lock_cure_plan) }}"
"""

RETURN = r"""
_value:
  description: C(against), sentences, none if all is well; C(say), what was done and seen.
  type: dict
"""


def lock_proof(info, plan):
    return inert(proof(info, plan))


class FilterModule:
    def filters(self):
        return {"lock_proof": lock_proof}
