"""Results of nfs_lock_info as files that move Cinder and Nova to NFSv4.2."""

import pytest

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_overrides import MARK, Refused, moved, overrides

ETC = "/etc/kolla/"


def share(export, options="", line=1, file="cinder-volume/nfs_shares"):
    return {"service": "share", "section": "", "option": "", "export": export, "options": options, "file": ETC + file, "line": line}


def cinder(options=None, section="nfs-1", option="nfs_mount_options"):
    return {"service": "cinder", "section": section, "option": "" if options is None else option, "export": "", "options": options or "",
            "file": ETC + "cinder-volume/cinder.conf", "line": 7}


def nova(options=None):
    return {"service": "nova", "section": "libvirt", "option": "" if options is None else "nfs_mount_options", "export": "", "options": options or "",
            "file": ETC + "nova-compute/nova.conf", "line": 3}


def host(*settings, mounts=(), findings=()):
    return {"settings": list(settings), "mounts": list(mounts), "findings": list(findings)}


def mounted(container, source, vers):
    return {"container": container, "path": "/m", "source": source, "vers": vers, "verdict": "statd_dead", "image": False}


def made(results):
    """The files without README.md, each as its lines without the first; and README.md."""
    files = overrides(results)
    text = files.pop("README.md")
    for content in files.values():
        assert content.startswith(MARK + "\n") and content.endswith("\n")
    return {path: content.splitlines()[1:] for path, content in files.items()}, text


@pytest.mark.parametrize(
    "options, wanted",
    [
        ("", "vers=4.2"),
        ("vers=3", "vers=4.2"),
        ("rw,hard,vers=3,rsize=65536", "rw,hard,vers=4.2,rsize=65536"),
        ("nfsvers=4,minorversion=1,sec=krb5p", "vers=4.2,sec=krb5p"),
        ("v3,nolock", "vers=4.2"),
        ("v4.1", "vers=4.2"),
        ("local_lock=all,soft", "soft,vers=4.2"),
        ("local_lock=flock,local_lock=none,lock", "local_lock=flock,local_lock=none,lock,vers=4.2"),
        ("vers=4.2,noatime", "vers=4.2,noatime"),
        ("versatile,verse=3", "versatile,verse=3,vers=4.2"),
        (",,rw,", "rw,vers=4.2"),
    ],
)
def test_only_the_version_and_local_locks_change_and_a_second_time_nothing(options, wanted):
    assert moved(options) == wanted == moved(moved(options))


@pytest.mark.parametrize("options", [
    "udp", "rw,proto=udp", "vers=3 --bind", "a\nb", "{{ 1 }}", "{% x %}", "{# x", 'context="x"', "a'b", "a;b", "$(x)", "ä", "#", "a\u2028b",
])
def test_what_is_no_plain_list_of_options_is_refused(options):
    with pytest.raises(Refused):
        moved(options)


def test_both_sides_of_one_cloud_move_in_three_files():
    volume = host(share("filer:/a", "rw,vers=3,rsize=65536"), share("[2001:db8::1]:/b c".replace(" ", "\\040"), line=2), cinder(),
                  mounts=[mounted("cinder_volume", "filer:/a", "3")])
    compute = host(nova("hard,nolock"), mounts=[mounted("nova_compute", "filer:/a", "3"), mounted("host", "filer:/instances", "3")])
    files, text = made({"storage1": volume, "storage2": volume, "compute1": compute, "gone": None})
    assert files == {
        "config/nfs_shares": ["filer:/a -o rw,vers=4.2,rsize=65536", "[2001:db8::1]:/b\\040c -o vers=4.2"],
        "config/cinder/cinder-volume.conf": ["[nfs-1]", "nfs_mount_options = vers=4.2"],
        "config/nova/nova-compute.conf": ["[libvirt]", "nfs_mount_options = hard,vers=4.2"],
    }
    assert "## To be decided" not in text
    assert "| `config/nfs_shares` | the shares of Cinder; what stands behind -o goes to Nova as well | `storage1`, `storage2` |" in text
    assert "| `compute1` | `nova_compute` | `filer:/a` | `/m` | 3 | statd_dead |" in text
    assert "do not move them: `filer:/instances`." in text
    assert "kolla-ansible reconfigure -i INVENTORY -t cinder,nova" in text


def test_what_is_moved_already_is_left_alone():
    files, text = made({
        "storage1": host(share("filer:/a", "vers=4.2,hard"), cinder("vers=4.2"), mounts=[mounted("cinder_volume", "filer:/a", "4.2")]),
        "compute1": host(nova("vers=4.2")),
    })
    assert files == {} and "None: no file is to be changed" in text and "## Mounted now" not in text


@pytest.mark.parametrize("results", [{}, {"a": None}, {"a": host()}, {"a": host(nova())}, {"a": {"settings": "no", "mounts": [1], "findings": {}}}])
def test_a_cloud_without_nfs_needs_none(results):
    files, text = made(results)
    assert files == {} and "None:" in text


def test_hosts_that_differ_are_named_and_have_files_of_their_own():
    files, text = made({
        "storage2": host(share("filer:/a", "vers=4.2"), cinder("vers=4.2")),
        "storage10": host(share("filer:/a", "soft"), cinder("soft")),
        "../x": host(share("filer:/a", "soft"), cinder("soft")),
    })
    assert files == {
        "config/cinder/storage2/nfs_shares": ["filer:/a -o vers=4.2"],  # one for all would hide it, and is to go
        "config/cinder/storage10/nfs_shares": ["filer:/a -o soft,vers=4.2"],
        "config/cinder/storage10/cinder.conf": ["[nfs-1]", "nfs_mount_options = soft,vers=4.2"],
    }
    assert "the hosts differ in `cinder-volume/nfs_shares`" in text
    assert "`../x`, `storage10`: `filer:/a soft`; `storage2`: `filer:/a vers=4.2`" in text
    assert "`../x` is no name for a folder" in text


def test_another_order_is_no_difference():
    files, _text = made({"a": host(share("f:/a"), share("f:/b")), "b": host(share("f:/b"), share("f:/a"))})
    assert files == {"config/nfs_shares": ["f:/a -o vers=4.2", "f:/b -o vers=4.2"]}


@pytest.mark.parametrize(
    "settings, says",
    [
        ([share("filer:/a", "soft"), share("filer:/a", "hard", 2)], "is in it twice, with `soft` and with `hard`"),
        ([share("filer:/a"), share("filer:/b\nfiler:/evil", line=2)], r"`filer:/b\nfiler:/evil` in line 2"),
        ([share("filer:/{{lookup('pipe','id')}}")], "holds characters"),
        ([share("filer:/a' -o exec")], "holds characters"),
        ([share("-o:/a")], "holds characters"),
        ([share("filer:/a", "vers=3\n[DEFAULT]")], r"`vers=3\n[DEFAULT]` hold characters"),
        ([share("filer:/a", "vers=3,udp")], "ask for UDP"),
    ],
)
def test_nothing_is_guessed_and_no_half_of_a_file_is_written(settings, says):
    files, text = made({"storage1": host(*settings)})
    assert files == {}
    assert "## To be decided by you" in text and says in text
    assert "evil" not in text.replace(r"\nfiler:/evil", "")


def test_a_section_is_none_of_a_host_s_making():
    for section in ("nfs]\n[DEFAULT", "a b", "{{ x }}", ""):
        files, text = made({"a": host(cinder("vers=3", section=section))})
        assert files == {} and "## To be decided by you" in text
    assert made({"a": host(cinder("x", option="transport_url"))})[0] == {}


def test_a_backend_s_own_option_must_not_hide_those_that_all_share():
    files, _text = made({"a": host(cinder("soft", section="backend_defaults"), cinder(), cinder("vers=3", section="nfs-2", option="nas_mount_options"))})
    assert files == {"config/cinder/cinder-volume.conf": ["[backend_defaults]", "nfs_mount_options = soft,vers=4.2", "[nfs-2]", "nas_mount_options = vers=4.2"]}


def test_what_a_host_could_not_read_or_cut_is_not_taken_for_all():
    unread = [{"kind": "unread_config", "file": ETC + "cinder-volume/nfs_shares", "message": "", "line": 0}]
    files, text = made({"a": host(share("f:/a"), cinder(), findings=unread), "b": host(share("f:/a"), cinder())})
    assert set(files) == {"config/cinder/cinder-volume.conf", "config/cinder/b/nfs_shares"}
    assert "could not read all of it" in text and "those not written here too" in text
    files, text = made({"a": host(*[share(f"f:/{number}") for number in range(3000)])})
    assert files == {} and "more than is read" in text


def test_the_operator_s_own_files_are_named_and_not_taken_for_what_is_deployed():
    files, text = made({"a": host(share("f:/a"), share("f:/old", file="config/nfs_shares.j2", line=4))})
    assert files == {"config/nfs_shares": ["f:/a -o vers=4.2"]}
    assert "- `/etc/kolla/config/nfs_shares.j2`, line 4, on `a`" in text


def test_the_same_results_give_the_same_bytes_in_any_order():
    results = {"b": host(share("f:/a", "soft")), "a": host(share("f:/a")), "c": host(nova())}
    assert overrides(results) == overrides(dict(reversed(results.items())))
