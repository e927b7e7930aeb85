"""A role knows every option of its module, and no other; and what old cores cannot show is in no role."""

import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]

# Each role with the module that it runs, and its task that does.
ROLES = pytest.mark.parametrize(
    "role, module, task",
    [
        ("nfs_lock_fix", "nfs_lock_fix", lambda tasks: tasks[0]["block"][0]),
        ("rpcbind", "rpcbind_ensure", lambda tasks: tasks[0]),
        ("nfs_lock_info", "nfs_lock_info", lambda tasks: tasks[0]),
    ],
)


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def module_options(module):
    return load(ROOT / "plugins" / "modules" / f"{module}.yml")["DOCUMENTATION"]["options"]


def role_options(role):
    options = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    return {name.removeprefix(f"{role}_"): option for name, option in options.items()}


def kind(option):
    return {key: option.get(key) for key in ("type", "elements", "choices")}


@ROLES
def test_each_option_has_a_variable_of_the_same_type(role, module, task):
    assert {name: kind(option) for name, option in role_options(role).items()} == {
        name: kind(option) for name, option in module_options(module).items()
    }


@ROLES
def test_each_variable_reaches_the_module_and_may_be_undefined(role, module, task):
    tasks = load(ROOT / "roles" / role / "tasks" / "main.yml")
    assert task(tasks)[f"nfslock.kolla.{module}"] == {
        name: "{{ %s_%s | default(omit) }}" % (role, name) for name in module_options(module)
    }


@ROLES
def test_each_variable_is_in_the_readme(role, module, task):
    text = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    for name in role_options(role):
        assert f"`{role}_{name}`" in text


def test_descriptions_need_no_newer_ansible_doc():
    # Semantic markup is shown as it stands before ansible-core 2.15; internal/ansible/moduledoc sees to the modules.
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        assert not re.findall(r"\b(?:E|O|P|RV|V)\(.*", path.read_text(encoding="utf-8"))


def test_each_variable_of_the_cure_is_in_its_readme():
    specs = load(ROOT / "roles" / "nfs_lock_cure" / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = load(ROOT / "roles" / "nfs_lock_cure" / "defaults" / "main.yml")
    text = (ROOT / "roles" / "nfs_lock_cure" / "README.md").read_text(encoding="utf-8")
    assert set(specs["main"]["options"]) == set(defaults)
    for name in defaults:
        assert f"`{name}`" in text
