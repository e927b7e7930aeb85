"""What a look after the cure says against a host."""

import pytest
from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_cure, lock_proof
from results import REFUSED, WHOLE, exited, for_guests, host, in_part, libvirt, mount, with_library

GUEST = {"container": "nova_libvirt", "path": "/mnt/1", "result": "works", "detail": "no disk"}


@pytest.mark.parametrize(
    "more, against",
    [
        pytest.param({}, [], id="works"),
        pytest.param({"libvirt": {"container": "", "healthy": False}}, [], id="no libvirt here"),
        pytest.param(
            {"libvirt": {"container": ""}, "packages": exited(host(cinder_volume="patched"), "nova_libvirt")["packages"]},
            ["nova_libvirt ran before and does not now: it is exited"],
            id="libvirt does not run any more",
        ),
        pytest.param(
            {"libvirt": {"container": ""}, "packages": host(cinder_volume="patched", nova_libvirt="unknown")["packages"]},
            ["nova_libvirt is there and could not be looked at"],
            id="nobody knows of libvirt",
        ),
        pytest.param({"mounts": [for_guests()]}, [], id="libvirt alone keeps guests from it, which is left"),
        pytest.param({"mounts": [for_guests(verdict="ok")], "guest_proofs": [GUEST | {"result": "fails"}]}, [], id="and so is the guest that does not start"),
        pytest.param({"guest_proofs": [GUEST]}, [], id="a guest starts"),
        pytest.param({"guest_proofs": [GUEST | {"result": "not_tried"}]}, [], id="none was tried"),
        pytest.param(
            {"guest_proofs": [GUEST | {"result": "fails"}]}, ["a guest does not start at /mnt/1 in nova_libvirt: no disk"], id="no guest starts"
        ),
        pytest.param(
            {"guest_proofs": [GUEST | {"result": "hangs"}]}, ["a guest hangs when it is started at /mnt/1 in nova_libvirt: no disk"], id="a guest hangs"
        ),
        pytest.param(
            {"mounts": [for_guests("no", "server_no_nlm", source="other:/v")], "guest_proofs": [GUEST | {"result": "fails"}]}, [],
            id="a guest did not start before either",
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
    assert lock_proof.proof(info, {"patch": ["cinder_volume"], "known": ["other:/v: server_no_nlm"]})["against"] == against


def test_what_fails_only_after_something_was_changed_is_against_it():
    dead, none = mount("nova_compute", "statd_dead"), mount("nova_compute", "server_no_nlm", "other:/v")
    first = lock_cure.cure(host(dead, none, nova_compute="stock"), WHOLE)
    assert first["known"] == ["other:/v: server_no_nlm"]
    after = host(mount("nova_compute", "callback_blocked"), none, nova_compute="stock")
    then = lock_cure.cure(after, WHOLE, rpcbind="never", before=first)
    assert len(then["left"]) == 2
    assert lock_proof.proof(after, then)["against"] == ["filer:/volumes: callback_blocked: because. Do it."]


def test_qemu_img_may_fail_where_it_did_before():
    refuses = mount("cinder_volume", "locks_refused")
    info = host(refuses, cinder_volume="stock") | {"proofs": [{"container": "cinder_volume", "path": "/mnt/1", "result": "fails", "step": "create"}]}
    plan = lock_cure.cure(info, WHOLE, given=False, method="packages")
    found = lock_proof.proof(info, plan)
    assert found["against"] == []
    assert found["say"].endswith("; qemu-img create still fails at /mnt/1 in cinder_volume")
    assert lock_proof.proof(info, {**plan, "known": []})["against"]


def test_a_container_that_was_stopped_before_this_run_fails_no_host():
    before = exited(host(mount("cinder_volume", "statd_dead"), cinder_volume="stock"), "nova_libvirt")
    for runs_guests in (True, False):
        plan = lock_cure.cure(before, WHOLE, runs_guests=runs_guests)
        after = exited(host(mount("cinder_volume", "ok"), cinder_volume="stock"), "nova_libvirt")
        assert lock_proof.proof(after, plan)["against"] == []


def test_guests_whose_locks_are_refused_are_not_helped_by_tools():
    info = host(mount("nova_libvirt", "locks_refused"), nova_libvirt="stock")
    plan = lock_cure.cure(info, WHOLE)
    assert plan["guests"]
    assert lock_cure.cure(host(nova_libvirt="stock"), REFUSED)["guests"]
    assert not lock_cure.cure(host(nova_libvirt="mixed"), WHOLE, patch="always")["guests"]
    after = host(nova_libvirt="mixed") | {"libvirt": {"container": "nova_libvirt", "healthy": True}}
    assert lock_proof.proof(after, plan)["against"] == []  # an older module calls each nova_libvirt of kolla's so
    after["packages"][0]["stock_emulators"] = []
    (against,) = lock_proof.proof(after, plan)["against"]
    assert "qemu_patched_build_profile=host" in against


def test_guests_of_another_architecture_fail_no_host():
    refuses = for_guests(fix="patch", missing=["QEMU takes locks, and without the patch are qemu-system-arm"])
    plan = lock_cure.cure(host(refuses, nova_libvirt="stock"), WHOLE)
    well = {"libvirt": {"container": "nova_libvirt", "healthy": True}}
    after = in_part(host(refuses, nova_libvirt="stock"), "qemu-system-arm") | well
    assert lock_proof.proof(after, plan)["against"] == []
    assert "in part: nova_libvirt" in lock_proof.proof(after, plan)["say"]
    # The guest that is tried is one of the host's own architecture, and has to start.
    ill = after | {"guest_proofs": [GUEST | {"result": "fails"}]}
    assert lock_proof.proof(ill, plan)["against"] == ["a guest does not start at /mnt/1 in nova_libvirt: no disk"]
    compute = host(refuses, mount("nova_compute", "locks_refused", "other:/x"), nova_libvirt="stock", nova_compute="stock")
    assert len(lock_proof.proof(in_part(compute, "qemu-system-arm") | well, plan)["against"]) == 1
    native = in_part(host(refuses, nova_libvirt="stock"), "qemu-system-arm", "qemu-system-x86") | well
    assert any("qemu_patched_build_profile=host" in sentence for sentence in lock_proof.proof(native, plan)["against"])


def test_a_classic_set_that_does_not_help_fails_the_host_with_the_set_that_does():
    classic = {"text": "QEMU has the classic edit. Install a patch set of the variant fallback."}
    refuses = mount("cinder_volume", "locks_refused", cure=classic)
    plan = lock_cure.cure(host(mount("cinder_volume", "locks_refused"), cinder_volume="stock"), WHOLE)
    (against,) = lock_proof.proof(host(refuses, cinder_volume="patched"), plan)["against"]
    assert "variant fallback" in against
    # Without a set, in a later run, it is left with the same words, and fails no cure of rpcbind.
    later = lock_cure.cure(host(refuses, cinder_volume="patched"), WHOLE, given=False, method="packages")
    assert later["left"] == [against]
    assert lock_proof.proof(host(refuses, cinder_volume="patched"), later)["against"] == []
    # Where the store has POSIX locks, the classic edit is enough.
    enough = host(mount("cinder_volume", "locks_refused", fix="none"), cinder_volume="patched")
    assert lock_proof.proof(enough, plan)["against"] == lock_cure.cure(enough, WHOLE, before=plan)["left"] == []


def test_a_proof_without_a_guest_says_why():
    def said(info, *rows):
        return lock_proof.proof(info | {"guest_proofs": list(rows)}, {})["say"].partition("there was no mount to try qemu-img on")[2]

    runs = host(nova_libvirt="patched")
    assert said(runs) == "; no guest was tried: nova_libvirt has no mount to start one from"
    untried = [GUEST | {"path": path, "result": "not_tried", "detail": "nova_libvirt has no virsh"} for path in ("/a", "/b")]
    assert said(runs, *untried) == "; no guest was tried at /a, /b: nova_libvirt has no virsh"
    assert said(runs, GUEST) == "; a guest started on 1 mount"
    assert said(runs, GUEST | {"result": "fails"}) == said(host(cinder_volume="patched")) == said(exited(host(), "nova_libvirt")) == ""


def test_a_proof_says_what_was_done():
    info = host(cinder_volume="patched") | {"proofs": [{"result": "works"}, {"result": "works", "unlocked": True}]}
    assert lock_proof.proof(info, {"patch": ["cinder_volume"]})["say"] == (
        "rpcbind and rpc.statd answer; patched: cinder_volume; qemu-img works on 2 mounts, on 1 of them WITHOUT a lock"
    )
    info["guest_proofs"] = [
        GUEST | {"unlocked": True},
        *(GUEST | {"path": path, "result": "not_tried", "detail": "neither KVM nor TCG"} for path in ("/a", "/b")),
        GUEST | {"path": "/c", "result": "fails"},
    ]
    info["mounts"] = [for_guests(path="/c")]
    assert lock_proof.proof(info, {"patch": []})["say"].endswith(
        "; a guest started on 1 mount, WITHOUT a lock; no guest starts at /c in nova_libvirt yet; no guest was tried at /a, /b: neither KVM nor TCG"
    )
    info |= {"packages": [{"container": "nova_libvirt", "qemu": "mixed"}], "libvirt": {"container": "nova_libvirt", "healthy": True}}
    assert lock_proof.proof(info, {"patch": ["nova_libvirt"]})["against"] == []
    assert "in part: nova_libvirt" in lock_proof.proof(info, {"patch": ["nova_libvirt"]})["say"]
    assert lock_proof.proof({"failed": True, "msg": "broken"}, {})["against"] == ["broken"]


def test_the_library_is_proved():
    plan = lock_cure.cure(host(for_guests(fix="patch"), cinder_volume="stock", nova_libvirt="stock") | libvirt(True), WHOLE, given=False)
    assert plan["patch"] == ["nova_libvirt"] and plan["left"] == []
    locks = {"container": "nova_libvirt", "own_locks": True, "covered": True}
    well = {"libvirt": {"container": "nova_libvirt", "healthy": True, "locks": locks}, "guest_proofs": [GUEST | {"unlocked": True}]}
    after = with_library(host(for_guests("yes", fix="none"), nova_libvirt="library"), nova_libvirt="installed") | well
    found = lock_proof.proof(after, plan)
    assert found["against"] == []
    assert "the library: nova_libvirt; " in found["say"] and found["say"].endswith("a guest started on 1 mount, WITHOUT a lock")
    then = lock_cure.cure(after, WHOLE, rpcbind="never", given=False, before=plan)
    assert [then["patch"], then["left"], then["look"]] == [[], [], []]

    # What was to be covered and is not is no person's business: it failed.
    ill = with_library(host(for_guests(fix="patch"), nova_libvirt="library"), nova_libvirt="installed") | well | {"guest_proofs": [GUEST | {"result": "fails"}]}
    against = lock_proof.proof(ill, plan)["against"]
    assert "a guest does not start at /mnt/1 in nova_libvirt: no disk" in against and len(against) == 2
    gone = with_library(host(for_guests("yes", fix="none"), nova_libvirt="stock"), nova_libvirt="unlisted") | well
    assert lock_proof.proof(gone, plan)["against"] == ["nova_libvirt has not the library: unlisted"]
    assert lock_proof.proof(host(nova_compute="stock"), plan)["against"] == ["nova_libvirt has not the library: it is not there"]
