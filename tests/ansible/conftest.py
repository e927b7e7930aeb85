"""Ansible as people start it, on this machine as its own target."""

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PATCH_SET = pathlib.Path(os.environ["NFSLOCK_PATCH_SET"])
COLLECTIONS = pathlib.Path(os.environ["NFSLOCK_COLLECTIONS"])
CONTAINERS = ["cinder_api", "cinder_scheduler", "cinder_volume", "nova_compute", "nova_libvirt"]
STORE = pathlib.Path("/var/lib/nfslock/store")

# Groups and names of kolla-ansible's own inventories, for two "hosts" that are both this machine.
INVENTORY = """
[compute]
compute1
[control]
control1
[storage:children]
control
[cinder:children]
control
[cinder-api:children]
cinder
[cinder-backup:children]
storage
[cinder-scheduler:children]
cinder
[cinder-volume:children]
storage
[network]
elsewhere
[all:vars]
ansible_connection=local
"""


class Run(SimpleNamespace):
    """What one command left: code, out (standard output and error), tasks (as the callback recorded them)."""

    def of(self, action, host=None):
        """The results of one module or action, as (status, result)."""
        return [(t["status"], t["result"]) for t in self.tasks if t["action"] == action and host in (None, t["host"])]

    def said(self, task, host=None):
        """What a task showed, one list of lines for each time."""
        return [t["result"]["msg"] for t in self.tasks if t["task"].endswith(task) and t["status"] == "ok" and host in (None, t["host"])]

    @property
    def only(self):
        """The result of the one call of the module."""
        ((_status, result),) = self.of("nfs_lock_fix")
        return result


class Controller:
    def __init__(self, folder):
        self.folder = folder
        self.inventory = folder / "inventory"
        self.remote_tmp = folder / "remote_tmp"
        self.inventory.write_text(INVENTORY + f"ansible_python_interpreter={sys.executable}\n", encoding="utf-8")
        self.env = dict(
            os.environ,
            ANSIBLE_REMOTE_TMP=str(self.remote_tmp),
            ANSIBLE_ASYNC_DIR=str(folder / "async"),
            ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "ansible" / "callback"),
            ANSIBLE_CALLBACKS_ENABLED="record",
            ANSIBLE_LOAD_CALLBACK_PLUGINS="1",
            ANSIBLE_FORCE_COLOR="0",
            ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS="ignore",
            ANSIBLE_LOCALHOST_WARNING="0",
            RECORD_FILE=str(folder / "record"),
        )
        self.env.pop("ANSIBLE_CONFIG", None)
        socket = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
        self.engine = {"engine_socket": socket} if socket else {}

    def run(self, command, *args, cwd=None, env=()):
        record = pathlib.Path(self.env["RECORD_FILE"])
        record.unlink(missing_ok=True)
        done = subprocess.run(
            [command, "-i", str(self.inventory), *args],
            cwd=cwd or self.folder,
            env={**self.env, **dict(env)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        tasks = [json.loads(line) for line in record.read_text("utf-8").splitlines()] if record.exists() else []
        return Run(code=done.returncode, out=done.stdout, tasks=tasks)

    def ad_hoc(self, options, *args, module="nfs_lock_fix", host="compute1", cwd=ROOT, env=()):
        """By default as from a checkout: the short name, and the checkout's own ansible.cfg."""
        given = json.dumps({**self.engine, **options})
        return self.run("ansible", host, "-m", module, "-a", given, *args, cwd=cwd, env=env)

    def playbook(self, name, variables, *args, cwd=None, env=()):
        """With the collection installed from its tarball."""
        given = {f"{role}_{option}": value for role in ("nfs_lock_fix", "nfs_lock_info") for option, value in self.engine.items()}
        # This machine's own rpcbind is none of these tests' business: tests/integration/nodes has hosts for that. No NFS is mounted here.
        given |= {"nfs_lock_cure_rpcbind": "never", "nfs_lock_cure_patch": "always"} | variables
        env = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), **dict(env)}
        return self.run("ansible-playbook", str(name), "-e", json.dumps(given), *args, cwd=cwd, env=env)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def controller(tmp_path):
    return Controller(tmp_path)


@pytest.fixture
def lab():
    def up(*args):
        subprocess.run([ROOT / "tests" / "integration" / "lab" / "up.sh", *args], check=True)

    up()
    versions.up = up
    return versions


def versions():
    """Container to version of qemu-utils, which all of them have."""
    return {
        name: subprocess.run(
            ["docker", "exec", "-u", "root", name, "dpkg-query", "-W", "-f", "${Version}", "qemu-utils"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in CONTAINERS
    }
