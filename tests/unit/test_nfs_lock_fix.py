"""What the action plugin promises, whatever the target answers and whatever lies in the folder."""

import os
import random
import types

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib, VaultSecret
from conftest import REMOTE_TMP, plugin

# Tasks ------------------------------------------------------------------------------------------------------------


def test_a_target_that_lacks_nothing_costs_one_call(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    target.store = set(target.needs)
    result = action({"patch_set": str(patch_set.folder), "hold": False}).run()
    assert result == {"failed": False, "changed": False, "msg": "done"}
    assert len(target.calls) == 1
    assert target.calls[0].args["hold"] is False
    assert target.calls[0].args["patch_set"] == str(patch_set.folder)
    assert not target.files


def test_the_manifest_is_sent_byte_for_byte(action, target, patch_set):
    text = "schema: 1\r\n# é ✓ \U0001f512 {{ not_a_template }}\npackages: []"
    patch_set.manifest.write_bytes(text.encode())
    action({"patch_set": str(patch_set.folder)}).run()
    assert target.calls[0].args["_manifest"] == text


def test_only_what_is_missing_is_uploaded(action, target, patch_set):
    there, missing = patch_set.add("there", b"there"), patch_set.add("missing", b"missing")
    patch_set.add("unneeded", b"unneeded")
    target.needs, target.store = [there, missing], {there}
    result = action({"patch_set": str(patch_set.folder)}).run()
    assert result == {"failed": False, "changed": True, "msg": "done"}
    assert target.files == {f"{REMOTE_TMP}/{missing}.deb": b"missing"}
    assert target.store == {there, missing}
    assert len(target.calls) == 2


def test_a_file_that_two_packages_share_is_uploaded_once(action, target, patch_set):
    checksum = patch_set.add("data", b"data")
    patch_set.list("data_1_amd64.deb", b"data")
    target.needs = [checksum, checksum]
    assert not action({"patch_set": str(patch_set.folder)}).run()["failed"]
    assert len(target.files) == 1


@pytest.mark.parametrize("args", [{}, {"method": "library"}, {"method": "library", "state": "absent"}, {"state": "absent"}, {"method": "packages"}])
def test_without_a_patch_set_the_module_is_called_as_it_is(action, target, args):
    assert action(args).run() == {"failed": False, "changed": False, "msg": "done"}
    assert len(target.calls) == 1
    assert "_manifest" not in target.calls[0].args


def test_a_patch_set_beside_the_library_is_the_modules_to_refuse(action, target):
    action({"patch_set": "/nowhere/at/all", "method": "library"}).run()
    assert "_manifest" not in target.calls[0].args


def test_the_task_keeps_its_arguments_for_the_next_loop_item(action, patch_set, target):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    args = {"patch_set": str(patch_set.folder)}
    action(args).run()
    assert args == {"patch_set": str(patch_set.folder)}


def test_check_mode_uploads_what_the_plan_needs_and_the_target_stores_nothing(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    result = action({"patch_set": str(patch_set.folder)}, check_mode=True).run()
    assert result["changed"]
    assert [call.check_mode for call in target.calls] == [True, True]
    assert not target.store


def test_a_failure_of_the_module_is_passed_on(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    target.failure = "cannot connect to the engine"
    result = action({"patch_set": str(patch_set.folder)}).run()
    assert result == {"failed": True, "changed": False, "msg": "cannot connect to the engine"}
    assert len(target.calls) == 1


def test_files_still_missing_after_the_upload_are_a_failure(action, target, patch_set):
    checksum = patch_set.add("qemu-utils", b"utils")
    target.needs, target.loses_uploads = [checksum], True
    result = action({"patch_set": str(patch_set.folder)}).run()
    assert result["failed"]
    assert checksum in result["msg"]
    assert "_missing" not in result
    assert len(target.calls) == 2


@pytest.mark.parametrize(
    "args",
    [
        {"state": "absent"},
        {"state": "absent", "patch_set": "/nowhere"},
        {"patch_set": "/srv/set", "remote_src": True},
        {"patch_set": "/srv/set", "remote_src": "yes"},
        {"patch_set": "/srv/set", "remote_src": "ture"},  # the module names the bad value
        {"patch_set": "sftp://patches@depot/srv/set"},
        {"patch_set": " SFTP:/patches:secret@depot/srv/set"},
        {"patch_set": ""},
        {"patch_set": None},
        {},
    ],
)
def test_without_a_folder_on_the_controller_the_module_gets_just_the_task(action, target, args):
    given = dict(args)
    action(args).run()
    (call,) = target.calls
    assert {key: value for key, value in call.args.items() if key != "_ansible_version"} == given


def test_options_that_are_null_are_as_good_as_left_out(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    action({"patch_set": str(patch_set.folder), "remote_src": None, "state": None}).run()
    assert "_manifest" in target.calls[0].args


@pytest.mark.parametrize("name", ["_manifest", "_signature", "_uploads"])
def test_internal_options_are_not_for_tasks(action, target, patch_set, name):
    with pytest.raises(AnsibleActionFail, match=f"unknown option '{name}'"):
        action({"patch_set": str(patch_set.folder), name: "x"}).run()
    assert not target.calls


def test_a_program_that_is_not_built_is_named(action, target):
    task = action({"state": "absent"})
    task.built = False
    with pytest.raises(AnsibleActionFail, match="make build"):
        task.run()
    assert not target.calls


# The signature ----------------------------------------------------------------------------------------------------

SIGNATURE = "-----BEGIN SSH SIGNATURE-----\r\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"


def test_the_signature_is_sent_byte_for_byte_where_one_is_asked_for(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    (patch_set.folder / "manifest.yml.sig").write_bytes(SIGNATURE.encode())
    action({"patch_set": str(patch_set.folder), "allowed_signers": "ann ssh-ed25519 AAAA"}).run()
    assert [call.args["_signature"] for call in target.calls] == [SIGNATURE, SIGNATURE]
    assert {call.args["allowed_signers"] for call in target.calls} == {"ann ssh-ed25519 AAAA"}


@pytest.mark.parametrize("args", [{}, {"allowed_signers": None}])
def test_a_signature_that_nobody_asks_for_is_not_even_read(action, target, patch_set, args):
    patch_set.add("qemu-utils", b"utils")
    (patch_set.folder / "manifest.yml.sig").mkdir()
    action({"patch_set": str(patch_set.folder), **args}).run()
    assert "_signature" not in target.calls[0].args


@pytest.mark.parametrize("signers", ["", "/etc/nfslock/allowed_signers"])
def test_what_a_missing_signature_means_the_module_says(action, target, patch_set, signers):
    patch_set.add("qemu-utils", b"utils")
    action({"patch_set": str(patch_set.folder), "allowed_signers": signers}).run()
    assert "_signature" not in target.calls[0].args
    assert target.calls[0].args["allowed_signers"] == signers


def test_an_empty_list_of_signers_asks_for_a_signature_too(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    (patch_set.folder / "manifest.yml.sig").write_text(SIGNATURE)
    action({"patch_set": str(patch_set.folder), "allowed_signers": ""}).run()
    assert "_signature" in target.calls[0].args


def test_a_vaulted_signature_is_sent_decrypted(action, target, patch_set, loader):
    secrets = [("default", VaultSecret(b"password"))]
    loader.set_vault_secrets(secrets)
    patch_set.add("qemu-utils", b"utils")
    (patch_set.folder / "manifest.yml.sig").write_bytes(VaultLib(secrets).encrypt(SIGNATURE.encode()))
    action({"patch_set": str(patch_set.folder), "allowed_signers": "ann"}).run()
    assert target.calls[0].args["_signature"] == SIGNATURE
    assert not loader._tempfiles


def odd_large(path):
    path.write_bytes(b"x" * (plugin.SIGNATURE_MAX + 1))


def odd_folder(path):
    path.mkdir()


def odd_pipe(path):
    os.mkfifo(path)


def odd_link(path):
    path.symlink_to("nowhere")


def odd_bytes(path):
    path.write_bytes(b"SSHSIG\xff")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (odd_large, "larger than 64 KiB"),
        (odd_folder, "it is no file"),
        (odd_pipe, "it is no file"),
        (odd_link, "it is no file"),
        (odd_bytes, "byte 7 is not UTF-8"),
    ],
)
def test_a_signature_that_cannot_be_read_is_not_taken_for_none(action, target, patch_set, spoil, message):
    patch_set.add("qemu-utils", b"utils")
    spoil(patch_set.folder / "manifest.yml.sig")
    with pytest.raises(AnsibleActionFail, match=message):
        action({"patch_set": str(patch_set.folder), "allowed_signers": "ann"}).run()
    assert not target.calls


# Async ------------------------------------------------------------------------------------------------------------


def test_an_async_job_gets_beforehand_what_it_will_need(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    result = action({"patch_set": str(patch_set.folder)}, async_val=60).run()
    assert result["ansible_job_id"] == "j1"
    assert [(call.check_mode, bool(call.wrap_async)) for call in target.calls] == [(True, False), (False, True)]
    assert target.job == {"failed": False, "changed": True, "msg": "done"}


def test_an_async_job_that_lacks_nothing_is_started_all_the_same(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    target.store = set(target.needs)
    result = action({"patch_set": str(patch_set.folder)}, async_val=60).run()
    assert result["ansible_job_id"] == "j1"
    assert "_uploads" not in target.calls[1].args


def test_what_is_wrong_on_the_target_an_async_job_says_itself(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    target.failure = "cannot connect to the engine"
    result = action({"patch_set": str(patch_set.folder)}, async_val=60).run()
    assert result["ansible_job_id"] == "j1"
    assert target.job["msg"] == "cannot connect to the engine"


def test_an_async_task_without_a_folder_is_one_wrapped_call(action, target):
    action({"state": "absent"}, async_val=60).run()
    assert [(call.check_mode, call.wrap_async) for call in target.calls] == [(False, 60)]


def test_a_lost_connection_in_the_rehearsal_leaves_check_mode_as_it_was(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    task = action({"patch_set": str(patch_set.folder)}, async_val=60)

    def lost(args, check_mode, wrap_async):
        raise ConnectionError

    target.module = lost
    with pytest.raises(ConnectionError):
        task.run()
    assert task._task.check_mode is False


def test_the_folder_on_the_target_goes_unless_the_job_needs_it(action, target, patch_set):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    started = action({"patch_set": str(patch_set.folder)}, async_val=60)
    started.run()
    started.cleanup()
    assert started.removed == [None]

    (patch_set.folder / "qemu-utils_1_amd64.deb").unlink()
    target.store.clear()
    failed = action({"patch_set": str(patch_set.folder)}, async_val=60)
    with pytest.raises(AnsibleActionFail):
        failed.run()
    failed.cleanup()
    assert failed.removed == [REMOTE_TMP]


# The folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["playbooks/files/patches", "playbooks/patches", "files/patches", "patches"])
def test_a_relative_folder_is_found_where_ansible_looks_for_files(action, target, patch_set, tmp_path, place):
    patch_set.add("qemu-utils", b"utils")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "playbooks").mkdir(exist_ok=True)
    patch_set.folder.rename(tmp_path / place)
    action({"patch_set": "patches"}).run()
    assert "qemu-utils" in target.calls[0].args["_manifest"]


def test_the_home_folder_is_the_controllers(action, target, patch_set, tmp_path, monkeypatch):
    patch_set.add("qemu-utils", b"utils")
    monkeypatch.setenv("HOME", str(tmp_path))
    action({"patch_set": "~/set"}).run()
    assert "qemu-utils" in target.calls[0].args["_manifest"]


def test_vaulted_files_are_sent_decrypted_and_leave_no_copy(action, target, patch_set, loader):
    secrets = [("default", VaultSecret(b"password"))]
    loader.set_vault_secrets(secrets)
    checksum = patch_set.add("qemu-utils", b"utils")
    plain = patch_set.manifest.read_text()
    for path in patch_set.folder.iterdir():
        path.write_bytes(VaultLib(secrets).encrypt(path.read_bytes()))
    target.needs = [checksum]
    assert not action({"patch_set": str(patch_set.folder)}).run()["failed"]
    assert target.calls[0].args["_manifest"] == plain
    assert target.files == {f"{REMOTE_TMP}/{checksum}.deb": b"utils"}
    assert not loader._tempfiles


def test_a_vaulted_manifest_without_the_password_is_an_error(action, target, patch_set):
    patch_set.manifest.write_bytes(VaultLib([("default", VaultSecret(b"password"))]).encrypt(b"schema: 1"))
    with pytest.raises(AnsibleActionFail, match="vault"):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.calls


def unusable_nowhere(folder):
    folder.rmdir()


def unusable_file(folder):
    folder.rmdir()
    folder.write_text("schema: 1")


def unusable_empty(folder):
    pass


def unusable_manifest_folder(folder):
    (folder / "manifest.yml").mkdir()


def unusable_large(folder):
    (folder / "manifest.yml").write_bytes(b"#" * (plugin.MANIFEST_MAX + 1))


def unusable_bytes(folder):
    (folder / "manifest.yml").write_bytes(b"schema: \xff")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unusable_nowhere, "cannot find the patch set"),
        (unusable_file, "it is no folder"),
        (unusable_empty, "it holds no manifest.yml"),
        (unusable_manifest_folder, "it holds no manifest.yml"),
        (unusable_large, "larger than 1024 KiB"),
        (unusable_bytes, "byte 9 is not UTF-8"),
    ],
)
def test_an_unusable_folder_is_refused_before_the_target_is_asked(action, target, patch_set, spoil, message):
    spoil(patch_set.folder)
    with pytest.raises(AnsibleActionFail, match=message):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.calls


def test_a_manifest_of_one_mebibyte_is_sent(action, target, patch_set):
    patch_set.manifest.write_bytes(b"#" * plugin.MANIFEST_MAX)
    action({"patch_set": str(patch_set.folder)}).run()
    assert len(target.calls[0].args["_manifest"]) == plugin.MANIFEST_MAX


# Packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "Could not find or access"),
        (b"util", "qemu-utils_1_amd64.deb.*it has 4 bytes, manifest.yml says 5"),
        (b"utilS", "qemu-utils_1_amd64.deb.*its sha256 is"),
    ],
)
def test_a_package_that_is_not_the_one_in_the_manifest_is_not_sent(action, target, patch_set, found, message):
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    path = patch_set.folder / "qemu-utils_1_amd64.deb"
    if found is None:
        path.unlink()
    else:
        path.write_bytes(found)
    with pytest.raises(AnsibleActionFail, match=message):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.files
    assert len(target.calls) == 1


@pytest.mark.parametrize(
    "name", ["../secret.deb", "/etc/secret.deb", "sub/secret.deb", "..", ".deb", "-o.deb", "a b.deb", "secret", "a.deb/.."]
)
def test_a_name_that_leads_elsewhere_is_never_opened(action, target, patch_set, name):
    (patch_set.folder.parent / "secret.deb").write_bytes(b"secret")
    target.needs = [patch_set.list(f"{name!r}", b"secret")]
    with pytest.raises(AnsibleActionFail, match="only .deb files in its own folder"):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.files


def test_a_target_gets_no_file_that_the_manifest_does_not_name(action, target, patch_set):
    patch_set.add("qemu-utils", b"utils")
    target.needs = ["0" * 64]
    with pytest.raises(AnsibleActionFail, match="asks for a file that manifest.yml does not name"):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.files


@pytest.mark.parametrize("missing", [5, True, "a" * 64, {"a": 1}, [1], [None], [["a"]]])
def test_a_target_that_lists_no_checksums_gets_nothing(action, target, patch_set, missing):
    patch_set.add("qemu-utils", b"utils")
    target.work = lambda args, check_mode: {"failed": True, "changed": False, "msg": "", "_missing": missing}
    with pytest.raises(AnsibleActionFail, match="it lists no checksums"):
        action({"patch_set": str(patch_set.folder)}).run()
    assert not target.files


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "a: &a [*a]\npackages: *a",
        "packages: [",
        "packages: {}\n? [a]\n: b",
        "[]",
        "packages: 1",
        "packages: [a]",
        "packages: [{sha256: a, file: b.deb}]",
        "packages: [{sha256: a, file: b.deb, size: many}]",
        "packages: [{sha256: [], file: b.deb, size: 1}]",
        "packages: [{sha256: a, file: [b.deb], size: 1}]",
        "packages: [{sha256: a, file: b.deb, size: []}]",
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error(text):
    with pytest.raises(AnsibleActionFail, match="manifest.yml"):
        plugin.files_by_checksum(text)


def test_a_damaged_manifest_never_names_a_file_elsewhere(patch_set):
    patch_set.add("qemu-utils", b"utils")
    patch_set.add("qemu-system-x86", b"system")
    good = patch_set.manifest.read_text()
    spoons = ["/", "..", "\n", ":", "- ", "[", "{", "'", "&a ", "*a", "!!python/object:os.system ", "\0", "é", " " * 4]
    rng = random.Random(20)
    for _round in range(1000):
        text = good
        for _cut in range(rng.randint(1, 4)):
            at, gap = rng.randrange(len(text)), rng.randint(0, 3)
            text = text[:at] + rng.choice(spoons) + text[at + gap:]
        try:
            files = plugin.files_by_checksum(text)
        except AnsibleActionFail:
            continue
        for name, size in files.values():
            assert "/" not in name
            assert not name.startswith(".")
            assert isinstance(size, int)


def test_an_upload_is_told_at_verbosity_one(action, target, patch_set, monkeypatch):
    said = []
    target.needs = [patch_set.add("qemu-utils", b"utils")]
    task = action({"patch_set": str(patch_set.folder)})
    task._display = types.SimpleNamespace(v=lambda text, host: said.append((host, text)))
    task.run(task_vars={"inventory_hostname": "compute1"})
    assert said == [("compute1", "uploading qemu-utils_1_amd64.deb, 5 bytes")]
