"""Parts of the build script that need no container: each file of the recipe is sourced by itself."""

import pathlib
import subprocess

import pytest

RECIPE = pathlib.Path(__file__).parents[2] / "roles" / "qemu_patched_build" / "files" / "recipe"


def bash(script, folder, stdin=""):
    """Runs script after all of the recipe's functions, in a folder of its own, and returns (exit code, all it said)."""
    prelude = f"set -euo pipefail; shopt -s inherit_errexit; private={folder} detail={folder}/detail.log log=; : > $detail; "
    prelude += "".join(f". {path}; " for path in sorted(RECIPE.glob("*.sh")))
    done = subprocess.run(
        ["bash", "-c", prelude + script], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("wanted", "archive", "nearest"),
    [
        ("1:7.2-7+deb12u3", ["1:7.2-7+deb12u18", "1:7.2-7+deb12u5"], "1:7.2-7+deb12u5"),
        ("1:7.2-7+deb12u18", ["1:7.2-7+deb12u9", "1:7.2-7+deb12u15"], "1:7.2-7+deb12u15"),
        ("2:1.0", ["1:9.0"], "1:9.0"),
        ("1:7.2-7+deb12u18", ["1:7.2-7+deb12u18+b3", "1:10.0-1"], "1:7.2-7+deb12u18+b3"),
        ("1:7.2-7", ["1:7.2-7~bpo11+1"], "1:7.2-7~bpo11+1"),
    ],
)
def test_an_archive_that_has_moved_on_is_an_error_with_the_nearest_version(tmp_path, wanted, archive, nearest):
    code, said = bash(f"demand qemu-utils {wanted}", tmp_path, "\n".join(archive) + "\n")
    assert code == 1
    assert said.startswith(f"error: cannot fetch qemu-utils {wanted}: the archive does not have it, the nearest there is {nearest}; ")

    code, said = bash(f"demand qemu-utils {wanted}", tmp_path, "\n".join([*archive, wanted]) + "\n")
    assert (code, said) == (0, "")


def test_an_archive_without_any_version_is_another_error(tmp_path):
    code, said = bash("demand 'source qemu' 1:7.2-7", tmp_path)
    assert code == 1
    assert "cannot fetch source qemu 1:7.2-7: apt knows no version of it" in said


@pytest.mark.parametrize(
    ("options", "packages", "whole"),
    [
        ("profile=tools architecture=amd64 also=", "qemu-utils", False),
        ("profile=host architecture=amd64 also=", "qemu-utils qemu-system-x86", True),
        ("profile=host architecture=arm64 also=", "qemu-utils qemu-system-arm", True),
        ("profile=tools architecture=amd64 also=qemu-block-extra", "qemu-utils qemu-block-extra", False),
        ("profile=host architecture=amd64 also=qemu-system-arm,qemu-system-x86", "qemu-utils qemu-system-x86 qemu-system-arm", True),
    ],
)
def test_a_profile_is_a_list_of_packages_and_emulators_want_the_whole_configuration(tmp_path, options, packages, whole):
    code, said = bash(f'{options}; choose_packages; echo "${{packages[*]}}"; echo "$configure_options"', tmp_path)
    assert code == 0
    assert said.splitlines()[0] == packages
    assert ("--target-list" not in said) == whole


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("profile=full architecture=amd64 also=", "cannot build profile full: there are tools and host"),
        ("profile=host architecture=riscv64 also=", "cannot build profile host for riscv64"),
        ("profile=tools architecture=amd64 also=../etc", "cannot build ../etc: --also takes names"),
    ],
)
def test_what_is_no_profile(tmp_path, options, why):
    code, said = bash(f"{options}; choose_packages", tmp_path)
    assert code == 1
    assert why in said


OLD = """schema: 1
variant: fallback
suffix: +nfslock1
packages:
  - name: qemu-utils
    version: 1:7.2-7+nfslock1
    distribution: debian
    release: bookworm
    architecture: amd64
    file: a.deb
  - name: qemu-block-extra
    version: 1:7.2-7+nfslock1
    distribution: debian
    release: bookworm
    architecture: amd64
    file: b.deb
  - name: qemu-utils
    version: 1:10.0-1+nfslock1
    distribution: debian
    release: trixie
    architecture: amd64
    file: c.deb
"""
NEW = """  - name: qemu-utils
    version: 1:7.2-8+nfslock1
    distribution: debian
    release: bookworm
    architecture: amd64
    file: d.deb
"""


def test_a_build_replaces_all_of_its_platform_in_the_manifest_and_nothing_else(tmp_path):
    (tmp_path / "old").write_text(OLD, encoding="utf-8")
    (tmp_path / "new").write_text(NEW, encoding="utf-8")
    merge = f"distribution=debian release=bookworm architecture=amd64; merge {tmp_path}/old {tmp_path}/new"
    code, said = bash(merge, tmp_path)
    assert code == 0
    assert [line.split()[-1] for line in said.splitlines() if "file:" in line] == ["d.deb", "c.deb"]

    code, said = bash(merge.replace("/old", "/absent"), tmp_path)
    assert (code, said) == (0, NEW)


@pytest.mark.parametrize(
    ("stock", "source", "update"),
    [
        ("1:7.2+dfsg-7+deb12u18+b3", "1:7.2+dfsg-7+deb12u18", "1:7.2+dfsg-7+deb12u19"),
        ("1:8.2.2+ds-0ubuntu1.18", "1:8.2.2+ds-0ubuntu1.18", "1:8.2.2+ds-0ubuntu1.19"),
        ("1:10.2.1+ds-1ubuntu3~cloud0", "1:10.2.1+ds-1ubuntu3~cloud0", "1:10.2.1+ds-1ubuntu3~cloud1"),  # Ubuntu Cloud Archive
        ("1:10.2.1+ds-1ubuntu3~cloud0", "1:10.2.1+ds-1ubuntu3~cloud0", "1:10.2.1+ds-1ubuntu3"),  # the Ubuntu release that it comes from
    ],
)
def test_the_new_package_is_the_stock_one_for_its_companions_and_older_than_the_next_update(tmp_path, stock, source, update):
    root = tmp_path / "stock" / "qemu-system-x86"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: qemu-system-x86\nSource: qemu ({source})\nVersion: {stock}\nArchitecture: amd64\nMaintainer: M <m@example.org>\n"
        f"Provides: qemu-system-any (= {stock})\nDepends: qemu-system-common (= {stock})\nDescription: QEMU\n emulators\n",
        encoding="utf-8",
    )
    (root / "DEBIAN" / "md5sums").write_text("0" * 32 + "  usr/bin/qemu-system-x86_64\n", encoding="utf-8")
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "qemu-system-x86_64").write_bytes(b"\x7fELF stock")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "qemu-system-x86_64").write_bytes(b"\x7fELF patched")
    (tmp_path / "result").mkdir()
    names = f"version={stock} source_name=qemu source_version={source} new_version={source}+nfslock1 architecture=amd64 variant=fallback suffix=+nfslock1"
    code, said = bash(f"{names}; graft qemu-system-x86; deb_name qemu-system-x86", tmp_path)
    assert code == 0, said
    deb = tmp_path / "result" / said
    assert said == f"qemu-system-x86_{source[2:]}+nfslock1_amd64.deb"

    def tell(*arguments):
        return subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True, check=True).stdout

    assert tell("-f", deb, "Source").strip() == f"qemu ({source})"
    assert tell("-f", deb, "Provides").strip() == f"qemu-system-any (= {stock}), qemu-system-x86 (= {stock})"
    fields = "Nfslock-Variant: fallback\nNfslock-Suffix: +nfslock1\n" + f"Nfslock-Built-From: {source}\nNfslock-Stock: {stock}\n"
    assert fields in tell("-f", deb)
    new = tell("-f", deb, "Version").strip()
    assert subprocess.run(["dpkg", "--compare-versions", new, "gt", stock], check=False).returncode == 0
    assert subprocess.run(["dpkg", "--compare-versions", new, "lt", update], check=False).returncode == 0


def test_progress_is_told_in_steps_and_percent(tmp_path):
    counts = "progress 62 100; progress 63 100; progress 100 100; progress 120 100"
    code, said = bash(f'steps=9; step fetch "it"; step_number=3; step compile "it"; {counts}', tmp_path)
    assert code == 0
    told = [line for line in said.splitlines() if "/" in line]
    assert told == ["1/9 fetch: it", "4/9 compile: it", "4/9 compile 62 %", "4/9 compile 100 %", "4/9 compile 100 %"]


def test_the_shape_of_a_program_is_blind_to_the_order_of_its_objects_and_to_nothing_less(tmp_path):
    sources = {
        "main": "int one(int); int two(int); int main(void) { return one(1) + two(2); }",
        "one": "static int kept(int a) { return a * 7; } int one(int a) { int (*volatile f)(int) = kept; return f(a) + 1; }",
        "two": "int table[40]; int two(int a) { return table[a] + a; }",
        "more": "int table[40]; int two(int a) { for (int i = 0; i < a; i++) table[i] = a; return table[a] + a; }",
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.c").write_text(text, encoding="utf-8")
        subprocess.run(["gcc", "-O1", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    for name, objects in {"stock": "main one two", "turned": "two one main", "changed": "main one more"}.items():
        subprocess.run(["gcc", "-rdynamic", "-s", "-o", name, *(f"{o}.o" for o in objects.split())], cwd=tmp_path, check=True)

    def same(how, other):
        code, said = bash(f"tool_prefix=; cd {tmp_path}; {how} stock > a; {how} {other} > b; [ -s a ]; cmp -s a b && echo same || echo other", tmp_path)
        assert code == 0, said
        return said == "same\n"

    assert same("essence", "stock")
    assert not same("essence", "turned")
    assert same("shape", "turned")
    assert not same("shape", "changed")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (" texinfo, python3-sphinx:native, python3-sphinx-rtd-theme,", " texinfo, "),  # Debian 12
        (" python3-sphinx <!nodoc>, libaio-dev [linux-any],", " libaio-dev [linux-any],"),
        (" python3-sphinx (>= 1.6.0), python3:any,", " python3:any,"),
        (" zlib1g-dev,", " zlib1g-dev,"),
    ],
)
def test_across_architectures_the_manual_s_tools_are_left_out(tmp_path, line, left):
    assert bash("without_manual", tmp_path, line + "\n") == (0, left + "\n")


def test_only_arm64_is_built_on_another_architecture(tmp_path):
    code, said = bash("dpkg() { echo arm64; }; architecture=amd64; choose_architecture", tmp_path)
    assert code == 1
    assert "cannot build for amd64: this container is arm64, " in said


DETOURS = "  10:\tldrh\tw0, [x24]\n  14:\tb\t4 <write>\n  18:\tldr\tw0, [x0]\n  1c:\tb\t8 <read>\n"


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("  10:\tldr\tw0, [x0]\n  14:\tb\t8 <read>\n  18:\tldrh\tw0, [x24]\n  1c:\tb\t4 <write>\n", True),  # the other way round
        (DETOURS.replace("w0, [x24]", "w1, [x24]"), False),
        (DETOURS.replace("\tb\t8", "\tbl\t8"), False),
        (DETOURS + "  20:\tnop\n", False),
    ],
)
def test_only_the_order_of_the_linker_s_detours_may_differ(tmp_path, code, same):
    (tmp_path / "stock").write_text(DETOURS)
    (tmp_path / "ours").write_text(code)
    # The rest of a program, which has to be the same byte for byte, is played by one that is.
    tools = 'x-objcopy() { echo rest > "${@: -1}"; }; x-objdump() { cat "${@: -1}"; }; tool_prefix=x-; '
    ask = f'cd {tmp_path}; [ "$(all_but_detours stock)" = "$(all_but_detours ours)" ] && echo same || echo other'
    assert bash(tools + ask, tmp_path) == (0, "same\n" if same else "other\n")
    # Tools that fail prove nothing.
    assert bash("x-objcopy() { false; }; tool_prefix=x-; " + ask, tmp_path) == (0, "other\n")


@pytest.mark.parametrize(
    ("cross", "own", "emulated"),
    [
        ("10.2.1-6cross1", "10.2.1-6", False),  # Debian 11
        ("12.2.0-14cross1", "12.2.0-14+deb12u1", True),  # Debian 12: CVE-2023-4039
        ("14.2.0-19cross1", "14.2.0-19", False),  # Debian 13
        ("14.2.0-19cross2", "14.2.0-19", False),
        ("11.4.0-1ubuntu1~22.04cross1", "11.4.0-1ubuntu1~22.04.2", True),  # Ubuntu 22.04
        ("12.2.0-14+deb12u1cross1", "12.2.0-14", True),  # whichever is older
    ],
)
def test_the_other_architecture_s_own_compiler_works_where_the_cross_compiler_is_of_another_version(tmp_path, cross, own, emulated):
    major = own.split(".", maxsplit=1)[0]
    tools = (
        f"aarch64-linux-gnu-gcc() {{ echo {major}; }}; "
        f'dpkg-query() {{ [ "${{@: -1}}" = cpp-{major}-aarch64-linux-gnu ] && printf %s "{cross}"; }}; '
        f'apt-cache() {{ [ "$2" = cpp-{major}:arm64 ] && printf "%s:\\n  Installed: (none)\\n  Candidate: %s\\n" $2 "{own}"; }}; '
        "architecture=arm64 apt_suffix=:arm64 tool_prefix=aarch64-linux-gnu-; "
    )
    code, said = bash(tools + 'choose_compiler; echo "<$native_compiler>"', tmp_path)
    assert code == 0, said
    told, chosen = said.splitlines()
    assert chosen == (f"<{own}>" if emulated else "<>")
    assert cross in told
    assert ("under an emulator" in told) == emulated

    # A comparison with nothing proves nothing.
    code, said = bash(tools + "apt-cache() { printf '  Candidate: (none)\\n'; }; choose_compiler", tmp_path)
    assert code == 1
    assert f"cannot choose a compiler for arm64: apt knows no cpp-{major}:arm64" in said


def test_of_what_a_compiler_depends_on_the_libraries_are_installed(tmp_path):
    depends = "gcc-12-base (= 12.2.0-14+deb12u1), libc6 (>= 2.34), libgmp10 (>= 2:6.2.1+dfsg1), libisl23 (>= 0.15), cpp-12, zlib1g (>= 1:1.1.4)"
    code, said = bash(f'dpkg-deb() {{ echo "{depends}"; }}; libraries_of cpp-12.deb', tmp_path)
    assert (code, said.split()) == (0, ["libc6", "libgmp10", "libisl23", "zlib1g"])


def test_versions_that_the_archive_lost_rank_below_all_others_of_their_source(tmp_path):
    lost = (
        "E: Failed to fetch http://deb.debian.org/debian/pool/main/c/ceph/librbd-dev_14.2.21-1%2bdeb11u3_amd64.deb 404  Not Found\n"
        "E: Failed to fetch http://deb.debian.org/debian/pool/main/c/ceph/librados-dev_14.2.21-1%2bdeb11u2_amd64.deb 404  Not Found\n"
    )
    apt = (
        'apt-cache() { case $1 in madison) echo "$2 | 14.2.21-1+deb11u3 | a"; echo "$2 | 14.2.21-1+deb11u2 | a" ;; '
        'show) echo "Source: ceph (14.2.21-1)" ;; esac; }; '
    )
    code, said = bash(f"{apt}set_aside_lost {tmp_path}", tmp_path, lost)
    assert code == 0, said
    # apt reads the files by their names, and the first record that fits a version counts.
    records = "".join(path.read_text() for path in sorted(tmp_path.glob("build-patch-set-*"))).strip().split("\n\n")
    ranks = [(record.splitlines()[1][len("Pin: version ") :], record.splitlines()[2][len("Pin-Priority: ") :]) for record in records]
    assert all(record.startswith("Package: src:ceph\n") for record in records)
    assert ranks == [("14.2.21-1+deb11u2", "-1"), ("14.2.21-1+deb11u3", "-1"), ("*", "1001"), ("*", "1001")]

    code, said = bash(f"{apt}set_aside_lost {tmp_path}", tmp_path, "E: Unable to locate package librbd-dev\n")
    assert code == 1
