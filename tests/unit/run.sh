#!/usr/bin/env bash
# The tests of the action plugin, the roles and the overrides, on the oldest supported ansible-core, on the first with tagged data, and on the newest.
# Arguments go to pytest. With SHORT=yes the playbooks, a minute and more for each core, run on the newest alone. An interpreter that is not here is skipped by name; in CI (CI is set) it is a failure.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$here/../ansible/venv.sh"

scratch="$(mktemp -d)" # where what plugins share is found by its full name
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/ansible_collections/nfslock"
ln -s "$(cd "$here/../.." && pwd)" "$scratch/ansible_collections/nfslock/kolla"

ran=0 missing=()
while read -r core python playbooks; do
    interpreter="$(python_of "$python")"
    if [ -z "$interpreter" ]; then
        missing+=("python$python")
        continue
    fi
    echo "== ansible-core $core, Python $python"
    bin="$(venv "unit-$core-py$python" "$interpreter" "ansible-core==$core" pytest==9.2.0)"
    leave_out=()
    [ "$playbooks" = always ] || [ -z "${SHORT:-}" ] || leave_out=(--ignore "$here/test_keep_playbook.py")
    PYTHONPATH="$scratch" PYTHONDONTWRITEBYTECODE=1 "$bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" "${leave_out[@]}" "$@" "$here" </dev/null
    ran=$((ran + 1))
done <<'MATRIX'
2.14.18 3.11
2.19.14 3.11
2.21.5 3.12
2.21.5 3.13 always
MATRIX

if [ ${#missing[@]} -gt 0 ]; then
    echo "not run, because these are missing (with their venv module): ${missing[*]}" >&2
    if [ "$ran" = 0 ] || [ -n "${CI:-}" ]; then exit 1; fi
fi
