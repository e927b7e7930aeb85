"""The playbook keep with real ansible-core: two hosts that are folders on this machine, and kolla-ansible's configuration in every form."""

import getpass
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_keep import MARK, VOLUMES

ROOT = pathlib.Path(__file__).parents[2]
BUILT = ROOT / "preload" / "built" / ("amd64" if os.uname().machine == "x86_64" else "arm64") / "libnfslock.so"
OURS = ", ".join(f"'{volume}'" for volume in VOLUMES)
INHERITED = "{{ nova_extra_volumes + [%s] }}" % OURS

# It returns what lies in its host's folder.
STAND_IN = f"""#!{sys.executable}
# WANT_JSON
import pathlib, sys
print(pathlib.Path(sys.argv[0]).parents[1].joinpath("result.json").read_text(encoding="utf-8"))
"""


def seen(library="none", *names, state="running"):
    rows = [{"container": name, "state": state, "qemu": "stock", "library": {"state": library} if library else {}} for name in names]
    return {"changed": False, "verdict": "ok", "msg": "all is well", "packages": rows}


class Cloud:
    """A collection, an inventory of compute1 and compute2, and a configuration folder."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "etc"
        self.globals = self.config / "globals.d"
        self.globals.mkdir(parents=True)
        self.file = self.globals / "nfslock.yml"
        (self.config / "globals.yml").write_text("kolla_base_distro: debian\n", encoding="utf-8")
        collection = folder / "collections" / "ansible_collections" / "nfslock" / "kolla"
        collection.mkdir(parents=True)
        for name in ("roles", "playbooks", "preload", "galaxy.yml", "meta"):
            (collection / name).symlink_to(ROOT / name)
        (collection / "plugins" / "modules").mkdir(parents=True)
        for name in ("action", "filter", "plugin_utils"):
            (collection / "plugins" / name).symlink_to(ROOT / "plugins" / name)
        module = collection / "plugins" / "modules" / "nfs_lock_info"
        module.write_text(STAND_IN, encoding="utf-8")
        module.chmod(0o755)
        self.inventory = folder / "inventory"
        self.inventory.mkdir()
        self.know("compute1", "compute2")

    def know(self, *hosts, **more):
        """more: {host: variables}."""
        known = {}
        for host in hosts:
            home = self.folder / "hosts" / host
            home.mkdir(parents=True, exist_ok=True)
            if not (home / "result.json").exists():
                self.returns(host, seen("none", "nova_libvirt"))
            known[host] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_remote_tmp": str(home),
                           "ansible_become": False, **more.get(host, {})}
        (self.inventory / "hosts.yml").write_text(json.dumps({"all": {"children": {"compute": {"hosts": known}}}}), encoding="utf-8")

    def returns(self, host, result):
        (self.folder / "hosts" / host / "result.json").write_text(json.dumps(result), encoding="utf-8")

    def group(self, text):
        (self.inventory / "group_vars").mkdir(exist_ok=True)
        (self.inventory / "group_vars" / "compute.yml").write_text(text, encoding="utf-8")

    def as_kolla(self):
        """The options by which kolla-ansible gives Ansible its configuration."""
        files = [self.config / "globals.yml", *(path for path in sorted(self.globals.iterdir()) if path.suffix in (".yml", ".yaml", ".json"))]
        return [*(word for path in files for word in ("-e", f"@{path}")), "-e", f"CONFIG_DIR={self.config}"]

    def play(self, playbook, *options, code=0):
        environment = {**os.environ, "HOME": str(self.folder), "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
                       "ANSIBLE_LOCALHOST_WARNING": "False", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "True"}
        environment.pop("ANSIBLE_CONFIG", None)
        environment.pop("PYTHONPATH", None)  # the tests' own collection
        done = subprocess.run([pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory, *options, playbook], cwd=self.folder,
                              env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
        self.output = done.stdout + done.stderr
        assert done.returncode == code, self.output
        return done.stdout

    def keep(self, *options, code=0, as_kolla=True):
        """Runs the playbook as kolla-ansible does, or without its files, and returns the recap by host. Hosts' own folders are below the test's."""
        own = {"nfs_lock_keep_parent": f"{self.folder}/hosts/{{{{ inventory_hostname }}}}/nfslock", "nfs_lock_keep_owner": getpass.getuser(),
               "nfs_lock_hosts": "compute"}
        given = self.as_kolla() if as_kolla else ["-e", f"CONFIG_DIR={self.config}"]
        stdout = self.play("nfslock.kolla.keep", *given, *options, "-e", json.dumps(own), code=code)
        recap = {}
        for line in stdout.split("PLAY RECAP")[1].splitlines()[1:]:
            if " : " in line:
                host, counts = line.split(" : ", 1)
                recap[host.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        return recap

    def written(self, configs, *options):
        """Writes the lines alone, into each of these folders, and returns the results."""
        hosts = ["compute1", "compute2"]
        tasks = [{"ansible.builtin.set_fact": {"nfs_lock_keep_placed": True, "nfs_lock_info_result": seen("none", "nova_libvirt")}}]
        for number, config in enumerate(configs):
            tasks.append({"nfslock.kolla.nfs_lock_keep": {"config": str(config), "hosts": hosts}, "register": f"made{number}"})
        made = "{{ [%s] | to_json }}" % ", ".join(f"made{number}" for number in range(len(configs)))
        tasks.append({"ansible.builtin.copy": {"content": made, "dest": str(self.folder / "made.json")}, "run_once": True})
        (self.folder / "write.yml").write_text(json.dumps([{"hosts": "compute", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
        self.play(str(self.folder / "write.yml"), *options)
        return json.loads((self.folder / "made.json").read_text(encoding="utf-8"))

    def lines(self):
        """The file's variables."""
        text = self.file.read_text(encoding="utf-8")
        assert text.startswith(MARK + "\n")
        return yaml.safe_load(text)

    def preload(self, host):
        return self.folder / "hosts" / host / "nfslock" / "preload"


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_a_second_run_changes_nothing_and_check_mode_nothing_at_all(cloud):
    recap = cloud.keep("--check", "--diff")
    assert recap["compute1"]["changed"] > 0
    assert not cloud.file.exists() and not cloud.preload("compute1").exists()
    assert "+nova_libvirt_extra_volumes:" in cloud.output

    cloud.keep()
    assert cloud.lines() == {"nova_libvirt_extra_volumes": INHERITED}
    for host in ("compute1", "compute2"):
        folder = cloud.preload(host)
        assert (folder.parent.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o755)
        assert sorted(file.name for file in folder.iterdir()) == ["ld.so.preload", "libnfslock.so"]
        assert (folder / "ld.so.preload").read_text(encoding="utf-8") == "/usr/lib/nfslock/libnfslock.so\n"
        assert (folder / "libnfslock.so").read_bytes() == BUILT.read_bytes()
        assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert "kolla-ansible deploy" in cloud.output

    before = cloud.file.stat().st_mtime_ns, (cloud.preload("compute1") / "libnfslock.so").stat().st_ino
    for as_kolla in (True, False):
        recap = cloud.keep(as_kolla=as_kolla)
        assert {counts["changed"] for counts in recap.values()} == {0}, cloud.output
    assert {counts["changed"] for counts in cloud.keep("--check").values()} == {0}
    assert before == (cloud.file.stat().st_mtime_ns, (cloud.preload("compute1") / "libnfslock.so").stat().st_ino)


def test_an_old_library_is_replaced_by_another_file_and_never_written(cloud):
    cloud.keep()
    library = cloud.preload("compute1") / "libnfslock.so"
    library.write_bytes(b"of an older release")
    with open(library, "rb") as bound:  # as a container has it
        assert cloud.keep("--check")["compute1"]["changed"] == 1
        assert library.read_bytes() == b"of an older release"
        recap = cloud.keep()
        assert bound.read() == b"of an older release"
    assert (recap["compute1"]["changed"], recap["compute2"]["changed"]) == (2, 0)
    assert hashlib.sha256(library.read_bytes()).digest() == hashlib.sha256(BUILT.read_bytes()).digest()
    library.chmod(0o600)
    cloud.keep()
    assert library.stat().st_mode & 0o777 == 0o644


def test_the_folder_that_docker_made_in_the_list_s_place_goes_if_it_is_empty(cloud):
    folder = cloud.preload("compute1") / "ld.so.preload"
    folder.mkdir(parents=True)
    cloud.keep()
    assert folder.is_file()
    folder.unlink()
    folder.mkdir()
    (folder / "somebody's").touch()
    cloud.keep(code=2)
    assert (folder / "somebody's").exists()


# What the operator has: the files of kolla-ansible's configuration, and what becomes of nova_libvirt_extra_volumes.
HAS = {
    "a list in globals.yml": ({"globals.yml": "nova_libvirt_extra_volumes: ['/srv:/srv:ro']"}, ["/srv:/srv:ro", *VOLUMES]),
    "globals.d wins over globals.yml": (
        {"globals.d/a.yml": "nova_libvirt_extra_volumes: ['/a:/a']", "globals.yml": "nova_libvirt_extra_volumes: ['/srv:/srv:ro']"}, ["/a:/a", *VOLUMES]),
    "JSON": ({"globals.d/a.json": '{"nova_libvirt_extra_volumes": ["/a:/a"]}'}, ["/a:/a", *VOLUMES]),
    "a later file": ({"globals.d/z.yml": "nova_libvirt_extra_volumes: ['/z:/z']"}, None),
    "a file that kolla-ansible does not read": ({"globals.d/z.yml.off": "nova_libvirt_extra_volumes: ['/z:/z']"}, INHERITED),
    "a template": ({"globals.yml": 'nova_libvirt_extra_volumes: "{{ mine | default([]) }}"\nmine: ["/m:/m"]'}, "{{ (mine | default([])) + [%s] }}" % OURS),
    "a template of what only kolla has": ({"globals.yml": 'nova_libvirt_extra_volumes: "{{ a | of_kolla }}"'}, "{{ (a | of_kolla) + [%s] }}" % OURS),
    "a template in a list": ({"globals.yml": 'nova_libvirt_extra_volumes: ["{{ where }}:/m"]\nwhere: /m'}, ["{{ where }}:/m", *VOLUMES]),
    "default_extra_volumes": ({"globals.yml": 'default_extra_volumes: ["/d:/d"]'}, INHERITED),
    "no list": ({"globals.yml": "nova_libvirt_extra_volumes: /srv:/srv"}, None),
    "two templates": ({"globals.yml": "nova_libvirt_extra_volumes: '{{ [1] }}{{ [2] }}'"}, None),
    "a template of no list": ({"globals.yml": "nova_libvirt_extra_volumes: '{{ 3 }}'"}, None),
    "no template": ({"globals.yml": "nova_libvirt_extra_volumes: !unsafe '{{ [1] }}'"}, None),
    "vaulted": ({"globals.yml": "nova_libvirt_extra_volumes: VAULTED"}, None),
    "another list is bound there": ({"globals.yml": "nova_libvirt_extra_volumes: ['/x:/etc/ld.so.preload:ro']"}, None),
    "another folder is bound there, from further up": ({"globals.yml": "nova_extra_volumes: ['/x:/usr/lib/nfslock/']"}, None),
    "ours": ({"globals.yml": f"nova_libvirt_extra_volumes: [{OURS}]"}, []),
}


def test_what_the_operator_has_is_kept(cloud):
    word = cloud.folder / "word"
    word.write_text("secret\n", encoding="utf-8")
    vault = pathlib.Path(sys.executable).with_name("ansible-vault")
    vaulted = subprocess.run([vault, "encrypt_string", "--vault-password-file", word, "/srv/hidden:/srv"],
                             check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60).stdout
    folders = []
    for number, (files, _want) in enumerate(HAS.values()):
        folder = cloud.folder / f"etc{number}"
        (folder / "globals.d").mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text.replace("VAULTED", vaulted) + "\n", encoding="utf-8")
        folders.append(folder)
    twice = [cloud.written(folders, "--vault-password-file", word) for _time in range(2)]
    for (name, (_files, want)), folder, first, second in zip(HAS.items(), folders, *twice):
        file = folder / "globals.d" / "nfslock.yml"
        assert (first["changed"], second["changed"]) == (bool(want), False), name
        if want:
            assert yaml.safe_load(file.read_text(encoding="utf-8")) == {"nova_libvirt_extra_volumes": want}, name
        else:
            assert not file.exists(), name
        assert [bool(one["refused"]) for one in (first, second)] == [want is None] * 2, (name, first)
        assert "hidden" not in json.dumps(first)


@pytest.mark.parametrize("files, group, want", [
    pytest.param("{}", "nova_libvirt_extra_volumes: ['/g:/g']", ["/g:/g", *VOLUMES], id="group_vars"),
    pytest.param("{}", "nova_extra_volumes: ['/n:/n']", INHERITED, id="the role's list in group_vars"),
    pytest.param("nova_libvirt_extra_volumes: ['/srv:/srv:ro']", "nova_libvirt_extra_volumes: ['/g:/g']", ["/srv:/srv:ro", *VOLUMES], id="globals.yml wins"),
])
def test_what_the_inventory_has_is_kept(cloud, files, group, want):
    (cloud.config / "globals.yml").write_text(files, encoding="utf-8")
    cloud.group(group)
    assert cloud.written([cloud.config], *cloud.as_kolla())[0]["changed"]
    assert cloud.lines() == {"nova_libvirt_extra_volumes": want}
    assert not cloud.written([cloud.config], *cloud.as_kolla())[0]["changed"]  # with our file loaded, which hides the inventory's


def test_what_kolla_gets_is_the_operator_s_and_ours(cloud):
    (cloud.config / "globals.yml").write_text('default_extra_volumes: ["/d:/d"]\n', encoding="utf-8")
    cloud.written([cloud.config])
    play = cloud.folder / "kolla.yml"
    play.write_text("""
- hosts: compute1
  gather_facts: false
  vars:
    nova_extra_volumes: "{{ default_extra_volumes }}"
    nova_libvirt_extra_volumes: "{{ nova_extra_volumes }}"
  tasks:
    - ansible.builtin.assert:
        that: nova_libvirt_extra_volumes == ['/d:/d', %s]
""" % OURS, encoding="utf-8")
    subprocess.run([pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", cloud.inventory, "-e", f"@{cloud.config / 'globals.yml'}", "-e",
                    f"@{cloud.file}", play], check=True, stdin=subprocess.DEVNULL, timeout=120)


def test_hosts_that_differ_are_left_to_the_operator_until_they_have_it(cloud):
    cloud.know("compute1", "compute2", compute1={"nova_libvirt_extra_volumes": ["/one:/one"]})
    made = cloud.written([cloud.config])[0]
    assert not cloud.file.exists() and "is not the same on all hosts (compute1)" in made["refused"][0]
    cloud.know("compute1", "compute2", compute1={"nova_libvirt_extra_volumes": ["/one:/one", *VOLUMES]}, compute2={"nova_libvirt_extra_volumes": VOLUMES})
    made = cloud.written([cloud.config])[0]
    assert not cloud.file.exists() and not made["refused"] and "no line of ours is needed" in made["say"][0]


def test_a_value_that_is_given_at_the_command_wins(cloud):
    made = cloud.written([cloud.config], "-e", '{"nova_libvirt_extra_volumes": ["/c:/c"]}')[0]
    assert not cloud.file.exists() and "wins over every file" in made["refused"][0]


def test_all_hosts_have_the_files_before_a_line_is_written_and_a_line_stays_when_one_is_away(cloud):
    cloud.keep("-l", "compute1", code=2)
    assert not cloud.file.exists() and "compute2 have not got the library" in cloud.output
    cloud.keep()
    before = cloud.file.read_text(encoding="utf-8")
    cloud.know("compute1", "compute2", compute2={"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1})
    cloud.keep(code=4)
    assert cloud.file.read_text(encoding="utf-8") == before


def test_somebody_else_s_file_is_left_alone(cloud):
    cloud.file.write_text("nfs_lock_fix_patch_set: /srv/set\n", encoding="utf-8")
    cloud.keep(code=2)
    assert cloud.file.read_text(encoding="utf-8") == "nfs_lock_fix_patch_set: /srv/set\n" and "somebody else" in cloud.output
    cloud.keep("-e", "nfs_lock_keep_state=absent", code=2)
    assert cloud.file.exists()


def test_before_the_first_deployment_the_groups_tell(cloud):
    for host in ("compute1", "compute2"):
        cloud.returns(host, seen())
    cloud.keep()
    assert list(cloud.lines()) == ["nova_libvirt_extra_volumes", "nova_compute_extra_volumes"]


def test_the_way_back_leaves_what_is_bound(cloud):
    cloud.keep()
    absent = ("-e", "nfs_lock_keep_state=absent")
    cloud.returns("compute1", seen("bound", "nova_libvirt"))
    recap = cloud.keep(*absent, "--check", "--diff")
    assert recap["compute2"]["changed"] == 1 and cloud.file.exists() and cloud.preload("compute2").exists()
    assert "-nova_libvirt_extra_volumes:" in cloud.output

    cloud.keep(*absent)
    assert not cloud.file.exists()
    assert cloud.preload("compute1").exists() and not cloud.preload("compute2").exists()
    assert "nova_libvirt has it bound" in cloud.output

    for result in (seen("none", "nova_libvirt", state="exited"), {"failed": True, "msg": "no engine"}, seen("", "nova_libvirt")):
        cloud.returns("compute1", result)
        cloud.keep(*absent)
        assert cloud.preload("compute1").exists() and "could not be told" in cloud.output

    cloud.returns("compute1", seen("none", "nova_libvirt"))
    assert cloud.keep(*absent)["compute1"]["changed"] == 1
    assert not cloud.preload("compute1").exists() and cloud.preload("compute1").parent.exists()
    assert {counts["changed"] for counts in cloud.keep(*absent).values()} == {0}
