"""The filter lock_cure, for the role nfs_lock_cure."""

from __future__ import annotations

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import cure, inert

DOCUMENTATION = r"""
name: lock_cure
short_description: The smallest cure for file locks on a host
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Tells from a result of M(nfslock.kolla.nfs_lock_info) what the fix playbook does on a host.
  - What comes from hosts is never taken for a template.
options:
  _input:
    description: The result of M(nfslock.kolla.nfs_lock_info).
    type: dict
    required: true
  whole:
    description: What the filter C(nfslock.kolla.lock_fleet) returned.
    type: dict
    required: true
  patch:
    description: When QEMU is to be patched.
    type: str
    choices: [needed, always, never]
    default: needed
  rpcbind:
    description: When rpcbind and rpc.statd are to be seen to.
    type: str
    choices: [auto, always, never]
    default: auto
  mounts_nfs:
    description: Whether the host is one that mounts NFS for guests or volumes.
    type: bool
    default: true
  runs_guests:
    description: Whether nova_libvirt is to run on the host, so that one that is stopped is missed.
    type: bool
    default: true
  given:
    description: Whether there is a patch set. Without one what needs it is left to a person, or gets the library.
    type: bool
    default: true
  before:
    description: The last plan that this filter made in this run, of which the first was made before anything was changed.
    type: dict
  disabled:
    description: Whether an earlier run left nova-compute disabled on the host.
    type: bool
    default: false
  method:
    description: How QEMU is to go on without locks. C(auto) is the library unless there is a patch set.
    type: str
    choices: [auto, library, packages]
    default: auto
"""

EXAMPLES = r"""
- name: The smallest cure for this host
  ansible.builtin.debug:
    msg: "{{ nfs_lock_info_result | nfslock.kolla.lock_cure(hostvars | nfslock.kolla.lock_fleet(ansible_play_hosts_all)) }}"
"""

RETURN = r"""
_value:
  description:
    - C(method), by which of both ways. C(rpcbind) and C(patch), what is to be done, each with C(…_why); C(guests), whether locks are refused to guests, too.
    - C(left) and C(look), what a person has to see to; C(known), what of it failed before anything was changed; C(todo) and C(say).
    - C(needs), all that is not as it should be, whether a module mends it or a person; empty if the host needs nothing.
  type: dict
"""


def lock_cure(info, whole, patch="needed", rpcbind="auto", mounts_nfs=True, runs_guests=True, given=True, before=None, disabled=False, method="auto"):
    wants = {"mounts_nfs": mounts_nfs, "runs_guests": runs_guests, "given": given, "disabled": disabled}
    return inert(cure(info, whole, str(patch), str(rpcbind), before=before, method=str(method), **{name: boolean(value) for name, value in wants.items()}))


class FilterModule:
    def filters(self):
        return {"lock_cure": lock_cure}
