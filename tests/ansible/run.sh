#!/usr/bin/env bash
# Real Ansible, the shipped program, the collection as it is packed, and the lab's containers, which are started afresh.
# NFSLOCK_PATCH_SET names the patch set's folder; with SHORT the newest ansible-core alone. Arguments go to pytest. tests/integration/run.sh prepares all of it.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$root/tests/ansible/venv.sh"
# shellcheck source=tests/ansible/scratch.sh
. "$root/tests/ansible/scratch.sh"

: "${NFSLOCK_PATCH_SET:?names the folder of a patch set: tests/integration/lab/patch-set.sh makes one}"
for program in plugins/modules/nfs_lock_fix library/nfs_lock_fix; do
    if [ ! -x "$root/$program" ]; then
        echo "$program is missing: run make build first" >&2
        exit 1
    fi
done

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/copy" "$scratch/tarball"
scratch_copy "$root" "$scratch/copy"

ran=0
while read -r core python; do
    # The action plugin and the roles alone are tested on all versions by tests/unit.
    if [ -n "${SHORT:-}" ] && [ "$core" != 2.21.5 ]; then
        echo "== ansible-core $core is left out: SHORT"
        continue
    fi
    interpreter="$(python_of "$python")"
    if [ -z "$interpreter" ]; then
        echo "== ansible-core $core is left out: python$python with its venv module is missing" >&2
        continue
    fi
    echo "== ansible-core $core, Python $python"
    bin="$(venv "unit-$core-py$python" "$interpreter" "ansible-core==$core" pytest==9.2.0)"
    if [ "$ran" = 0 ]; then
        PATH="$bin:$PATH" HOME="$scratch" ansible-galaxy collection build --output-path "$scratch/tarball" "$scratch/copy" >/dev/null
        PATH="$bin:$PATH" HOME="$scratch" ANSIBLE_COLLECTIONS_PATH="$scratch/installed" \
            ansible-galaxy collection install --offline -p "$scratch/installed" "$scratch"/tarball/*.tar.gz >/dev/null
    fi
    PATH="$bin:$PATH" PYTHONDONTWRITEBYTECODE=1 NFSLOCK_COLLECTIONS="$scratch/installed" \
        "$bin/python" -m pytest -q -p no:cacheprovider --rootdir "$root/tests/ansible" "$@" "$root/tests/ansible" </dev/null
    ran=$((ran + 1))
done <<'MATRIX'
2.14.18 3.11
2.21.5 3.13
MATRIX
[ "$ran" -gt 0 ]
