"""Writes the report on file locks, and files for review that move a cloud to NFSv4.2, on the controller and for all hosts at once.

As a template in a loop this took 25 s for 500 hosts with ansible-core 2.21: each form read every host's result again, and each value of
a result passed through the templating engine. Here the results are read once, and as they are: what a module returned is never
a template.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_files import put
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_overrides import HEAD, MARK, overrides
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import collect
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_markdown import markdown
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_page import page

ARGUMENTS = {
    "dir": {"type": "path", "default": ""},
    "overrides_dir": {"type": "path", "default": ""},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "variable": {"type": "str", "default": "nfs_lock_info_result"},
    "fix_variable": {"type": "str", "default": "nfs_lock_fix_result"},
    "time": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):

    BYPASS_HOST_LOOP = True  # once for all hosts

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        variables = (options["variable"], options["fix_variable"])
        results = {name: results_of(task_vars["hostvars"], name, variables) for name in options["hosts"]}
        folders = []
        if options["dir"]:
            folders.append(self._write_report(results, options))
        if options["overrides_dir"]:
            folders.append(self._write_overrides(results, options["overrides_dir"]))
        return {
            "changed": any(folder.changes for folder in folders),
            "files": [path for folder in folders for path in folder.files],
            "diff": [change for folder in folders for change in folder.changes if shown(change)] if self._task.diff else [],
        }

    def _write_report(self, results, options):
        report = collect(results, options["time"])
        parts = {name: self._read(f"report.{name}") for name in ("html.j2", "css", "js")}
        texts = {
            "html": page(report, parts["html.j2"], parts["css"], parts["js"]) + "\n",
            "json": json.dumps(report, ensure_ascii=False, indent=2) + "\n",
            "md": markdown(report),
        }
        folder = Folder(self._loader.path_dwim(options["dir"]), self._task.check_mode)
        for form, text in texts.items():
            folder.write(f"nfs-lock-report.{form}", text)
        return folder

    def _write_overrides(self, results, path):
        folder = Folder(self._loader.path_dwim(path), self._task.check_mode)
        deployed = os.path.realpath("/etc/kolla")
        if os.path.commonpath((os.path.realpath(folder.path), deployed)) == deployed:
            raise AnsibleActionFail(
                f"cannot write overrides into {folder.path}: they are for review, and nothing is written below /etc/kolla; name another folder"
            )
        folder.own("README.md", HEAD.split("\n", 1)[0])
        files = overrides({name: info for name, (info, _fix) in results.items()})
        folder.clear("config", MARK, files)
        for name, text in files.items():
            folder.write(name, text)
        return folder

    def _read(self, name):
        with open(self._find_needle("files", name), encoding="utf-8") as file:
            return file.read()


def results_of(hostvars, name, variables):
    """A host's results; None where there is none."""
    known = hostvars.raw_get(name) if name in hostvars else {}
    found = []
    for variable in variables:
        value = known.get(variable)
        if isinstance(value, str):  # not what a module returned, but a variable that refers to it
            value = hostvars[name].get(variable)
        found.append(value if isinstance(value, Mapping) else None)
    return found


class Folder:
    """Files that are written in one step each, and only where something differs."""

    def __init__(self, path, check_mode):
        self.path = path
        self.check_mode = check_mode
        self.files = []
        self.changes = []  # as Ansible shows differences

    def own(self, name, first):
        """Refuses a folder that holds anything and is none that was made here, which the first line of its file name tells."""
        with self._reading():
            if os.path.isdir(self.path) and os.listdir(self.path) and line_of(os.path.join(self.path, name)) != first:
                raise AnsibleActionFail(f"cannot write into {self.path}: it is not empty, and no earlier run has made it; name a folder of its own")

    def clear(self, below, first, kept):
        """Removes files of an earlier run that are not made any more. Somebody else's, which do not begin with first, are left alone."""
        with self._reading():
            for folder, _names, names in os.walk(os.path.join(self.path, below)):
                for path in (os.path.join(folder, name) for name in sorted(names)):
                    ours = not os.path.islink(path) and line_of(path) == first
                    if os.path.relpath(path, self.path) in kept:
                        if not ours:
                            raise AnsibleActionFail(f"cannot write {path}: somebody else's file is there, as it does not begin with {first!r}")
                    elif ours:
                        with open(path, encoding="utf-8", errors="replace", newline="") as file:
                            self.changes.append({"before_header": path, "after_header": path, "before": file.read(), "after": ""})
                        if not self.check_mode:
                            os.unlink(path)

    @contextlib.contextmanager
    def _reading(self):
        try:
            yield
        except OSError as error:
            raise AnsibleActionFail(f"cannot look into {self.path}: {error.filename}: {error.strerror}") from error

    def write(self, name, text):
        path = os.path.join(self.path, name)
        self.files.append(path)
        before, mode = "", None
        try:
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                before, mode = file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AnsibleActionFail(f"cannot read {path}: {error.strerror}") from error
        if (before, mode) == (text, 0o644):
            return
        self.changes.append({"before_header": path, "after_header": path, "before": before, "after": text})
        if self.check_mode:
            return
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            put(path, text)
        except OSError as error:
            raise AnsibleActionFail(f"cannot write {path}: {error.strerror}") from error


def shown(change):
    """Who reads the difference of HTML and JSON?"""
    return not change["after_header"].endswith((".html", ".json"))


def line_of(path):
    """The file's first line; None if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(4096).rstrip("\n")
    except FileNotFoundError:
        return None
