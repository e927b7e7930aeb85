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
        "verdict": verdict,
        "reason": "because",
        "recommended_fix": fix or FIXES[verdict],
        "cure": {"fix": fix or FIXES[verdict], "text": "Do it."},
        **more,
    }


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
WHOLE = {"nfsv3": "", "refused": {}, "unseen": []}
REFUSED = {**WHOLE, "refused": {FILER: "there"}}
