"""The collection with a stand-in for the program nfs_lock_info, so that hosts can say what the tests want."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import hostvars
import pytest

ROOT = pathlib.Path(__file__).parents[2]

# It returns what lies for its host beside the folder of its run: each host has its own remote_tmp.
STAND_IN = f"""#!{sys.executable}
# WANT_JSON
import pathlib, sys
print(pathlib.Path(sys.argv[0]).parents[1].joinpath("result.json").read_text(encoding="utf-8"))
"""


class Fleet:
    """Hosts that are folders on this machine, and one playbook run on them."""

    def __init__(self, folder, results, measured):
        self.folder = folder
        self.reports = folder / "reports"
        self.results = results
        self.measured = measured  # hosts that get metrics
        collection = folder / "collections" / "ansible_collections" / "nfslock" / "kolla"
        shutil.copytree(ROOT / "plugins", collection / "plugins", ignore=shutil.ignore_patterns("__pycache__", "modules"))
        for name in ("roles", "playbooks"):
            (collection / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "galaxy.yml", collection)
        modules = collection / "plugins" / "modules"
        modules.mkdir()
        (modules / "nfs_lock_info").write_text(STAND_IN, encoding="utf-8")
        (modules / "nfs_lock_info").chmod(0o755)
        self.inventory = folder / "inventory.json"
        self.write()

    def write(self):
        hosts = {}
        for name, result in self.results.items():
            home = self.folder / "hosts" / name
            (home / "textfile").mkdir(parents=True, exist_ok=True)
            (home / "result.json").write_text(json.dumps(result), encoding="utf-8")
            hosts[name] = {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "ansible_remote_tmp": str(home),
                "ansible_become": False,
            }
            if name in self.measured:
                hosts[name]["nfs_lock_report_textfile_dir"] = str(home / "textfile")
            if result is hostvars.UNREACHABLE:  # nobody listens there
                hosts[name].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
        self.inventory.write_text(json.dumps({"all": {"children": {"compute": {"hosts": hosts}}}}), encoding="utf-8")

    def run(self, *arguments, returncode=0):
        """What the recap counts of each host."""
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "LC_ALL": "C.UTF-8",
            "LANG": "C.UTF-8",
        }
        environment.pop("ANSIBLE_CONFIG", None)
        done = subprocess.run(
            [
                pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory,
                "-e", json.dumps({"nfs_lock_report_dir": str(self.reports), "nfs_lock_hosts": "compute"}), *arguments, "nfslock.kolla.report",
            ],
            cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )
        assert done.returncode == returncode, done.stdout + done.stderr
        self.output = done.stdout + done.stderr
        recap = {}
        for line in done.stdout.split("PLAY RECAP")[1].splitlines()[1:]:
            if " : " in line:
                host, counts = line.split(" : ", 1)
                recap[host.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        return recap

    def report(self, form):
        return (self.reports / f"nfs-lock-report.{form}").read_text(encoding="utf-8")

    def textfile(self, host):
        return self.folder / "hosts" / host / "textfile" / "nfs_lock.prom"


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the golden files anew")
    parser.addoption("--screenshots", metavar="DIR", help="write the README's pictures there")


@pytest.fixture
def golden(request):
    """Compares a text with the file of that name in golden/."""

    def compare(name, text):
        path = pathlib.Path(__file__).with_name("golden") / name
        if request.config.getoption("--update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{name}: if it is meant to differ: tests/report/run.sh --update"

    return compare


@pytest.fixture
def fleet(tmp_path):
    return lambda results, measured: Fleet(tmp_path, results, measured)
