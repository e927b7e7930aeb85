"""A controller with the collection, whose programs are stand-ins, and hosts that are folders on this machine."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


class Controller:
    def __init__(self, folder, programs):
        """programs: the text of each stand-in by its module's name."""
        self.folder = folder
        self.inventory = folder / "inventory.json"
        collection = folder / "collections" / "ansible_collections" / "nfslock" / "kolla"
        shutil.copytree(ROOT / "plugins", collection / "plugins", ignore=shutil.ignore_patterns("__pycache__", "modules"))
        for name in ("roles", "playbooks"):
            (collection / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "galaxy.yml", collection)
        modules = collection / "plugins" / "modules"
        modules.mkdir()
        for name, text in programs.items():
            (modules / name).write_text(text, encoding="utf-8")
            (modules / name).chmod(0o755)

    def home(self, host):
        """The host's own folder. A stand-in finds it as the parent of the folder of its run: each host has its own remote_tmp."""
        home = self.folder / "hosts" / host
        home.mkdir(parents=True, exist_ok=True)
        return home

    def variables(self, host, reached=True):
        known = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.home(host)),
            "ansible_become": False,
        }
        if not reached:  # nobody listens there
            known.update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
        return known

    def know(self, hosts, stores=()):
        """Writes the inventory: {host: variables}, all of them in kolla's group compute, and those of stores in cinder-volume too."""
        groups = {"compute": {"hosts": hosts}}
        if stores:
            groups["cinder-volume"] = {"hosts": dict.fromkeys(stores)}
        self.inventory.write_text(json.dumps({"all": {"children": groups}}), encoding="utf-8")

    def play(self, playbook, variables, *arguments):
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
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [program, "-i", self.inventory, "-e", json.dumps(variables), *arguments, f"nfslock.kolla.{playbook}"],
            cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )
