"""The playbooks diagnose and fix with real ansible-core, on hosts whose modules are stand-ins that note how they were called.

What the modules themselves do is shown elsewhere, on real containers and hosts: here it is who is begun, in which order, and when it stops.
"""

import copy
import json
import re
import sys

import hostvars
import pytest
from controller import Controller

# Each host has a folder, and in it a word for its state; each module has a file with its result for each of these words.
STAND_IN = f"""#!{sys.executable}
# WANT_JSON
import json, pathlib, sys
home = pathlib.Path(sys.argv[0]).parents[1]
name = pathlib.Path(sys.argv[0]).name.removeprefix("AnsiballZ_").removesuffix(".py")
args = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
state = home / "state"
word = state.read_text(encoding="utf-8")
check = "check " if args["_ansible_check_mode"] else ""
with open(home / "calls", "a", encoding="utf-8") as calls:
    how = (" prove" if args.get("prove") else "") + (" by the library" if args.get("method") == "library" else "")
    calls.write(check + name + " " + " ".join(args.get("containers") or []) + how + "\\n")
with open(home.parent / "order", "a", encoding="utf-8") as order:
    order.write(home.name + " " + name + "\\n")
results = json.loads((home / "results.json").read_text(encoding="utf-8"))
result = results.get(name + "@" + word) or results[name]
if args.get("containers") == []:
    result = {{"failed": True, "msg": "option containers is an empty list"}}
if result.get("failed") == "in earnest":
    result["failed"] = not check
if name != "nfs_lock_info" and not check and not result.get("failed"):
    state.write_text(name, encoding="utf-8")
print(json.dumps(result))
"""
RPCBIND = {"changed": True, "msg": "rpcbind and rpc.statd answer", "reason": "the host's packages"}
ROW = {"name": "cinder_volume", "status": "patched", "packages": [], "restarted": False, "stale_qemu": []}
FIXED = {"changed": True, "msg": "1 patched", "containers": [ROW]}
BROKEN = {"changed": False, "failed": True, "msg": "cannot install qemu-utils in cinder_volume: dpkg ended with 1", "containers": []}


def works(info, **more):
    """The same with a proof that QEMU works."""
    return {**info, "proofs": [{"container": "cinder_volume", "path": "/m", "result": "works", "unlocked": False}], "guests": 0,
            "libvirt": info["libvirt"] | {"container": "nova_libvirt", "healthy": True}, **more}


# What a proof says where nothing is mounted for guests.
UNTRIED = "; no guest was tried: nova_libvirt has no mount to start one from"


def patched_volume():
    info = hostvars.patched()
    info["packages"] = [hostvars.packages("nova_libvirt"), hostvars.packages("cinder_volume", "patched", "fallback")]
    return works(info, drift=[])


def for_guests(patched, remembers=True):
    """A host whose store refuses locks to guests, too: to QEMU unless it is patched, to libvirt if it remembers owners."""
    info = hostvars.needs_libvirt()
    info["libvirt"] = {"container": "nova_libvirt", "healthy": True, "detail": "", "locks": hostvars.locks(own_locks=remembers)}
    info["packages"] = [hostvars.packages("nova_libvirt", "patched" if patched else "stock", "fallback" if patched else "")]
    cure = hostvars.PATCH if not patched else hostvars.LIBVIRT if remembers else hostvars.NOTHING
    for row in (info, info["mounts"][0]):
        row.update(cure=cure, recommended_fix=cure["fix"])
    if patched and not remembers:
        info["mounts"][0]["guests"] = {"start": "yes", "missing": []}
        info["guest_proofs"][0].update(result="works", unlocked=True)
    return info


WELL = {"nfs_lock_info": works(hostvars.well())}
DEAD_STATD = {"nfs_lock_info": hostvars.needs_rpcbind(), "rpcbind_ensure": RPCBIND, "nfs_lock_info@rpcbind_ensure": works(hostvars.well())}
REFUSES = {"nfs_lock_info": hostvars.needs_patch(), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": patched_volume()}
BAD = {**REFUSES, "nfs_lock_fix": BROKEN}


class World(Controller):
    def __init__(self, folder):
        super().__init__(folder, dict.fromkeys(("nfs_lock_info", "rpcbind_ensure", "nfs_lock_fix"), STAND_IN))

    def has(self, **hosts):
        """Each host's results by module and state; None of a host where nobody listens. What is called storage has volumes."""
        for name, results in hosts.items():
            (self.home(name) / "results.json").write_text(json.dumps(results or {}), encoding="utf-8")
            (self.home(name) / "state").write_text("first", encoding="utf-8")
        known = {name: self.variables(name, reached=results is not None) for name, results in hosts.items()}
        self.know(known, [name for name in hosts if name.startswith("storage")])

    def run(self, playbook="fix", *arguments, **variables):
        for path in self.folder.glob("hosts/*/calls"):
            path.unlink()
        (self.folder / "hosts" / "order").unlink(missing_ok=True)
        variables = {"nfs_lock_hosts": "all", "nfs_lock_fix_patch_set": "/set", "nfs_lock_fix_remote_src": True, **variables}
        done = self.play(playbook, variables, *arguments)
        self.output = done.stdout + done.stderr
        expected = ("running playbook inside collection", "Invalid characters were found in group names")  # kolla's own names
        warnings = [line for line in self.output.splitlines() if "[WARNING]" in line and not any(part in line for part in expected)]
        assert not warnings
        return done.returncode

    def calls(self, host):
        path = self.home(host) / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def said(self, host):
        """What is said of a host at the end."""
        return next(line.strip().strip('",') for line in self.output.splitlines() if line.strip().startswith(f'"{host}: '))

    def failed(self):
        """What each host was told that failed."""
        return dict(re.findall(r'fatal: \[(\w+)\]: FAILED! => \{"changed": false, "msg": "(.*)"\}', self.output))

    def order(self, module):
        """The hosts in the order in which a module came to them."""
        lines = (self.folder / "hosts" / "order").read_text(encoding="utf-8").splitlines()
        return [line.split()[0] for line in lines if line.split()[1] == module]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


# As who wants no library, and gives no patch set.
PACKAGES = {"nfs_lock_fix_patch_set": "", "nfs_lock_cure_method": "packages"}
LOOK, LOOK_PROVE, ENSURE, PATCH = "nfs_lock_info ", "nfs_lock_info  prove", "rpcbind_ensure ", "nfs_lock_fix cinder_volume"


def test_each_host_gets_the_smallest_cure_and_no_more(world):
    world.has(well=WELL, dead=DEAD_STATD, refuses=REFUSES)
    assert world.run() == 0, world.output
    assert world.calls("well") == [LOOK]
    assert world.calls("dead") == [LOOK, ENSURE, LOOK, LOOK_PROVE]
    assert world.calls("refuses") == [LOOK, PATCH, LOOK_PROVE]
    assert world.said("well") == "well: nothing: ok: locks work"
    assert world.said("dead") == "dead: done: rpcbind and rpc.statd answer; qemu-img works on 1 mount" + UNTRIED
    assert world.said("refuses") == "refuses: done: rpcbind and rpc.statd answer; patched: cinder_volume; qemu-img works on 1 mount" + UNTRIED

    # What is patched stays on the set that is given.
    assert world.run(nfs_lock_cure_canary=0) == 0
    assert world.calls("dead") == [LOOK]
    assert world.calls("refuses") == [LOOK, PATCH, LOOK_PROVE]


def test_a_host_where_both_causes_are_is_patched_after_its_services_live(world):
    refused = copy.deepcopy(hostvars.needs_patch())
    world.has(both={**REFUSES, "nfs_lock_info": hostvars.needs_rpcbind(), "rpcbind_ensure": RPCBIND, "nfs_lock_info@rpcbind_ensure": refused})
    assert world.run() == 0, world.output
    assert world.calls("both") == [LOOK, ENSURE, LOOK, PATCH, LOOK_PROVE]


def test_no_patch_set_is_needed_where_no_patch_is(world):
    world.has(dead=DEAD_STATD)
    assert world.run(nfs_lock_fix_patch_set="") == 0, world.output
    # What needs one is left if nobody wants the library, and keeps nobody else from his cure; what has one is well.
    world.has(a=REFUSES, dead=DEAD_STATD, patched={"nfs_lock_info": patched_volume()})
    assert world.run(**PACKAGES) == 2
    assert world.said("a").startswith("a: left: JuiceFS:vol: locks_refused")
    assert "-e nfs_lock_fix_patch_set=FOLDER" in world.said("a")
    assert world.calls("a") == world.calls("patched") == [LOOK]
    assert world.said("patched").startswith("patched: nothing: ")
    assert world.said("dead").startswith("dead: done: ")
    assert world.run(**PACKAGES, nfs_lock_cure_patch="never") == 2
    assert world.said("a").startswith("a: left: JuiceFS:vol: locks_refused")


def test_check_mode_changes_nothing_and_says_what_would_be(world):
    world.has(well=WELL, dead=DEAD_STATD, refuses=REFUSES)
    assert world.run("fix", "--check") == 0, world.output
    assert world.calls("dead") == ["check " + LOOK, "check " + ENSURE]
    assert world.calls("refuses") == ["check " + LOOK, "check " + PATCH]
    assert world.said("refuses") == "refuses: done: it would be cured"


def test_limit_leaves_the_others_alone(world):
    world.has(a=REFUSES, b=REFUSES, storage1=WELL)
    assert world.run("fix", "--limit", "b") == 0, world.output
    assert world.calls("a") == []
    assert world.calls("b") == [LOOK, PATCH, LOOK_PROVE]
    # What only the stores' hosts know is not known then.
    assert "volumes of storage1 may refuse locks to guests: not looked at" in world.said("b")


@pytest.mark.parametrize("hosts", ["a,b", ["a", "b"], "a:b"])
def test_hosts_are_named_in_each_of_ansibles_ways(world, hosts):
    world.has(a=REFUSES, b=REFUSES, c=REFUSES)
    assert world.run(nfs_lock_hosts=hosts) == 0, world.output
    assert world.order("nfs_lock_fix") == ["a", "b"]


@pytest.mark.parametrize("sizes", [{"nfs_lock_cure_canary": "30%"}, {"nfs_lock_serial": [1, "half"]}])
def test_a_size_of_batches_that_cannot_be_read_is_said_at_once(world, sizes):
    world.has(a=REFUSES)
    assert world.run(**sizes) == 2
    assert "nfs_lock_cure_canary is a number of hosts" in world.output
    assert world.calls("a") == []


@pytest.mark.parametrize("tag, calls", [("rpcbind", [LOOK, ENSURE, LOOK, LOOK_PROVE]), ("nfs_lock_fix", [LOOK, PATCH, LOOK_PROVE])])
def test_tags_do_a_part_and_prove_it(world, tag, calls):
    world.has(a=REFUSES if tag == "rpcbind" else DEAD_STATD, host=DEAD_STATD if tag == "rpcbind" else REFUSES)
    assert world.run("fix", "--tags", tag) == 2, world.output
    assert world.said("a").startswith("a: left: ")  # it is of the other part, and stops nobody
    assert world.calls("a") == [LOOK]
    assert world.calls("host") == calls
    assert world.said("host").startswith("host: done: ")


def test_one_host_goes_first_and_a_failure_of_it_stops_the_run(world):
    world.has(a=BAD, b=REFUSES, c=REFUSES, well=WELL)
    assert world.run(nfs_lock_report_dir=str(world.folder / "reports")) == 2
    assert world.calls("a") == [LOOK, PATCH]
    assert world.calls("b") == world.calls("c") == [LOOK]
    assert world.said("a") == "a: failed: Bring the library, or the wanted QEMU packages, into kolla's containers: " + BROKEN["msg"]
    assert world.said("b") == "b: stopped: not begun: a failed, of the 1 that went first"
    report = json.loads((world.folder / "reports" / "nfs-lock-report.json").read_text(encoding="utf-8"))
    assert {row["host"]: row["status"] for row in report["hosts"]} == {"a": "failed", "b": "patch", "c": "patch", "well": "ok"}


def test_the_first_is_one_that_needs_something(world):
    world.has(a=WELL, b=REFUSES, c=REFUSES)
    assert world.run() == 0, world.output
    assert world.order("nfs_lock_fix") == ["b", "c"]


@pytest.mark.parametrize(
    "variables, begun",
    [
        ({"kolla_serial": 1}, ["a", "b", "c"]),
        ({"nfs_lock_cure_any_errors_fatal": True}, ["a", "b"]),  # the batches are small if nothing is said of them
        ({"nfs_lock_serial": [1, "50%"], "nfs_lock_cure_any_errors_fatal": True}, ["a", "b"]),
        ({"nfs_lock_cure_canary": 2}, ["a", "b"]),
    ],
)
def test_when_later_failures_stop_the_run(world, variables, begun):
    world.has(a=REFUSES, b=BAD, c=REFUSES)
    assert world.run(**variables) == 2
    assert [host for host in "abc" if PATCH in world.calls(host)] == begun


def test_a_proof_that_fails_stops_the_run(world):
    ill = patched_volume()
    ill["libvirt"] = {"container": "nova_libvirt", "healthy": False, "detail": "virsh: no answer"}
    world.has(a={**REFUSES, "nfs_lock_info@nfs_lock_fix": ill}, b=REFUSES)
    assert world.run() == 2
    assert world.said("a") == "a: failed: Insist on the proof: nova_libvirt is not healthy: virsh: no answer"
    assert world.calls("b") == [LOOK]


GONE = {"unreachable": True, "changed": False, "msg": "Failed to connect to the host via ssh: Connection timed out"}


def test_a_host_that_is_lost_in_the_middle_stops_the_run_and_is_in_the_report(world):
    world.has(a={**REFUSES, "nfs_lock_fix": GONE, "nfs_lock_info@nfs_lock_fix": GONE}, b=REFUSES)
    assert world.run(nfs_lock_report_dir=str(world.folder / "reports")) == 2
    assert world.said("a") == f"a: lost: contact was lost: {GONE['msg']}; run again, which looks at what is there first"
    assert world.said("b").startswith("b: stopped: ")
    report = json.loads((world.folder / "reports" / "nfs-lock-report.json").read_text(encoding="utf-8"))
    assert {row["host"]: row["status"] for row in report["hosts"]} == {"a": "failed", "b": "patch"}

    # The module goes on from where it was.
    world.has(a={**REFUSES, "nfs_lock_fix": GONE, "nfs_lock_fix@nfs_lock_fix": FIXED}, b=REFUSES)
    assert world.run() == 0, world.output
    assert world.calls("a") == [LOOK, PATCH, PATCH, LOOK_PROVE]
    assert world.said("a").startswith("a: done: ")

    world.has(a={**DEAD_STATD, "rpcbind_ensure": GONE, "rpcbind_ensure@rpcbind_ensure": RPCBIND})
    assert world.run() == 0, world.output
    assert world.calls("a") == [LOOK, ENSURE, ENSURE, LOOK, LOOK_PROVE]

    # Without the second look it is not known what is to be patched.
    world.has(a={**DEAD_STATD, "nfs_lock_info@rpcbind_ensure": GONE})
    assert world.run() == 2
    assert world.calls("a") == [LOOK, ENSURE, LOOK]
    assert world.said("a").startswith("a: lost: contact was lost: Failed to connect")


def test_a_mount_that_is_left_to_a_person_keeps_no_host_from_its_other_cures(world):
    info = copy.deepcopy(hostvars.needs_patch())
    info["mounts"] += copy.deepcopy(hostvars.needs_rpcbind()["mounts"][:1])
    after = works(copy.deepcopy(hostvars.needs_patch()))
    after["proofs"][0].update(path="/var/lib/cinder/mnt/juice", result="fails", step="create")
    world.has(a={**DEAD_STATD, "nfs_lock_info": info, "nfs_lock_info@rpcbind_ensure": after}, b=DEAD_STATD)
    assert world.run(**PACKAGES) == 2
    assert world.said("a").startswith("a: left: rpcbind and rpc.statd answer; qemu-img create still fails at /var/lib/cinder/mnt/juice")
    assert world.said("b").startswith("b: done: ")


def test_locks_that_fail_after_the_cure_stop_the_run(world):
    # Nothing can be tried on the mount, so that only its verdict tells.
    still = {**hostvars.needs_rpcbind(), "proofs": [], "guests": 0, "libvirt": {"container": "nova_libvirt", "healthy": True, "detail": ""}}
    world.has(a={**DEAD_STATD, "nfs_lock_info@rpcbind_ensure": still}, b=DEAD_STATD)
    assert world.run() == 2
    assert world.said("a").startswith("a: failed: Insist on the proof: filer:/nova: statd_dead: ")
    assert world.calls("b") == [LOOK]


PATCH_LIBVIRT = "nfs_lock_fix nova_libvirt"


def test_a_host_where_libvirt_keeps_guests_from_starting_is_left_and_stops_nobody(world):
    half = {"nfs_lock_info": for_guests(False), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": for_guests(True)}
    whole = {**half, "nfs_lock_info": for_guests(False, False), "nfs_lock_info@nfs_lock_fix": for_guests(True, False)}
    world.has(a=half, b=whole)
    assert world.run("diagnose") == 0, world.output
    assert "the patched QEMU: nova_libvirt: locks_refused at " in world.output
    assert f"by hand: guests do not start from JuiceFS:vol even with the patched QEMU: {hostvars.REMEDY}" in world.output
    assert world.run("fix", "--check") == 2
    assert world.said("a").startswith("a: left: it would be cured; guests do not start from JuiceFS:vol even with the patched QEMU: ")
    assert world.run() == 2
    assert world.calls("a") == world.calls("b") == [LOOK, PATCH_LIBVIRT, LOOK_PROVE]
    assert world.said("a") == (
        "a: left: rpcbind and rpc.statd answer; patched: nova_libvirt; qemu-img works on 1 mount, WITHOUT a lock; "
        "no guest starts at /var/lib/nova/mnt/juice in nova_libvirt yet; JuiceFS:vol: locks_refused: " + hostvars.MEANING["locks_refused"] + ". "
        + hostvars.LIBVIRT["text"].rstrip(".") + "; emulators without the patch in nova_libvirt: arm, ppc"
    )
    assert world.said("b") == (
        "b: done: rpcbind and rpc.statd answer; patched: nova_libvirt; qemu-img works on 1 mount, WITHOUT a lock; a guest started on 1 mount, WITHOUT a lock; "
        "emulators without the patch in nova_libvirt: arm, ppc"
    )
    # What is left needs no patch set, and no run helps it.
    world.has(a={"nfs_lock_info": for_guests(True)})
    assert world.run(**PACKAGES) == 2
    assert world.calls("a") == [LOOK]
    assert world.said("a").startswith("a: left: JuiceFS:vol: locks_refused: ")


def with_library(covered=True):
    """The host of for_guests() once it has the library: libvirt's own lock is refused, and keeps nothing from starting if libvirt was started with it."""
    info = for_guests(True, False)
    info["libvirt"]["locks"] = hostvars.locks(own_locks=True, covered=covered)
    info["packages"] = [hostvars.packages("nova_libvirt", "library", library="installed")]
    if not covered:
        info["mounts"][0].update(cure=hostvars.PATCH, recommended_fix="patch", guests={"start": "no", "missing": [hostvars.REFUSED]})
        info["guest_proofs"][0].update(result="fails", detail="unable to lock")
    return info


BY_LIBRARY = PATCH_LIBVIRT + " by the library"


def test_without_a_patch_set_the_library_is_the_cure_and_nothing_is_left_to_a_person(world):
    gets = {"nfs_lock_info": for_guests(False), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": with_library()}
    world.has(a=gets, well=WELL, patched={**gets, "nfs_lock_info": for_guests(True)})
    assert world.run("diagnose", nfs_lock_fix_patch_set="") == 0, world.output
    assert "the library: nova_libvirt: locks_refused at /var/lib/nova/mnt/juice" in world.output
    assert "the library: nova_libvirt: the lock of libvirt itself is refused at /var/lib/nova/mnt/juice" in world.output
    assert "by hand: " not in world.output
    assert world.run("fix", "--check", nfs_lock_fix_patch_set="") == 0, world.output
    assert world.calls("a") == ["check " + LOOK, "check " + BY_LIBRARY]
    assert world.run(nfs_lock_fix_patch_set="") == 0, world.output
    assert world.calls("a") == world.calls("patched") == [LOOK, BY_LIBRARY, LOOK_PROVE]
    assert world.calls("well") == [LOOK]
    done = "rpcbind and rpc.statd answer; the library: nova_libvirt; qemu-img works on 1 mount, WITHOUT a lock; a guest started on 1 mount, WITHOUT a lock"
    assert world.said("a") == f"a: done: {done}"
    assert world.said("patched") == f"patched: done: {done}"

    # Once it is there, nothing is to be done.
    assert world.run(nfs_lock_fix_patch_set="") == 0, world.output
    assert world.calls("a") == [LOOK]
    assert world.said("a") == "a: nothing: locks_refused: " + hostvars.MEANING["locks_refused"]
    assert world.run("diagnose", nfs_lock_fix_patch_set="", nfs_lock_require_clean=True) == 0, world.output


def test_a_libvirt_that_was_not_started_with_the_library_fails_its_host(world):
    world.has(a={"nfs_lock_info": for_guests(False), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": with_library(covered=False)})
    assert world.run(nfs_lock_fix_patch_set="") == 2
    assert world.said("a").startswith("a: failed: Insist on the proof: ")
    assert "a guest does not start at /var/lib/nova/mnt/juice in nova_libvirt: unable to lock" in world.said("a")


@pytest.mark.parametrize("variables", [{"nfs_lock_cure_method": "library"}, {"nfs_lock_fix_method": "library"}, {"nfs_lock_cure_method": "both"}])
def test_a_way_that_cannot_be_gone_is_said_at_once(world, variables):
    world.has(a=REFUSES)
    assert world.run(**variables) == 2
    assert "the library takes no patch set" in world.output
    assert world.calls("a") == []


def test_the_way_back_takes_both_back_unless_one_is_named(world):
    row = {**ROW, "status": "restored", "library": {"before": "installed", "after": "none", "wanted": "none"}}
    world.has(a={"nfs_lock_fix": {**FIXED, "containers": [row]}})
    assert world.run("rollback", nfs_lock_fix_patch_set="") == 0, world.output
    assert world.calls("a") == ["nfs_lock_fix "]
    assert "cinder_volume: restored, the library installed -> none" in world.output
    assert world.run("rollback", nfs_lock_fix_patch_set="", nfs_lock_fix_method="library") == 0, world.output
    assert world.calls("a") == ["nfs_lock_fix  by the library"]


def test_a_guest_that_does_not_start_fails_its_host_unless_libvirts_settings_tell_why(world):
    ill = for_guests(True, False)
    ill["guest_proofs"][0].update(result="fails", detail="no free slot")
    world.has(a={"nfs_lock_info": for_guests(False, False), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": ill}, b=REFUSES)
    assert world.run() == 2
    assert world.said("a") == (
        "a: failed: Insist on the proof: a guest does not start at /var/lib/nova/mnt/juice in nova_libvirt: no free slot"
    )
    assert world.calls("b") == [LOOK]


def test_a_patch_that_was_lost_is_told_and_brought_back(world):
    after = works(hostvars.lost(), drift=[])
    after["packages"][1] = hostvars.packages("cinder_backup", "patched")
    lost = {"nfs_lock_info": hostvars.lost(), "nfs_lock_fix": FIXED, "nfs_lock_info@nfs_lock_fix": after}
    stale = {"nfs_lock_info": hostvars.stale()}
    world.has(a=lost, b=WELL, c=stale)
    assert world.run("diagnose") == 0, world.output
    assert "the patched QEMU: cinder_backup: it was recreated and has lost the patch" in world.output
    assert "to be known: guests that still run the QEMU from before: instance-0000002a (hard reboot or live-migrate them)" in world.output

    # Where one asks for it, that is no good end; and each host is told of first.
    for playbook in ("diagnose", "report"):
        assert world.run(playbook, nfs_lock_require_clean=True, nfs_lock_report_dir=str(world.folder / "reports")) == 2
        assert world.failed() == {
            "a": "the patched QEMU: cinder_backup: it was recreated and has lost the patch",
            "c": "guests that still run the QEMU from before: instance-0000002a (hard reboot or live-migrate them)",
        }
    report = json.loads((world.folder / "reports" / "nfs-lock-report.json").read_text(encoding="utf-8"))
    assert {row["host"]: row["status"] for row in report["hosts"]} == {"a": "drift", "b": "ok", "c": "stale"}
    assert world.run("report", nfs_lock_report_dir=str(world.folder / "reports")) == 0
    assert world.run("diagnose", nfs_lock_require_clean=True, nfs_lock_hosts="b") == 0, world.output

    assert world.run(nfs_lock_hosts="a:b") == 0, world.output
    assert world.calls("a") == [LOOK, "nfs_lock_fix cinder_backup", LOOK_PROVE]
    assert world.said("a").startswith("a: done: ")

    # Without a patch set a person is asked for one; where no patch is wanted, it is only told.
    world.has(a=lost)
    assert world.run(**PACKAGES) == 2
    assert world.said("a").startswith("a: left: cinder_backup: it was recreated and has lost the patch. Give the patch set")
    assert world.run(nfs_lock_cure_patch="never") == 0, world.output
    assert world.said("a") == "a: nothing: ok: locks work; cinder_backup: it was recreated and has lost the patch"
    assert world.run("diagnose", nfs_lock_require_clean=True, nfs_lock_cure_patch="never") == 0, world.output


def test_hosts_that_could_not_be_looked_at_are_not_clean(world):
    world.has(away=None, broken={"nfs_lock_info": hostvars.FAILED}, well=WELL)
    assert world.run("diagnose", nfs_lock_require_clean=True) in (2, 4)
    assert set(world.failed()) == {"away", "broken"}
    assert world.failed()["broken"] == "it was not looked at: " + hostvars.FAILED["msg"]


def test_a_container_that_was_stopped_on_purpose_fails_no_host_that_does_not_need_it(world):
    def stopped(info, name="nova_libvirt"):
        row = {**hostvars.packages(name), "qemu": "unknown", "state": "exited", "installed": []}
        rest = [packet for packet in info["packages"] if packet["container"] != name]
        return info | {"packages": [row, *rest], "libvirt": {"container": "", "healthy": False, "detail": "", "locks": hostvars.locks(own_locks=False)}}

    before, after = hostvars.needs_rpcbind(), works(hostvars.well())
    states = {"nfs_lock_info": stopped(before), "rpcbind_ensure": RPCBIND, "nfs_lock_info@rpcbind_ensure": stopped(after)}
    world.has(storage1=states)
    assert world.run(nfs_lock_cure_runs_guests=False) == 0, world.output
    assert world.said("storage1").endswith("; nova_libvirt was not looked at: it is exited")
    world.has(compute1=states)  # in kolla's group compute
    assert world.run() == 2
    assert world.said("compute1") == (
        "compute1: left: rpcbind and rpc.statd answer; qemu-img works on 1 mount; "
        "nova_libvirt does not run (it is exited, and was before this run), so that no guest starts here and none was tried: start it"
    )
    world.has(compute1={**states, "nfs_lock_info": before})
    assert world.run() == 2
    assert world.said("compute1").startswith("compute1: failed: Insist on the proof: nova_libvirt ran before and does not now: it is exited")
    world.has(compute1={"nfs_lock_info": stopped(after, "cinder_backup") | {"libvirt": after["libvirt"]}})
    assert world.run(nfs_lock_cure_patch="always") == 2  # the stand-in patches cinder_volume alone
    assert "cinder_backup" not in world.calls("compute1")[1]


def test_hosts_that_are_away_or_cannot_be_looked_at_do_not_stop_the_others(world, monkeypatch):
    monkeypatch.setenv("ANSIBLE_ANY_ERRORS_FATAL", "True")  # as an ansible.cfg may have it
    world.has(away=None, broken={"nfs_lock_info": hostvars.FAILED}, refuses=REFUSES)
    assert world.run() in (2, 4)
    assert world.calls("refuses") == [LOOK, PATCH, LOOK_PROVE]
    assert world.said("away").startswith("away: unreachable: ")
    assert world.said("broken") == "broken: failed: " + hostvars.FAILED["msg"]


def test_what_is_the_servers_fault_is_left_and_said(world):
    cure = {"fix": "server", "text": "Let the server reach this host.", "command": ""}
    info = copy.deepcopy(hostvars.needs_rpcbind())
    for row in (info, info["mounts"][0]):
        row.update(verdict="callback_blocked", cure=cure, recommended_fix="server", reason="the server cannot call back")
    world.has(host={"nfs_lock_info": info | {"statd": hostvars.ANSWERS}})
    assert world.run() == 2
    assert world.calls("host") == [LOOK]
    assert world.said("host") == "host: left: filer:/nova: callback_blocked: the server cannot call back. Let the server reach this host"


def test_what_a_host_says_is_no_template(world):
    # An absolute path: a lookup works in the playbook's folder, which is the collection's own and not looked into here.
    marker = world.folder / "pwned"
    evil = f"{{{{ lookup('pipe', 'touch {marker}') }}}}"
    shown = evil.replace("{{", "{ {")
    info = copy.deepcopy(hostvars.needs_patch())
    info["msg"] = evil
    info["mounts"][0].update(path=evil, source=evil, reason=evil)
    world.has(host={**BAD, "nfs_lock_info": info, "nfs_lock_fix": {**BROKEN, "msg": evil}})
    assert world.run() == 2
    assert shown in world.said("host")

    info["mounts"][0].update(recommended_fix="server", verdict="hangs")
    world.has(host={"nfs_lock_info": info})
    assert world.run() == 2
    assert shown in world.said("host")

    world.has(host={**REFUSES, "nfs_lock_info@nfs_lock_fix": patched_volume() | {"libvirt": {"container": evil, "healthy": False, "detail": evil}}})
    assert world.run() == 2
    assert shown in world.said("host")

    # What all hosts together tell goes through a variable.
    info["mounts"][0].update(recommended_fix="patch", verdict="locks_refused", fstype="nfs4", container="cinder_volume", path=evil, source=evil)
    world.has(host={**REFUSES, "nfs_lock_info": info}, other={**REFUSES, "nfs_lock_info": works(hostvars.well())})
    assert world.run() == 2  # the stand-in never has nova_libvirt patched
    assert "guests will use { { lookup" in world.output
    assert not marker.exists()


def test_diagnose_changes_nothing_and_plans(world):
    world.has(well=WELL, dead=DEAD_STATD, away=None)
    assert world.run("diagnose") == 0, world.output
    assert world.calls("dead") == [LOOK]
    assert "rpcbind_ensure: statd_dead: rpc.statd is registered on this host and does not answer" in world.output


# A stand-in for OpenStack's client, which is not to be had here. The file status has the service's status, and the reason, if it is disabled.
OPENSTACK = f"""#!{sys.executable}
import json, pathlib, sys
home = pathlib.Path(__file__).parent
with open(home / "asked", "a", encoding="utf-8") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[3] == (home / "fails").read_text(encoding="utf-8"):
    sys.exit("no answer")
if sys.argv[3] == "list":
    status, _, reason = (home / "status").read_text(encoding="utf-8").partition(" ")
    print(json.dumps([{{"Host": "a", "Status": status, "Disabled Reason": reason or None}}]))
"""
ASKED = "compute service list --long --service nova-compute --host a -f json"
DISABLED = "compute service set --disable --disable-reason nfslock.kolla.fix a nova-compute"
EVACUATED, ENABLED = "evacuate a now", "compute service set --enable a nova-compute"
STAYS = "nova-compute was disabled before, and stays so"


def client_of(world, status, fails=""):
    """The client, of a service with that status. fails is a word with which it fails."""
    client = world.folder / "openstack"
    client.write_text(OPENSTACK, encoding="utf-8")
    client.chmod(0o755)
    (world.folder / "status").write_text(status, encoding="utf-8")
    (world.folder / "fails").write_text(fails, encoding="utf-8")
    return str(client)


def drain(world, status, fix, guests=0, fails=""):
    """A run with drain on one host, and what the client was asked."""
    client = client_of(world, status, fails)
    (world.folder / "asked").unlink(missing_ok=True)
    info = copy.deepcopy(hostvars.needs_patch())
    info["mounts"][0]["container"] = "nova_compute"
    info["packages"] = [hostvars.packages("nova_compute")]
    after = patched_volume() | {"packages": [hostvars.packages("nova_compute", "patched")]}
    results = {"nfs_lock_info": {**info, "guests": guests}, "nfs_lock_fix": fix, "nfs_lock_info@nfs_lock_fix": after}
    world.has(a={**results, "nfs_lock_fix@nfs_lock_fix": FIXED} if fix is GONE else results)
    world.code = world.run(
        nfs_lock_cure_drain=True,
        nfs_lock_cure_openstack=[client],
        nfs_lock_cure_drain_command=[client, "evacuate", "{{ inventory_hostname }}", "now"],
        nfs_lock_cure_drain_timeout=6,  # a busy machine takes seconds to start a command
        nfs_lock_cure_drain_delay=3,
        nfs_lock_report_dir=str(world.folder / "reports"),
    )
    first, *asked = (world.folder / "asked").read_text(encoding="utf-8").splitlines()
    assert first == "compute service list --long --service nova-compute -f json"
    return asked


@pytest.mark.parametrize(
    "status, fix, asked, code, said",
    [
        pytest.param("enabled", FIXED, [ASKED, DISABLED, EVACUATED, ENABLED], 0, "", id="there and back"),
        pytest.param("enabled", {**FIXED, "changed": False}, [ASKED], 0, "", id="the set is there already"),
        pytest.param("enabled", GONE, [ASKED, DISABLED, EVACUATED, ENABLED], 0, "", id="contact is lost"),
        pytest.param("disabled maintenance", FIXED, [ASKED, EVACUATED], 0, STAYS, id="an operator disabled it"),
        pytest.param("disabled nfslock.kolla.fix", FIXED, [ASKED, EVACUATED, ENABLED], 0, "", id="a run that failed disabled it"),
        pytest.param("disabled nfslock.kolla.fix", {**FIXED, "changed": False}, [ASKED, ENABLED], 0, "", id="a run whose proof failed disabled it"),
    ],
)
def test_a_host_is_drained_and_comes_back_if_all_is_well(world, status, fix, asked, code, said):
    assert drain(world, status, fix) == asked
    assert world.code == code, world.output
    assert world.said("a").startswith("a: done: ")
    assert said in world.said("a")
    assert bool(said) is ("nova-compute" in world.said("a"))


def test_a_host_where_the_patch_fails_stays_away_from_new_guests(world):
    # It fails only when it is done in earnest.
    assert drain(world, "enabled", {**BROKEN, "failed": "in earnest", "changed": True}) == [ASKED, DISABLED, EVACUATED]
    assert world.code == 2
    assert world.said("a").endswith("dpkg ended with 1. nova-compute is disabled there, for this")


def test_a_host_is_not_patched_while_guests_are_left(world):
    assert drain(world, "enabled", FIXED, guests=3) == [ASKED, DISABLED, EVACUATED]
    assert world.code == 2
    assert world.said("a") == "a: failed: Insist that none is left: 3 guests are left after 6 s. nova-compute is disabled there, for this"
    assert "nfs_lock_fix nova_compute" not in world.calls("a")
    assert "cinder_volume: would be patched" in world.output
    report = json.loads((world.folder / "reports" / "nfs-lock-report.json").read_text(encoding="utf-8"))
    assert report["hosts"][0]["fix"] is None  # the rehearsal is no fix


def test_a_service_that_an_earlier_run_left_disabled_is_said_of_a_host_that_needs_nothing(world):
    world.has(a=WELL)
    assert world.run(nfs_lock_cure_drain=True, nfs_lock_cure_openstack=[client_of(world, "disabled nfslock.kolla.fix")]) == 2
    assert world.said("a").startswith("a: left: an earlier run disabled nova-compute here: ")


@pytest.mark.parametrize(
    "fails, said",
    [
        ("list", "a: failed: Ask Nova for the service: its output is above"),
        ("set", "a: failed: Disable nova-compute: its output is above. nova-compute may be disabled there"),
    ],
)
def test_a_client_that_fails_keeps_the_host_from_being_patched(world, fails, said):
    drain(world, "enabled", FIXED, fails=fails)
    assert world.code == 2
    assert world.said("a") == said
    assert "nfs_lock_fix nova_compute" not in world.calls("a")
