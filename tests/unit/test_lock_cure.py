"""What the fix playbook does on a host: results of nfs_lock_info in, a plan out."""

import pytest
from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_cure
from results import REFUSED, WHOLE, host, mount

V3 = {**WHOLE, "nfsv3": "filer:/volumes at /mnt/1 in cinder_volume of storage1"}
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
            host(zun_compute="stock", cinder_api="none", glance_api="stock", cinder_volume="unknown", nova_compute="stock"), WHOLE, {"patch": "always"},
            False, ["nova_compute", "cinder_volume", "glance_api", "zun_compute"], 0, 0, id="always patched, where QEMU is or may be",
        ),
        pytest.param(
            host(mount("glance_api", "locks_refused"), mount("ironic_conductor", "locks_refused"), ironic_conductor="stock", glance_api="stock", cinder_api="stock"),
            WHOLE, {}, False, ["glance_api", "ironic_conductor"], 0, 0, id="whatever carries QEMU",
        ),
        pytest.param(
            host(mount("glance_api", "locks_refused"), glance_api="stock"), WHOLE, {"given": False}, False, [], 1, 0, id="and is left without a patch set",
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


def test_a_store_whose_own_host_is_patched_refuses_locks_to_guests_still():
    one = mount("cinder_volume", "locks_refused", "filer:/x", vers="4.2", fix="none")
    assert list(lock_cure.fleet([("storage1", host(one, cinder_volume="patched"))])["refused"]) == ["filer:/x"]


def test_a_service_that_an_earlier_run_disabled_is_left():
    assert len(lock_cure.cure(host(nova_compute="stock"), WHOLE, disabled=True)["left"]) == 1
    assert lock_cure.cure(host(nova_compute="patched"), WHOLE, disabled=True)["left"] == []


def test_nothing_is_left_of_a_template():
    assert lock_cure.inert({"a{{b": ["{%x%}", {"c": "{{{ {#"}, 1, None]}) == {"a{ {b": ["{ %x%}", {"c": "{ { { { #"}, 1, None]}
