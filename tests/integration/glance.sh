#!/usr/bin/env bash
# What becomes of an import into Glance where image locks are refused, with stock and with patched qemu-utils, and with the library: Glance's own code, from PyPI, in
# containers of Debian 12. docs/locks.md has the outcome. Five minutes the first time, one later. usage: glance.sh [go test's options, as -update]
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/ansible/venv.sh
. tests/ansible/venv.sh
lab=tests/integration/lab release=bookworm
cache=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}
requirements=tests/integration/glance/requirements.txt
$lab/engine.sh up
eval "$($lab/engine.sh env)"
container=nfslock-glance-$$
trap 'docker rm -f "$container" >/dev/null 2>&1 || true; $lab/engine.sh down' EXIT
$lab/image.sh "$release"
NFSLOCK_PATCH_SET=$($lab/patch-set.sh | tail -1)

# The packages come from this machine's pip, whose settings reach an index; a container's may not.
base=nfslock-lab/glance-api:$release
inputs=$(cat "$requirements" <(docker image inspect -f '{{.Id}}' "$base") | sha256sum | cut -c1-12)
NFSLOCK_GLANCE_IMAGE=nfslock-lab/glance:$release
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$NFSLOCK_GLANCE_IMAGE" 2>/dev/null)" != "$inputs" ]; then
  wheels=$cache/glance/$(sha256sum <"$requirements" | cut -c1-12)
  if [ ! -e "$wheels/whole" ]; then
    newest_python 3.11 || { echo "no Python 3.11 or newer with its venv module is here (Debian, Ubuntu: apt-get install python3-venv)" >&2 && exit 1; }
    pip=$(venv "pip-py$version" "$python" pip==26.3)/pip
    mkdir -p "$wheels"
    "$pip" download --quiet --no-deps --python-version 3.11 --dest "$wheels" --requirement "$requirements"
    touch "$wheels/whole"
  fi
  echo "lab: installing Glance (two minutes, once)"
  # setuptools first: one package has no wheel.
  # shellcheck disable=SC2016 # for the shell in the container
  docker run --name "$container" --network none --user root --entrypoint sh -v "$wheels:/wheels:ro" -v "$PWD/$requirements:/requirements.txt:ro" "$base" -ec '
    python3 -m venv --without-pip /var/lib/kolla/venv
    export PYTHONPATH="$(echo /wheels/pip-*.whl)" PIP_NO_INDEX=yes PIP_FIND_LINKS=/wheels PIP_ROOT_USER_ACTION=ignore
    install="/var/lib/kolla/venv/bin/python -m pip install --quiet --no-deps --no-build-isolation"
    $install setuptools
    $install --requirement /requirements.txt'
  docker commit -c "LABEL nfslock.lab=$inputs" "$container" "$NFSLOCK_GLANCE_IMAGE" >/dev/null
  docker rm "$container" >/dev/null
fi
export NFSLOCK_PATCH_SET NFSLOCK_GLANCE_IMAGE
tests/integration/apt-install.sh dpkg-dev xz-utils
go test -tags lab -count=1 -timeout 20m -v -run TestGlance ./tests/integration "$@"
