"""What became of each host, and when no further one is begun."""

import pytest
from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_outcome
from results import DONE, FAILED, SQUASHED, WHOLE, host, libvirt, mount


def test_a_store_that_turns_out_to_refuse_locks_is_told_to_hosts_with_guests():
    compute = {"nfs_lock_info_result": host(nova_compute="stock"), "nfs_lock_cure_plan": {"todo": False}, "nfs_lock_cure_fleet": WHOLE}
    patched = {**compute, "nfs_lock_info_result": host(nova_compute="patched")}
    one = mount("cinder_volume", "locks_refused", "filer:/x", vers="4.2", fix="none")
    storage = {"nfs_lock_info_result": host(one, cinder_volume="patched"), "nfs_lock_cure_plan": {"todo": True}, "nfs_lock_cure_outcome": DONE}
    known = {"a": compute, "b": patched, "storage1": storage}
    assert set(lock_outcome.outcomes(known.get, list(known))["bad"]) == {"a"}
    # Where QEMU is patched, libvirt's own lock is refused there all the same.
    known = {"b": {**patched, "nfs_lock_info_result": host(nova_libvirt="patched") | libvirt(True)}, "storage1": storage}
    assert set(lock_outcome.outcomes(known.get, list(known))["bad"]) == {"b"}
    # But not for certain where the server squashes root.
    known["storage1"] = {**storage, "nfs_lock_info_result": host({**one, **SQUASHED}, cinder_volume="patched")}
    assert not lock_outcome.outcomes(known.get, list(known))["bad"]
    assert set(lock_outcome.outcomes({**known, "a": compute}.get, ["a", "b", "storage1"])["bad"]) == {"a"}
    known = {"a": {**compute, "nfs_lock_cure_fleet": {"refused": {"filer:/x": "there"}}}, "storage1": storage}
    assert not lock_outcome.outcomes(known.get, list(known))["bad"]


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
    assert lock_outcome.stop(ended, **wants) == word


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
    found = lock_outcome.outcomes(known.get, list(known))
    assert found["lines"] == [
        "h5: unreachable: no route",
        "h0: failed: no plan was made; its output is above",
        "h1: failed: dpkg",
        "h3: failed: it was not looked at",
        "h4: failed: no root",
        "h7: lost: contact was lost during the patched QEMU; run again, which looks at what is there first. nova-compute is disabled there",
        "h6: stopped: not begun: the run had stopped",
        "h2: left: patched; filer:/x: server_no_nlm: because",
        "h8: left: filer:/x: server_no_nlm: because",
        "h9: done: patched",
        "h10: nothing: what is wrong; no lock is taken",
    ]
    assert set(found["bad"]) == {"h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"}
