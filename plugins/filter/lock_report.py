"""The filter lock_report, for the role nfs_lock_report."""

from __future__ import annotations

import json

from ansible.errors import AnsibleFilterError
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import collect
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_markdown import markdown
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_page import page

DOCUMENTATION = r"""
name: lock_report
short_description: A report on file locks, from the results of nfs_lock_info on many hosts
version_added: 0.1.0
author:
  - The nfslock developers (@nfslock)
description:
  - Puts the results of M(nfslock.kolla.nfs_lock_info), and of M(nfslock.kolla.nfs_lock_fix) where it ran, into one report.
  - The same results give the same bytes. What comes from hosts is escaped for the form that is asked for.
  - The role C(nfslock.kolla.nfs_lock_report) uses it; there is little reason to call it otherwise.
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts. A host without a result is in the report as well.
    type: list
    elements: str
    required: true
  form:
    description: What to make.
    type: str
    choices: [html, json, md]
    required: true
  variable:
    description: The variable in which each host's result of nfs_lock_info is registered.
    type: str
    default: nfs_lock_info_result
  fix_variable:
    description: The same for nfs_lock_fix. It may be undefined.
    type: str
    default: nfs_lock_fix_result
  time:
    description: What the report says of its time. Nothing if empty.
    type: str
    default: ""
  template:
    description: Jinja2 template of the page, for I(form=html).
    type: str
  style:
    description: Its CSS.
    type: str
  script:
    description: Its JavaScript.
    type: str
"""

EXAMPLES = r"""
- name: The report as JSON
  ansible.builtin.debug:
    msg: "{{ hostvars | nfslock.kolla.lock_report(ansible_play_hosts_all, 'json') }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: str
"""


def lock_report(hostvars, hosts, form, variable="nfs_lock_info_result", fix_variable="nfs_lock_fix_result", time="", template="", style="", script=""):
    report = collect(hostvars, list(hosts), variable, fix_variable, time)
    if form == "json":
        return json.dumps(report, ensure_ascii=False, indent=2) + "\n"
    if form == "md":
        return markdown(report)
    if form == "html":
        return page(report, str(template), str(style), str(script))
    raise AnsibleFilterError(f"cannot make a report of the form {form!r}: html, json and md are known")


class FilterModule:
    def filters(self):
        return {"lock_report": lock_report}
