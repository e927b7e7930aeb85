"""The lines for kolla-ansible that bind the library into containers: from what the operator has, without input or output.

kolla-ansible's lists of volumes do not merge: a line in globals.d takes the place of what stands in roles, in the inventory and in files
before it, on all hosts. So each line here has the operator's volumes and ours, as text where they are a list, and as his expression where
they are one. Where that cannot be done without dropping something of his, nothing is written for that service, and it is said what he can
do. Read in kolla-ansible 21, 22 and 23: kolla_ansible/ansible.py, and defaults/main.yml of the roles.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import yaml

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import some
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import flag, row_of, rows_of, text

MARK = "# Written by nfslock.kolla.nfs_lock_keep, for review."
FILE = "nfslock.yml"  # in globals.d
SUFFIXES = (".yml", ".yaml", ".json")  # what kolla-ansible reads there

FOLDER = "/var/lib/nfslock/preload"  # on each host
PLACES = {"/usr/lib/nfslock": FOLDER, "/etc/ld.so.preload": f"{FOLDER}/ld.so.preload"}
VOLUMES = [f"{source}:{place}:ro" for place, source in PLACES.items()]

# Each service: what kolla-ansible takes where nobody sets its variable, and the group of the hosts that are to run it.
SERVICES = {
    "nova_libvirt": ("nova_extra_volumes", "compute"),
    "nova_compute": ("nova_extra_volumes", "compute"),
    "cinder_volume": ("cinder_extra_volumes", "cinder-volume"),
    "cinder_backup": ("cinder_extra_volumes", "cinder-backup"),
    "cinder_api": ("cinder_extra_volumes", "cinder-api"),
    "cinder_scheduler": ("cinder_extra_volumes", "cinder-scheduler"),
    "glance_api": ("glance_extra_volumes", "glance-api"),
    "ironic_conductor": ("ironic_extra_volumes", "ironic-conductor"),
}

# kolla-ansible's own values, which count least.
DEFAULTS = {
    "default_extra_volumes": [],
    **{wide: "{{ default_extra_volumes }}" for wide, _group in SERVICES.values()},
    **{f"{service}_extra_volumes": "{{ %s }}" % wide for service, (wide, _group) in SERVICES.items()},
}

ADD = f"Add these two to it there: {', '.join(VOLUMES)}"

# States of the library in a container that runs, as nfs_lock_info has them, with which neither file comes from the host.
UNBOUND = ("none", "installed", "old")


class Odd:
    """A value that is neither a text nor a list of texts, and why nothing can be made of it."""

    def __init__(self, why):
        self.why = why

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


class Refused(Exception):
    """Why no line is written for a service, and the way out."""


def variable_of(service):
    return f"{service}_extra_volumes"


def volume_of(item):
    """(source, place) of a volume as kolla-ansible writes it; None of what is none, as an empty one."""
    parts = item.split(":") if isinstance(item, str) else []
    return (posixpath.normpath(parts[0]), posixpath.normpath(parts[1])) if len(parts) in (2, 3) and parts[0] and parts[1] else None


def ours_in(items):
    """Which of our two volumes are among these, whatever else is said of them."""
    there = {volume_of(item) for item in items}
    return [volume for volume in VOLUMES if volume_of(volume) in there]


def conflict_in(items):
    """The first volume that takes a place of ours, or lies in it, and is not ours."""
    for item in items:
        volume = volume_of(item)
        if volume and volume not in [volume_of(one) for one in VOLUMES]:
            if volume[1] in PLACES or any(volume[1].startswith(place + "/") for place in PLACES):
                return item
    return None


def expression_of(value):
    """What stands between the braces of a text that is one expression as a whole; None where it is anything else."""
    inner = value.strip()
    if not (inner.startswith("{{") and inner.endswith("}}")) or inner.count("{{") > 1 or inner.count("}}") > 1 or "{%" in inner or "{#" in inner:
        return None
    inner = inner[2:-2]
    inner = inner[1:] if inner[:1] in ("-", "+") else inner
    inner = inner[:-1] if inner.endswith("-") else inner
    return inner.strip() or None


def added(value, where):
    """The operator's value with ours behind it."""
    if isinstance(value, list):
        there = ours_in(value)
        return [item or "" for item in value] + [volume for volume in VOLUMES if volume not in there]
    expression = expression_of(value) if isinstance(value, str) else None
    if expression is None:
        raise Refused(f"{where} is neither a list nor one template expression. Make it a list, or: {ADD}")
    return "{{ (%s) + [%s] }}" % (expression, quoted())


def quoted():
    return ", ".join(f"'{volume}'" for volume in VOLUMES)


def found_in(results):
    """{service: hosts} of the containers that nfs_lock_info saw."""
    found = {}
    for host, info in results.items():
        for row in rows_of(info, "packages") if isinstance(info, Mapping) else ():
            if text(row, "container") in SERVICES:
                found.setdefault(text(row, "container"), []).append(host)
    return found


def services_of(wanted, found, groups, own):
    """The services that lines are for: those that are asked for; else those whose containers were seen, or, before the first deployment, whose groups have
    hosts; and those that have a line already, as their hosts may only be away."""
    if wanted:
        return [service for service in SERVICES if service in wanted]
    seen = set(found) or {service for service, (_wide, group) in SERVICES.items() if groups.get(group)}
    return [service for service in SERVICES if service in seen or variable_of(service) in own]


def members_of(service, found, groups):
    """The hosts that run it, or are to."""
    return list(dict.fromkeys([*groups.get(SERVICES[service][1], ()), *found.get(service, ())]))


class Cloud:
    """What is known of a cloud, all of it plain.

    sources: (name, rank, values) in kolla-ansible's order, where a later one wins; rank is before, after or command, as it stands to our file.
    hosts: {host: values} as Ansible has them without any of these. worked: {service: {host: what the volumes come to, None where that could not be
    told}}, without our file. own: our file's values. members: {service: hosts}. placed: hosts that have the files.
    """

    def __init__(self, sources, hosts, worked, own, members, placed):
        self.sources = sources
        self.hosts = hosts
        self.worked = worked
        self.own = own
        self.members = members
        self.placed = placed

    def decide(self, service):
        """What becomes of a service: a status of added, yours or refused, the value of its line, or None, and what is said of it."""
        variable = variable_of(service)
        before = self.own.get(variable)
        worked = self.worked.get(service, {})
        try:
            rank, where, value = self._theirs(service)
            self._see(service, where, value)
            if self._has_ours(service, value):
                return row(service, "yours", None, where, f"{where} has both volumes already: no line of ours is needed", worked)
            if rank == "after":
                raise Refused(f"{where} is read after {FILE} and wins over it. {ADD}, or rename that file so that it comes before")
            if rank == "command":
                raise Refused(f"{where} wins over every file. {ADD}")
            line = "{{ %s + [%s] }}" % (SERVICES[service][0], quoted()) if rank == "none" else added(value, where)
            if before is None:
                self._see_files(service)
        except Refused as refused:
            kept = before if isinstance(before, (str, list)) else None
            stays = " The line from before stays." if kept is not None else ""
            return row(service, "refused", kept, "", f"no line is written for {variable}: {refused}.{stays}", worked)
        return row(service, "added", line, where, shown(where, rank, worked), worked)

    def _theirs(self, service):
        """(rank, where, value) of what counts without our file."""
        variable = variable_of(service)
        for name, rank, values in reversed(self.sources):
            if variable in values:
                return rank, f"{variable} in {name}", values[variable]
        hosts = self.members[service] or list(self.hosts)
        values = {host: self.hosts.get(host, {}) for host in hosts}
        having = [host for host in hosts if variable in values[host]]
        if not having:
            return "none", SERVICES[service][0], None
        first = values[having[0]][variable]
        where = f"{variable} in the inventory"
        if len(having) == len(hosts) and all(values[host][variable] == first for host in having):
            return "before", where, first
        if all(variable in values[host] and self._has(values[host][variable]) for host in hosts):
            return "before", where, VOLUMES
        raise Refused(
            f"{where} is not the same on all hosts ({some(having)}), and a line in globals.d counts for all of them. {ADD}, for each host of {service}"
        )

    @staticmethod
    def _has(value):
        return isinstance(value, list) and len(ours_in(value)) == len(VOLUMES)

    def _see(self, service, where, value):
        """Refuses what cannot be written again, and what would end in a container that cannot be made."""
        if isinstance(value, Odd):
            raise Refused(f"{where} {value.why}. {ADD}")
        odd = next((item for item in value if isinstance(item, Odd)), None) if isinstance(value, list) else None
        if odd:
            raise Refused(f"a volume of {where} {odd.why}. {ADD}")
        conflict = conflict_in(value) if isinstance(value, list) else None
        hosts = self.worked.get(service, {})
        for host, items in hosts.items():
            if items is not None and not isinstance(items, list):
                raise Refused(f"{where} is no list on {host}. Make it one, or: {ADD}")
            conflict = conflict or conflict_in(items or ())
        if conflict:
            raise Refused(f"{where} mounts something else where the library belongs: {conflict}. Take that out")
        counts = {len(ours_in(items)) for items in hosts.values() if items is not None}
        if len(counts) > 1 or counts == {1} and not isinstance(value, list):
            raise Refused(f"{where} has the library's volumes on some hosts, or one of the two. {ADD}, on all hosts, or take them out")

    def _has_ours(self, service, value):
        hosts = [items for items in self.worked.get(service, {}).values() if items is not None]
        return self._has(value) or bool(hosts) and all(self._has(items) for items in hosts)

    def _see_files(self, service):
        lacking = [host for host in self.members[service] if host not in self.placed]
        if lacking:
            raise Refused(
                f"its hosts {some(lacking)} have not got the library, and a container that binds what is not there starts without it or, with Podman, "
                "not at all. Run this again for all of its hosts (without --limit), or take those that are gone out of the inventory"
            )


def row(service, status, value, where, say, worked):
    return {"service": service, "variable": variable_of(service), "status": status, "value": value, "where": where, "say": f"{service}: {say}",
            "volumes": {host: items for host, items in worked.items() if isinstance(items, list)}}


def shown(where, rank, worked):
    """What a line comes to: the operator's volumes by host, those that have the same together, and ours."""
    groups = {}
    for host, items in worked.items():
        groups.setdefault(None if items is None else tuple(item for item in items if item), []).append(host)
    sentences = []
    for items, hosts in groups.items():
        on = f" on {some(hosts)}" if len(groups) > 1 else ""
        sentences.append(f"what it comes to{on} is only known to kolla-ansible" if items is None else f"{', '.join(items) or 'no other volume'}{on}")
    theirs = f"what kolla-ansible takes by itself, {where}" if rank == "none" else where
    return f"the library's volumes are added to {theirs}{': ' if sentences else ''}{'; '.join(sentences)}"


HEAD = f"""{MARK}
# The playbook nfslock.kolla.keep writes it anew: nothing of yours belongs here. With -e nfs_lock_keep_state=absent it takes it away.
#
# kolla-ansible binds the library into these containers when it makes them the next time: kolla-ansible deploy (or reconfigure) -i INVENTORY
# The files have to be on every host before: the same playbook puts them into {FOLDER}.
# Each line takes the place of what stands in the inventory and in files that are read before this one, for all hosts, and so it has all of that,
# as it was when this was written, and ours. After a change there, run the playbook again.
---
"""


def written(rows):
    """The text of the file; empty where it has no line."""
    lines = []
    for one in rows:
        if one["value"] is None:
            continue
        lines.append(f"# {one['where']}, and ours" if one["where"] else "# as it was: see what nfslock.kolla.keep says")
        if isinstance(one["value"], list):
            lines += [f"{one['variable']}:", *(f"  - {scalar(item)}" for item in one["value"])]
        else:
            lines.append(f"{one['variable']}: {scalar(one['value'])}")
    return HEAD + "\n".join(lines) + "\n" if lines else ""


def scalar(value):
    return yaml.safe_dump(value, default_style='"', width=1 << 20, allow_unicode=True).rstrip("\n")


def held(info):
    """Why the files have to stay on a host: containers that have them bound, or may have. Empty where nothing keeps them."""
    if not isinstance(info, Mapping) or not isinstance(info.get("packages"), list) or flag(info, "failed") or flag(info, "unreachable"):
        return "which containers have it bound could not be told, as the host was not looked at"
    rows = rows_of(info, "packages")
    bound = [text(one, "container") for one in rows if text(row_of(one, "library"), "state") == "bound"]
    if bound:
        return f"{some(bound)} {'has' if len(bound) == 1 else 'have'} it bound: deploy without the volumes first, then run this again"
    unclear = [text(one, "container") for one in rows if text(one, "state") != "running" or text(row_of(one, "library"), "state") not in UNBOUND]
    if unclear:
        has = "has" if len(unclear) == 1 else "have"
        return f"whether {some(unclear)} {has} it bound could not be told: start what does not run, or make it anew without it"
    return ""
