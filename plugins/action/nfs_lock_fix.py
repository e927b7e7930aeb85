"""The controller's half of nfs_lock_fix: it hands the module the manifest, and uploads only what a target lacks.

The module is a program. It gets the manifest's text in the option _manifest, and that of its signature, where one is asked
for and there, in _signature: it alone judges them. It observes its host and, where the host's
store lacks files that the plan needs, stops before any change and names them by checksum in _missing. They are
uploaded then, and the module runs again with _uploads, their paths by checksum. A run that changes nothing is one call.
"""

from __future__ import annotations

import hashlib
import os
import re

import yaml

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

MANIFEST = "manifest.yml"
MANIFEST_MAX = 1 << 20  # bytes; the module's own limit
SIGNATURE = MANIFEST + ".sig"  # as ssh-keygen names it
SIGNATURE_MAX = 64 << 10  # bytes; likewise
BLOCK = 1 << 20  # bytes read at once from a package, which may have hundreds of megabytes

# The module knows the same rule. It is repeated here because these names are opened on the controller.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:%-]*\.deb")


class ActionModule(ActionBase):

    TRANSFERS_FILES = True  # so that core makes the task's folder on the target before run

    def run(self, tmp=None, task_vars=None):
        self._supports_async = True  # ansible-core 2.14 sets it to false in its constructor
        super().run(tmp, task_vars)
        self._require_program()
        for name in ("_manifest", "_signature", "_uploads"):
            if name in self._task.args:
                raise AnsibleActionFail(f"unknown option {name!r}: the collection uses it itself")
        if not self._is_controller_folder():
            return self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)

        folder = self._find_folder(to_text(self._task.args["patch_set"]))
        manifest = self._read_manifest(folder)
        args = dict(self._task.args, _manifest=manifest)
        if self._task.args.get("allowed_signers") is not None and os.path.lexists(os.path.join(folder, SIGNATURE)):
            args["_signature"] = self._read_text(os.path.join(folder, SIGNATURE), SIGNATURE_MAX)
        if self._task.async_val:
            # A job cannot ask for files once it has begun. Whatever else this call says, the job will say again.
            result = self._rehearse(args, task_vars)
        else:
            result = self._execute_module(module_args=args, task_vars=task_vars)
        missing = missing_from(result)
        if not missing and not self._task.async_val:
            return result
        if missing:
            args["_uploads"] = self._upload(folder, manifest, missing, task_vars)
        result = self._execute_module(module_args=args, task_vars=task_vars, wrap_async=self._task.async_val)
        still = missing_from(result)
        result.pop("_missing", None)
        if still:  # the module has set failed
            result["msg"] = (
                "cannot give the target the files of the patch set: after the upload it still lacks "
                + ", ".join(sorted(still))
            )
        return result

    def cleanup(self, force=False):
        # Core leaves the folder of every async task alone. That is needed only once the job runs: then the job removes
        # it, and core has forgotten its path. A task that failed before would leave it behind.
        super().cleanup(force=True)

    def _require_program(self):
        found = self._shared_loader_obj.module_loader.find_plugin_with_context(
            self._task.action, collection_list=self._task.collections
        )
        if not found.resolved:
            raise AnsibleActionFail(
                f"cannot run {self._task.action}: its program is not built; "
                "run `make build` in the collection's checkout, or install a release, which has it"
            )

    def _is_controller_folder(self):
        """Whether there is something to send; what is wrong with the options the module says better."""
        args = self._task.args
        patch_set = args.get("patch_set")
        try:
            remote = boolean(args.get("remote_src") or False)
        except TypeError:
            return False
        # An address with a slip in it is the module's to refuse: a message of ours would show the password that it may hold.
        address = to_text(patch_set).strip().lower().startswith("sftp:")
        wanted = args.get("state") != "absent" and args.get("method") != "library"
        return bool(patch_set) and not remote and wanted and not address

    def _find_folder(self, patch_set):
        try:
            folder = self._find_needle("files", patch_set)
        except AnsibleError as err:
            raise AnsibleActionFail(f"cannot find the patch set {patch_set!r} on the controller: {err}") from None
        if not os.path.isdir(folder):
            raise AnsibleActionFail(f"cannot use the patch set {folder!r}: it is no folder")
        return folder

    def _read_manifest(self, folder):
        path = os.path.join(folder, MANIFEST)
        if not os.path.isfile(path):
            raise AnsibleActionFail(f"cannot use the patch set {folder!r}: it holds no {MANIFEST}")
        return self._read_text(path, MANIFEST_MAX)

    def _read_text(self, path, most):
        if not os.path.isfile(path):  # to open a pipe would wait for its other end
            raise AnsibleActionFail(f"cannot read {path!r}: it is no file")
        real = self._real_file(path)
        try:
            with open(real, "rb") as text:
                data = text.read(most + 1)
        except OSError as err:
            raise AnsibleActionFail(f"cannot read {path!r}: {err.strerror}") from None
        finally:
            self._loader.cleanup_tmp_file(real)
        if len(data) > most:
            raise AnsibleActionFail(f"cannot use {path!r}: it is larger than {most >> 10} KiB")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as err:
            raise AnsibleActionFail(f"cannot use {path!r}: byte {err.start + 1} is not UTF-8") from None

    def _real_file(self, path):
        """The file, or where it is vaulted a decrypted copy, for which the caller calls cleanup_tmp_file."""
        try:
            return self._loader.get_real_file(path)
        except AnsibleError as err:
            raise AnsibleActionFail(f"cannot read {path!r}: {err}") from None

    def _rehearse(self, args, task_vars):
        before = self._task.check_mode
        self._task.check_mode = True
        try:
            return self._execute_module(module_args=args, task_vars=task_vars)
        finally:
            self._task.check_mode = before

    def _upload(self, folder, manifest, missing, task_vars):
        """Send the files with these checksums, and return their paths on the target by checksum."""
        packages = files_by_checksum(manifest)
        shell = self._connection._shell
        uploads = {}
        for checksum in sorted(set(missing)):
            # The target decides which files it gets, but only among those that the manifest names.
            if checksum not in packages:
                raise AnsibleActionFail(f"cannot upload {checksum!r}: the target asks for a file that {MANIFEST} does not name")
            name, size = packages[checksum]
            path = os.path.join(folder, name)
            real = self._real_file(path)
            try:
                check_file(real, path, size, checksum)
                remote = shell.join_path(shell.tmpdir, checksum + ".deb")
                self._display.v(f"uploading {name}, {size} bytes", host=(task_vars or {}).get("inventory_hostname"))
                self._transfer_file(real, remote)
            finally:
                self._loader.cleanup_tmp_file(real)
            uploads[checksum] = remote
        self._fixup_perms2([shell.tmpdir, *uploads.values()], execute=False)
        return uploads


def missing_from(result):
    """The checksums of the files that the target lacks. What it says is not believed to be a list of texts."""
    missing = result.get("_missing") or []
    if not isinstance(missing, list) or not all(isinstance(checksum, str) for checksum in missing):
        raise AnsibleActionFail("cannot upload what the target lacks: it lists no checksums")
    return missing


def files_by_checksum(manifest):
    """File name and size of each package, by checksum. The module has accepted the manifest before it asks for files."""
    try:
        # BaseLoader makes only strings, lists and dictionaries: no octal numbers, dates or objects.
        listed = yaml.load(manifest, Loader=yaml.BaseLoader)["packages"]
        files = {package["sha256"]: (package["file"], int(package["size"])) for package in listed}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as err:
        raise AnsibleActionFail(f"cannot read the packages in {MANIFEST}: {str(err)[:400]}") from None
    for name, _size in files.values():
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            raise AnsibleActionFail(f"cannot upload {name!r}: {MANIFEST} may name only .deb files in its own folder")
    return files


def check_file(real, path, size, checksum):
    """Refuse a file that is not the one in the manifest; the target checks again what arrives."""
    found = hashlib.sha256()
    length = 0
    try:
        with open(real, "rb") as package:
            while block := package.read(BLOCK):
                length += len(block)
                found.update(block)
    except OSError as err:
        raise AnsibleActionFail(f"cannot read {path!r}: {err.strerror}") from None
    if length != size:
        raise AnsibleActionFail(f"cannot upload {path!r}: it has {length} bytes, {MANIFEST} says {size}")
    if found.hexdigest() != checksum:
        raise AnsibleActionFail(f"cannot upload {path!r}: its sha256 is {found.hexdigest()}, {MANIFEST} says {checksum}")
