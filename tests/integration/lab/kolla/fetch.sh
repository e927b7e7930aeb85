#!/usr/bin/env bash
# Fetches a version of kolla from PyPI, once, and prints the folder of its images' sources.
# usage: fetch.sh VERSION
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/ansible/venv.sh
. "$here/../../../ansible/venv.sh"
version=$1
case $version in
21.0.0) sum=d6c4c02198c67d7c6c43b9ce088b48fb5b3489fa08b92c49cb2651643aecf2a0 ;;
23.0.0) sum=ede061c4d6134781edfcbc9f1bc4b3e4822ad6d44f200e5912cc9531b1248dd5 ;;
*)
  echo "the lab does not know kolla $version: give its checksum in $0" >&2
  exit 1
  ;;
esac
folder=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/kolla/$version
if [ ! -d "$folder" ]; then
  "$here/../../apt-install.sh" python3-venv >&2
  mkdir -p "$(dirname "$folder")"
  scratch=$(mktemp -d -p "$(dirname "$folder")")
  trap 'rm -rf "$scratch"' EXIT
  # It is only unpacked, so that any Python will do.
  bin=$(venv pip "$(python_of 3)" pip)
  "$bin/pip" download --quiet --disable-pip-version-check --no-deps --ignore-requires-python --only-binary :all: --dest "$scratch" "kolla==$version"
  wheel=$scratch/kolla-$version-py3-none-any.whl
  echo "$sum  $wheel" | sha256sum --check --quiet
  mkdir "$scratch/kolla"
  python3 -m zipfile -e "$wheel" "$scratch/kolla"
  # Two that fetch at the same time have the same.
  mv -T "$scratch/kolla" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
dirname "$(find "$folder" -path '*/docker/nova/nova-libvirt' -printf '%h')"
