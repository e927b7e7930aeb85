"""A patch set on the controller, and a target that has a store and obeys the module's protocol."""

import hashlib
import importlib.util
import pathlib
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.shell.sh import ShellModule

SOURCE = pathlib.Path(__file__).parents[2] / "plugins" / "action" / "nfs_lock_fix.py"
REMOTE_TMP = "/home/operator/.ansible/tmp/ansible-tmp-1"


def load_plugin():
    spec = importlib.util.spec_from_file_location("nfs_lock_fix_action", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = load_plugin()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class PatchSet:
    """A folder with a manifest of the packages that were put in."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []
        folder.mkdir()

    def add(self, name, data):
        file = f"{name}_1_amd64.deb"
        (self.folder / file).write_bytes(data)
        return self.list(file, data)

    def list(self, file, data):
        """Name a file in the manifest without making it."""
        checksum = sha256(data)
        self.rows.append(f"  - file: {file}\n    size: {len(data)}\n    sha256: {checksum}\n")
        self.manifest.write_text("schema: 1\npackages:\n" + "".join(self.rows), encoding="utf-8")
        return checksum

    @property
    def manifest(self):
        return self.folder / "manifest.yml"


class Target:
    """What the module sees of its host, and what it does there: it stops before any change when files are missing."""

    def __init__(self):
        self.needs = []  # checksums
        self.store = set()
        self.files = {}  # what was uploaded, by path
        self.readable = set()  # paths that were given to the user the module runs as
        self.calls = []
        self.loses_uploads = False
        self.failure = None

    def module(self, args, check_mode, wrap_async):
        self.calls.append(SimpleNamespace(args=dict(args), check_mode=check_mode, wrap_async=wrap_async))
        result = self.work(args, check_mode)
        if wrap_async:
            self.job = result
            return {"ansible_job_id": "j1", "started": 1, "finished": 0, "changed": True}
        return result

    def work(self, args, check_mode):
        if self.failure:
            return {"failed": True, "changed": False, "msg": self.failure}
        uploads = {} if self.loses_uploads else args.get("_uploads", {})
        for checksum, path in uploads.items():
            assert path in self.readable
            assert sha256(self.files[path]) == checksum
        missing = [checksum for checksum in self.needs if checksum not in self.store and checksum not in uploads]
        if missing:
            return {"failed": True, "changed": False, "msg": "files are missing", "_missing": missing}
        if not check_mode:
            self.store.update(uploads)
        return {"failed": False, "changed": bool(uploads), "msg": "done"}


class Action(plugin.ActionModule):
    """The plugin with the connection cut off below it."""

    def __init__(self, target, loader, task):
        shell = ShellModule()
        shell.tmpdir = None
        connection = SimpleNamespace(_shell=shell)
        super().__init__(task, connection, SimpleNamespace(), loader, None, None)
        self.target = target
        self.built = True
        self.removed = []
        self._shared_loader_obj = SimpleNamespace(
            module_loader=SimpleNamespace(
                find_plugin_with_context=lambda name, collection_list: SimpleNamespace(resolved=self.built)
            )
        )

    def _make_tmp_path(self, remote_user=None):
        self._connection._shell.tmpdir = REMOTE_TMP

    def _remove_tmp_path(self, tmp_path, force=False):
        self.removed.append(tmp_path)

    def _transfer_file(self, local_path, remote_path):
        assert remote_path.startswith(REMOTE_TMP + "/")
        self.target.files[remote_path] = pathlib.Path(local_path).read_bytes()

    def _fixup_perms2(self, remote_paths, remote_user=None, execute=True):
        assert not execute
        self.target.readable.update(remote_paths)

    def _execute_module(self, module_args=None, task_vars=None, wrap_async=False):
        args = self._task.args if module_args is None else module_args
        args["_ansible_version"] = "0"  # core adds its own keys to the dictionary it is given
        result = self.target.module(args, self._task.check_mode, wrap_async)
        if wrap_async:
            self._connection._shell.tmpdir = None  # as core does: the folder is the job's from now on
        return result


@pytest.fixture
def target():
    return Target()


@pytest.fixture
def patch_set(tmp_path):
    return PatchSet(tmp_path / "set")


@pytest.fixture
def loader(tmp_path):
    loader = DataLoader()
    loader.set_basedir(str(tmp_path))
    return loader


@pytest.fixture
def action(target, loader, tmp_path):
    def make(args, check_mode=False, async_val=0):
        task = SimpleNamespace(
            action="nfslock.kolla.nfs_lock_fix",
            args=args,
            async_val=async_val,
            check_mode=check_mode,
            collections=[],
            get_search_path=lambda: [str(tmp_path / "playbooks")],
        )
        return Action(target, loader, task)

    return make
