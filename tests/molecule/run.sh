#!/usr/bin/env bash
# Molecule's scenarios, on the lab's nodes and engine, with the built programs. Arguments go to molecule (default: test, of each scenario).
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$root/tests/ansible/venv.sh"
# shellcheck source=tests/ansible/scratch.sh
. "$root/tests/ansible/scratch.sh"
lab=$root/tests/integration/lab
# shellcheck source=tests/integration/lab/use-engine.sh
. "$lab/use-engine.sh"
if [ ! -x "$root/plugins/modules/rpcbind_ensure" ]; then
  echo "rpcbind_ensure is not built: run make build first" >&2
  exit 1
fi
if ! newest_python 3.12; then
  echo "left out: Molecule needs python3.12 or newer with its venv module" >&2
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
bin=$(venv "molecule-py$version" "$python" "ansible-core==$core" molecule==26.4.0)
command -v ssh >/dev/null || "$lab/../apt-install.sh" openssh-client

scratch=$(mktemp -d)
cleanup() {
  rm -rf "$scratch"
  leave_engine
}
trap cleanup EXIT
use_engine
copy=$scratch/ansible_collections/nfslock/kolla
mkdir -p "$copy"
scratch_copy "$root" "$copy"
cd "$copy"
[ $# -gt 0 ] || set -- test --all
HOME=$scratch PATH=$bin:$PATH ANSIBLE_COLLECTIONS_PATH=$scratch ANSIBLE_SSH_CONTROL_PATH_DIR=$scratch/cp "$bin/molecule" "$@"
