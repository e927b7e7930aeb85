"""The lines for kolla-ansible: what the operator has, and ours."""

import pytest
import yaml
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_keep import (
    MARK,
    SERVICES,
    VOLUMES,
    Cloud,
    Odd,
    conflict_in,
    expression_of,
    found_in,
    held,
    members_of,
    services_of,
    written,
)

FOLDER, LIST = VOLUMES
OURS = f"['{FOLDER}', '{LIST}']"
VARIABLE = "nova_libvirt_extra_volumes"
HOSTS = ("c1", "c2")
WRITABLE = [one.removesuffix(":ro") for one in VOLUMES]


def decide(sources=(), hosts=None, worked=(), own=None, placed=HOSTS):
    """The row of nova_libvirt. sources: (name, rank, its value). worked: what it comes to on all hosts, or by host."""
    worked = worked if isinstance(worked, dict) else dict.fromkeys(HOSTS, worked if worked is None else list(worked))
    hosts = {host: {VARIABLE: value} for host, value in (hosts or {}).items()}
    cloud = Cloud([(name, rank, {VARIABLE: value}) for name, rank, value in sources], hosts, {"nova_libvirt": worked}, own or {},
                  {"nova_libvirt": list(HOSTS)}, set(placed))
    return cloud.decide("nova_libvirt")


@pytest.mark.parametrize(
    "sources, hosts, worked, want",
    [
        pytest.param([], {}, [], "{{ nova_extra_volumes + %s }}" % OURS, id="nothing"),
        pytest.param([], {}, ["/d:/d"], "{{ nova_extra_volumes + %s }}" % OURS, id="what comes from further up stays where it is"),
        pytest.param([("globals.yml", "before", ["/a:/a"])], {}, ["/a:/a"], ["/a:/a", FOLDER, LIST], id="a list"),
        pytest.param([("globals.yml", "before", [])], {}, [], [FOLDER, LIST], id="an empty list"),
        pytest.param([("globals.yml", "before", ["/a:/a", None, ""])], {}, ["/a:/a", "", ""], ["/a:/a", "", "", FOLDER, LIST], id="empty volumes"),
        pytest.param([("globals.yml", "before", ["/a:/a", LIST])], {}, ["/a:/a", LIST], ["/a:/a", LIST, FOLDER], id="one of ours is there"),
        pytest.param([("globals.yml", "before", "{{ a if b else c }}")], {}, ["/a:/a"], "{{ (a if b else c) + %s }}" % OURS, id="an expression"),
        pytest.param([("globals.yml", "before", "{{- a -}}")], {}, None, "{{ (a) + %s }}" % OURS, id="an expression that nobody here knows"),
        pytest.param([("globals.yml", "before", ["/a:/a"]), ("globals.d/b.yml", "before", ["/b:/b"])], {"c1": ["/c:/c"]}, ["/b:/b"], ["/b:/b", FOLDER, LIST],
                     id="the last file wins, over the inventory too"),
        pytest.param([], {"c1": ["/c:/c"], "c2": ["/c:/c"]}, ["/c:/c"], ["/c:/c", FOLDER, LIST], id="the inventory"),
        pytest.param([], {"c1": "{{ mine }}", "c2": "{{ mine }}"}, {"c1": ["/1:/1"], "c2": ["/2:/2"]}, "{{ (mine) + %s }}" % OURS,
                     id="one expression that differs by host"),
        pytest.param([("globals.yml", "before", ["/usr/lib:/usr/lib"])], {}, ["/usr/lib:/usr/lib"], ["/usr/lib:/usr/lib", FOLDER, LIST], id="a folder above"),
    ],
)
def test_ours_come_behind_what_is_there(sources, hosts, worked, want):
    row = decide(sources, hosts, worked)
    assert (row["status"], row["value"]) == ("added", want)


@pytest.mark.parametrize(
    "sources, hosts, worked, want",
    [
        pytest.param([("globals.d/z.yml", "after", ["/z:/z"])], {}, ["/z:/z"], "read after nfslock.yml and wins", id="a later file"),
        pytest.param([("-e @x.yml", "command", ["/z:/z"])], {}, ["/z:/z"], "wins over every file", id="the command"),
        pytest.param([], {"c1": ["/c:/c"]}, {"c1": ["/c:/c"], "c2": []}, "not the same on all hosts (c1)", id="some hosts have none"),
        pytest.param([], {"c1": ["/1:/1"], "c2": ["/2:/2"]}, {"c1": ["/1:/1"], "c2": ["/2:/2"]}, "not the same on all hosts (c1, c2)", id="hosts differ"),
        pytest.param([("globals.yml", "before", Odd("is vaulted"))], {}, "x", "globals.yml is vaulted", id="vaulted"),
        pytest.param([("globals.yml", "before", ["/a:/a", Odd("is vaulted")])], {}, None, "a volume of", id="vaulted in a list"),
        pytest.param([], {"c1": Odd("is vaulted"), "c2": Odd("is vaulted")}, None, "not the same", id="vaulted for each host"),
        pytest.param([("globals.yml", "before", "/a:/a")], {}, None, "neither a list nor one template", id="a text"),
        pytest.param([("globals.yml", "before", None)], {}, None, "neither a list nor one template", id="null"),
        pytest.param([("globals.yml", "before", "{% if a %}{{ b }}{% endif %}")], {}, None, "neither a list nor one template", id="statements"),
        pytest.param([("globals.yml", "before", "{{ a }}")], {}, {"c1": "3", "c2": ["/a:/a"]}, "is no list on c1", id="comes to a text"),
        pytest.param([("globals.yml", "before", ["/a:/usr/lib/nfslock/:ro"])], {}, None, "mounts something else", id="another folder in our place"),
        pytest.param([("globals.yml", "before", "{{ a }}")], {}, ["/a:/etc/ld.so.preload"], "mounts something else", id="another list in our place"),
        pytest.param([], {}, ["/a:/usr/lib/nfslock/x"], "mounts something else", id="something in our folder, from further up"),
        pytest.param([], {}, {"c1": VOLUMES, "c2": []}, "on some hosts", id="ours on some hosts"),
        pytest.param([("globals.yml", "before", "{{ a }}")], {}, [FOLDER], "one of the two", id="one of ours from an expression"),
    ],
)
def test_nothing_is_written_where_something_of_the_operator_s_could_be_lost(sources, hosts, worked, want):
    worked = worked if isinstance(worked, (dict, list)) else None
    row = decide(sources, hosts, worked)
    assert (row["status"], row["value"]) == ("refused", None)
    assert row["say"].startswith(f"nova_libvirt: no line is written for {VARIABLE}: ") and want in row["say"]
    # What was written before, when it was right, is not taken from containers by a refusal.
    row = decide(sources, hosts, worked, own={VARIABLE: ["/old:/old", *VOLUMES]})
    assert (row["status"], row["value"]) == ("refused", ["/old:/old", *VOLUMES])
    assert "The line from before stays." in row["say"]


@pytest.mark.parametrize(
    "sources, hosts, worked",
    [
        pytest.param([("globals.yml", "before", ["/a:/a", *VOLUMES])], {}, ["/a:/a", *VOLUMES], id="a list"),
        pytest.param([("globals.d/z.yml", "after", VOLUMES)], {}, VOLUMES, id="a later file"),
        pytest.param([("-e {…}", "command", VOLUMES)], {}, VOLUMES, id="the command"),
        pytest.param([], {}, VOLUMES, id="default_extra_volumes"),
        pytest.param([], {"c1": ["/1:/1", *VOLUMES], "c2": VOLUMES}, {"c1": ["/1:/1", *VOLUMES], "c2": VOLUMES}, id="each host by itself"),
        pytest.param([("globals.yml", "before", "{{ a }}")], {}, VOLUMES, id="an expression"),
        pytest.param([("globals.yml", "before", WRITABLE)], {}, WRITABLE, id="not read-only"),
    ],
)
def test_what_has_ours_already_needs_no_line(sources, hosts, worked):
    row = decide(sources, hosts, worked)
    assert (row["status"], row["value"]) == ("yours", None)


def test_a_first_line_waits_for_the_files_on_all_hosts_and_one_that_is_there_does_not():
    row = decide(placed=["c1"])
    assert row["status"] == "refused" and "its hosts c2 have not got the library" in row["say"]
    row = decide(placed=["c1"], own={VARIABLE: VOLUMES})
    assert (row["status"], row["value"]) == ("added", "{{ nova_extra_volumes + %s }}" % OURS)


def test_what_is_said_shows_what_it_comes_to():
    row = decide([("globals.yml", "before", "{{ a }}")], {}, {"c1": ["/1:/1", ""], "c2": None})
    assert row["say"] == (
        f"nova_libvirt: the library's volumes are added to {VARIABLE} in globals.yml: /1:/1 on c1; what it comes to on c2 is only known to kolla-ansible"
    )
    assert row["volumes"] == {"c1": ["/1:/1", ""]}
    assert decide()["say"].endswith("what kolla-ansible takes by itself, nova_extra_volumes: no other volume")


@pytest.mark.parametrize("value, want", [("{{ a }}", "a"), (" {{- a.b['c'] -}} ", "a.b['c']"), ("{{ a + b }}", "a + b"), ("{{ a }}{{ b }}", None),
                                         ("x{{ a }}", None), ("{{ }}", None), ("{{ a }} {# b #}", None), ("a", None), ("", None)])
def test_one_expression_is_told_from_other_texts(value, want):
    assert expression_of(value) == want


@pytest.mark.parametrize("items, want", [
    (VOLUMES, None),
    (["/x:/etc/ld.so.preload"], "/x:/etc/ld.so.preload"),
    (["a:/usr/lib/nfslock//:rw"], "a:/usr/lib/nfslock//:rw"),
    (["/etc:/etc", "", "odd", "/a:/usr/lib/nfslock2"], None),
])
def test_volumes_in_our_places_are_seen(items, want):
    assert conflict_in(items) == want


def test_the_file_says_what_it_is_and_is_read_as_it_was_meant():
    odd = ["/a b:/c", "{{ where }}:/m", "it's: \"one\"", "/ü\u2028:/ü", ""]
    rows = [
        {"variable": "a_extra_volumes", "value": odd, "where": "a_extra_volumes in globals.yml"},
        {"variable": "b_extra_volumes", "value": "{{ (x\n if y else 'z  z') + ['q'] }}", "where": ""},
        {"variable": "c_extra_volumes", "value": None, "where": ""},
    ]
    text = written(rows)
    assert text.startswith(MARK + "\n")
    assert yaml.safe_load(text) == {"a_extra_volumes": odd, "b_extra_volumes": rows[1]["value"]}
    assert written(rows[2:]) == ""


def test_services_are_those_that_were_seen_or_are_to_be():
    info = {"packages": [{"container": "nova_libvirt"}, {"container": "nfs_rpcbind"}, "odd"]}
    found = found_in({"c1": info, "c2": None, "c3": {"packages": 3}})
    assert found == {"nova_libvirt": ["c1"]}
    groups = {"compute": ["c2"], "cinder-api": ["a1"], "glance-api": []}
    assert services_of([], found, groups, {}) == ["nova_libvirt"]
    assert services_of([], found, groups, {"glance_api_extra_volumes": []}) == ["nova_libvirt", "glance_api"]
    assert services_of([], {}, groups, {}) == ["nova_libvirt", "nova_compute", "cinder_api"]
    assert services_of(["cinder_volume"], found, groups, {"glance_api_extra_volumes": []}) == ["cinder_volume"]
    assert members_of("nova_libvirt", found, groups) == ["c2", "c1"]
    assert set(SERVICES) >= {"nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup", "glance_api", "ironic_conductor"}


def package(state, container="nova_libvirt", runs="running"):
    return {"container": container, "state": runs, "library": {"state": state}}


@pytest.mark.parametrize(
    "info, want",
    [
        ({"packages": []}, ""),
        ({"packages": [package("none"), package("installed", "nova_compute")]}, ""),
        ({"packages": [package("none"), package("bound", "nova_compute")]}, "nova_compute has it bound"),
        ({"packages": [package("bound"), package("bound", "nova_compute")]}, "nova_libvirt, nova_compute have it bound"),
        ({"packages": [package("old")]}, ""),
        ({"packages": [package("broken")]}, "whether nova_libvirt has it bound could not be told"),
        ({"packages": [package("none", runs="exited")]}, "whether nova_libvirt has it bound could not be told"),
        ({"packages": [{"container": "nova_libvirt", "state": "running"}]}, "whether nova_libvirt has it bound could not be told"),
        ({"packages": [], "failed": True}, "could not be told"),
        ({"failed": True, "msg": "no engine"}, "could not be told"),
        (None, "could not be told"),
    ],
)
def test_files_stay_on_a_host_while_a_container_has_them_or_may_have(info, want):
    assert want in held(info) if want else held(info) == ""
