"""What the lab takes from kolla's Dockerfiles, as kolla-build renders them for one distribution.

usage: read-dockerfiles.py FOLDER DISTRIBUTION OUT

For each image, OUT/IMAGE has what it adds to the one that it is made from:
packages.DISTRIBUTION  what apt is told to install
lines                  "user NAME UID GID GROUP", "groups NAME GROUP", "copy SOURCE PATH", where SOURCE is a file below FOLDER, "empty PATH" and "runs-as NAME"
"""

import pathlib
import re
import sys

# Where packages come from and how a prompt looks is none of the lab's business; kolla_patch works while an image is built.
LEFT_OUT = re.compile(r"(/etc/apt/|/tmp/|/root/\.curlrc$|/usr/local/bin/kolla_patch$)")


def instructions(dockerfile):
    """The Dockerfile's instructions, each on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _space, rest = line.strip().partition(" ")
        if word.isupper():
            yield word, rest.strip()


def read(dockerfile, folder):
    """Its packages and lines. A folder that is copied holds OpenStack's configuration, which nothing in the lab reads."""
    packages, lines = [], []
    for word, rest in instructions(dockerfile):
        if word == "USER":
            lines.append(f"runs-as {rest}")
        elif word == "COPY":
            *sources, target = rest.split()
            for source in (dockerfile.parent / name for name in sources):
                to = target + source.name if target.endswith("/") else target
                if source.is_file() and not LEFT_OUT.match(to):
                    lines.append(f"copy {source.relative_to(folder)} {to}")
        elif word == "RUN":
            for names in re.findall(r"apt-get -y install (?:--no-install-recommends )?([^&]*)", rest):
                packages += names.split()
            for gid, group, uid, name in re.findall(r"groupadd --gid (\d+) (\S+) +&& useradd .*? --uid (\d+) --gid \1 (\S+)", rest):
                lines.append(f"user {name} {uid} {gid} {group}")
            for group, name in re.findall(r"usermod --append (?:--home \S+ )?--groups (\S+) (\S+)", rest):
                lines.append(f"groups {name} {group}")
            for paths in re.findall(r"touch ([^&]*)", rest):
                lines += [f"empty {path}" for path in paths.split()]
    return packages, lines


def main(folder, distribution, out):
    folder = pathlib.Path(folder)
    for dockerfile in sorted(folder.rglob("Dockerfile")):
        image = pathlib.Path(out) / dockerfile.parent.name
        image.mkdir(exist_ok=True)
        packages, lines = read(dockerfile, folder)
        (image / f"packages.{distribution}").write_text("".join(f"{name}\n" for name in packages))
        (image / "lines").write_text("".join(f"{line}\n" for line in lines))


main(*sys.argv[1:])
