"""The role knows every option of the module, and no other; and what old cores cannot show is in no role."""

import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).parents[2]
ROLE = ROOT / "roles" / "nfs_lock_fix"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def module_options():
    return load(ROOT / "plugins" / "modules" / "nfs_lock_fix.yml")["DOCUMENTATION"]["options"]


def role_options():
    options = load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    return {name.removeprefix("nfs_lock_fix_"): option for name, option in options.items()}


def kind(option):
    return {key: option.get(key) for key in ("type", "elements", "choices")}


def test_each_option_has_a_variable_of_the_same_type():
    assert {name: kind(option) for name, option in role_options().items()} == {
        name: kind(option) for name, option in module_options().items()
    }


def test_each_variable_reaches_the_module_and_may_be_undefined():
    (patch, *_rest) = load(ROLE / "tasks" / "main.yml")[0]["block"]
    assert patch["nfslock.kolla.nfs_lock_fix"] == {
        name: "{{ nfs_lock_fix_%s | default(omit) }}" % name for name in module_options()
    }


def test_each_variable_is_in_the_readme():
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    for name in role_options():
        assert f"`nfs_lock_fix_{name}`" in text


def test_descriptions_need_no_newer_ansible_doc():
    # Semantic markup is shown as it stands before ansible-core 2.15; internal/ansible/moduledoc sees to the modules.
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        assert not re.findall(r"\b(?:E|O|P|RV|V)\(.*", path.read_text(encoding="utf-8"))
