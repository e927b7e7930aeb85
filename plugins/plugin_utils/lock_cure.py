"""What is to be done about file locks on each host: from results of nfs_lock_info, without input or output.

The order is always the same: rpcbind and rpc.statd first, the library or the patched QEMU only for what is refused all the same, and nothing at all
where the cause lies with the server, the network or a mount option. Results come from hosts and need not have the shape that the module
documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import (
    LOST,
    VERDICTS,
    flag,
    loses,
    natural,
    number,
    order_of,
    place_of,
    row_of,
    rows_of,
    started,
    text,
    texts_of,
)

# Containers in which QEMU runs guests, or Nova makes their disks: what they mount comes and goes with guests.
FOR_GUESTS = ("nova_libvirt", "nova_compute")

# The container that runs guests.
LIBVIRT = "nova_libvirt"

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
    """What each container's QEMU is: {container: stock, patched, mixed, library, none or unknown}."""
    return {text(row, "container"): text(row, "qemu") for row in rows_of(info, "packages")}


def library_of(info):
    """The state of the library in each container that was looked at: {container: none, installed, bound, old, unlisted or broken}."""
    states = {text(row, "container"): text(row_of(row, "library"), "state") for row in rows_of(info, "packages")}
    return {name: state for name, state in states.items() if state}


# States of the library with which programs that start have it.
ACTIVE = ("installed", "bound", "old")


def bare(info):
    """Containers in which QEMU fails where a lock is refused: also of rpm distributions, whose packages are not known, and which have no library."""
    library = library_of(info)
    return [name for name, qemu in qemu_of(info).items() if qemu in ("stock", "mixed") or qemu == "unknown" and library.get(name, "bound") not in ACTIVE]


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
    squashed: those of them where root may not write.
    unseen: those of stores without a result, so that refused may lack some.
    """
    nfsv3, refused, no_root, seen = "", {}, set(), set()
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
                if flag(mount, "squashed"):
                    no_root.add(text(mount, "source"))
    return {"nfsv3": nfsv3, "refused": refused, "squashed": sorted(no_root, key=natural), "unseen": sorted(set(stores) - seen, key=natural)}


def stopped(info):
    """{container: the engine's word} of those that do not run."""
    states = {text(row, "container"): text(row, "state") for row in rows_of(info, "packages")}
    return {name: state for name, state in states.items() if state not in ("", "running")}


def locks_of(info):
    """What nfs_lock_info says of the locks that libvirt itself takes."""
    return row_of(row_of(info, "libvirt"), "locks")


def cure(info, whole, patch="needed", rpcbind="auto", mounts_nfs=True, runs_guests=True, given=True, before=None, disabled=False, method="auto"):
    """What is to be done on one host. info is its result of nfs_lock_info, whole what fleet() returned.

    patch and rpcbind are what the user wants; mounts_nfs tells whether the host is one that mounts NFS for guests or volumes, runs_guests whether
    nova_libvirt is to run there, given whether there is a patch set, before is the last plan of this run, of which the first was made before anything
    was changed, disabled whether an earlier run left nova-compute disabled, method how QEMU is to go on without locks: library, packages, or auto, which is
    the library unless there is a patch set. Returns method (library or packages), rpcbind (whether to run rpcbind_ensure) with rpcbind_why, patch
    (names of containers) with patch_why, guests (whether locks are refused to guests, too), left (what fails and needs a person), known (those of the
    mounts among it that failed before anything was changed), look (what does not fail and wants to be known), needs (all that is not as it should be,
    whoever mends it), idle (containers that did not run before anything was changed, and whether one of them is missed), todo (whether a module has
    something to do) and say (all of it in lines).
    """
    if method == "auto":
        method = "packages" if given else "library"
    plan = {
        "method": method, "rpcbind": False, "rpcbind_why": "", "patch": [], "patch_why": "", "guests": False,
        "left": [], "known": [], "look": [], "needs": [], "idle": {},
    }
    if looked_at(info):
        fill(plan, info, whole, patch, rpcbind, mounts_nfs, given, before)
        fill_idle(plan, info, runs_guests and bool(plan["needs"] or whole["refused"] or patch == "always"), before)
        if disabled and not set(FOR_GUESTS) & set(plan["patch"]):
            plan["left"].append("an earlier run disabled nova-compute here: openstack compute service set --enable HOST nova-compute")
        plan["needs"] += plan["left"] + stale(info)
    else:
        plan["needs"].append(f"it was not looked at: {text(info, 'msg') if isinstance(info, Mapping) else 'no answer'}")
    if before:
        plan["known"] = before["known"]
    plan["todo"] = plan["rpcbind"] or bool(plan["patch"])
    plan["say"] = sentences(plan)
    return plan


# How QEMU is made to go on without locks, and what people call it.
WAYS = {"library": "the library", "packages": "the patched QEMU"}


def sentences(plan):
    lines = []
    if plan["rpcbind"]:
        lines.append(f"rpcbind_ensure: {plan['rpcbind_why']}")
    if plan["patch"]:
        lines.append(f"{WAYS[plan['method']]}: {plan['patch_why']}")
    lines += [f"by hand: {sentence}" for sentence in plan["left"]]
    return lines + [f"to be known: {sentence}" for sentence in plan["look"]]


def fill(plan, info, whole, patch, rpcbind, mounts_nfs, given, before):
    """Puts into an empty plan what a result with a verdict asks for."""
    asked = text(row_of(info, "cure"), "fix") == "rpcbind_ensure" or any(text(mount, "recommended_fix") == "rpcbind_ensure" for mount in mounts_of(info))
    if rpcbind == "always" and (mounts_nfs or asked):
        plan.update(rpcbind=True, rpcbind_why="asked for")
    elif rpcbind == "auto" and asked:
        plan.update(rpcbind=True, rpcbind_why=text(info, "msg"))
    elif rpcbind == "auto" and mounts_nfs and whole["nfsv3"] and not both_answer(info):
        plan.update(rpcbind=True, rpcbind_why=f"NFSv3 is in use: {whole['nfsv3']}")
    if plan["rpcbind"]:
        plan["needs"].append(f"rpcbind_ensure: {plan['rpcbind_why']}")

    if patch != "never":
        if plan["method"] == "library":
            fill_library(plan, info, whole, patch)
        else:
            fill_patch(plan, info, whole, patch, given)
            fill_further(plan, info, before)
        fill_libvirt(plan, info, whole)
    fill_left(plan, info)
    if asked and not plan["rpcbind"] and not plan["left"]:
        plan["left"].append(f"{text(info, 'msg')}. {text(row_of(info, 'cure'), 'text')}")

    for row in rows_of(info, "findings"):
        if text(row, "kind") == "seccomp_refuses":  # the patch helps, and is not the smallest cure
            plan["look"].append(text(row, "message"))
    unseen = whole["unseen"]
    if patch != "never" and unseen and any(name in bare(info) for name in FOR_GUESTS):
        plan["look"].append(f"volumes of {some(unseen)} may refuse locks to guests: not looked at")
    if patch == "never":
        plan["look"] += [f"{name}: {sentence}" for name, sentence in lost_patch(info).items()]
    plan["look"] += [f"{text(row, 'container')}: {text(row, 'message')}" for row in rows_of(info, "drift") if text(row, "kind") not in LOST]
    plan["look"] += unused_drift(info)
    plan["look"] += [f"{name}: {BROKEN}" for name, state in library_of(info).items() if state == "broken" and name not in plan["patch"]]
    plan["look"] += stock_emulators(info) + unjudged(info) + stale(info)


def fill_idle(plan, info, missed, before):
    """What could not be looked at. A container that was stopped before this run fails no host: it is left where it is missed, and to be known elsewhere."""
    states = stopped(info)
    plan["idle"] = before["idle"] if before else {"names": sorted(states), "missed": missed}
    for row in rows_of(info, "packages"):
        name, state = text(row, "container"), text(row, "state")
        if name == LIBVIRT and name in states and name in plan["idle"]["names"] and plan["idle"]["missed"]:
            plan["left"].append(f"{name} does not run (it is {state}, and was before this run), so that no guest starts here and none was tried: start it")
        elif text(row, "qemu") == "unknown" and name not in plan["patch"]:
            plan["look"].append(f"{name} was not looked at: {text(row, 'error') or 'it is ' + state}")


def stock_emulators(info):
    """Sentences: emulators without the patch in containers that are patched, as far as they do not count."""
    rows = [row for row in rows_of(info, "packages") if text(row, "qemu") in ("patched", "mixed") and texts_of(row, "stock_emulators")]
    return [f"emulators without the patch in {text(row, 'container')}: {some(texts_of(row, 'stock_emulators'))}" for row in rows]


def unjudged(info):
    """A sentence where nova_libvirt was looked at and nothing was found of its libvirt. Older modules do not look."""
    looks = isinstance(row_of(info, "libvirt").get("locks"), dict)
    if not looks or text(locks_of(info), "container") or qemu_of(info).get(LIBVIRT, "unknown") == "unknown" or LIBVIRT in stopped(info):
        return []
    return [f"libvirt's own locks could not be judged: nothing was found of libvirt in {LIBVIRT}"]


def stale(info):
    """A sentence on guests that run a program which was replaced, if there are any."""
    names = [text(row, "guest") or f"process {number(row, 'pid')}" for row in rows_of(info, "stale_guests")]
    return [f"guests that still run the QEMU from before: {some(names)} (hard reboot or live-migrate them)"] if names else []


def lost_patch(info):
    """{container: sentence} of those that were patched, or had the library, and are stock again."""
    said, without = {}, bare(info)
    for row in rows_of(info, "drift"):
        name, kind, now = text(row, "container"), text(row, "kind"), text(row, "is")
        if not loses(row) or name not in without:
            continue
        if text(row, "what") == "library":
            said[name] = "it was recreated and has lost the library" if kind == "recreated" else "it had the library and has it no more"
        elif kind == "recreated":
            said[name] = "it was recreated and has lost the patch"
        elif kind == "lost":
            said[name] = f"it was patched and has {now} again"
        else:
            said[name] = f"{now} of the distribution has replaced the patched package, so that the patch set has to be built from that version"
    return said


def unused_drift(info):
    """Sentences: what is stock again and is no loss, as the container's own work does not use it."""
    rows = [row for row in rows_of(info, "drift") if text(row, "kind") in LOST and not loses(row)]
    return [f"{text(row, 'container')}: {text(row, 'message')} (its own work does not use that package)" for row in rows]


def mounts_of(info):
    """The rows of mounts. Those of images tell of one file only."""
    return [mount for mount in rows_of(info, "mounts") if not flag(mount, "image")]


def fill_patch(plan, info, whole, patch, given):
    """Containers whose QEMU is to be patched, and why; without a patch set they are left to a person."""
    packages = qemu_of(info)
    refused, expected, kept, lost = {}, {}, {}, lost_patch(info)
    for mount in mounts_of(info):
        if text(mount, "recommended_fix") == "patch":
            refused.setdefault(text(mount, "container"), f"{text(mount, 'verdict')} at {text(mount, 'path')}")
    for source, where in whole["refused"].items():
        for name in FOR_GUESTS:
            if packages.get(name) in ("stock", "mixed"):
                expected.setdefault(name, f"guests will use {source}, whose locks are refused ({where})")
    for name, qemu in packages.items():
        if qemu in ("patched", "mixed"):
            kept[name] = "it is patched already" if qemu == "patched" else "it is patched in part"

    plan["guests"] = LIBVIRT in refused or LIBVIRT in expected
    if patch == "always":
        away = stopped(info)  # what does not run cannot be patched, and keeps no other from it
        why = {name: "asked for" for name, qemu in packages.items() if qemu != "none" and not (qemu == "unknown" and name in away)}
        needed = {name: why[name] for name in why if packages[name] != "patched"}
        expected = needed
    else:
        needed = joined({**expected, **refused}, lost)
        why = {**kept, **needed}
    if given:
        plan["patch"] = [name for name in carriers(info) if name in why]
        plan["patch_why"] = "asked for" if patch == "always" and plan["patch"] else "; ".join(f"{name}: {why[name]}" for name in plan["patch"])
        plan["needs"] += [f"the patched QEMU: {name}: {why[name]}" for name in plan["patch"] if name in needed]
        return
    for name in carriers(info):
        if name in refused and name in lost:  # what is refused has a sentence of its mount
            plan["look"].append(f"{name}: {lost[name]}")
        elif name in needed and name not in refused:
            plan["left"].append(f"{name}: {needed[name]}. Give the patch set with -e nfs_lock_fix_patch_set=FOLDER")
        elif packages.get(name) == "mixed":
            plan["look"].append(f"{name} is patched in part")


# What a list says that names a library which no program can load.
BROKEN = "/etc/ld.so.preload there names a library that no program can load, so that each one complains on stderr, which Glance takes for a failure"


def fill_library(plan, info, whole, patch):
    """Containers that get the library, and why.

    One that has it, in this build or by kolla's volumes, needs nothing. One that is patched needs it for libvirt only.
    """
    packages, library, lost, without = qemu_of(info), library_of(info), lost_patch(info), bare(info)
    refused, expected, starts = {}, {}, started(info)
    for mount in mounts_of(info):
        name, fix = text(mount, "container"), text(mount, "recommended_fix")
        if fix == "patch" or fix == "libvirt" and place_of(mount) not in starts:
            refused.setdefault(name, f"{text(mount, 'verdict') if fix == 'patch' else 'the lock of libvirt itself is refused'} at {text(mount, 'path')}")
    for source, where in whole["refused"].items():
        for name in FOR_GUESTS:
            if name in without:
                expected.setdefault(name, f"guests will use {source}, whose locks are refused ({where})")
        tried = [text(mount, "source") for mount in mounts_of(info) if text(mount, "container") == LIBVIRT and text(mount, "verdict") != "unknown"]
        if packages.get(LIBVIRT) in ("patched", "library") and refusing(info) and source not in [*tried, *whole["squashed"]]:
            expected.setdefault(LIBVIRT, f"guests will use {source}, which refuses libvirt's own lock, too ({where})")

    plan["guests"] = LIBVIRT in refused or LIBVIRT in expected
    broken = {name: BROKEN for name, state in library.items() if state == "broken"}
    if patch == "always":
        away = stopped(info)
        names = [name for name, qemu in packages.items() if qemu not in ("none", "patched", "library") and not (qemu == "unknown" and name in away)]
        asked = dict.fromkeys(names, "asked for")
        needed = joined({**expected, **refused, **asked}, broken)
    else:
        needed = joined({**expected, **refused}, lost, broken)
    kept = {name: "it has another build of the library" for name, state in library.items() if state == "old"}
    why = {**kept, **needed}
    bound = [name for name, state in library.items() if state == "bound" and name != LIBVIRT]  # kolla keeps it there; only libvirt may have to be restarted
    plan["patch"] = [name for name in carriers(info) if name in why and name not in bound]
    plan["patch_why"] = "; ".join(f"{name}: {why[name]}" for name in plan["patch"])
    if patch == "always" and {why[name] for name in plan["patch"]} == {"asked for"}:
        plan["patch_why"] = "asked for"
    plan["needs"] += [f"the library: {name}: {why[name]}" for name in plan["patch"] if name in needed]
    plan["look"] += [f"{name} is patched in part" for name in carriers(info) if packages.get(name) == "mixed" and name not in plan["patch"]]


def refusing(info):
    """Whether libvirt takes a lock of its own on each disk, and starts no guest where that is refused."""
    return flag(locks_of(info), "own_locks") and not flag(locks_of(info), "covered")


def covers(plan):
    """Whether the plan brings the library to libvirt, so that no lock of its own is left to a person."""
    return text(plan, "method") == "library" and LIBVIRT in plan.get("patch", [])


def joined(*found):
    """{container: all its reasons in one}."""
    reasons = {}
    for one in found:
        for name, reason in one.items():
            reasons[name] = f"{reasons[name]}, and {reason}" if name in reasons else reason
    return reasons


def further(info):
    """What nova_libvirt has without the patch, where all of that only emulates other architectures than the host's. Else empty."""
    row = next((row for row in rows_of(info, "packages") if text(row, "container") == LIBVIRT and text(row, "qemu") == "mixed"), {})
    names = texts_of(row, "unpatched")
    return names if set(names) <= set(texts_of(row, "unpatched_further")) else []


def fill_further(plan, info, before):
    """Emulators of other architectures that guests here use. Before a set was installed it may hold them; once it is, they are left to a person."""
    names = further(info)
    if names and plan["guests"] and (before or LIBVIRT not in plan["patch"]):
        plan["left"].append(
            f"{LIBVIRT} has no patched {some(names)}, which only guests of another architecture use: these go on with QEMU's own locks, and do not start "
            "where locks are refused. Name it in qemu_patched_build_also when the patch set is built, and run again"
        )


def libvirt_misses(mount):
    """Whether libvirt's own lock is among what keeps a guest from starting there."""
    return any(sentence.startswith("libvirt") for sentence in texts_of(row_of(mount, "guests"), "missing"))


def fill_libvirt(plan, info, whole):
    """libvirt's own lock, where the plan is for QEMU's, or volumes are not mounted yet. Where it alone is refused, a mount has a sentence of its own."""
    if qemu_of(info).get(LIBVIRT, "none") in ("none", "unknown") or covers(plan) or flag(locks_of(info), "covered"):
        return
    mounts = [mount for mount in mounts_of(info) if text(mount, "container") == LIBVIRT]
    starts = started(info)
    ours = [mount for mount in mounts if text(mount, "recommended_fix") == "patch" and LIBVIRT in plan["patch"] and place_of(mount) not in starts]
    tried = [text(mount, "source") for mount in mounts if text(mount, "verdict") != "unknown"]
    unmounted = [source for source in whole["refused"] if source not in tried]
    locks = locks_of(info)
    detail = f" ({text(locks, 'detail')})" if text(locks, "detail") else ""
    remedy = f": {text(locks, 'remedy')}" if text(locks, "remedy") else ""
    if flag(locks, "own_locks"):
        sure = [text(mount, "source") for mount in ours if libvirt_misses(mount) and guest_of(mount) == "no" and not flag(mount, "squashed")]
        sure += [source for source in unmounted if source not in whole["squashed"]]
        unsure = [text(mount, "source") for mount in ours if libvirt_misses(mount)] + unmounted
        unsure = [source for source in unsure if source not in sure]
        if sure:
            plan["left"].append(f"guests do not start from {some(list(dict.fromkeys(sure)))} even with the patched QEMU{detail}{remedy}")
        if unsure:
            plan["look"].append(
                f"whether guests start from {some(list(dict.fromkeys(unsure)))} with the patched QEMU could not be told{detail}: root may not write there, "
                f"and libvirt goes without its own lock on a disk that root may not open for writing{remedy and '. If none starts' + remedy}"
            )
    elif detail and (unmounted or any(text(row_of(row_of(mount, "probes"), "posix"), "result") == "refused" for mount in ours)):
        plan["look"].append(f"whether libvirt takes a lock of its own on each disk could not be told{detail}")


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


def guest_of(mount):
    """Whether a guest can start there, as far as locks tell: yes, no, unknown, or empty where none is to."""
    return text(row_of(mount, "guests"), "start")


def why_of(mount):
    """What is missing for that, to be put behind a sentence."""
    missing = texts_of(row_of(mount, "guests"), "missing")
    return f": {'; '.join(missing)}" if missing else ""


def fill_left(plan, info):
    """What the modules do not help against in this plan, each mount once though several containers see it."""
    starts = started(info)
    for mount in mounts_of(info):
        fix = text(mount, "recommended_fix")
        ours = fix == "rpcbind_ensure" and plan["rpcbind"] or fix == "patch" and text(mount, "container") in plan["patch"]
        covered = covers(plan) and text(mount, "container") == LIBVIRT and fix in ("", "none", "libvirt")
        if ours or covered:
            continue
        seen = place_of(mount) in starts
        if fix == "libvirt" and seen:
            continue  # what was told of its locks is not what it does
        if fix == "libvirt":
            kind, sentence = "left", sentence_of(mount)
        elif wants_cure(mount):
            fails = text(mount, "verdict") in FAILING
            kind, sentence = "left" if fails else "look", sentence_of(mount)
            if fails and name_of(mount) not in plan["known"]:
                plan["known"].append(name_of(mount))
        elif guest_of(mount) == "no" and not seen:
            kind, sentence = "left", f"no guest starts from {text(mount, 'source')}{why_of(mount)}"
        elif guest_of(mount) == "unknown" and (text(mount, "verdict") in FAILING or why_of(mount)) and not seen:
            kind, sentence = "look", f"whether a guest starts from {text(mount, 'source')} could not be told{why_of(mount)}"
        else:
            continue
        if sentence not in plan[kind]:
            plan[kind].append(sentence)
