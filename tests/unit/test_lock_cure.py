"""What the fix playbook does on a host: results of nfs_lock_info in, a plan out."""

import pytest
from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_cure
from results import REFUSED, REMEDY, SQUASHED, WHOLE, drift, exited, for_guests, host, in_part, libvirt, mount, with_library

NO_SET = {"given": False, "method": "packages"}
V3 = {**WHOLE, "nfsv3": "filer:/volumes at /mnt/1 in cinder_volume of storage1"}
UNSEEN = {**WHOLE, "unseen": ["storage1"]}
STALE = {"stale_guests": [{"guest": "instance-1", "pid": 7}, {"guest": "", "pid": 8}]}
SECCOMP = {"findings": [{"kind": "seccomp_refuses", "message": "a protection of nova_compute refuses locks"}, {"kind": "nolock", "message": "x"}]}


@pytest.mark.parametrize(
    "info, whole, wants, rpcbind, patch, left, look",
    [
        pytest.param(host(mount("nova_compute", "ok"), nova_compute="stock"), WHOLE, {}, False, [], 0, 0, id="all is well"),
        pytest.param(host(nova_compute="stock"), WHOLE, {}, False, [], 0, 0, id="no mount"),
        pytest.param(host(mount("nova_compute", "statd_dead"), nova_compute="stock"), WHOLE, {}, True, [], 0, 0, id="statd is dead: no patch"),
        pytest.param(
            host(mount("nova_compute", "statd_dead"), mount("cinder_volume", "locks_refused", "x:/y"), cinder_volume="stock"),
            WHOLE, {}, True, ["cinder_volume"], 0, 0, id="two causes",
        ),
        pytest.param(host(mount("nova_compute", "statd_dead")), WHOLE, {"rpcbind": "never"}, False, [], 1, 0, id="statd is not our business"),
        pytest.param(host(services="absent"), V3, {}, True, [], 0, 0, id="nothing is mounted here yet, NFSv3 elsewhere"),
        pytest.param(host(services="answers"), V3, {}, False, [], 0, 0, id="the same, and both answer"),
        pytest.param(host(services="absent"), V3, {"mounts_nfs": False}, False, [], 0, 0, id="the same on a host that mounts nothing"),
        pytest.param(host(services="absent"), WHOLE, {}, False, [], 0, 0, id="no NFSv3 anywhere"),
        pytest.param(host(), WHOLE, {"rpcbind": "always"}, True, [], 0, 0, id="rpcbind always"),
        pytest.param(host(), WHOLE, {"rpcbind": "always", "mounts_nfs": False}, False, [], 0, 0, id="rpcbind always, where NFS is mounted"),
        pytest.param(
            host(
                mount("nova_compute", "locks_refused"), mount("nova_libvirt", "locks_refused"),
                nova_compute="stock", nova_libvirt="stock", cinder_volume="stock",
            ),
            WHOLE, {}, False, ["nova_libvirt", "nova_compute"], 0, 0, id="patched where it is refused, and not elsewhere",
        ),
        pytest.param(
            host(nova_compute="stock", nova_libvirt="stock", cinder_volume="stock"), REFUSED, {}, False, ["nova_libvirt", "nova_compute"], 0, 0,
            id="guests will use a store that refuses locks",
        ),
        pytest.param(host(mount("nova_compute", "ok"), nova_compute="patched"), WHOLE, {}, False, ["nova_compute"], 0, 0, id="kept on the set that is given"),
        pytest.param(host(nova_compute="mixed"), WHOLE, {}, False, ["nova_compute"], 0, 0, id="patched in part"),
        pytest.param(
            host(mount("nova_compute", "locks_refused"), nova_compute="stock"), WHOLE, {"patch": "never"}, False, [], 1, 0, id="never patched"
        ),
        pytest.param(
            host(mount("nova_compute", "locks_refused"), nova_compute="stock", nova_libvirt="mixed", cinder_volume="patched"), WHOLE, NO_SET,
            False, [], 1, 1, id="no patch set: what refuses is left, what is well is well",
        ),
        pytest.param(host(nova_compute="stock", nova_libvirt="patched"), REFUSED, NO_SET, False, [], 1, 0, id="one is patched already"),
        pytest.param(
            host(nova_compute="stock", nova_libvirt="patched", cinder_api="none"), WHOLE, {**NO_SET, "patch": "always"},
            False, [], 1, 0, id="always patched, without a patch set",
        ),
        pytest.param(host(nova_compute="stock"), UNSEEN, {}, False, [], 0, 1, id="the stores are not known"),
        pytest.param(host(nova_compute="patched"), UNSEEN, {}, False, ["nova_compute"], 0, 0, id="they need not be known where all is patched"),
        pytest.param(host(cinder_volume="stock"), UNSEEN, {}, False, [], 0, 0, id="nor where no guests are"),
        pytest.param(
            host(mount("nova_compute", "locks_refused", probed="inside"), nova_compute="stock") | SECCOMP, WHOLE, {}, False, ["nova_compute"], 0, 1,
            id="refused by the container's profile: that it is the smaller cure is said",
        ),
        pytest.param(
            host(zun_compute="stock", cinder_api="none", glance_api="stock", cinder_volume="unknown", nova_compute="stock"), WHOLE, {"patch": "always"},
            False, ["nova_compute", "cinder_volume", "glance_api", "zun_compute"], 0, 0, id="always patched, where QEMU is or may be",
        ),
        pytest.param(
            host(
                mount("glance_api", "locks_refused"), mount("ironic_conductor", "locks_refused"),
                ironic_conductor="stock", glance_api="stock", cinder_api="stock",
            ),
            WHOLE, {}, False, ["glance_api", "ironic_conductor"], 0, 0, id="whatever carries QEMU",
        ),
        pytest.param(
            host(mount("glance_api", "locks_refused"), glance_api="stock"), WHOLE, NO_SET, False, [], 1, 0, id="and is left without a patch set",
        ),
        pytest.param(
            host(**{"nova_compute": "stock", "{{ 1 }}": "stock", "a b": "stock", "-x": "stock", "": "stock"}), WHOLE, {"patch": "always"},
            False, ["nova_compute"], 0, 0, id="what is no name of a container goes to no module",
        ),
        pytest.param(host(cinder_volume="unknown"), WHOLE, {}, False, [], 0, 1, id="a container that could not be looked at"),
        pytest.param(host(mount("host", "locks_refused")), WHOLE, {}, False, [], 0, 0, id="the host itself has no QEMU of kolla's"),
        pytest.param(
            host(mount("nova_compute", "server_no_nlm"), mount("nova_libvirt", "server_no_nlm"), nova_compute="stock"), WHOLE, {}, False, [], 1, 0,
            id="the server's fault, said once",
        ),
        pytest.param(host(mount("nova_compute", "callback_blocked")), WHOLE, {}, False, [], 1, 0, id="the server cannot call back"),
        pytest.param(host(mount("nova_compute", "hangs")), WHOLE, {}, False, [], 1, 0, id="hangs"),
        pytest.param(host(mount("nova_compute", "nolock_mount")), WHOLE, {}, False, [], 0, 1, id="nolock works, and is to be known"),
        pytest.param(host(mount("nova_compute", "unknown")), WHOLE, {}, False, [], 0, 1, id="nothing could be tried"),
        pytest.param(host(mount("nova_compute", "locks_refused", image=True, fix="patch")), WHOLE, {}, False, [], 0, 0, id="an image is no mount"),
        pytest.param(
            host(cinder_volume="stock") | drift("cinder_volume", "recreated"), WHOLE, {}, False, ["cinder_volume"], 0, 0, id="recreated, nothing mounted"
        ),
        pytest.param(host(cinder_volume="mixed") | drift("cinder_volume", "lost"), WHOLE, {}, False, ["cinder_volume"], 0, 0, id="stock again in part"),
        pytest.param(host(cinder_volume="stock") | drift("cinder_volume", "superseded"), WHOLE, {}, False, ["cinder_volume"], 0, 0, id="a newer package"),
        pytest.param(
            host(cinder_volume="stock") | drift("cinder_volume", "recreated"), WHOLE, NO_SET, False, [], 1, 0, id="recreated, without a patch set"
        ),
        pytest.param(
            host(mount("cinder_volume", "locks_refused"), cinder_volume="stock") | drift("cinder_volume", "recreated"), WHOLE, NO_SET, False, [],
            1, 1, id="recreated, and its mount refuses locks, without a patch set",
        ),
        pytest.param(
            host(cinder_volume="stock") | drift("cinder_volume", "recreated"), WHOLE, {"patch": "never"}, False, [], 0, 1, id="recreated, never to be patched"
        ),
        pytest.param(
            host(cinder_volume="stock") | drift("cinder_volume", "recreated", counts=True), WHOLE, {}, False, ["cinder_volume"], 0, 0, id="what counts is stock"
        ),
        pytest.param(
            host(nova_libvirt="mixed") | drift("nova_libvirt", "lost", counts=False), WHOLE, NO_SET, False, [], 0, 2,
            id="stock again, which its own work does not use: told beside what is patched in part",
        ),
        pytest.param(host(cinder_volume="none") | drift("cinder_volume", "recreated"), WHOLE, {}, False, [], 0, 0, id="recreated from an image without QEMU"),
        pytest.param(host() | drift("cinder_volume", "gone"), WHOLE, {}, False, [], 0, 1, id="the container is gone, which is told"),
        pytest.param(host(nova_libvirt="stock") | STALE, WHOLE, {}, False, [], 0, 1, id="guests that run the QEMU from before"),
        pytest.param(host(for_guests(), nova_libvirt="patched") | libvirt(True), WHOLE, NO_SET, False, [], 1, 0, id="libvirt alone refuses"),
        pytest.param(host(for_guests(verdict="ok"), nova_libvirt="stock") | libvirt(True), WHOLE, {}, False, [], 1, 0, id="the same where QEMU gets its locks"),
        pytest.param(
            host(for_guests(fix="patch"), nova_libvirt="stock") | libvirt(True), WHOLE, {}, False, ["nova_libvirt"], 1, 0, id="both halves are missing"
        ),
        pytest.param(
            host(for_guests(fix="patch"), nova_libvirt="stock") | libvirt(True), WHOLE, NO_SET, False, [], 1, 0,
            id="both halves, without a patch set: the mount has a sentence of both",
        ),
        pytest.param(
            host(for_guests(fix="patch"), nova_libvirt="stock") | libvirt(False), WHOLE, {}, False, ["nova_libvirt"], 0, 0, id="libvirt takes no lock"
        ),
        pytest.param(
            host(for_guests(fix="patch", verdict="ofd_unsupported", missing=["QEMU takes locks"]), nova_libvirt="stock") | libvirt(True), WHOLE, {},
            False, ["nova_libvirt"], 0, 0,
            id="libvirt's lock is one that the mount has",
        ),
        pytest.param(
            host(nova_libvirt="stock") | libvirt(True), REFUSED, {}, False, ["nova_libvirt"], 1, 0, id="guests' volumes will refuse libvirt's lock as well"
        ),
        pytest.param(
            host(for_guests("yes", "ok", "none"), nova_libvirt="patched") | libvirt(True), REFUSED, {}, False, ["nova_libvirt"], 0, 0,
            id="a volume that refuses locks to cinder_volume alone",
        ),
        pytest.param(
            host(nova_libvirt="stock") | libvirt(False, detail="qemu.conf: line 3"), REFUSED, {}, False, ["nova_libvirt"], 0, 1, id="who knows libvirt"
        ),
        pytest.param(host(nova_libvirt="patched") | libvirt(True), REFUSED, {"patch": "never"}, False, [], 0, 0, id="nobody asked for guests of such volumes"),
        pytest.param(
            host(for_guests("unknown", fix="none"), nova_libvirt="patched"), WHOLE, NO_SET, False, [], 0, 1, id="whether a guest starts is not known"
        ),
        pytest.param(host(for_guests("no", fix="none"), nova_libvirt="patched"), WHOLE, NO_SET, False, [], 1, 0, id="no guest starts all the same"),
        pytest.param(exited(host(), "nova_libvirt"), WHOLE, {}, False, [], 0, 1, id="nova_libvirt was stopped, and nothing is to be done"),
        pytest.param(exited(host(services="absent"), "nova_libvirt"), V3, {}, True, [], 1, 0, id="it is missed where something is done"),
        pytest.param(exited(host(), "nova_libvirt"), REFUSED, {}, False, [], 1, 0, id="and where guests will use a store that refuses locks"),
        pytest.param(
            exited(host(services="absent"), "nova_libvirt"), V3, {"runs_guests": False}, True, [], 0, 1, id="but not on a host that is to run no guests"
        ),
        pytest.param(exited(host(services="absent"), "cinder_backup"), V3, {}, True, [], 0, 1, id="nor is any other container"),
        pytest.param(
            exited(host(cinder_volume="stock"), "cinder_backup"), WHOLE, {"patch": "always"}, False, ["cinder_volume"], 0, 1, id="always patched, where it runs"
        ),
        pytest.param({"failed": True, "msg": "no root"}, WHOLE, {"patch": "always"}, False, [], 0, 0, id="it failed"),
        pytest.param({"unreachable": True}, WHOLE, {"rpcbind": "always"}, False, [], 0, 0, id="not reached"),
        pytest.param(None, WHOLE, {}, False, [], 0, 0, id="no result"),
        pytest.param({"verdict": "ok", "mounts": ["x", 3, {}], "packages": {"a": 1}, "cure": []}, WHOLE, {}, False, [], 0, 0, id="a shape that is not ours"),
    ],
)
def test_the_smallest_cure(info, whole, wants, rpcbind, patch, left, look):
    plan = lock_cure.cure(info, whole, **wants)
    assert plan["rpcbind"] is rpcbind
    assert bool(plan["rpcbind_why"]) is rpcbind
    assert plan["patch"] == patch
    assert bool(plan["patch_why"]) is bool(patch)
    assert len(plan["left"]) == left
    assert len(plan["look"]) == look
    assert plan["todo"] is (rpcbind or bool(patch))
    assert len(plan["say"]) == rpcbind + bool(patch) + left + look


def test_what_a_plan_says_of_the_patch_that_was_lost():
    def why(kind, *mounts):
        return lock_cure.cure(host(*mounts, nova_libvirt="stock") | drift("nova_libvirt", kind), WHOLE)["patch_why"]

    assert why("recreated") == "nova_libvirt: it was recreated and has lost the patch"
    assert why("lost") == "nova_libvirt: it was patched and has qemu-utils 1:7.2 again"
    assert "the patch set has to be built from that version" in why("superseded")
    refused = mount("nova_libvirt", "locks_refused")
    assert why("recreated", refused) == "nova_libvirt: locks_refused at /mnt/1, and it was recreated and has lost the patch"


def test_what_a_plan_says_of_libvirt():
    def left(**locks):
        mounts = [for_guests(fix="patch", source=source) for source in ("a:/", "b:/")]
        (sentence,) = lock_cure.cure(host(*mounts, nova_libvirt="stock") | libvirt(True, **locks), WHOLE)["left"]
        return sentence

    assert left() == f"guests do not start from a:/, b:/ even with the patched QEMU: {REMEDY}"
    assert left(remedy="Give it a lockspace.").endswith("QEMU: Give it a lockspace.")
    assert left(remedy="").endswith("QEMU")
    assert left(detail="another holds after the next start").endswith(f"QEMU (another holds after the next start): {REMEDY}")


UNSURE = (
    "whether guests start from filer:/volumes with the patched QEMU could not be told: root may not write there, and libvirt goes without its own lock on a "
    f"disk that root may not open for writing. If none starts: {REMEDY}"
)


@pytest.mark.parametrize(
    "one, sure",
    [
        pytest.param(for_guests(fix="patch"), True, id="both halves are missing"),
        pytest.param(for_guests(fix="patch", missing=["QEMU takes locks"]), None, id="libvirt's is not"),
        pytest.param(for_guests("unknown", fix="patch", missing=["libvirt takes a lock; it may go without"]), False, id="not known"),
        pytest.param(for_guests(fix="patch", **SQUASHED), False, id="QEMU's half is missing, and that of libvirt is not known"),
        pytest.param(for_guests(fix="patch", squashed=False, fstype="fuse.juicefs"), True, id="a filesystem where libvirt always takes it"),
        pytest.param(for_guests(fix="patch", evidence=["POSIX lock: refused"]), True, id="root may write"),
    ],
)
def test_libvirts_own_lock_is_asserted_only_where_it_is_known(one, sure):
    plan = lock_cure.cure(host(one, nova_libvirt="stock") | libvirt(True), WHOLE)
    assert [len(plan["left"]), plan["look"]] == [1 if sure else 0, [UNSURE] if sure is False else []]


def test_a_store_whose_server_squashes_root_may_start_guests():
    stores = lock_cure.fleet([("storage1", host(mount("cinder_volume", "locks_refused", vers="4.2", **SQUASHED)))])
    assert stores["squashed"] == ["filer:/volumes"]
    plan = lock_cure.cure(host(nova_libvirt="patched") | libvirt(True), stores)
    assert [plan["left"], plan["look"]] == [[], [UNSURE]]
    stores["refused"]["other:/x"] = "there"
    plan = lock_cure.cure(host(nova_libvirt="patched") | libvirt(True), stores)
    assert [plan["left"], plan["look"]] == [[f"guests do not start from other:/x even with the patched QEMU: {REMEDY}"], [UNSURE]]


def test_a_start_that_is_not_known_is_told_with_its_reason():
    one = for_guests("unknown", "ok", "none", missing=["libvirt may go without"])
    plan = lock_cure.cure(host(one, nova_libvirt="stock") | libvirt(True), WHOLE)
    assert plan["look"] == ["whether a guest starts from filer:/volumes could not be told: libvirt may go without"]


def test_guests_of_another_architecture_are_left_once_the_set_is_in():
    refuses = for_guests(fix="patch", missing=["QEMU takes locks, which are refused here, and without the patch are qemu-system-arm"])
    first = lock_cure.cure(in_part(host(refuses, nova_libvirt="stock"), "qemu-utils", "qemu-system-x86", "qemu-system-arm"), WHOLE)
    assert first["left"] == []
    known = in_part(host(refuses, nova_libvirt="stock"), "qemu-system-arm")
    assert lock_cure.cure(known, WHOLE)["left"] == []  # the set that is given may have it
    (left,) = lock_cure.cure(known, WHOLE, rpcbind="never", before=first)["left"]
    assert left.startswith("nova_libvirt has no patched qemu-system-arm, which only guests of another architecture use: ")
    assert "qemu_patched_build_also" in left
    assert left in lock_cure.cure(known, WHOLE, given=False, method="packages")["left"]
    assert lock_cure.cure(in_part(host(nova_libvirt="stock"), "qemu-system-arm"), WHOLE, before=first)["left"] == []  # no lock is refused
    native = in_part(host(refuses, nova_libvirt="stock"), "qemu-system-x86", "qemu-system-arm")
    assert lock_cure.cure(native, WHOLE, before=first)["left"] == []  # which fails the host


def test_emulators_that_do_not_count_are_told_where_others_are_patched():
    info = host(nova_libvirt="patched", nova_compute="stock", cinder_volume="patched")
    for row in info["packages"][:2]:
        row["stock_emulators"] = ["arm", "mips", "misc", "ppc", "riscv", "s390x", "sparc"]
    plan = lock_cure.cure(info, WHOLE)
    assert plan["look"] == ["emulators without the patch in nova_libvirt: arm, mips, misc, ppc, riscv and 2 more"]
    assert plan["left"] == plan["needs"] == []


@pytest.mark.parametrize(
    "info, whole, wants, needs",
    [
        pytest.param(host(nova_compute="stock"), WHOLE, {}, [], id="nothing"),
        pytest.param(host(nova_compute="patched"), REFUSED, {}, [], id="patched already, on whatever set"),
        pytest.param(host(nova_compute="patched"), REFUSED, NO_SET, [], id="the same without one"),
        pytest.param(
            host(nova_compute="stock"), REFUSED, {},
            ["the patched QEMU: nova_compute: guests will use filer:/volumes, whose locks are refused (there)"], id="patch",
        ),
        pytest.param(host(services="absent"), V3, {}, ["rpcbind_ensure: NFSv3 is in use: " + V3["nfsv3"]], id="rpcbind"),
        pytest.param(
            host(nova_libvirt="stock") | drift("nova_libvirt", "recreated"), WHOLE, {},
            ["the patched QEMU: nova_libvirt: it was recreated and has lost the patch"], id="the patch is lost",
        ),
        pytest.param(host(nova_libvirt="stock") | drift("nova_libvirt", "recreated"), WHOLE, {"patch": "never"}, [], id="the same, where none is wanted"),
        pytest.param(host(nova_libvirt="patched") | drift("nova_libvirt", "gone"), WHOLE, {}, [], id="a container that is gone"),
        pytest.param(
            host() | STALE, WHOLE, {}, ["guests that still run the QEMU from before: instance-1, process 8 (hard reboot or live-migrate them)"], id="stale"
        ),
        pytest.param(host(mount("nova_compute", "hangs")), WHOLE, {}, ["filer:/volumes: hangs: because. Do it."], id="by hand"),
        pytest.param(host(mount("nova_compute", "nolock_mount")), WHOLE, {}, [], id="to be known only"),
        pytest.param({"failed": True, "msg": "no root"}, WHOLE, {}, ["it was not looked at: no root"], id="failed"),
        pytest.param(None, WHOLE, {}, ["it was not looked at: no answer"], id="no result"),
    ],
)
def test_what_a_host_needs(info, whole, wants, needs):
    assert lock_cure.cure(info, whole, **wants)["needs"] == needs


def test_what_is_left_after_a_cure_is_what_is_left_by_then():
    first = lock_cure.cure(host(for_guests(fix="patch"), nova_libvirt="stock") | libvirt(True), WHOLE)
    assert first["patch"] == ["nova_libvirt"] and REMEDY in first["left"][0]
    patched = host(for_guests(), nova_libvirt="patched") | libvirt(True)
    then = lock_cure.cure(patched, WHOLE, rpcbind="never", before=first)
    assert then["left"] == ["filer:/volumes: locks_refused: because. Do it."]
    # A guest that starts all the same tells more than what was read of its settings.
    starts = patched | {"guest_proofs": [{"container": "nova_libvirt", "path": "/mnt/1", "result": "works"}]}
    assert lock_cure.cure(starts, WHOLE, rpcbind="never", before=first)["left"] == []
    assert lock_cure.cure(host(for_guests("no", fix="none"), nova_libvirt="patched") | {"guest_proofs": starts["guest_proofs"]}, WHOLE)["left"] == []


def test_what_is_stock_again_and_not_used_is_no_loss():
    plan = lock_cure.cure(host(nova_libvirt="patched") | drift("nova_libvirt", "lost", counts=False), WHOLE)
    assert plan["look"] == ["nova_libvirt: nova_libvirt is another (its own work does not use that package)"]
    assert plan["needs"] == []


@pytest.mark.parametrize(
    "info, told",
    [
        pytest.param(host(nova_libvirt="stock"), True, id="nothing was found of it"),
        pytest.param(host(nova_libvirt="none"), True, id="nor of QEMU"),
        pytest.param(host(cinder_volume="stock"), False, id="no nova_libvirt"),
        pytest.param(exited(host(), "nova_libvirt"), False, id="it does not run"),
        pytest.param(host(nova_libvirt="unknown"), False, id="it was not looked at, which is told"),
    ],
)
def test_locks_of_libvirt_that_could_not_be_judged_are_told(info, told):
    sentence = "libvirt's own locks could not be judged: nothing was found of libvirt in nova_libvirt"
    for wants in ({}, {"patch": "never"}):
        assert (sentence in lock_cure.cure(info | libvirt(False, container=""), WHOLE, **wants)["look"]) is told
        assert sentence not in lock_cure.cure(info | libvirt(False), WHOLE, **wants)["look"]
        assert sentence not in lock_cure.cure(info, WHOLE, **wants)["look"]  # an older module does not look


def test_a_container_that_was_stopped_before_stays_what_it_was_to_the_plan():
    first = lock_cure.cure(exited(host(services="absent"), "nova_libvirt"), V3)
    assert first["left"] == ["nova_libvirt does not run (it is exited, and was before this run), so that no guest starts here and none was tried: start it"]
    then = lock_cure.cure(exited(host(), "nova_libvirt"), V3, rpcbind="never", before=first)
    assert then["left"] == first["left"]
    assert lock_cure.cure(host(nova_libvirt="stock"), V3, rpcbind="never", before=first)["left"] == []


def test_what_all_hosts_tell_together():
    refusing = mount("cinder_volume", "locks_refused", "gluster:/v", vers="", fstype="nfs4")
    results = [
        ("dead", None),
        ("compute1", host(mount("nova_compute", "ok", vers="4.2"))),
        ("storage1", host(mount("cinder_volume", "ok"))),
        ("storage2", host(refusing)),
    ]
    whole = lock_cure.fleet(results)
    assert whole["nfsv3"] == "filer:/volumes at /mnt/1 in cinder_volume of storage1"
    assert whole["refused"] == {"gluster:/v": "gluster:/v at /mnt/1 in cinder_volume of storage2"}
    assert lock_cure.fleet(results, ["storage1", "storage10", "storage9", "dead"])["unseen"] == ["dead", "storage9", "storage10"]


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(mount("cinder_volume", "locks_refused", vers="4.2", probed="inside"), id="a container's seccomp profile is no store's fault"),
        pytest.param(mount("cinder_volume", "server_no_nlm", vers="4.2"), id="another cause"),
        pytest.param(mount("nova_compute", "locks_refused", vers="4.2"), id="what Nova mounts is no store of Cinder's"),
        pytest.param(mount("cinder_volume", "locks_refused", vers="", fstype="xfs"), id="a local folder is mounted nowhere else"),
    ],
)
def test_a_store_is_known_to_refuse_only_if_it_does(one):
    assert lock_cure.fleet([("storage1", host(one))]) == WHOLE


def test_version_3_without_locks_needs_no_statd():
    assert lock_cure.fleet([("compute1", host(mount("nova_compute", "nolock_mount", options="rw,nolock,vers=3")))])["nfsv3"] == ""


def test_a_host_that_wants_statd_stands_for_nfsv3():
    assert lock_cure.fleet([("compute1", host(mount("nova_compute", "statd_dead", vers="")))])["nfsv3"] == "compute1 needs them"


def test_a_store_whose_own_host_is_patched_refuses_locks_to_guests_still():
    one = mount("cinder_volume", "locks_refused", "filer:/x", vers="4.2", fix="none")
    assert list(lock_cure.fleet([("storage1", host(one, cinder_volume="patched"))])["refused"]) == ["filer:/x"]


def test_a_service_that_an_earlier_run_disabled_is_left():
    assert len(lock_cure.cure(host(nova_compute="stock"), WHOLE, disabled=True)["left"]) == 1
    assert lock_cure.cure(host(nova_compute="patched"), WHOLE, disabled=True)["left"] == []


def test_nothing_is_left_of_a_template():
    assert lock_cure.inert({"a{{b": ["{%x%}", {"c": "{{{ {#"}, 1, None]}) == {"a{ {b": ["{ %x%}", {"c": "{ { { { #"}, 1, None]}


LIBRARY = {"given": False}  # as the playbooks are run without a word


@pytest.mark.parametrize(
    "info, whole, wants, patch, left, look",
    [
        pytest.param(host(mount("nova_compute", "ok"), nova_compute="stock"), WHOLE, {}, [], 0, 0, id="all is well"),
        pytest.param(
            host(
                mount("nova_compute", "locks_refused"), mount("nova_libvirt", "locks_refused"),
                nova_compute="stock", nova_libvirt="stock", cinder_volume="stock",
            ),
            WHOLE, {}, ["nova_libvirt", "nova_compute"], 0, 0, id="where locks are refused, and not elsewhere",
        ),
        pytest.param(
            host(for_guests(fix="patch"), nova_libvirt="stock") | libvirt(True), WHOLE, {}, ["nova_libvirt"], 0, 0, id="libvirt's own lock is left to nobody",
        ),
        pytest.param(
            host(for_guests(), nova_libvirt="patched") | libvirt(True), WHOLE, {}, ["nova_libvirt"], 0, 0, id="patched, and libvirt's own lock is refused",
        ),
        pytest.param(
            host(for_guests(verdict="ok"), nova_libvirt="stock") | libvirt(True), WHOLE, {}, ["nova_libvirt"], 0, 0, id="only libvirt's own lock is refused",
        ),
        pytest.param(
            host(mount("nova_compute", "locks_refused", fix="none"), nova_compute="patched", cinder_volume="patched"), WHOLE, {}, [], 0, 0,
            id="patched already",
        ),
        pytest.param(
            host(nova_compute="stock", nova_libvirt="patched") | libvirt(False), REFUSED, {}, ["nova_compute"], 0, 0, id="guests' volumes, and one is patched",
        ),
        pytest.param(
            host(nova_compute="patched", nova_libvirt="patched") | libvirt(True), REFUSED, {}, ["nova_libvirt"], 0, 0,
            id="guests' volumes will refuse libvirt's own lock",
        ),
        pytest.param(
            with_library(host(nova_libvirt="library") | libvirt(True, covered=True), nova_libvirt="installed"), REFUSED, {}, [], 0, 0, id="libvirt is covered",
        ),
        pytest.param(
            with_library(host(for_guests("yes", fix="none"), nova_libvirt="library") | libvirt(True, covered=True), nova_libvirt="bound"), WHOLE, {}, [], 0, 0,
            id="kolla keeps it there",
        ),
        pytest.param(
            with_library(host(for_guests(fix="patch"), nova_libvirt="library") | libvirt(True), nova_libvirt="installed"), WHOLE, {}, ["nova_libvirt"], 0, 0,
            id="libvirt was started before it",
        ),
        pytest.param(with_library(host(nova_compute="library"), nova_compute="old"), WHOLE, {}, ["nova_compute"], 0, 0, id="another build of it"),
        pytest.param(
            with_library(host(glance_api="stock"), glance_api="broken"), WHOLE, {}, ["glance_api"], 0, 0, id="a list that names what nothing can load",
        ),
        pytest.param(
            with_library(host(glance_api="stock"), glance_api="broken"), WHOLE, {"patch": "never"}, [], 0, 1, id="the same, where nothing is wanted",
        ),
        pytest.param(
            host(cinder_volume="stock") | drift("cinder_volume", "recreated", what="library"), WHOLE, {}, ["cinder_volume"], 0, 0, id="recreated",
        ),
        pytest.param(
            with_library(host(cinder_volume="library"), cinder_volume="bound") | drift("cinder_volume", "recreated"), WHOLE, {}, [], 0, 0,
            id="recreated, and kolla keeps it there by now",
        ),
        pytest.param(host(cinder_volume="stock") | drift("cinder_volume", "lost"), WHOLE, {}, ["cinder_volume"], 0, 0, id="the patch was lost"),
        pytest.param(
            with_library(host(mount("nova_compute", "locks_refused"), nova_compute="unknown"), nova_compute="none"), WHOLE, {}, ["nova_compute"], 0, 0,
            id="rpm packages",
        ),
        pytest.param(
            with_library(host(nova_compute="unknown"), nova_compute="none"), REFUSED, {}, ["nova_compute"], 0, 0, id="rpm packages, and guests' volumes",
        ),
        pytest.param(
            host(zun_compute="stock", cinder_api="none", cinder_volume="unknown", nova_compute="patched", glance_api="library"), WHOLE, {"patch": "always"},
            ["cinder_volume", "zun_compute"], 0, 0, id="asked for everywhere: where it is wanting",
        ),
        pytest.param(host(nova_libvirt="mixed"), WHOLE, {}, [], 0, 1, id="patched in part, and nothing is refused"),
        pytest.param(
            in_part(host(for_guests(fix="patch", missing=["QEMU takes locks"]), nova_libvirt="stock"), "qemu-system-arm"), WHOLE, {}, ["nova_libvirt"], 0, 0,
            id="emulators of other architectures have it as well",
        ),
        pytest.param(host(mount("nova_compute", "statd_dead"), nova_compute="stock"), WHOLE, {"rpcbind": "never"}, [], 1, 0, id="statd is dead"),
        pytest.param(host(mount("nova_compute", "locks_refused"), nova_compute="stock"), WHOLE, {"patch": "never"}, [], 1, 0, id="never"),
        pytest.param(
            host(mount("nova_compute", "locks_refused"), nova_compute="stock"), WHOLE, {"given": True, "method": "library"}, ["nova_compute"], 0, 0,
            id="asked for by its name",
        ),
    ],
)
def test_the_smallest_cure_by_the_library(info, whole, wants, patch, left, look):
    plan = lock_cure.cure(info, whole, **{**LIBRARY, **wants})
    assert plan["method"] == "library"
    assert plan["patch"] == patch
    assert [len(plan["left"]), len(plan["look"])] == [left, look], plan
    assert bool(plan["patch_why"]) is plan["todo"] is bool(patch)
    assert all(sentence.startswith(("the library: ", "by hand: ", "to be known: ")) for sentence in plan["say"])


def test_what_a_plan_says_of_the_library():
    plan = lock_cure.cure(host(for_guests(), nova_libvirt="patched") | libvirt(True), WHOLE, given=False)
    assert plan["say"] == ["the library: nova_libvirt: the lock of libvirt itself is refused at /mnt/1"]
    assert plan["needs"] == ["the library: nova_libvirt: the lock of libvirt itself is refused at /mnt/1"]
    plan = lock_cure.cure(host(nova_libvirt="stock") | drift("nova_libvirt", "recreated", what="library"), WHOLE, given=False)
    assert plan["patch_why"] == "nova_libvirt: it was recreated and has lost the library"
    old = lock_cure.cure(with_library(host(nova_libvirt="library"), nova_libvirt="old"), WHOLE, given=False)
    assert old["needs"] == [] and old["patch_why"] == "nova_libvirt: it has another build of the library"
    assert lock_cure.cure(host(nova_compute="stock"), WHOLE, given=False, patch="always")["say"] == ["the library: asked for"]
    # With a patch set it is the packages, unless it is said.
    assert lock_cure.cure(host(nova_compute="stock"), WHOLE, given=True)["method"] == "packages"
    assert lock_cure.cure(host(nova_compute="stock"), WHOLE, given=True, method="library")["method"] == "library"


def test_with_packages_a_libvirt_that_is_covered_is_left_to_nobody():
    covered = with_library(host(for_guests("yes", fix="none"), nova_libvirt="patched") | libvirt(True, covered=True), nova_libvirt="bound")
    assert lock_cure.cure(covered, REFUSED)["left"] == []
    assert lock_cure.cure(covered, REFUSED)["patch"] == ["nova_libvirt"]


def test_a_guest_that_started_needs_no_library_for_libvirt():
    info = host(for_guests(verdict="ok"), nova_libvirt="stock") | libvirt(True)
    assert lock_cure.cure(info, WHOLE, given=False)["patch"] == ["nova_libvirt"]
    assert lock_cure.cure(info | {"guest_proofs": [{"container": "nova_libvirt", "path": "/mnt/1", "result": "works"}]}, WHOLE, given=False)["patch"] == []
