"""What people type, and what they see and get. Each test has fresh containers."""

import re
import shutil
import subprocess
import time

import pytest
from conftest import COLLECTIONS, CONTAINERS, PATCH_SET, ROOT, STORE

SET = {"patch_set": str(PATCH_SET)}
ROLE = {"nfs_lock_fix_patch_set": str(PATCH_SET)}
MANIFEST = (PATCH_SET / "manifest.yml").read_text("utf-8")
CHECKSUMS = re.findall(r"sha256: (\w+)", MANIFEST)
PATCHED = re.search(r"name: qemu-utils\n +version: (\S+)", MANIFEST)[1]


def statuses(result):
    return {row["name"]: row["status"] for row in result["containers"]}


def everywhere(status):
    return dict.fromkeys(CONTAINERS, status)


def patched(versions):
    return {name for name, version in versions.items() if version == PATCHED}


def left_behind(folder, seconds=0):
    """What is in the folder of temporary folders, once nothing is or the seconds are over."""
    end = time.monotonic() + seconds
    while (left := list(folder.glob("*"))) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def test_ad_hoc_from_a_checkout_from_the_rehearsal_to_the_rollback(controller, lab):
    stock = lab()

    rehearsal = controller.ad_hoc(SET, "--check", "--diff", "-v")
    assert rehearsal.code == 0
    assert rehearsal.only["changed"]
    assert statuses(rehearsal.only) == everywhere("patched")
    assert "uploading qemu-utils" in rehearsal.out
    assert "+++ after: cinder_volume" in rehearsal.out
    assert f"+qemu-utils {PATCHED}" in rehearsal.out
    assert lab() == stock
    assert not list(STORE.glob("*"))

    fix = controller.ad_hoc(SET, "-v")
    assert fix.only["changed"]
    assert statuses(fix.only) == everywhere("patched")
    assert patched(lab()) == set(CONTAINERS)
    assert {path.name for path in STORE.iterdir()} == {f"{checksum}.deb" for checksum in CHECKSUMS}

    again = controller.ad_hoc(SET, "--diff", "-v")
    assert not again.only["changed"]
    assert statuses(again.only) == everywhere("unchanged")
    assert "uploading" not in again.out
    assert "+++" not in again.out

    rollback = controller.ad_hoc({"state": "absent"})
    assert rollback.only["changed"]
    assert statuses(rollback.only) == everywhere("restored")
    assert lab() == stock

    assert not controller.ad_hoc({"state": "absent"}).only["changed"]
    assert not left_behind(controller.remote_tmp)


def test_options_may_be_written_as_key_and_value(controller, lab):
    options = " ".join(f"{key}={value}" for key, value in {**SET, **controller.engine}.items())
    run = controller.run(
        "ansible", "compute1", "-m", "nfs_lock_fix", "-a", f"{options} containers=cinder_api,cinder_volume hold=no", cwd=ROOT
    )
    assert statuses(run.only) == {"cinder_api": "patched", "cinder_volume": "patched"}
    assert patched(lab()) == {"cinder_api", "cinder_volume"}


def test_nothing_internal_is_shown(controller, lab):
    for options in (SET, {**SET, "manifest_sha256": "0" * 64}):
        run = controller.ad_hoc(options, "-vvv")
        for name in ("_manifest", "_uploads", "_missing", "built_from"):
            assert name not in run.out
        assert run.only["invocation"]["module_args"]["patch_set"] == str(PATCH_SET)


def test_playbooks_through_kollas_inventory(controller, lab):
    stock = lab()
    kolla = {**ROLE, "kolla_container_engine": "docker", "kolla_serial": "1", "kolla_max_fail_percentage": 0}

    rehearsal = controller.playbook("nfslock.kolla.fix", kolla, "--check", "--diff")
    assert rehearsal.code == 0
    assert [result["changed"] for _status, result in rehearsal.of("nfs_lock_fix")] == [True, True]
    assert "cinder_volume: would be patched, qemu-utils " in rehearsal.out
    assert lab() == stock

    fix = controller.playbook("nfslock.kolla.fix", kolla)
    assert fix.code == 0, fix.out
    # One after the other, by kolla_serial; the second "host" is the same machine.
    assert [result["changed"] for _status, result in fix.of("nfs_lock_fix")] == [True, False]
    assert {task["host"] for task in fix.tasks} == {"compute1", "control1"}
    lines = dict(line.split(": ", 1) for line in fix.said("Say what became of each container")[0])
    assert set(lines) == set(CONTAINERS)
    assert lines["cinder_volume"] == f"patched, qemu-utils {stock['cinder_volume']} -> {PATCHED}"
    assert lines["nova_libvirt"].endswith(", restarted")
    assert patched(lab()) == set(CONTAINERS)

    again = controller.playbook("nfslock.kolla.fix", kolla)
    assert [result["changed"] for _status, result in again.of("nfs_lock_fix")] == [False, False]
    assert "changed=0" in again.out

    rollback = controller.playbook("nfslock.kolla.rollback", kolla, "--limit", "control1")
    assert {task["host"] for task in rollback.tasks} == {"control1"}
    assert statuses(rollback.only) == everywhere("restored")
    assert lab() == stock


NEEDED = {**ROLE, "nfs_lock_cure_patch": "needed", "nfs_lock_info_paths": ["/srv/volumes"], "nfs_lock_hosts": "compute"}


def test_only_what_refuses_locks_is_patched_and_it_is_proved(controller, lab):
    stock = lab()
    subprocess.run(["docker", "exec", "-u", "root", "cinder_volume", "mkdir", "/srv/volumes"], check=True)  # no other has it
    diagnosis = controller.playbook("nfslock.kolla.diagnose", NEEDED)
    assert diagnosis.code == 0
    ((*plan,),) = diagnosis.said("Say what is to be done")
    assert "cinder_volume: ofd_unsupported at /srv/volumes" in plan[0]
    assert lab() == stock

    reports = controller.folder / "reports"
    fix = controller.playbook("nfslock.kolla.fix", {**NEEDED, "nfs_lock_report_dir": str(reports)})
    assert fix.code == 0, fix.out
    assert patched(lab()) == {"cinder_volume"}
    *_before, (_status, last) = fix.of("nfs_lock_info")
    proofs = {(row["container"], row["path"]): (row["result"], row["unlocked"]) for row in last["proofs"]}
    assert proofs == {("cinder_volume", "/srv/volumes"): ("works", True)}
    del last["libvirt"]["locks"]
    assert last["libvirt"] == {"container": "nova_libvirt", "healthy": True, "detail": ""}
    ((line,),) = fix.said("Say what became of each host")
    assert "WITHOUT a lock" in line
    page = (reports / "nfs-lock-report.html").read_text("utf-8")
    assert "compute1" in page and "cinder_volume" in page

    again = controller.playbook("nfslock.kolla.fix", NEEDED)
    assert again.code == 0
    assert not again.only["changed"]

    lab.up("--locks", "fine")
    well = controller.playbook("nfslock.kolla.fix", {**NEEDED, "nfs_lock_fix_patch_set": ""})
    assert well.code == 0
    assert not well.of("nfs_lock_fix")
    ((line,),) = well.said("Say what became of each host")
    assert line.startswith("compute1: nothing: ok: ")


def test_kolla_ansible_starts_a_playbook_by_its_file(controller, lab):
    globals_yml = controller.write("globals.yml", "---\nkolla_container_engine: docker\nkolla_base_distro: debian\n")
    passwords_yml = controller.write("passwords.yml", "---\ndatabase_password: secret\n")
    run = controller.playbook(
        COLLECTIONS / "ansible_collections/nfslock/kolla/playbooks/fix.yml",
        {**ROLE, "kolla_action": "deploy", "CONFIG_DIR": "/etc/kolla", "nfs_lock_hosts": "compute"},
        *("-e", f"@{globals_yml}", "-e", f"@{passwords_yml}", "--tags", "nfs_lock_fix"),
    )
    assert run.code == 0
    assert run.of("nfs_lock_fix", "compute1")
    assert not run.of("nfs_lock_fix", "control1")
    assert patched(lab()) == set(CONTAINERS)


def test_a_patch_set_beside_the_playbook(controller, lab):
    shutil.copytree(PATCH_SET, controller.folder / "files" / "patches")
    play = controller.write(
        "play.yml",
        """---
- hosts: compute1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: nfslock.kolla.nfs_lock_fix
      vars:
        nfs_lock_fix_patch_set: patches
        nfs_lock_fix_containers: [cinder_api]
""",
    )
    run = controller.playbook(play, {}, cwd="/")
    assert statuses(run.only) == {"cinder_api": "patched"}
    assert patched(lab()) == {"cinder_api"}


def test_a_patch_set_on_the_target(controller, lab):
    run = controller.ad_hoc({**SET, "remote_src": True}, "-v")
    assert statuses(run.only) == everywhere("patched")
    assert "uploading" not in run.out
    assert patched(lab()) == set(CONTAINERS)


def test_become(controller, lab):
    # su asks root for no password; by default Ansible would not become the user it is already.
    run = controller.ad_hoc(SET, "--become", "--become-method", "su", env={"ANSIBLE_BECOME_ALLOW_SAME_USER": "true"})
    assert statuses(run.only) == everywhere("patched")
    assert patched(lab()) == set(CONTAINERS)
    assert not left_behind(controller.remote_tmp)


def test_pipelining(controller, lab):
    run = controller.ad_hoc(SET, env={"ANSIBLE_PIPELINING": "true"})
    assert statuses(run.only) == everywhere("patched")
    assert patched(lab()) == set(CONTAINERS)
    assert not left_behind(controller.remote_tmp)


def test_async_while_ansible_waits(controller, lab):
    run = controller.ad_hoc(SET, "--background", "300", "--poll", "1")
    assert run.code == 0
    assert patched(lab()) == set(CONTAINERS)
    assert not left_behind(controller.remote_tmp, seconds=15)  # the job's watcher looks every five seconds


def test_async_while_ansible_goes_on(controller, lab):
    play = controller.write(
        "play.yml",
        """---
- hosts: compute1
  gather_facts: false
  tasks:
    - nfslock.kolla.nfs_lock_fix:
        patch_set: "{{ nfs_lock_fix_patch_set }}"
        engine_socket: "{{ nfs_lock_fix_engine_socket | default(omit) }}"
      async: 300
      poll: 0
      register: job
    - ansible.builtin.async_status:
        jid: "{{ job.ansible_job_id }}"
      register: done
      until: done.finished
      retries: 150
      delay: 2
""",
    )
    run = controller.playbook(play, ROLE)
    assert run.code == 0
    ((_status, result),) = run.of("async_status")
    assert statuses(result) == everywhere("patched")
    assert patched(lab()) == set(CONTAINERS)
    assert not left_behind(controller.remote_tmp, seconds=15)


def test_an_async_task_that_cannot_send_its_files_starts_no_job(controller, lab):
    broken = controller.folder / "broken"
    broken.mkdir()
    shutil.copy(PATCH_SET / "manifest.yml", broken)
    run = controller.ad_hoc({"patch_set": str(broken)}, "--background", "60", "--poll", "1")
    assert run.code != 0
    assert "qemu-" in run.only["msg"]
    assert not patched(lab())
    assert not left_behind(controller.remote_tmp)


def test_a_broken_package_stops_before_any_change(controller, lab):
    broken = controller.folder / "broken"
    shutil.copytree(PATCH_SET, broken)
    package = next(broken.glob("qemu-utils*.deb"))
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    run = controller.playbook("nfslock.kolla.fix", {"nfs_lock_fix_patch_set": str(broken)}, "--limit", "compute1")
    assert run.code != 0
    assert f"cannot upload '{package}': its sha256 is" in run.only["msg"]
    assert not patched(lab())
    assert not left_behind(controller.remote_tmp)


def test_a_failure_is_reported_container_by_container(controller, lab):
    foreign = "rm /etc/os-release; echo ID=rocky >/etc/os-release"
    subprocess.run(["docker", "exec", "-u", "root", "cinder_api", "sh", "-c", foreign], check=True)
    run = controller.playbook("nfslock.kolla.fix", {**ROLE, "nfs_lock_fix_on_error": "keep"}, "--limit", "compute1")
    assert run.code != 0
    ((status, result),) = run.of("nfs_lock_fix")
    assert status == "failed"
    assert statuses(result) == {**everywhere("patched"), "cinder_api": "failed"}
    ((*report,),) = run.said("Say what became of each container")
    lines = dict(line.split(": ", 1) for line in report)
    assert lines["cinder_api"].startswith("failed: ")
    assert lines["cinder_volume"].startswith("patched, qemu-utils ")
    assert patched(lab()) == set(CONTAINERS) - {"cinder_api"}


def test_guests_on_the_old_program_are_warned_of(controller, lab):
    def in_libvirt(line):
        subprocess.run(["docker", "exec", "-u", "root", "nova_libvirt", "sh", "-c", line], check=True)

    # The options nova gives a guest its name by. The program is replaced by a rename, as dpkg does it.
    in_libvirt(
        "qemu-system-x86_64 -M none -display none -name guest=instance-00000042,debug-threads=on -daemonize"
        " && cd /usr/bin && cp qemu-system-x86_64 new && echo >>new && mv new qemu-system-x86_64"
    )
    # A restart of the lab's container would end the guest, which in kolla's survives it.
    run = controller.playbook("nfslock.kolla.fix", {**ROLE, "nfs_lock_fix_restart": "never"}, "--limit", "compute1")
    assert run.code == 0
    (warning,) = run.said("Warn of guests that still run the program from before")
    assert warning.startswith("WARNING: ")
    assert warning.endswith(": instance-00000042")


def test_without_the_action_plugin_both_ways_out_are_named(controller):
    run = controller.ad_hoc(SET, cwd="/", env={"ANSIBLE_LIBRARY": str(ROOT / "library")})
    assert run.code != 0
    assert "nfslock.kolla.nfs_lock_fix" in run.only["msg"]
    assert "remote_src: true" in run.only["msg"]


def test_a_wrong_value_is_named_before_anything_is_asked(controller):
    run = controller.playbook("nfslock.kolla.fix", {**ROLE, "nfs_lock_fix_restart": "sometimes"}, "--limit", "compute1")
    assert run.code != 0
    assert not run.of("nfs_lock_fix")
    assert "sometimes" in run.out


@pytest.mark.parametrize("name", ["nfs_lock_fix", "nfslock.kolla.nfs_lock_fix"])
def test_both_names_find_the_program_and_the_plugin(controller, lab, name):
    run = controller.ad_hoc(
        {**SET, "containers": ["cinder_api"]}, module=name, env={"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    )
    assert statuses(run.only) == {"cinder_api": "patched"}
