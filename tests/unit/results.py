"""Results of nfs_lock_info, for the tests of what follows from them."""

FIXES = {
    "ok": "none",
    "rpcbind_missing": "rpcbind_ensure",
    "statd_dead": "rpcbind_ensure",
    "server_no_nlm": "nfsv4",
    "callback_blocked": "server",
    "hangs": "server",
    "nolock_mount": "nfsv4",
    "locks_refused": "patch",
    "unknown": "look",
}
FILER = "filer:/volumes"


def mount(container, verdict, source=FILER, vers="3", probed="outside", fix=None, **more):
    return {
        "container": container,
        "path": "/mnt/1",
        "source": source,
        "fstype": "nfs",
        "vers": vers,
        "options": "rw,vers=3",
        "probed": probed,
        "probes": {"posix": {"result": "granted" if verdict in ("ok", "ofd_unsupported") else "refused"}},
        "verdict": verdict,
        "reason": "because",
        "recommended_fix": fix or FIXES[verdict],
        "cure": {"fix": fix or FIXES[verdict], "text": "Do it."},
        **more,
    }


def for_guests(start="no", verdict="locks_refused", fix="libvirt", source=FILER, missing=None, **more):
    """A mount of nova_libvirt: whether a guest starts there, as far as locks tell."""
    if missing is None:
        missing = ["libvirt takes a lock of its own, and it is refused here"] if start == "no" else []
    return mount("nova_libvirt", verdict, source, fix=fix, guests={"start": start, "missing": missing}, **more)


REMEDY = "Set remember_owner = 0 in libvirt's qemu.conf."


def libvirt(own_locks, **more):
    """What is known of libvirt's own locks."""
    locks = {"container": "nova_libvirt", "own_locks": own_locks, "remedy": REMEDY if own_locks else ""}
    return {"libvirt": {"container": "", "locks": {**locks, **more}}}


# How nfs_lock_info says that a server squashes root.
SQUASHED = {"squashed": True}


def in_part(info, *names, further=("qemu-system-arm",)):
    """The same result where nova_libvirt is patched but for these packages."""
    (row,) = [row for row in info["packages"] if row["container"] == "nova_libvirt"]
    row.update(qemu="mixed", unpatched=list(names), unpatched_further=[name for name in names if name in further], stock_emulators=[])
    return info


def with_library(info, **states):
    """The same result as of modules that know the library: its state in some containers."""
    for row in info["packages"]:
        if row["container"] in states:
            state = states[row["container"]]
            row["library"] = {"state": state, "sha256": "" if state == "none" else "0" * 64, "current": state in ("installed", "bound"), "others": []}
    return info


def drift(container, kind, now="qemu-utils 1:7.2", **more):
    return {"drift": [{"container": container, "kind": kind, "was": "x", "is": now, "message": f"{container} is another", **more}]}


def exited(info, *names):
    """The same result where these containers do not run."""
    info["packages"] += [{"container": name, "qemu": "unknown", "state": "exited"} for name in names]
    return info


def host(*mounts, services="answers", **qemu):
    """A host's result; qemu is {container: stock, patched, …}."""
    worst = next((m for m in mounts if m["verdict"] != "ok"), None)
    return {
        "failed": False,
        "verdict": worst["verdict"] if worst else "ok",
        "msg": "what is wrong",
        "cure": worst["cure"] if worst else {"fix": "none", "text": ""},
        "mounts": list(mounts),
        "packages": [{"container": name, "qemu": state} for name, state in qemu.items()],
        "rpcbind": {"state": services},
        "statd": {"state": services},
    }


DONE, FAILED = {"status": "done"}, {"status": "failed"}
WHOLE = {"nfsv3": "", "refused": {}, "squashed": [], "unseen": []}
REFUSED = {**WHOLE, "refused": {FILER: "there"}}
