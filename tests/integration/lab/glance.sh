#!/usr/bin/env bash
# Glance's own code, with what it needs, for the Python of a container of Debian 12. Prints its folder, which is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/ansible/venv.sh
. "$here/../../ansible/venv.sh"
requirements=$here/../testdata/glance/requirements.txt glance=glance==33.0.0
newest_python 3.11 || { echo "cannot have Glance: python3.11 or newer with its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2 && exit 1; }
# shellcheck disable=SC2154 # newest_python sets them
bin=$(venv "glance-py$version" "$python" pip)
out=$venvs/$glance-$(cat "$0" "$requirements" | sha256sum | cut -c1-12)
if [ ! -e "$out" ]; then
  rm -rf "$out.part"
  install=("$bin/pip" install --quiet --disable-pip-version-check --target "$out.part" --python-version 3.11 --only-binary=:all:
    --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_28_$(uname -m)")
  "${install[@]}" --no-deps "$glance" >&2
  "${install[@]}" -r "$requirements" >&2
  mv -T "$out.part" "$out"
fi
echo "$out"
