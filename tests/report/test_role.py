"""The playbook report with real ansible-core, on hosts that return what the tests want."""

import json
import pathlib
import re
import stat
import subprocess

import hostvars
import markdown_it
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
ROLE = ROOT / "roles" / "nfs_lock_report"
FORMS = ("html", "json", "md")


def plain(text):
    """Without what differs by ansible-core's version, and without the page's own style and script."""
    text = re.sub(r"(Task failed: )?Failed to connect to the host via ssh: [^<\"\n]*?refused", "no route", text)
    text = re.sub(r"(?s)<style>.*</style>", "<style></style>", text)
    text = re.sub(r"(?s)<script>.*?</script>", "<script></script>", text)
    return re.sub(r"sha256-[0-9A-Za-z+/=]+", "sha256-", text)


def promtool(*arguments, text=None):
    return subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False)


def test_every_form_is_as_it_should_be_and_a_second_run_changes_nothing(fleet, golden):
    measured = ("compute2", "compute4", "compute5", "compute6", "compute7", "compute8", "storage1")
    hosts = fleet({host: result for host, result in hostvars.TYPICAL.items() if result is not None}, measured)
    named = ("-e", json.dumps({"nfs_lock_report_hosts": list(hostvars.TYPICAL)}))  # storage2 is not in the inventory

    recap = hosts.run("--check", *named)
    # The first host stands for all.
    expected = {host: int(host in ("compute1", *measured) and host != "compute4") for host, result in hostvars.TYPICAL.items() if result is not None}
    assert {host: row["changed"] for host, row in recap.items()} == expected
    assert not hosts.reports.exists() and not hosts.textfile("compute2").exists(), "check mode has written"

    recap = hosts.run(*named)
    assert {host: row["changed"] for host, row in recap.items()} == expected
    assert not hosts.textfile("compute4").exists()
    for form in FORMS:
        golden(f"nfs-lock-report.{form}", plain(hosts.report(form)))
        assert stat.S_IMODE((hosts.reports / f"nfs-lock-report.{form}").stat().st_mode) == 0o644
    for host in ("compute2", "compute5", "compute6", "compute7", "compute8", "storage1"):
        found = hosts.textfile(host).read_text(encoding="utf-8")
        golden(f"{host}.prom", re.sub(r"(?m)^(nfs_lock_probe_timestamp_seconds) \d{10}$", r"\1 1700000000", found))
        checked = promtool("check", "metrics", text=found)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        assert stat.S_IMODE(hosts.textfile(host).stat().st_mode) == 0o644

    before = {form: hosts.report(form) for form in FORMS}
    old = hosts.textfile("compute2")
    old.write_text(re.sub(r"(?m)^(nfs_lock_probe_timestamp_seconds) .*$", r"\1 1", old.read_text(encoding="utf-8")), encoding="utf-8")
    other = hosts.textfile("compute6")
    other.write_text(other.read_text(encoding="utf-8").replace("nfs_lock_stale_guests 1", "nfs_lock_stale_guests 0"), encoding="utf-8")
    recap = hosts.run(*named)
    assert {host: row["changed"] for host, row in recap.items()} == {**dict.fromkeys(expected, 0), "compute6": 1}
    assert before == {form: hosts.report(form) for form in FORMS}
    assert "timestamp_seconds 1\n" not in old.read_text(encoding="utf-8"), "an alert on old metrics needs the new time"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}


def test_overrides_are_written_for_review(fleet, golden):
    hosts = fleet({"storage1": hostvars.storage(), "storage2": hostvars.storage(), "compute1": hostvars.compute(), "compute4": hostvars.UNREACHABLE}, ())
    folder = hosts.folder / "overrides"
    there = ("-e", json.dumps({"nfs_lock_report_overrides_dir": str(folder)}))
    hosts.run(*there, "--check", "--diff")
    assert not folder.exists() and "+filer:/cinder -o rw,vers=4.2" in hosts.output
    recap = hosts.run(*there)
    assert sum(row["changed"] for row in recap.values()) == 1
    found = contents(folder)
    golden("overrides.md", found.pop("README.md"))
    mark = "# Written by nfslock.kolla.nfs_lock_report, for review.\n"
    assert found == {
        "config/nfs_shares": mark + "filer:/cinder -o rw,vers=4.2\n",
        "config/cinder/cinder-volume.conf": mark + "[nfs-1]\nnfs_mount_options = vers=4.2\n",
        "config/nova/nova-compute.conf": mark + "[libvirt]\nnfs_mount_options = hard,vers=4.2\n",
    }
    recap = hosts.run(*there, "-e", json.dumps({"nfs_lock_report_dir": ""}))
    assert sum(row["changed"] for row in recap.values()) == 0

    # Hosts that differ since, and one of them hostile: what was one file is one for each, and a file of somebody else's stays.
    note = folder / "config" / "note"
    note.write_text("mine", encoding="utf-8")
    pathlib.Path("/tmp/nfslock-injected").unlink(missing_ok=True)
    hosts.results["storage2"] = hostvars.storage("rw,vers=4.1", "filer:/{{ lookup('pipe', 'touch /tmp/nfslock-injected') }}")
    hosts.write()
    recap = hosts.run(*there, "--check")
    assert sum(row["changed"] for row in recap.values()) == 1 and (folder / "config" / "nfs_shares").exists(), "check mode has removed a file"
    hosts.run(*there)
    assert set(contents(folder)) == {
        "README.md", "config/note", "config/cinder/storage1/nfs_shares", "config/cinder/cinder-volume.conf", "config/nova/nova-compute.conf"}
    assert not pathlib.Path("/tmp/nfslock-injected").exists()
    assert "lookup" in (folder / "README.md").read_text(encoding="utf-8")


def test_overrides_go_only_where_nothing_else_is(fleet):
    hosts = fleet({"storage1": hostvars.storage()}, ())
    folder = hosts.folder / "mine"
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "nfs_shares").write_text("filer:/mine\n", encoding="utf-8")
    etc = hosts.folder / "link"
    etc.symlink_to("/etc")
    for path, says in ((folder, "it is not empty"), ("/etc/kolla", "name another folder"), (etc / "kolla" / "config" / "x", "name another folder")):
        hosts.run("-e", json.dumps({"nfs_lock_report_overrides_dir": str(path), "nfs_lock_report_dir": ""}), returncode=2)
        assert says in hosts.output
    assert contents(folder) == {"config/nfs_shares": "filer:/mine\n"}
    hosts.run("-e", json.dumps({"nfs_lock_report_overrides_dir": str(hosts.folder / "free")}))
    other = hosts.folder / "free" / "config" / "nfs_shares"
    other.write_text("filer:/mine\n", encoding="utf-8")
    hosts.run("-e", json.dumps({"nfs_lock_report_overrides_dir": str(hosts.folder / "free")}), returncode=2)
    assert "somebody else's file is there" in hosts.output and other.read_text(encoding="utf-8") == "filer:/mine\n"


def test_hostile_results_stay_text(fleet):
    pathlib.Path("/tmp/nfslock-injected").unlink(missing_ok=True)
    attacks = [attack for attack in hostvars.ATTACKS if "\ud800" not in attack]  # which newer cores refuse themselves
    hosts = fleet({"compute1": hostvars.hostile(attacks), "compute2": hostvars.SHAPELESS}, ("compute1", "compute2"))
    hosts.run()
    assert not pathlib.Path("/tmp/nfslock-injected").exists(), "a host's text was taken for a template"
    report = json.loads(hosts.report("json"))
    first = report["hosts"][0]
    assert {guest["guest"] for guest in first["stale_guests"]} >= {attack for attack in attacks if len(attack) < 4096}
    assert first["cut"] and not first["cure"]["command_known"]
    assert report["hosts"][1]["host"] == "compute2"

    page = hosts.report("html")
    assert page.count("<script") == 2 and page.count("</script") == 2 and "<img" not in page and "<!--" not in page
    for text in (page, hosts.report("md")):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202e\u2028\u2029\ufeff]", text)
    shown = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": True}).render(hosts.report("md"))
    assert set(re.findall(r"<(\w+)", shown)) == {"code", "h1", "h2", "li", "p", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
    assert shown.count("<h1") == 1 and shown.count("<h2") == 2 and shown.count("<tr") == 3
    found = hosts.textfile("compute1").read_text(encoding="utf-8")
    checked = promtool("check", "metrics", text=found)
    assert checked.returncode == 0, checked.stderr
    assert r'mount="a\nb\\r\n# heading\n- item"' in found


def test_each_variable_is_in_the_readme():
    options = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    assert options.keys() == defaults.keys()
    for name in options:
        assert f"`{name}`" in text


def test_every_metric_is_in_the_readme_and_every_one_of_the_rules_exists():
    written = set(re.findall(r'"(nfs_lock_[a-z_]+)"', (ROOT / "plugins" / "plugin_utils" / "lock_metrics.py").read_text(encoding="utf-8")))
    text = (ROLE / "README.md").read_text(encoding="utf-8")
    for name in written:
        assert f"`{name}" in text, name
    rules = re.sub("#.*", "", (ROLE / "files" / "nfs-lock.rules.yml").read_text(encoding="utf-8"))
    assert set(re.findall(r"\bnfs_lock_[a-z_]+", rules)) <= written


def test_the_rules_are_rules_and_fire():
    for arguments in (("check", "rules", ROLE / "files" / "nfs-lock.rules.yml"), ("test", "rules", ROOT / "tests" / "report" / "rules.test.yml")):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_verdicts_cures_and_commands_are_those_of_the_program():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_cure, lock_report

    go = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "internal" / "lockprobe").glob("[a-z]*.go") if not path.name.endswith("_test.go"))
    values = dict(re.findall(r'(\w+)\s+Verdict\s+= "([a-z_]+)"', go))
    order = re.search(r"var worstFirst = \[\]Verdict\{([^}]*)\}", go)[1]
    assert tuple(values[name] for name in re.findall(r"\w+", order)) == lock_report.VERDICTS
    assert set(re.findall(r'\bFix\s+= "([a-z_0-9]+)"', go)) == {"none", *lock_report.FIXES}
    why = re.search(r"func \(l Locks\) Why\(\).*?\n}", (ROOT / "internal" / "libvirt" / "locks.go").read_text(encoding="utf-8"), re.S)[0]
    sentences = [sentence for sentence in re.findall(r'return "([^"]*)"', why) if sentence]
    assert sentences and all(lock_cure.libvirt_misses({"guests": {"missing": [sentence]}}) for sentence in sentences)
    commands = re.findall(r'Command\s+= "([^"]+)"', go)
    assert len(commands) >= 3
    for command in commands:
        assert any(pattern.fullmatch(command) for pattern in lock_report.COMMANDS), command
    for virsh in ("virsh", "docker exec nova_libvirt virsh", "podman exec nova_libvirt virsh"):
        command = virsh + " domstate 'HOST it'\\''s'"
        assert lock_report.read_cure({"command": command}, "compute1") == {"fix": "", "text": "", "command": command, "command_known": True}
        assert not lock_report.read_cure({"command": virsh + " domstate 'a'; rm -rf /'"}, "compute1")["command_known"]
    assert not lock_report.read_cure({"command": "docker exec other virsh domstate 'a'"}, "compute1")["command_known"]


@pytest.mark.parametrize("count, columns", [(7, 7), (8, 7)])
def test_a_matrix_has_at_most_seven_columns(count, columns):
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report

    one = hostvars.well()
    one["packages"] = []
    one["mounts"] = [{**one["mounts"][0], "container": f"c{number}"} for number in range(count)]
    report = lock_report.collect(hostvars.without_fix({"a": one}))
    assert len(report["columns"]) == columns
    assert len(report["hosts"][0]["containers"]) == count


def test_a_container_with_refused_locks_has_a_column_of_its_own():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report

    def one(**verdicts):
        mounts = [{**hostvars.well()["mounts"][0], "container": name, "verdict": found} for name, found in verdicts.items()]
        return {**hostvars.well(), "packages": [], "mounts": mounts}

    names = [name for name in lock_report.FIRST_COLUMNS if name != "ironic_conductor"]
    hosts = {f"control{number}": one(**dict.fromkeys(names, "ok"), **{f"odd{number}": "hangs"}) for number in range(3)}
    hosts["control3"] = one(ironic_conductor="locks_refused")
    columns = lock_report.collect(hostvars.without_fix(hosts))["columns"]
    assert len(columns) == 7 and "ironic_conductor" in columns and columns[-1] == ""
    assert not [name for name in columns if name.startswith("odd")]


def test_a_name_cannot_make_a_command_of_its_own():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report

    report = lock_report.collect(hostvars.without_fix({"a; reboot": hostvars.needs_rpcbind()}))
    assert report["hosts"][0]["cure"]["command"] == "ansible -i INVENTORY 'a; reboot' -b -m nfslock.kolla.rpcbind_ensure"


def test_a_host_whose_qemu_does_not_work_is_neither_patched_nor_well():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report, lock_report_markdown

    one = hostvars.patched()
    one["proofs"][0].update(result="fails", step="create", detail="Permission denied")
    report = lock_report.collect(hostvars.without_fix({"a": one}))
    assert report["hosts"][0]["status"] == "failed"
    assert report["hosts"][0]["reason"] == "qemu-img does not work"
    line = "- qemu-img create fails at `/var/lib/cinder/mnt/juice` in `cinder_volume`: Permission denied"
    assert line in lock_report_markdown.markdown(report).splitlines()
    one["cure"] = hostvars.PATCH  # what is to be done tells more
    assert lock_report.collect(hostvars.without_fix({"a": one}))["hosts"][0]["status"] == "patch"


def host_of(info):
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report

    return lock_report.collect(hostvars.without_fix({"a": info}))["hosts"][0]


def test_a_host_where_no_guest_starts_is_not_well_whatever_verdict_its_locks_have():
    one = hostvars.needs_libvirt()
    assert (host_of(one)["status"], host_of(one)["reason"]) == ("libvirt", f"no guest starts from JuiceFS:vol: {hostvars.REFUSED}")
    # QEMU gets its locks, and libvirt does not get its own, so that the host's own cure is another mount's.
    one["mounts"].insert(0, hostvars.well()["mounts"][0])
    one["mounts"][1]["verdict"] = one["verdict"] = "ok"
    one["cure"] = hostvars.NOTHING
    assert (host_of(one)["status"], host_of(one)["cure"]["text"]) == ("libvirt", hostvars.LIBVIRT["text"])
    # Without a reason of its own that fails it.
    one["mounts"] = []
    assert (host_of(one)["status"], host_of(one)["reason"]) == ("failed", "guests do not start")


def test_a_guest_that_started_tells_more_than_libvirts_settings():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_metrics, lock_report, lock_report_markdown

    one = hostvars.needs_libvirt()
    can_start = 'nfs_lock_guest_can_start{container="nova_libvirt",mount="/var/lib/nova/mnt/juice",source="JuiceFS:vol"} '
    assert can_start + "0\n" in lock_metrics.metrics("a", one, 1)
    one["guest_proofs"][0].update(result="works", detail="")
    host = host_of(one)
    assert (host["status"], host["reason"], host["cure"]["fix"]) == ("patched", hostvars.MEANING["locks_refused"], "none")
    assert not any(row["no_guest_starts"] for row in host["containers"])
    assert can_start + "1\n" in lock_metrics.metrics("a", one, 1)
    assert host["mounts"][0]["cure"]["fix"] == "none"
    assert "no guest starts" not in lock_report_markdown.markdown(lock_report.collect(hostvars.without_fix({"a": one})))
    # Another mount of the host, whose own cure hid behind that of libvirt.
    one["mounts"].append({**hostvars.needs_patch()["mounts"][0], "verdict": "ofd_unsupported"})  # a lesser verdict
    assert host_of(one)["status"] == "patch"
    # And one of another path, from which no guest was started.
    one["mounts"].append({**one["mounts"][0], "path": "/other", "source": "JuiceFS:other"})
    assert (host_of(one)["status"], host_of(one)["reason"]) == ("libvirt", f"no guest starts from JuiceFS:other: {hostvars.REFUSED}")
    assert [row["no_guest_starts"] for row in host_of(one)["containers"]] == [True, False, False]


def test_what_is_stock_again_and_not_used_is_a_note():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_metrics, lock_report, lock_report_markdown

    one = hostvars.lost()
    assert "nfs_lock_drifted_containers 1\n" in lock_metrics.metrics("a", one, 1)
    one["drift"][0]["counts"] = False
    assert host_of(one)["status"] == "ok"
    assert not any(row["lost"] for row in host_of(one)["containers"])
    assert "nfs_lock_drifted_containers 0\n" in lock_metrics.metrics("a", one, 1)
    said = lock_report_markdown.markdown(lock_report.collect(hostvars.without_fix({"a": one})))
    assert "run the fix again (its own work does not use that package)\n" in said
    del one["drift"][0]["counts"]  # an older module
    assert host_of(one)["status"] == "drift"


@pytest.mark.parametrize("kind, status", [("recreated", "drift"), ("lost", "drift"), ("superseded", "drift"), ("gone", "ok")])
def test_a_container_that_has_lost_the_patch_is_told_before_what_is_unclear(kind, status):
    one = hostvars.lost()
    one["drift"][0]["kind"] = kind
    assert host_of(one)["status"] == status
    one["stale_guests"] = [{"pid": 1, "guest": "g", "locks": 0, "advice": ""}]
    assert host_of(one)["status"] == (status if status == "drift" else "stale")
    one["cure"] = {"fix": "look", "text": "", "command": ""}
    assert host_of(one)["status"] == (status if status == "drift" else "stale")
    one["cure"] = hostvars.NFS
    assert host_of(one)["status"] == "rpcbind"


def test_every_status_and_verdict_is_explained_on_the_page():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report, lock_report_page

    explained = re.findall("<dt>([^<]*)</dt>", (ROLE / "files" / "report.html.j2").read_text(encoding="utf-8"))
    labels = [*lock_report.STATUSES.values(), *(verdict.replace("_", " ") for verdict in lock_report.VERDICTS)]
    assert sorted(explained) == sorted(labels)
    assert set(lock_report_page.TONES) == {*lock_report.STATUSES, *lock_report.VERDICTS, "none"}
    assert set(lock_report.FIXES.values()) | set(lock_report.CURES) <= set(lock_report.STATUSES)


def test_a_host_that_lost_the_library_is_told_how_kolla_keeps_it():
    from ansible_collections.nfslock.kolla.plugins.plugin_utils import lock_report

    info = hostvars.lost()
    info["drift"][0]["what"] = "library"
    host = lock_report.read_host("a", info, None)
    assert (host["status"], host["reason"]) == ("drift", "cinder_backup: with the library before, and stock again")
    assert "nfslock.kolla.keep" in host["cure"]["text"] and host["cure"]["command_known"]
    assert host["cure"]["command"] == "ansible-playbook -i INVENTORY -l a nfslock.kolla.fix"
    info["drift"].append({**info["drift"][0], "container": "cinder_volume", "what": "packages"})
    assert "nfs_lock_fix_patch_set=FOLDER" in lock_report.read_host("a", info, None)["cure"]["command"]
