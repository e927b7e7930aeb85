"""The data of a report on file locks: what nfs_lock_info and nfs_lock_fix said of each host, put in order.

What comes from a host is not believed to have the shape that the modules document. It is copied to plain values, cut to size,
and what is no row where rows are wanted is left out. Nothing is escaped here: each form of the report does that for itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

TEXT_MAX = 4096  # characters of a text that is kept
ROWS_MAX = 2000  # rows of a list that are kept
DEPTH_MAX = 8

# Verdicts of nfs_lock_info, the worst first.
VERDICTS = (
    "rpcbind_missing",
    "statd_missing",
    "statd_dead",
    "hangs",
    "server_no_nlm",
    "callback_blocked",
    "locks_refused",
    "ofd_unsupported",
    "nolock_mount",
    "held",
    "unknown",
    "ok",
)

# What a host comes to, and how that is said: what needs a hand first, then what needs none.
STATUSES = {
    "unreachable": "unreachable",
    "failed": "failed",
    "no_result": "not looked at",
    "rpcbind": "needs rpcbind",
    "nfsv4": "needs NFSv4",
    "server": "server or network",
    "patch": "needs the library",
    "libvirt": "needs a libvirt setting",
    "drift": "lost the patch",
    "stale": "stale guests",
    "holder": "lock is held",
    "look": "unclear",
    "patched": "patched",
    "library": "library",
    "ok": "ok",
}
QUIET = ("patched", "library", "ok")

FIXES = {
    "rpcbind_ensure": "rpcbind",
    "nfsv4": "nfsv4",
    "server": "server",
    "patch": "patch",
    "libvirt": "libvirt",
    "holder": "holder",
    "look": "look",
}

# Drift with which a container has lost the patch or the library, if it counts. Of the other kind, gone, nothing is left to patch.
LOST = ("recreated", "lost", "superseded")

# What helps where locks themselves need no cure.
CURES = {
    "drift": {
        "fix": "drift",
        "text": "Run the fix again, with a patch set that is built from the versions in these containers. "
        "Where the patch is not wanted any more, nfslock.kolla.rollback has it forgotten.",
        "command": "ansible-playbook -i INVENTORY -l HOST nfslock.kolla.fix -e nfs_lock_fix_patch_set=FOLDER",
    },
    "stale": {"fix": "stale", "text": "Hard reboot these guests or live-migrate them: until then they go on with the QEMU from before.", "command": ""},
}

# What helps where it is the library that was lost.
LIBRARY_AGAIN = {
    "fix": "drift",
    "text": "Run the fix again; nfslock.kolla.keep has kolla itself put the library into each new container. "
    "Where it is not wanted any more, nfslock.kolla.rollback has it forgotten.",
    "command": "ansible-playbook -i INVENTORY -l HOST nfslock.kolla.fix",
}

# The cure where libvirt's settings tell that no guest starts, and one did.
STARTS = {"fix": "none", "text": "Nothing more is to be done: a guest started there.", "command": "", "command_known": False}

# The commands that nfs_lock_info gives as cures. A host that was taken over could hand the operator any other one to copy.
COMMANDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"ansible -i INVENTORY HOST -b -m nfslock\.kolla\.rpcbind_ensure",
        r"ansible -i INVENTORY HOST -b -m nfslock\.kolla\.nfs_lock_fix -a method=library",
        r"rpcinfo -T tcp HOST 100024 && rpcinfo -T tcp HOST 100021",
        r"ansible-playbook -i INVENTORY -l HOST nfslock\.kolla\.fix(?: -e nfs_lock_fix_patch_set=FOLDER)?",
        r"(?:(?:docker|podman) exec nova_libvirt )?virsh domstate '(?:[^'\x00-\x1f\x7f-\x9f]|'\\'')*'",
    )
)

# Columns of the matrix, in this order; others follow by name. They are only an order: which containers there are is what the results say.
FIRST_COLUMNS = (
    "host", "nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup", "cinder_api", "cinder_scheduler", "glance_api", "ironic_conductor",
)


def collect(results, time=""):
    """The whole report, of each host's results of nfs_lock_info and nfs_lock_fix. A host that gave none (None) is in it as well."""
    rows = [read_host(str(name), info, fix) for name, (info, fix) in results.items()]
    rows.sort(key=lambda row: natural(row["host"]))
    counts = dict.fromkeys(STATUSES, 0)
    for row in rows:
        counts[row["status"]] += 1
    return {
        "schema": 1,
        "time": str(time),
        "summary": {"hosts": len(rows), **counts},
        "columns": columns(rows),
        "hosts": rows,
    }


def natural(name):
    """compute10 after compute9."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.findall(r"[0-9]{1,18}|[^0-9]+", name)], name


class Copy:
    """Plain values from what a host returned: no templates, no tags, no lists without end."""

    def __init__(self):
        self.cut = False  # whether something was too long

    def value(self, value, depth=0):
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 53 else str(int(value) if abs(value) < 1 << 1024 else "a very large number")
        if isinstance(value, float):
            number = float(value)
            return number if number - number == 0 else None  # neither infinite nor NaN
        if depth == DEPTH_MAX:
            self.cut = True
            return None
        if isinstance(value, Mapping):
            self.cut |= len(value) > ROWS_MAX
            return {self.text(key): self.value(value[key], depth + 1) for key in list(value)[:ROWS_MAX]}
        if isinstance(value, (list, tuple)):
            self.cut |= len(value) > ROWS_MAX
            return [self.value(item, depth + 1) for item in value[:ROWS_MAX]]
        return self.text(value)

    def text(self, value):
        # Strings that are no Unicode, such as lone surrogates, could not be written.
        text = str(value).encode("utf-8", "replace").decode("utf-8")
        if len(text) > TEXT_MAX:
            self.cut = True
            text = text[:TEXT_MAX] + "…"
        return text


def text(row, key):
    value = row.get(key)
    return value if isinstance(value, str) else "" if value is None or isinstance(value, (dict, list)) else str(value)


def number(row, key):
    value = row.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def flag(row, key):
    return row.get(key) is True


def rows_of(row, key):
    value = row.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def row_of(row, key):
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def texts_of(row, key):
    value = row.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def texts(row, *keys):
    return {key: text(row, key) for key in keys}


def in_use(drift):
    """Whether the container's own work uses what is stock again. Older modules do not say."""
    return drift.get("counts") is not False


def loses(drift):
    """Whether with that drift a container has lost the patch or the library."""
    return text(drift, "kind") in LOST and in_use(drift)


def place_of(row):
    return text(row, "container"), text(row, "path")


def started(info):
    """Where libvirt started a guest in earnest: pairs of a container and a path. That tells more than what is known of locks."""
    return {place_of(row) for row in rows_of(info, "guest_proofs") if text(row, "result") == "works"}


def read_host(name, info, fix):
    copy = Copy()
    known = isinstance(info, Mapping)
    result = copy.value(info) if known else {}
    fixed = read_fix(copy.value(fix)) if isinstance(fix, Mapping) and fix else None
    packages = [read_packages(row) for row in rows_of(result, "packages")]
    mounts = [read_mount(row, name) for row in rows_of(result, "mounts")]
    drift = [{**texts(row, "container", "what", "kind", "was", "is", "message"), "counts": in_use(row)} for row in rows_of(result, "drift")]
    starts = started(result)
    for mount in mounts:
        if mount["cure"]["fix"] == "libvirt" and place_of(mount) in starts:
            mount["cure"] = STARTS
    row = {
        "host": name,
        "status": "",
        "verdict": verdict(result) if result.get("verdict") else "",
        "reason": text(result, "reason"),
        "evidence": texts_of(result, "evidence"),
        "cure": read_cure(row_of(result, "cure"), name),
        "containers": containers(mounts, packages, drift, starts),
        "mounts": mounts,
        "packages": packages,
        "stale_guests": [
            {"pid": number(guest, "pid"), "guest": text(guest, "guest"), "locks": number(guest, "locks"), "advice": text(guest, "advice")}
            for guest in rows_of(result, "stale_guests")
        ],
        "drift": drift,
        "findings": [
            {**texts(finding, "kind", "message", "file"), "line": number(finding, "line")} for finding in rows_of(result, "findings")
        ],
        "proofs": [
            {**texts(proof, "container", "path", "result", "step", "detail"), "unlocked": flag(proof, "unlocked")} for proof in rows_of(result, "proofs")
        ],
        "guest_proofs": [
            {**texts(proof, "container", "path", "result", "detail"), "unlocked": flag(proof, "unlocked")} for proof in rows_of(result, "guest_proofs")
        ],
        "libvirt": read_libvirt(row_of(result, "libvirt")),
        "services": {service: read_service(row_of(result, service)) for service in ("rpcbind", "statd") if service in result},
        "stuck_probes": [{"pid": number(left, "pid"), "device": text(left, "device")} for left in rows_of(result, "stuck_probes")],
        "engine": texts(row_of(result, "engine"), "name", "version", "error"),
        "took_ms": number(result, "took_ms"),
        "fix": fixed,
        "cut": copy.cut,
    }
    if row["cure"]["fix"] == "libvirt" and not without_guests(row):
        row["cure"] = next_cure(row)
    row["status"] = host_status(row, result, known)
    if row["status"] in ("unreachable", "failed"):
        failure = text(result, "msg")
        if not flag(result, "failed") and not flag(result, "unreachable"):
            wrong = "qemu-img does not work" if failing(row["proofs"]) else "guests do not start"
            failure = "the fix failed: " + fixed["msg"] if fixed and fixed["failed"] else wrong
        row["reason"] = failure or "no reason was given"
    elif row["status"] == "no_result":
        row["reason"] = "there is no result of this host: it was not asked, or could not be reached before"
    elif row["status"] == "libvirt":
        refusing = without_guests(row)
        if refusing:
            row["reason"] = "; ".join(f"no guest starts from {mount['source']}: {', '.join(mount['guests']['missing'])}" for mount in refusing)
            row["cure"] = refusing[0]["cure"]
    elif row["status"] == "drift":
        names = ", ".join(sorted({drift["container"] for drift in lost(row)}))
        row["reason"] = f"{names}: {'with the library' if of_library(row) else 'patched'} before, and stock again"
    elif row["status"] == "stale":
        row["reason"] = f"guests that run a QEMU from before it was replaced, or without the library: {len(row['stale_guests'])}"
    if row["status"] in CURES:
        row["cure"] = read_cure(LIBRARY_AGAIN if row["status"] == "drift" and of_library(row) else CURES[row["status"]], name)
    return row


def host_status(row, result, known):
    if not known:
        return "no_result"
    if flag(result, "unreachable"):
        return "unreachable"
    if flag(result, "failed") or row["fix"] and row["fix"]["failed"]:
        return "failed"
    if flag(result, "skipped") or not text(result, "verdict"):
        return "no_result"
    status = FIXES.get(row["cure"]["fix"])
    if status not in (None, "holder", "look"):
        return status
    if without_guests(row):
        return "libvirt"
    if failing(row["proofs"]) or failing(row["guest_proofs"]):
        return "failed"
    if lost(row):
        return "drift"
    if row["stale_guests"]:
        return "stale"
    if status:
        return status
    if row["verdict"] not in ("ok", "locks_refused", "ofd_unsupported"):
        return "look"  # a bad verdict without a cure is not from our module
    kinds = {packet["qemu"] for packet in row["packages"]}
    return next((kind for kind in ("library", "patched") if kind in kinds), "ok")


def failing(proofs):
    """Where QEMU did not work, though what is known of locks may be well."""
    return [proof for proof in proofs if proof["result"] in ("fails", "hangs")]


def without_guests(row):
    """Mounts from which libvirt alone lets no guest start, whatever verdict their locks have."""
    return [mount for mount in row["mounts"] if mount["cure"]["fix"] == "libvirt"]


def next_cure(row):
    """What the host needs where guests start all the same, so that libvirt needs no other setting: the cure of its worst mount besides."""
    others = [mount for mount in row["mounts"] if mount["cure"]["fix"] not in ("", "none")]
    return min(others, key=lambda mount: VERDICTS.index(mount["verdict"]), default={"cure": STARTS})["cure"]


def lost(row):
    """Of what drifted, what has lost the patch."""
    return [drift for drift in row["drift"] if loses(drift)]


def of_library(row):
    """Whether it is the library that was lost, and no patch."""
    return all(drift["what"] == "library" for drift in lost(row))


def verdict(row):
    found = text(row, "verdict")
    return found if found in VERDICTS else "unknown"


def read_cure(cure, host):
    command = text(cure, "command")
    known = any(pattern.fullmatch(command) for pattern in COMMANDS)
    if known and "virsh domstate " not in command:  # a guest may be called HOST
        command = re.sub(r"\bHOST\b", lambda _match: shlex.quote(host), command)
    return {**texts(cure, "fix", "text"), "command": command, "command_known": known}


def read_mount(row, host):
    probes = row_of(row, "probes")
    return {
        **texts(row, "container", "path", "source", "fstype", "vers", "options", "probed", "reason"),
        "image": flag(row, "image"),
        "verdict": verdict(row),
        "evidence": texts_of(row, "evidence"),
        "probes": {
            kind: {**texts(row_of(probes, kind), "result", "errno", "detail"), "ms": number(row_of(probes, kind), "ms")}
            for kind in ("ofd", "posix", "flock")
            if row_of(probes, kind)
        },
        "cure": read_cure(row_of(row, "cure"), host),
        "guests": {"start": text(row_of(row, "guests"), "start"), "missing": texts_of(row_of(row, "guests"), "missing")},
        "holders": [
            {"pid": number(holder, "pid"), **texts(holder, "program", "guest", "container", "kind", "bytes")}
            for holder in rows_of(row, "holders")
        ],
    }


def read_packages(row):
    return {
        **texts(row, "container", "id", "image", "state", "distribution", "qemu", "variant", "seccomp", "error"),
        "stock_emulators": texts_of(row, "stock_emulators"),
        "library": {
            **texts(row_of(row, "library"), "state", "sha256"),
            "current": flag(row_of(row, "library"), "current"),
            "others": texts_of(row_of(row, "library"), "others"),
        },
        "installed": [
            {**texts(packet, "name", "version"), "patched": flag(packet, "patched"), "held": flag(packet, "held")}
            for packet in rows_of(row, "installed")
        ],
    }


def read_libvirt(row):
    locks = row_of(row, "locks")
    return {
        **texts(row, "container", "detail"),
        "healthy": flag(row, "healthy"),
        "locks": {
            **texts(locks, "container", "version", "file", "lock_manager", "detail"),
            **{key: flag(locks, key) for key in ("remember_owner", "dynamic_ownership", "own_locks", "covered")},
        },
    }


def read_service(row):
    return {**texts(row, "state", "detail", "where"), "answers_ms": number(row, "answers_ms")}


def read_fix(result):
    """What nfs_lock_fix said, if it ran."""
    return {
        "failed": flag(result, "failed") or flag(result, "unreachable"),
        "changed": flag(result, "changed"),
        "msg": text(result, "msg"),
        "containers": [
            {
                **texts(row, "name", "status"),
                "error": text(row_of(row, "error"), "message"),
                "hint": text(row_of(row, "error"), "hint"),
            }
            for row in rows_of(result, "containers")
        ],
    }


def containers(mounts, packages, drift, starts):
    """One row for each container of a host, with the worst verdict of its mounts; "none" without a mount. At starts a guest was started."""
    found = {}

    def row_for(name, qemu="", variant=""):
        gone = any(row["container"] == name and loses(row) for row in drift)
        return found.setdefault(name, {"name": name, "verdict": "none", "mounts": 0, "qemu": qemu, "variant": variant, "lost": gone, "no_guest_starts": False})

    for packet in packages:
        row_for(packet["container"], packet["qemu"], packet["variant"])
    for mount in mounts:
        row = row_for(mount["container"])
        row["mounts"] += 1
        row["verdict"] = worse(row["verdict"], mount["verdict"])
        row["no_guest_starts"] |= mount["guests"]["start"] == "no" and place_of(mount) not in starts
    return sorted(found.values(), key=lambda row: order_of(row["name"]))


def worse(one, other):
    order = (*VERDICTS, "none")
    return min(one, other, key=order.index)


def order_of(name):
    return (FIRST_COLUMNS.index(name), "") if name in FIRST_COLUMNS else (len(FIRST_COLUMNS), name)


def columns(rows, most=7):
    """The matrix's columns, which are names of containers; more than most of them share the last column, named ""."""
    counts, troubled = {}, set()
    for row in rows:
        for container in row["containers"]:
            counts[container["name"]] = counts.get(container["name"], 0) + 1
            if container["verdict"] not in ("ok", "none") or container["lost"]:
                troubled.add(container["name"])
    names = sorted(counts, key=order_of)
    if len(names) <= most:
        return names
    # Of those that are known those with something to tell, then those that most hosts have: one host's odd names must not push out everybody's.
    kept = sorted(names, key=lambda name: (name not in FIRST_COLUMNS, name in FIRST_COLUMNS and name not in troubled, -counts[name], name))[: most - 1]
    return [name for name in names if name in kept] + [""]
