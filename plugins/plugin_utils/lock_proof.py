"""What a result of nfs_lock_info with prove says of a host that was cured: without input or output."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import (
    FAILING,
    both_answer,
    inert,
    looked_at,
    mounts_of,
    name_of,
    qemu_of,
    sentence_of,
    wants_cure,
)
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import flag, row_of, rows_of, text


def proof(info, plan):
    """What a result of nfs_lock_info with prove says of a host that was cured by a plan.

    against: a list of sentences, empty if all is well. say: what was done and seen, in a sentence.
    """
    if not looked_at(info):
        return {"against": [(text(info, "msg") if isinstance(info, Mapping) else "") or "nfs_lock_info gave no answer"], "say": ""}
    against, works, unlocked, still, untried = [], 0, 0, [], []
    # What failed before, with a cause that is not ours, still may.
    known = plan.get("known", [])
    expected = {(text(mount, "container"), text(mount, "path")) for mount in mounts_of(info) if inert(name_of(mount)) in known}
    for row in rows_of(info, "proofs"):
        where = f"at {text(row, 'path')} in {text(row, 'container')}"
        if text(row, "result") == "works":
            works += 1
            unlocked += flag(row, "unlocked")
        elif text(row, "result") == "not_tried":
            untried.append(f"qemu-img was not tried {where}: {text(row, 'detail')}")
        elif (text(row, "container"), text(row, "path")) in expected:
            still.append(f"qemu-img {text(row, 'step')} still {text(row, 'result')} {where}")
        else:
            against.append(f"qemu-img {text(row, 'step')} {text(row, 'result')} {where}: {text(row, 'detail')}")

    # A mount where nothing could be tried has a verdict all the same.
    for mount in mounts_of(info):
        fails = text(mount, "verdict") in FAILING and wants_cure(mount)
        if fails and inert(name_of(mount)) not in known and sentence_of(mount) not in against:
            against.append(sentence_of(mount))

    libvirt, qemu = row_of(info, "libvirt"), qemu_of(info)
    if text(libvirt, "container") and not flag(libvirt, "healthy"):
        against.append(f"{text(libvirt, 'container')} is not healthy: {text(libvirt, 'detail')}")
    elif not text(libvirt, "container") and "nova_libvirt" in qemu:
        against.append("nova_libvirt is there and does not run")
    patch = [name for name in plan.get("patch", []) if isinstance(name, str)]
    against += [f"{name} has no patched QEMU: {qemu.get(name) or 'it is not there'}" for name in patch if qemu.get(name) not in ("patched", "mixed")]
    part = [name for name in patch if qemu.get(name) == "mixed"]
    if "nova_libvirt" in part and flag(plan, "guests"):
        against.append("nova_libvirt is patched in part: guests go on with the QEMU that the patch set lacks; it takes one of the profile host")

    said = ["rpcbind and rpc.statd answer"] if both_answer(info) else []
    if patch:
        said.append("patched: " + ", ".join(patch))
    if part:
        said.append(f"in part: {', '.join(part)}, where the set does not hold each program, such as that of guests")
    if works:
        said.append(f"qemu-img works at {works} places")
    elif not untried and not still:
        said.append("there was no place to try qemu-img")
    if unlocked:
        said.append(f"at {unlocked} of them WITHOUT a lock")
    said += still + untried
    return {"against": against, "say": "; ".join(said)}
