"""The role that builds, on the kept patch set: all but the four minutes of a build that succeeds, which tests/integration/lab/patch-set.sh has."""

import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest
from conftest import PATCH_SET, ROOT

IMAGE = "nfslock-lab/nova-compute:bookworm"
ALSO = ["qemu-block-extra"]  # what the kept patch set has beside profile tools


@pytest.fixture
def folder(tmp_path):
    """The kept patch set, as a build left it."""
    return shutil.copytree(PATCH_SET, tmp_path / "set")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".log"}


def recipes():
    return set(pathlib.Path(tempfile.gettempdir()).glob("qemu_patched_build_*"))


def containers():
    command = ["docker", "ps", "-aq", "--filter", "name=qemu_patched_build_"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def build(controller):
    """Runs the playbook, which leaves neither a container nor a copy of the recipe whatever happens."""
    before = recipes()

    def run(folder, *args, **variables):
        given = {"qemu_patched_build_image": IMAGE, "qemu_patched_build_dir": str(folder), "qemu_patched_build_also": ALSO, **variables}
        return controller.playbook("nfslock.kolla.build", given, *args)

    yield run
    assert recipes() == before
    assert not containers()


def changed(run):
    return int(re.search(r"changed=(\d+)", run.out)[1])


def would_build(folder):
    """What check mode rests on: the recipe's own word, in a container that can only read the folder."""
    mounts = ["-v", f"{ROOT}/roles/qemu_patched_build/files:/in:ro", "-v", f"{folder}:/out:ro"]
    command = ["docker", "run", "--rm", "--user", "root", "--network", "none", "--entrypoint", "bash", *mounts, IMAGE]
    asked = [*command, "/in/build-patch-set.sh", "--out", "/out", "--also", ",".join(ALSO), "--check"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 3


def due(folder):
    """Makes the folder one of an earlier recipe."""
    path = folder / "build.yml"
    path.write_text(re.sub(r"(recipe_sha256: )\w+", r"\g<1>" + "0" * 64, path.read_text("utf-8")), encoding="utf-8")


def test_a_second_build_changes_nothing(build, folder, tmp_path):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    fetched = tmp_path / "fetched"

    first = build(folder, qemu_patched_build_fetch_to=str(fetched))
    assert first.code == 0
    assert changed(first) == 1  # the fetched copy
    assert content(fetched) == content(folder)

    for args in ((), ("--check",)):
        again = build(folder, *args, qemu_patched_build_fetch_to=str(fetched))
        assert again.code == 0
        assert changed(again) == 0
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_check_mode_says_that_a_build_is_due_and_does_none(build, folder):
    absent = folder.with_name("absent")
    rehearsal = build(absent, "--check")
    assert rehearsal.code == 0
    assert changed(rehearsal) == 2  # the folder, and the build
    assert f"to build: fallback from {IMAGE}" in rehearsal.out
    assert not absent.exists()

    due(folder)
    before = content(folder)
    rehearsal = build(folder, "--check")
    assert rehearsal.code == 0
    assert changed(rehearsal) == 1
    assert "to build: fallback of qemu 1:" in rehearsal.out
    assert content(folder) == before


def test_several_builds_follow_one_another_and_each_has_its_own_words(build, folder):
    absent = folder.with_name("absent")
    images = [{"image": IMAGE}, {"image": IMAGE, "variant": "disable_ofd", "dir": str(absent), "also": []}]
    rehearsal = build(folder, "--check", qemu_patched_build_images=images)
    assert rehearsal.code == 0
    assert changed(rehearsal) == 2  # the second one's folder and build
    assert f"to build: disable_ofd from {IMAGE}" in rehearsal.out
    assert "to build: fallback" not in rehearsal.out

    nothing = build(folder, "--check", qemu_patched_build_image="")
    assert nothing.code != 0
    assert "no image is named" in nothing.out


def test_the_other_architecture_is_another_build(build, folder):
    before = content(folder)
    rehearsal = build(folder, "--check", qemu_patched_build_architecture="arm64", qemu_patched_build_also=[])
    assert rehearsal.code == 0
    assert changed(rehearsal) == 1
    assert re.search(r"to build: fallback of qemu 1:\S+ for debian bookworm arm64", rehearsal.out)
    assert content(folder) == before


def test_what_an_interrupted_build_can_leave_is_never_taken_for_whole(folder):
    assert not would_build(folder)
    # Left from a build that was killed while it filled its own folder: no part of the set.
    (folder / ".new.abcdef").mkdir()
    (folder / ".new.abcdef" / "manifest.yml").write_text("schema: 1\n", encoding="utf-8")
    assert not would_build(folder)

    # A build moves the packages, then build.yml, then manifest.yml: killed in between, in an empty folder or over another set.
    for name in ("manifest.yml", "build.yml"):
        (folder / name).rename(folder / "away")
        assert would_build(folder), f"without {name}"
        (folder / "away").rename(folder / name)
    package = next(folder.glob("qemu-utils*.deb"))
    whole = package.read_bytes()
    for what, data in (("cut short", whole[:-1]), ("of another build", whole[:-1] + bytes([whole[-1] ^ 1])), ("empty", b"")):
        package.write_bytes(data)
        assert would_build(folder), f"a package {what}"
    package.unlink()
    assert would_build(folder), "a package is missing"
    package.write_bytes(whole)
    assert not would_build(folder)


def test_a_killed_build_leaves_the_set_as_it_was(build, folder):
    due(folder)
    before = content(folder)
    (folder / "build.log").unlink()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(build, folder)
        end = time.monotonic() + 120
        while not ((folder / "build.log").exists() and "1/9 fetch" in (folder / "build.log").read_text("utf-8")):
            assert time.monotonic() < end and not running.done(), "the build did not begin"
            time.sleep(0.1)
        (container,) = containers()
        subprocess.run(["docker", "kill", container], check=True, stdout=subprocess.DEVNULL)
        run = running.result()
    assert run.code != 0
    assert content(folder) == before
    assert would_build(folder)
