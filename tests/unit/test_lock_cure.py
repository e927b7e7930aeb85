"""What the fix playbook does on a host: results of nfs_lock_info in, a plan out."""

import pytest
from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_cure

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
V3 = {**WHOLE, "nfsv3": "filer:/volumes at /mnt/1 in cinder_volume of storage1"}
REFUSED = {**WHOLE, "refused": {FILER: "there"}}
UNSEEN = {**WHOLE, "unseen": ["storage1"]}
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
            host(mount("nova_compute", "locks_refused"), nova_compute="stock", nova_libvirt="mixed", cinder_volume="patched"), WHOLE, {"given": False},
            False, [], 1, 1, id="no patch set: what refuses is left, what is well is well",
        ),
        pytest.param(host(nova_compute="stock", nova_libvirt="patched"), REFUSED, {"given": False}, False, [], 2, 0, id="no patch set for guests' volumes"),
        pytest.param(
            host(nova_compute="stock", nova_libvirt="patched", cinder_api="none"), WHOLE, {"patch": "always", "given": False},
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
            host(nova_compute="stock", cinder_api="none", cinder_volume="unknown", other="stock"), WHOLE, {"patch": "always"},
            False, ["nova_compute", "cinder_volume"], 0, 0, id="always patched, where QEMU is or may be",
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


@pytest.mark.parametrize(
    "more, against",
    [
        pytest.param({}, [], id="works"),
        pytest.param({"libvirt": {"container": "", "healthy": False}}, [], id="no libvirt here"),
        pytest.param(
            {"libvirt": {"container": ""}, "packages": [{"container": name, "qemu": "patched"} for name in ("cinder_volume", "nova_libvirt")]},
            ["nova_libvirt is there and does not run"],
            id="libvirt does not run",
        ),
        pytest.param(
            {"mounts": [mount("cinder_volume", "statd_dead")] * 2}, ["filer:/volumes: statd_dead: because. Do it."], id="locks fail where nothing was tried"
        ),
        pytest.param({"mounts": [mount("cinder_volume", "locks_refused")]}, ["filer:/volumes: locks_refused: because. Do it."], id="refused all the same"),
        pytest.param({"mounts": [mount("cinder_volume", "locks_refused", fix="none")]}, [], id="refused, which the patched QEMU bears"),
        pytest.param({"mounts": [mount("cinder_volume", "nolock_mount")]}, [], id="to be known only"),
        pytest.param({"mounts": [mount("cinder_volume", "server_no_nlm", "other:/v")]}, [], id="failed before, and is not our business"),
        pytest.param({"mounts": [mount("host", "locks_refused")]}, [], id="the host has no QEMU of kolla's"),
        pytest.param(
            {"libvirt": {"container": "nova_libvirt", "healthy": False, "detail": "no answer"}}, ["nova_libvirt is not healthy: no answer"], id="libvirt is ill"
        ),
        pytest.param(
            {"proofs": [{"container": "c", "path": "/m", "result": "fails", "step": "create", "detail": "byte 101"}]},
            ["qemu-img create fails at /m in c: byte 101"],
            id="create fails",
        ),
        pytest.param(
            {"proofs": [{"container": "c", "path": "/m", "result": "hangs", "step": "convert", "detail": "20 s"}]},
            ["qemu-img convert hangs at /m in c: 20 s"],
            id="convert hangs",
        ),
        pytest.param({"proofs": [{"container": "c", "path": "/m", "result": "not_tried", "detail": "it is full"}]}, [], id="not tried"),
        pytest.param({"packages": [{"container": "cinder_volume", "qemu": "stock"}]}, ["cinder_volume has no patched QEMU: stock"], id="the patch is gone"),
        pytest.param({"packages": []}, ["cinder_volume has no patched QEMU: it is not there"], id="the container is gone"),
    ],
)
def test_what_the_proof_says(more, against):
    info = host(mount("cinder_volume", "ok"), cinder_volume="patched") | {"proofs": [{"result": "works", "unlocked": True}]} | more
    assert lock_cure.proof(info, {"patch": ["cinder_volume"], "known": ["other:/v: server_no_nlm"]})["against"] == against


def test_what_fails_only_after_something_was_changed_is_against_it():
    dead, none = mount("nova_compute", "statd_dead"), mount("nova_compute", "server_no_nlm", "other:/v")
    first = lock_cure.cure(host(dead, none, nova_compute="stock"), WHOLE)
    assert first["known"] == ["other:/v: server_no_nlm"]
    after = host(mount("nova_compute", "callback_blocked"), none, nova_compute="stock")
    then = lock_cure.cure(after, WHOLE, rpcbind="never", before=first)
    assert len(then["left"]) == 2
    assert lock_cure.proof(after, then)["against"] == ["filer:/volumes: callback_blocked: because. Do it."]


def test_a_store_whose_own_host_is_patched_refuses_locks_to_guests_still():
    one = mount("cinder_volume", "locks_refused", "filer:/x", vers="4.2", fix="none")
    assert list(lock_cure.fleet([("storage1", host(one, cinder_volume="patched"))])["refused"]) == ["filer:/x"]


def test_a_store_that_turns_out_to_refuse_locks_is_told_to_hosts_with_guests():
    compute = {"nfs_lock_info_result": host(nova_compute="stock"), "nfs_lock_cure_plan": {"todo": False}, "nfs_lock_cure_fleet": WHOLE}
    patched = {**compute, "nfs_lock_info_result": host(nova_compute="patched")}
    one = mount("cinder_volume", "locks_refused", "filer:/x", vers="4.2", fix="none")
    storage = {"nfs_lock_info_result": host(one, cinder_volume="patched"), "nfs_lock_cure_plan": {"todo": True}, "nfs_lock_cure_outcome": DONE}
    known = {"a": compute, "b": patched, "storage1": storage}
    assert set(lock_cure.outcomes(known.get, list(known))["bad"]) == {"a"}
    known = {"a": {**compute, "nfs_lock_cure_fleet": {"refused": {"filer:/x": "there"}}}, "storage1": storage}
    assert not lock_cure.outcomes(known.get, list(known))["bad"]


def test_a_service_that_an_earlier_run_disabled_is_left():
    assert len(lock_cure.cure(host(nova_compute="stock"), WHOLE, disabled=True)["left"]) == 1
    assert lock_cure.cure(host(nova_compute="patched"), WHOLE, disabled=True)["left"] == []


def test_qemu_img_may_fail_where_it_did_before():
    refuses = mount("cinder_volume", "locks_refused")
    info = host(refuses, cinder_volume="stock") | {"proofs": [{"container": "cinder_volume", "path": "/mnt/1", "result": "fails", "step": "create"}]}
    plan = lock_cure.cure(info, WHOLE, given=False)
    found = lock_cure.proof(info, plan)
    assert found["against"] == []
    assert found["say"].endswith("; qemu-img create still fails at /mnt/1 in cinder_volume")
    assert lock_cure.proof(info, {**plan, "known": []})["against"]


def test_guests_whose_locks_are_refused_are_not_helped_by_tools():
    info = host(mount("nova_libvirt", "locks_refused"), nova_libvirt="stock")
    plan = lock_cure.cure(info, WHOLE)
    assert plan["guests"]
    assert lock_cure.cure(host(nova_libvirt="stock"), REFUSED)["guests"]
    assert not lock_cure.cure(host(nova_libvirt="mixed"), WHOLE, patch="always")["guests"]
    after = host(nova_libvirt="mixed") | {"libvirt": {"container": "nova_libvirt", "healthy": True}}
    (against,) = lock_cure.proof(after, plan)["against"]
    assert "profile host" in against


def test_a_proof_says_what_was_done():
    info = host(cinder_volume="patched") | {"proofs": [{"result": "works"}, {"result": "works", "unlocked": True}]}
    assert lock_cure.proof(info, {"patch": ["cinder_volume"]})["say"] == (
        "rpcbind and rpc.statd answer; patched: cinder_volume; qemu-img works at 2 places; at 1 of them WITHOUT a lock"
    )
    info |= {"packages": [{"container": "nova_libvirt", "qemu": "mixed"}], "libvirt": {"container": "nova_libvirt", "healthy": True}}
    assert lock_cure.proof(info, {"patch": ["nova_libvirt"]})["against"] == []
    assert "in part: nova_libvirt" in lock_cure.proof(info, {"patch": ["nova_libvirt"]})["say"]
    assert lock_cure.proof({"failed": True, "msg": "broken"}, {})["against"] == ["broken"]


@pytest.mark.parametrize(
    "ended, wants, word",
    [
        ([], {}, ""),
        ([("a", DONE)], {}, ""),
        ([("a", FAILED)], {}, "a failed, of the 1 that went first"),
        ([("a", {"status": "begun"})], {}, "a failed, of the 1 that went first"),
        ([("a", {"status": "left"})], {}, ""),
        ([("a", DONE), ("b", FAILED)], {}, ""),
        ([("a", DONE), ("b", FAILED)], {"canary": 2}, "b failed, of the 2 that went first"),
        ([("a", FAILED)], {"canary": 0}, "a failed, of the 1 that went first"),
        ([("a", FAILED), ("b", DONE)], {"canary": 0}, ""),
        ([("a", DONE), ("b", FAILED)], {"any_errors_fatal": True}, "b failed, and any failure is to stop the run"),
        ([("a", DONE), ("b", FAILED)], {"max_fail_percentage": 49}, "b failed, more than 49 % of the hosts so far"),
        ([("a", DONE), ("b", FAILED)], {"max_fail_percentage": 50}, ""),
        (
            [*((str(n), FAILED) for n in range(8)), ("8", DONE)], {"max_fail_percentage": 0},
            "0, 1, 2, 3, 4 and 3 more failed, more than 0 % of the hosts so far",
        ),
        ([("a", DONE), ("b", FAILED), ("c", FAILED)], {}, "b, c failed, and with it all of the last 2 hosts"),
        ([("a", DONE), ("b", FAILED), ("c", FAILED)], {"batch": 3}, ""),
        ([("a", DONE), ("b", FAILED), ("c", DONE), ("d", FAILED)], {}, ""),
    ],
)
def test_when_no_further_host_is_begun(ended, wants, word):
    assert lock_cure.stop(ended, **wants) == word


def test_what_became_of_each_host():
    info = host(mount("nova_compute", "ok"))
    plan = {"todo": True, "left": []}
    left = ["filer:/x: server_no_nlm: because."]
    known = {
        "h10": {"nfs_lock_info_result": info, "nfs_lock_cure_plan": {"todo": False, "left": [], "look": ["no lock is taken"]}},
        "h9": {"nfs_lock_info_result": info, "nfs_lock_cure_plan": plan, "nfs_lock_cure_outcome": {"status": "done", "message": "patched"}},
        "h8": {"nfs_lock_info_result": info, "nfs_lock_cure_plan": {"todo": False, "left": left}},
        "h7": {
            "nfs_lock_info_result": info, "nfs_lock_cure_plan": plan, "nfs_lock_cure_compute": "is disabled there",
            "nfs_lock_cure_outcome": {"status": "begun", "message": "the patched QEMU"},
        },
        "h6": {"nfs_lock_info_result": info, "nfs_lock_cure_plan": plan},
        "h5": {"nfs_lock_info_result": {"unreachable": True, "msg": "no route"}},
        "h4": {"nfs_lock_info_result": {"failed": True, "msg": "no root"}},
        "h3": {},
        "h0": {"nfs_lock_info_result": info},
        "h2": {"nfs_lock_info_result": info, "nfs_lock_cure_plan": plan | {"left": left}, "nfs_lock_cure_outcome": {"status": "left", "message": "patched"}},
        # what was done there failed so that the last look failed, too
        "h1": {"nfs_lock_info_result": {"failed": True}, "nfs_lock_cure_plan": plan, "nfs_lock_cure_outcome": {"status": "failed", "message": "dpkg"}},
    }
    found = lock_cure.outcomes(known.get, list(known))
    assert found["lines"] == [
        "h5: unreachable: no route",
        "h0: failed: no plan was made; its output is above",
        "h1: failed: dpkg",
        "h3: failed: it was not looked at",
        "h4: failed: no root",
        "h7: lost: contact was lost during the patched QEMU; run again, which looks at what is there first. nova-compute is disabled there",
        "h6: stopped: not begun: the run had stopped",
        "h2: left: patched; filer:/x: server_no_nlm: because.",
        "h8: left: filer:/x: server_no_nlm: because.",
        "h9: done: patched",
        "h10: nothing: what is wrong; no lock is taken",
    ]
    assert set(found["bad"]) == {"h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"}


def test_nothing_is_left_of_a_template():
    assert lock_cure.inert({"a{{b": ["{%x%}", {"c": "{{{ {#"}, 1, None]}) == {"a{ {b": ["{ %x%}", {"c": "{ { { { #"}, 1, None]}
