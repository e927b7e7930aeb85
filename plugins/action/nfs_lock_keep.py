"""Writes the file of globals.d by which kolla-ansible binds the library into containers, on the controller and for all hosts at once.

What the operator has is read where kolla-ansible reads it, and in its order: globals.yml, globals.d, what is given by -e, and below all of
these what each host has in the inventory. Our own file is left out of that, also where it is loaded, so that a second run comes to the same.
"""

from __future__ import annotations

import os
import stat

from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.parsing.splitter import parse_kv
from ansible.plugins.action import ActionBase
from ansible.vars.manager import VariableManager
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_keep import (
    DEFAULTS,
    FILE,
    MARK,
    SERVICES,
    SUFFIXES,
    Cloud,
    Odd,
    found_in,
    held,
    members_of,
    services_of,
    variable_of,
    written,
)
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_files import put

try:
    from ansible.template import is_trusted_as_template, trust_as_template  # ansible-core 2.19
except ImportError:
    is_trusted_as_template = None

    def trust_as_template(value):
        return value


ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "config": {"type": "path", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "services": {"type": "list", "elements": "str", "choices": list(SERVICES), "default": []},
}
VARIABLES = {variable_of(service): service for service in SERVICES}
KOLLAS = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in DEFAULTS.items()}
ENCRYPTED = ("AnsibleVaultEncryptedUnicode", "EncryptedString")


class ActionModule(ActionBase):

    BYPASS_HOST_LOOP = True  # once for all hosts

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        hostvars = task_vars["hostvars"]
        config = self._loader.path_dwim(options["config"])
        if not os.path.isdir(config):
            raise AnsibleActionFail(
                f"cannot find kolla-ansible's configuration: {config} is no folder; name it in nfs_lock_keep_kolla_config (its globals.yml lies there)"
            )
        path = os.path.join(config, "globals.d", FILE)
        before = read(path)
        if before and not before.startswith(MARK + "\n"):
            raise AnsibleActionFail(f"cannot write {path}: it is somebody else's, as it does not begin with {MARK!r}; rename that file")
        results = {host: known_of(hostvars, host).get("nfs_lock_info_result") for host in options["hosts"]}
        cloud, services = self._see(hostvars, task_vars.get("groups", {}), config, path if before else "", options, results)
        rows = [cloud.decide(service) for service in services]
        text = written(rows) if options["state"] == "present" else ""
        changed = text != (before or "")
        named = next((f"{one['where']} names it: take that out first" for one in rows if one["status"] == "yours"), "")
        if changed and not self._task.check_mode:
            self._put(path, text)
        return {
            "changed": changed,
            "file": path,
            "services": rows,
            "say": [one["say"] for one in rows],
            "refused": [one["say"] for one in rows if one["status"] == "refused"],
            "held": {host: held(result) or named for host, result in results.items()},
            "diff": [{"before_header": path, "after_header": path, "before": before or "", "after": text}] if changed and self._task.diff else [],
        }

    def _see(self, hostvars, groups, config, ours, options, results):
        """The cloud without our file, and the services that it is about."""
        own = self._read(ours) if ours else {}
        sources = self._sources(config)
        found = found_in(results)
        services = services_of(options["services"], found, groups, own)
        members = {service: members_of(service, found, groups) for service in services}
        raw = {}  # what each host has without files and -e; what it has with those, ours left out
        given = {name: value for _name, _rank, values in sources for name, value in values.items()}
        for host in dict.fromkeys([*options["hosts"], *(host for hosts in members.values() for host in hosts)]):
            raw[host] = variables_without(hostvars, host)
        worked = {
            service: {host: self._work_out(service, {**KOLLAS, **raw[host], **given}) for host in members[service] or options["hosts"]} for service in services
        }
        placed = {host for host in options["hosts"] if known_of(hostvars, host).get("nfs_lock_keep_placed") is True}
        plain_sources = [(name, rank, ours_of(values)) for name, rank, values in sources]
        plain_hosts = {host: ours_of(values) for host, values in raw.items()}
        return Cloud(plain_sources, plain_hosts, worked, ours_of(own), members, placed), services

    def _sources(self, config):
        """(name, rank, values) of all that kolla-ansible gives Ansible by -e, but our file, in its order."""
        folder = os.path.join(config, "globals.d")
        files = [("globals.yml", "before")]
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.endswith(SUFFIXES) and name != FILE and os.path.isfile(os.path.join(folder, name)):
                files.append((f"globals.d/{name}", "after" if name > FILE else "before"))
        sources = [(name, rank, self._read(os.path.join(config, name))) for name, rank in files if os.path.exists(os.path.join(config, name))]
        known = {os.path.realpath(os.path.join(config, name)) for name in [*(name for name, _rank in files), f"globals.d/{FILE}"]}
        for option in map(to_text, context.CLIARGS.get("extra_vars") or ()):
            if option.startswith("@"):
                if os.path.realpath(option[1:]) not in known:
                    sources.append((f"-e {option}", "command", self._read(option[1:])))
            elif option[:1] in ("[", "{"):
                sources.append(("-e {…}", "command", self._loader.load(option)))
            else:
                sources.append(("-e …=…", "command", parse_kv(option)))
        return [(name, rank, values) for name, rank, values in sources if isinstance(values, dict)]

    def _read(self, path):
        try:
            try:
                return self._loader.load_from_file(path, trusted_as_template=True) or {}
            except TypeError:  # before ansible-core 2.19
                return self._loader.load_from_file(path) or {}
        except (AnsibleError, OSError) as error:
            raise AnsibleActionFail(
                f"cannot read {path}, in which volumes of yours may stand: {str(error)[:400]}; where it is vaulted, give the password as kolla-ansible gets it"
            ) from error

    def _work_out(self, service, variables):
        """What the volumes come to on a host; None where it takes what only kolla-ansible's roles have."""
        value = variables[variable_of(service)]
        try:
            templar = self._templar.copy_with_new_env(available_variables=variables)
            worked = templar.template(value, fail_on_undefined=True)
            return [to_text(item) if item else "" for item in worked] if isinstance(worked, (list, tuple)) else to_text(worked)
        except Exception:  # the operator's own expression, which may do anything
            return None

    def _put(self, path, text):
        try:
            if not text:
                os.unlink(path)
                return
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            put(path, text, stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o644)
        except OSError as error:
            raise AnsibleActionFail(f"cannot write {path}: {error.strerror}; run this as a user who may write there") from error


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnsibleActionFail(f"cannot read {path}: {error.strerror}") from error


def known_of(hostvars, host):
    """A host's variables as they are: what came from a host is no template."""
    return hostvars.raw_get(host) if host in hostvars else {}


def variables_without(hostvars, host):
    """A host's variables without those that are given by -e, which hide what the inventory has."""
    manager = VariableManager.__new__(VariableManager)
    manager.__dict__.update(hostvars._variable_manager.__dict__)
    manager._extra_vars = {}
    return manager.get_vars(host=hostvars._inventory.get_host(host), include_hostvars=False)


def ours_of(values):
    """The services' variables among these, as plain values."""
    return {name: plain(values[name]) for name in VARIABLES if name in values}


def plain(value):
    if type(value).__name__ in ENCRYPTED:
        return Odd("is vaulted, and nothing of it may be written in plain")
    if isinstance(value, str):
        unsafe = hasattr(value, "__UNSAFE__") if is_trusted_as_template is None else not is_trusted_as_template(value)
        if unsafe and "{" in value:
            return Odd("is not to be taken for a template (!unsafe)")
        return str.__str__(value)
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return [item if item is None or isinstance(item, (str, Odd)) else Odd("is no text") for item in items]
    return Odd("is no list")
