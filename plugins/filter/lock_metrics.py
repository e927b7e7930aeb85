"""The filter lock_metrics, for the role nfs_lock_report."""

from __future__ import annotations

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_metrics import metrics, unchanged

DOCUMENTATION = r"""
name: lock_metrics
short_description: A host's result of nfs_lock_info as a textfile of Prometheus's node_exporter
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Makes the text of the metrics that the README of the role C(nfslock.kolla.nfs_lock_report) lists. No series is in it twice.
  - With I(old) it tells instead whether that text says the same but for times.
options:
  _input:
    description: The result of M(nfslock.kolla.nfs_lock_info).
    type: dict
    required: true
  time:
    description: When the host was looked at, in seconds since 1970.
    type: float
    required: true
  old:
    description: A text that this filter made before.
    type: str
"""

EXAMPLES = r"""
- name: The metrics of this host
  ansible.builtin.debug:
    msg: "{{ nfs_lock_info_result | nfslock.kolla.lock_metrics(now().timestamp()) }}"
"""

RETURN = r"""
_value:
  description: The text or, with I(old), whether nothing but times differs.
  type: raw
"""


def lock_metrics(result, time, old=None):
    text = metrics("", result, time)
    return text if old is None else unchanged(str(old), text)


class FilterModule:
    def filters(self):
        return {"lock_metrics": lock_metrics}
