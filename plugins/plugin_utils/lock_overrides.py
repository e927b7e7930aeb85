"""The files below /etc/kolla/config that move Cinder and Nova to NFSv4.2, made from results of nfs_lock_info, for somebody to review.

kolla-ansible runs every one of these files through its template engine, so that an export named {{ … }} would be a program on the
deployment host. Hence nothing goes into a file that is not made of the few characters that exports and options need; whatever
else is found is named in README.md and nothing is made of it. Read in kolla-ansible: roles/cinder and nova-cell, tasks/config.yml,
and merge_configs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import Copy, flag, natural, number, rows_of, text, texts
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_markdown import code, prose

MARK = "# Written by nfslock.kolla.nfs_lock_report, for review."
WANTED = "vers=4.2"

# cinder's remotefs driver cuts a line of nfs_shares at its first space, and reads \040 as one. What begins with - would be an option of mount.
EXPORT = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):/(?:[A-Za-z0-9._/+@=,:~-]|\\040)*")
OPTIONS = re.compile(r"[A-Za-z0-9._/+@=,:-]*")
SECTION = re.compile(r"[A-Za-z0-9._-]+")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

VERSION = re.compile(r"(?:vers|nfsvers|minorversion)=.*|v[234](?:\.\d)?")
LOCAL = ("nolock", "local_lock=all", "local_lock=posix")
OVER_UDP = ("udp", "proto=udp", "proto=udp6")

# What a container has is one merged file; these are the operator's own, which go into it.
GENERATED = {"share": "/cinder-volume/nfs_shares", "cinder": "/cinder-volume/cinder.conf", "nova": "/nova-compute/nova.conf"}
FILES = {"share": ("config/nfs_shares", "config/cinder/{}/nfs_shares"), "cinder": ("config/cinder/cinder-volume.conf", "config/cinder/{}/cinder.conf"),
         "nova": ("config/nova/nova-compute.conf", "config/nova/{}/nova.conf")}


class Refused(Exception):
    """Why no file can be made of a setting, to be read by people."""


def moved(options):
    """The options with version 4.2 and locks that the server knows; all others stay as they are, and where they are."""
    if not OPTIONS.fullmatch(options):
        raise Refused(f"the options {code(options)} hold characters that a list of mount options does not need")
    kept, said = [], False
    for word in filter(None, options.split(",")):
        if word in OVER_UDP:
            raise Refused(f"the options {code(options)} ask for UDP, which NFSv4 does not have: take that out first")
        if VERSION.fullmatch(word):
            if not said:
                kept.append(WANTED)
            said = True
        elif word not in LOCAL:
            kept.append(word)
    return ",".join(kept if said else [*kept, WANTED])


def overrides(results):
    """The files, by their path below the folder for review; README.md is always among them. results has each host's nfs_lock_info, or None."""
    hosts = [Host(str(name), info) for name, info in sorted(results.items(), key=lambda item: natural(str(item[0]))) if isinstance(info, Mapping)]
    files, notes, rows = {}, [], []
    for service in FILES if any(host.uses_nfs() for host in hosts) else ():
        wanted = {}
        for host in hosts:
            try:
                before, after = host.plan(service)
            except Refused as refused:
                notes.append(f"{code(host.name)}: nothing is made of {code(host.file(service))}: {refused}.")
                wanted[host.name] = None
                continue
            if after:
                wanted[host.name] = (before, after)
        rows += place(service, wanted, files, notes)
    files["README.md"] = readme(hosts, files, rows, notes)
    return files


def place(service, wanted, files, notes):
    """One file for all hosts where all come to the same, else one for each. Returns rows for the table of files."""
    known = {name: pair for name, pair in wanted.items() if pair}
    if all(before == after for before, after in known.values()):
        return []
    together, alone = FILES[service]
    if len(known) == len(wanted) and len({frozenset(after) for _before, after in known.values()}) == 1:
        files[together] = written(service, next(iter(known.values()))[1])
        return [(together, service, list(known))]
    notes.append(f"the hosts differ in {code(GENERATED[service][1:])}, so that each has a file of its own: {differences(known, wanted)}")
    rows = []
    for name, (before, after) in known.items():
        if not HOST.fullmatch(name):
            notes.append(f"{code(name)} is no name for a folder: no file is written for it")
        elif service == "share" or before != after:  # of nfs_shares one is taken: the one for all has to go, and with it what it gave a host
            path = alone.format(name)
            files[path] = written(service, after)
            rows.append((path, service, [name]))
    if service == "share":
        notes.append("nfs_shares of one host counts only where there is none for all: each host of cinder_volume needs one then, those not written here too")
    return rows


def differences(known, wanted):
    """What each host has, those that have the same together."""
    groups = {}
    for name in wanted:
        groups.setdefault(tuple(sorted(known[name][0])) if name in known else None, []).append(name)
    return "; ".join(
        f"{', '.join(code(name) for name in names)}: "
        + ("see above" if rows is None else ", ".join(code(" ".join(filter(None, row))) for row in rows) or "nothing")
        for rows, names in groups.items()
    )


def written(service, rows):
    lines = [MARK]
    if service == "share":
        lines += [f"{export} -o {options}" for export, options in rows]
    else:
        for section, option, value in rows:
            lines += [f"[{section}]", f"{option} = {value}"]
    return "\n".join(lines) + "\n"


class Host:
    """What one host returned, as plain values."""

    def __init__(self, name, info):
        copy = Copy()
        result = copy.value({key: info[key] for key in ("settings", "mounts", "findings") if key in info})
        self.name = name
        self.cut = copy.cut
        self.settings = [{**texts(row, "service", "section", "option", "export", "options", "file"), "line": number(row, "line")}
                         for row in rows_of(result, "settings")]
        self.mounts = [texts(row, "container", "path", "source", "vers", "verdict") for row in rows_of(result, "mounts")
                       if text(row, "vers") and not flag(row, "image")]
        self.unread = [text(row, "file") for row in rows_of(result, "findings") if text(row, "kind") == "unread_config"]

    def uses_nfs(self):
        return any(row["service"] != "nova" or row["option"] for row in self.settings) or any(mount["container"] == "nova_compute" for mount in self.mounts)

    def generated(self, service):
        return [row for row in self.settings if row["service"] == service and row["file"].endswith(GENERATED[service])]

    def file(self, service):
        return next((row["file"] for row in self.generated(service)), GENERATED[service][1:])

    def plan(self, service):
        """What kolla-ansible wrote there for a service, and what it is to be: equal rows where nothing is to be done."""
        rows = self.generated(service)
        if self.cut:
            raise Refused("the host returned more than is read")
        if any(file.endswith(GENERATED[service]) for file in self.unread) or self.unread and not self.settings:
            raise Refused("the host could not read all of it")
        return self.shares(rows) if service == "share" else self.options(rows)

    def shares(self, rows):
        before, after, seen = [], [], {}
        for row in rows:
            export, options = row["export"], row["options"]
            if not EXPORT.fullmatch(export):
                raise Refused(f"the export {code(export)} in line {row['line']} holds characters that a share here may not have")
            if seen.setdefault(export, options) != options:
                raise Refused(f"{code(export)} is in it twice, with {code(seen[export])} and with {code(options)}: only you know which is meant")
            if (export, options) not in before:
                before.append((export, options))
                after.append((export, moved(options)))
        return tuple(before), tuple(after)

    def options(self, rows):
        before, after, seen = [], [], {}
        shared = any(row["section"] == "backend_defaults" and row["option"] for row in rows)
        for row in rows:
            section, option = row["section"], row["option"] or "nfs_mount_options"
            if not SECTION.fullmatch(section) or option not in ("nfs_mount_options", "nas_mount_options"):
                raise Refused(f"{code(option)} of the section {code(section)} is no option of NFS mounts")
            if not row["option"] and shared:
                continue  # an option of its own would take away those of [backend_defaults]
            if seen.setdefault((section, option), row["options"]) != row["options"]:
                raise Refused(f"{code(option)} is twice in {code(section)}: only you know which is meant")
            one = (section, option, row["options"])
            if one not in before:
                before.append(one)
                after.append((section, option, moved(row["options"])))
        return tuple(before), tuple(after)


HEAD = """# Cinder and Nova to NFSv4.2: for review

Written by nfslock.kolla.nfs_lock_report from what the hosts returned. Nothing was changed on any host, and nothing below /etc/kolla. The
folder `config` is laid out as /etc/kolla/config (`node_custom_config`) is. Only the version (`vers=4.2`) and options that make locks
local (`nolock`, `local_lock`) differ from what the hosts have; your other options are kept.
"""

STEPS = """
## Before

- The servers have to export these folders with NFSv4.2, under the same path: try `mount -t nfs -o vers=4.2 SERVER:/EXPORT /mnt` on one host.
  With vers=4.2 given, nothing falls back to another version: what cannot be mounted so is not mounted at all.
- What is mounted stays as it is until it is unmounted and mounted again, and that needs the guests with volumes there to be stopped or moved away,
  host by host.
- What stood behind a share when a volume was attached is kept with the attachment, and comes after Nova's own options: a guest with such a `vers=3`
  that is stopped and started mounts with version 3 again. After the deployment a live migration, or detaching and attaching the volume, renews it.

## Then

- Compare: `diff -ru /etc/kolla/config config`. Add the lines of a .conf file to yours where you have one: it holds nothing but the options that
  change.
- Of several nfs_shares kolla-ansible takes one, the first of: /etc/kolla/config/nfs_shares.j2, config/cinder/nfs_shares.j2, those in
  cinder/cinder-volume and cinder/HOST, and then the same without .j2. A template of yours is to be changed itself, and a file for one host
  counts only without one for all.
- Of .conf files all are merged, and the last one counts: config/cinder.conf, config/cinder/cinder-volume.conf, config/cinder/HOST/cinder.conf; nova likewise.
- Deploy: `kolla-ansible reconfigure -i INVENTORY -t cinder,nova`
- Move the guests of a host away, unmount what is left in nova_compute and cinder_volume, restart both, and look:
  `ansible HOST -b -m nfslock.kolla.nfs_lock_info`
"""

MEANING = {
    "share": "the shares of Cinder; what stands behind -o goes to Nova as well",
    "cinder": "how Cinder mounts; it never hands this on to Nova",
    "nova": "how nova_compute mounts the volumes of any share",
}


def readme(hosts, files, rows, notes):
    lines = [HEAD, "## Files", ""]
    if rows:
        lines += ["| file | what it does | made from |", "|---|---|---|"]
        lines += [f"| {code(path)} | {MEANING[service]} | {', '.join(code(name) for name in names)} |" for path, service, names in rows]
    elif any(host.settings for host in hosts):
        lines.append("None: no file is to be changed, or see below.")
    else:
        lines.append("None: no host has a configuration of NFS for Cinder or Nova.")
    own = sorted({(row["file"], row["line"], host.name) for host in hosts for row in host.settings if "/config/" in row["file"]})
    if own:
        lines += ["", "## Files of yours that say something of it today", ""]
        lines += [f"- {code(file)}, line {line}, on {code(name)}" for file, line, name in own]
    if notes:
        lines += ["", "## To be decided by you", "", *(f"- {note}" for note in notes)]
    configured = {row["export"] for host in hosts for row in host.settings if row["service"] == "share"}
    old = [(host.name, mount) for host in hosts for mount in host.mounts if not mount["vers"].startswith("4")]
    if old:
        lines += ["", "## Mounted now with another version", "", "| host | container | export | at | version | verdict |", "|---|---|---|---|---|---|"]
        for name, mount in old:
            cells = [code(name), *(code(mount[key]) for key in ("container", "source", "path")), prose(mount["vers"]), prose(mount["verdict"])]
            lines.append(f"| {' | '.join(cells)} |")
        others = sorted({mount["source"] for _name, mount in old} - configured)
        if others:
            lines += [
                "",
                f"In no nfs_shares that was found, so that these files do not move them: {', '.join(map(code, others))}. Backups are moved by "
                "`cinder_backup_mount_options_nfs` in globals.yml, what the host mounts by its /etc/fstab.",
            ]
    lines.append(STEPS if files else "")
    return "\n".join(lines).rstrip("\n") + "\n"
