"""What is to be done about file locks on each host: from results of nfs_lock_info, without input or output.

The order is always the same: rpcbind and rpc.statd first, the patched QEMU only for what is refused all the same, and nothing at all
where the cause lies with the server, the network or a mount option. Results come from hosts and need not have the shape that the module
documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import VERDICTS, flag, natural, order_of, row_of, rows_of, text

# Containers in which QEMU runs guests, or Nova makes their disks: what they mount comes and goes with guests.
FOR_GUESTS = ("nova_libvirt", "nova_compute")

# Verdicts with which QEMU fails. The others, from nolock_mount on, are to be known, and stop nobody's work.
FAILING = VERDICTS[: VERDICTS.index("nolock_mount")]


def inert(value):
    """The same without anything that Ansible could take for a template when it is kept in a variable.

    Marking it unsafe is not enough: before ansible-core 2.19 a list or dictionary loses the marks where a template returns it.
    """
    if isinstance(value, str):
        return re.sub(r"\{(?=[{%#])", "{ ", value)
    if isinstance(value, dict):
        return {inert(key): inert(item) for key, item in value.items()}
    return [inert(item) for item in value] if isinstance(value, list) else value


def some(names):
    """The first five of names, for a sentence."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def looked_at(info):
    """Whether it is a result with a verdict."""
    return isinstance(info, Mapping) and not flag(info, "failed") and not flag(info, "unreachable") and bool(text(info, "verdict"))


def qemu_of(info):
    """What each container's QEMU is: {container: stock, patched, mixed, none or unknown}."""
    return {text(row, "container"): text(row, "qemu") for row in rows_of(info, "packages")}


# What an engine takes for a container's name. Another one, which a host could make up, is never handed to a module.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def carriers(info):
    """The containers that nfs_lock_info looked at, in the report's order: it decides which of a host's carry QEMU."""
    return sorted((name for name in qemu_of(info) if NAME.fullmatch(name)), key=order_of)


def both_answer(info):
    """Whether rpcbind and rpc.statd of the host do."""
    return all(text(row_of(info, name), "state") == "answers" for name in ("rpcbind", "statd"))


def fleet(results, stores=()):
    """What only all hosts together tell, from pairs of a host's name and its result. stores are the hosts of cinder-volume.

    nfsv3: where NFS is mounted with version 3, whose locks need rpcbind and rpc.statd on every host that may mount it; empty if nowhere.
    refused: {source: where}, stores that refuse locks in cinder_volume and that Nova mounts when a guest gets a volume.
    unseen: those of stores without a result, so that refused may lack some.
    """
    nfsv3, refused, seen = "", {}, set()
    for host, info in results:
        if not looked_at(info):
            continue
        seen.add(host)
        if text(row_of(info, "cure"), "fix") == "rpcbind_ensure" and not nfsv3:
            nfsv3 = f"{host} needs them"
        for mount in rows_of(info, "mounts"):
            where = f"{text(mount, 'source')} at {text(mount, 'path')} in {text(mount, 'container')} of {host}"
            if text(mount, "vers").startswith("3") and "nolock" not in text(mount, "options").split(",") and not nfsv3:
                nfsv3 = where
            if (
                text(mount, "container") == "cinder_volume"
                and text(mount, "verdict") in ("locks_refused", "ofd_unsupported")  # also where its own QEMU is patched
                and text(mount, "fstype").startswith("nfs")
                and text(mount, "probed") != "inside"  # the container refuses there, not the store
            ):
                refused.setdefault(text(mount, "source"), where)
    return {"nfsv3": nfsv3, "refused": refused, "unseen": sorted(set(stores) - seen, key=natural)}


def cure(info, whole, patch="needed", rpcbind="auto", mounts_nfs=True, given=True, before=None, disabled=False):
    """What is to be done on one host. info is its result of nfs_lock_info, whole what fleet() returned.

    patch and rpcbind are what the user wants; mounts_nfs tells whether the host is one that mounts NFS for guests or volumes, given whether
    there is a patch set, before is the plan of this run that was made before anything was changed, disabled whether an earlier run left
    nova-compute disabled. Returns rpcbind (whether to run
    rpcbind_ensure) with rpcbind_why, patch (names of containers) with patch_why, guests (whether locks are refused to guests, too), left (what
    fails and needs a person), known (those of the mounts among it that failed before anything was changed), look (what does not fail and
    wants to be known), todo (whether a module has something to do) and say (all of it in lines).
    """
    plan = {"rpcbind": False, "rpcbind_why": "", "patch": [], "patch_why": "", "guests": False, "left": [], "known": [], "look": []}
    if looked_at(info):
        fill(plan, info, whole, patch, rpcbind, mounts_nfs, given)
        if disabled and not set(FOR_GUESTS) & set(plan["patch"]):
            plan["left"].append("an earlier run disabled nova-compute here: openstack compute service set --enable HOST nova-compute")
    if before:
        plan["known"] = before["known"]
    plan["todo"] = plan["rpcbind"] or bool(plan["patch"])
    plan["say"] = sentences(plan)
    return plan


def sentences(plan):
    lines = []
    if plan["rpcbind"]:
        lines.append(f"rpcbind_ensure: {plan['rpcbind_why']}")
    if plan["patch"]:
        lines.append(f"the patched QEMU: {plan['patch_why']}")
    lines += [f"by hand: {sentence}" for sentence in plan["left"]]
    return lines + [f"to be known: {sentence}" for sentence in plan["look"]]


def fill(plan, info, whole, patch, rpcbind, mounts_nfs, given):
    """Puts into an empty plan what a result with a verdict asks for."""
    asked = text(row_of(info, "cure"), "fix") == "rpcbind_ensure" or any(text(mount, "recommended_fix") == "rpcbind_ensure" for mount in mounts_of(info))
    if rpcbind == "always" and (mounts_nfs or asked):
        plan.update(rpcbind=True, rpcbind_why="asked for")
    elif rpcbind == "auto" and asked:
        plan.update(rpcbind=True, rpcbind_why=text(info, "msg"))
    elif rpcbind == "auto" and mounts_nfs and whole["nfsv3"] and not both_answer(info):
        plan.update(rpcbind=True, rpcbind_why=f"NFSv3 is in use: {whole['nfsv3']}")

    packages = qemu_of(info)
    if patch != "never":
        fill_patch(plan, info, whole, patch, given)
    fill_left(plan, info)
    if asked and not plan["rpcbind"] and not plan["left"]:
        plan["left"].append(f"{text(info, 'msg')}. {text(row_of(info, 'cure'), 'text')}")

    for row in rows_of(info, "packages"):
        if text(row, "qemu") == "unknown" and text(row, "container") not in plan["patch"]:
            plan["look"].append(f"{text(row, 'container')} was not looked at: {text(row, 'error') or 'it is ' + text(row, 'state')}")
    for row in rows_of(info, "findings"):
        if text(row, "kind") == "seccomp_refuses":  # the patch helps, and is not the smallest cure
            plan["look"].append(text(row, "message"))
    unseen = whole["unseen"]
    if patch != "never" and unseen and any(packages.get(name) in ("stock", "mixed") for name in FOR_GUESTS):
        plan["look"].append(f"volumes of {some(unseen)} may refuse locks to guests: not looked at")


def mounts_of(info):
    """The rows of mounts. Those of images tell of one file only."""
    return [mount for mount in rows_of(info, "mounts") if not flag(mount, "image")]


def fill_patch(plan, info, whole, patch, given):
    """Containers whose QEMU is to be patched, and why; without a patch set they are left to a person."""
    packages = qemu_of(info)
    refused, expected, kept = {}, {}, {}
    for mount in mounts_of(info):
        if text(mount, "recommended_fix") == "patch":
            refused.setdefault(text(mount, "container"), f"{text(mount, 'verdict')} at {text(mount, 'path')}")
    for source, where in whole["refused"].items():
        for name in FOR_GUESTS:
            if packages.get(name, "none") not in ("none", "unknown"):
                expected.setdefault(name, f"guests will use {source}, whose locks are refused ({where})")
    for name, qemu in packages.items():
        if qemu in ("patched", "mixed"):
            kept[name] = "it is patched already" if qemu == "patched" else "it is patched in part"

    plan["guests"] = "nova_libvirt" in refused or "nova_libvirt" in expected
    if patch == "always":
        why = {name: "asked for" for name in packages if packages[name] != "none"}
        expected = {name: why[name] for name in why if packages[name] != "patched"}
    else:
        why = {**kept, **expected, **refused}
    if given:
        plan["patch"] = [name for name in carriers(info) if name in why]
        plan["patch_why"] = "asked for" if patch == "always" and plan["patch"] else "; ".join(f"{name}: {why[name]}" for name in plan["patch"])
        return
    for name in carriers(info):
        if name in expected and name not in refused:  # what is refused has a sentence of its mount
            plan["left"].append(f"{name}: {expected[name]}. Give the patch set with -e nfs_lock_fix_patch_set=FOLDER")
        elif packages.get(name) == "mixed":
            plan["look"].append(f"{name} is patched in part")


def wants_cure(mount):
    """Whether there is one for it. A store that refuses locks to the host itself, which has no QEMU of kolla's, keeps nobody from his work."""
    fix = text(mount, "recommended_fix")
    return fix not in ("", "none") and (fix != "patch" or text(mount, "container") != "host")


def name_of(mount):
    """What a mount and its verdict are called to see whether they are the same as in an earlier look."""
    return f"{text(mount, 'source')}: {text(mount, 'verdict')}"


def sentence_of(mount):
    command = text(row_of(mount, "cure"), "command") if text(mount, "recommended_fix") == "patch" else ""
    said = f"{name_of(mount)}: {text(mount, 'reason')}. {text(row_of(mount, 'cure'), 'text')}"
    return f"{said} {command}" if command else said


def fill_left(plan, info):
    """What the modules do not help against in this plan, each mount once though several containers see it."""
    for mount in mounts_of(info):
        fix = text(mount, "recommended_fix")
        ours = fix == "rpcbind_ensure" and plan["rpcbind"] or fix == "patch" and text(mount, "container") in plan["patch"]
        if ours or not wants_cure(mount):
            continue
        fails = text(mount, "verdict") in FAILING
        if fails and name_of(mount) not in plan["known"]:
            plan["known"].append(name_of(mount))
        kind = "left" if fails else "look"
        if sentence_of(mount) not in plan[kind]:
            plan[kind].append(sentence_of(mount))
