"""The role rpcbind knows every option of its module, and no other."""

import pathlib

import yaml

ROOT = pathlib.Path(__file__).parents[2]
ROLE = ROOT / "roles" / "rpcbind"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def module_options():
    return load(ROOT / "plugins" / "modules" / "rpcbind_ensure.yml")["DOCUMENTATION"]["options"]


def role_options():
    options = load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    return {name.removeprefix("rpcbind_"): option for name, option in options.items()}


def kind(option):
    return {key: option.get(key) for key in ("type", "elements", "choices")}


def test_each_option_has_a_variable_of_the_same_type():
    assert {name: kind(option) for name, option in role_options().items()} == {
        name: kind(option) for name, option in module_options().items()
    }


def test_each_variable_reaches_the_module_and_may_be_undefined():
    ensure = load(ROLE / "tasks" / "main.yml")[0]
    assert ensure["nfslock.kolla.rpcbind_ensure"] == {
        name: "{{ rpcbind_%s | default(omit) }}" % name for name in module_options()
    }


def test_each_variable_is_in_the_readme():
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    for name in role_options():
        assert f"`rpcbind_{name}`" in text
