"""What a result of nfs_lock_info with prove says of a host that was cured: without input or output."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import (
    FAILING,
    ACTIVE,
    LIBVIRT,
    both_answer,
    covers,
    further,
    guest_of,
    inert,
    library_of,
    libvirt_misses,
    looked_at,
    mounts_of,
    name_of,
    qemu_of,
    sentence_of,
    some,
    stopped,
    wants_cure,
)
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import flag, place_of, row_of, rows_of, text


def proof(info, plan):
    """What a result of nfs_lock_info with prove says of a host that was cured by a plan.

    against: a list of sentences, empty if all is well. say: what was done and seen, in a sentence.
    """
    if not looked_at(info):
        return {"against": [(text(info, "msg") if isinstance(info, Mapping) else "") or "nfs_lock_info gave no answer"], "say": ""}
    # What failed before, with a cause that is not ours, still may.
    known = plan.get("known", [])
    expected = {place_of(mount) for mount in mounts_of(info) if inert(name_of(mount)) in known}
    by_images, against = images(info, expected)
    by_guests, against_guests = guests(info, expected, covers(plan))
    against += against_guests

    # A mount where nothing could be tried has a verdict all the same. What libvirt alone refuses is left to a person, and so are guests of other architectures.
    others = further(info)
    for mount in mounts_of(info):
        fix = text(mount, "recommended_fix")
        left = fix == "libvirt" and not covers(plan) or fix == "patch" and text(mount, "container") == LIBVIRT and others
        fails = text(mount, "verdict") in FAILING and wants_cure(mount) and not left
        if fails and inert(name_of(mount)) not in known and sentence_of(mount) not in against:
            against.append(sentence_of(mount))

    against += against_libvirt(info, plan)
    qemu, library = qemu_of(info), library_of(info)
    patch = [name for name in plan.get("patch", []) if isinstance(name, str)]
    if text(plan, "method") == "library":
        against += [f"{name} has not the library: {library.get(name) or 'it is not there'}" for name in patch if library.get(name) not in ACTIVE]
        done = ["the library: " + ", ".join(patch)] if patch else []
        return {"against": against, "say": "; ".join(services(info) + done + by_images + by_guests)}
    against += [f"{name} has no patched QEMU: {qemu.get(name) or 'it is not there'}" for name in patch if qemu.get(name) not in ("patched", "mixed")]
    part = [name for name in patch if qemu.get(name) == "mixed"]
    if LIBVIRT in part and flag(plan, "guests") and counts_programs(info, LIBVIRT) and not others:
        against.append(
            f"{LIBVIRT} is patched in part: the program that runs guests there is not, and their locks are refused; "
            "the patch set lacks it: build one with qemu_patched_build_profile=host"
        )

    said = services(info)
    if patch:
        said.append("patched: " + ", ".join(patch))
    if part:
        said.append(f"in part: {', '.join(part)}, where the set does not hold each program that counts")
    return {"against": against, "say": "; ".join(said + by_images + by_guests)}


def services(info):
    return ["rpcbind and rpc.statd answer"] if both_answer(info) else []


def where_of(row):
    return f"at {text(row, 'path')} in {text(row, 'container')}"


def on_mounts(rows):
    """How many, and on how many of them nothing keeps two writers apart."""
    unlocked = sum(flag(row, "unlocked") for row in rows)
    mounts = f"{len(rows)} mount{'s' if len(rows) > 1 else ''}"
    if not unlocked:
        return mounts
    return f"{mounts}, {'' if unlocked == len(rows) else f'on {unlocked} of them '}WITHOUT a lock"


def images(info, expected):
    """What the containers' own qemu-img did, in sentences, and what of it is against the host. At places that are expected to, it may fail."""
    works, said, against = [], [], []
    for row in rows_of(info, "proofs"):
        result = text(row, "result")
        if result == "works":
            works.append(row)
        elif result == "not_tried":
            said.append(f"qemu-img was not tried {where_of(row)}: {text(row, 'detail')}")
        elif place_of(row) in expected:
            said.append(f"qemu-img {text(row, 'step')} still {result} {where_of(row)}")
        else:
            against.append(f"qemu-img {text(row, 'step')} {result} {where_of(row)}: {text(row, 'detail')}")
    if works:
        said.insert(0, f"qemu-img works on {on_mounts(works)}")
    return said or ["there was no mount to try qemu-img on"], against


def guests(info, expected, covered):
    """The same of guests that libvirt started. covered tells whether libvirt's own lock is no reason not to."""
    # Where locks tell that none can start, the plan says what is missing. The guest that is tried is one of the host's architecture.
    others = further(info)
    expected = expected | {place_of(mount) for mount in mounts_of(info) if guest_of(mount) == "no" and not covered and (libvirt_misses(mount) or not others)}
    works, untried, said, against = [], {}, [], []
    rows = rows_of(info, "guest_proofs")
    if not rows and LIBVIRT in qemu_of(info) and LIBVIRT not in stopped(info):
        said.append(f"no guest was tried: {LIBVIRT} has no mount to start one from")
    for row in rows:
        result = text(row, "result")
        if result == "works":
            works.append(row)
        elif result == "not_tried":
            untried.setdefault(text(row, "detail"), []).append(text(row, "path"))
        elif place_of(row) in expected:
            said.append(f"no guest starts {where_of(row)} yet")
        else:
            against.append(f"a guest {'hangs when it is started' if result == 'hangs' else 'does not start'} {where_of(row)}: {text(row, 'detail')}")
    if works:
        said.insert(0, f"a guest started on {on_mounts(works)}")
    return said + [f"no guest was tried at {some(paths)}: {detail}" for detail, paths in untried.items()], against


def against_libvirt(info, plan):
    """What the state of nova_libvirt says against the host. One that did not run before either is in the plan."""
    libvirt, name = row_of(info, "libvirt"), LIBVIRT
    if text(libvirt, "container"):
        return [] if flag(libvirt, "healthy") else [f"{text(libvirt, 'container')} is not healthy: {text(libvirt, 'detail')}"]
    if name not in qemu_of(info):
        return []
    state = stopped(info).get(name)
    if state and name in row_of(plan, "idle").get("names", []):
        return []
    return [f"{name} ran before and does not now: it is {state}" if state else f"{name} is there and could not be looked at"]


def counts_programs(info, name):
    """Whether the module told programs that count from others: before it did, each nova_libvirt of kolla's was mixed."""
    return any(text(row, "container") == name and "stock_emulators" in row for row in rows_of(info, "packages"))
