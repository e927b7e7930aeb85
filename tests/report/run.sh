#!/usr/bin/env bash
# The report: the playbook with the oldest and the newest ansible-core, promtool, and the page in Debian's Chromium. Then the playbooks that lead to it, on
# hosts whose modules are stand-ins; with SHORT on one of the cores only what differs between them. Installs what is missing.
# --page, first, leaves out all but the page. Other arguments go to pytest: --update writes the golden files anew, --screenshots DIR the
# README's pictures.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$root/tests/ansible/venv.sh"
if ! command -v chromedriver >/dev/null || ! command -v promtool >/dev/null; then
    "$root/tests/integration/apt-install.sh" chromium chromium-driver prometheus
fi

page_only=
if [ "${1:-}" = --page ]; then
    page_only=yes
    shift
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/ansible_collections/nfslock"
ln -s "$root" "$scratch/ansible_collections/nfslock/kolla"

# try CORE PYTHON TEST ARGUMENT...
try() {
    local core="$1" python="$2" interpreter bin
    interpreter="$(python_of "$python")"
    if [ -z "$interpreter" ]; then
        echo "== ansible-core $core is left out: python$python with its venv module is missing" >&2
        return
    fi
    echo "== $3, ansible-core $core, Python $python"
    bin="$(venv "report-$core-py$python" "$interpreter" "ansible-core==$core" pytest==9.2.0 selenium==4.36.0 markdown-it-py==4.3.0 linkify-it-py==2.2.0)"
    PYTHONPATH="$scratch" PYTHONDONTWRITEBYTECODE=1 "$bin/python" -m pytest -q -p no:cacheprovider --rootdir "$root/tests/report" \
        "${@:4}" "$root/tests/report/$3" </dev/null
    ran=$((ran + 1))
}

ran=0
newest_python 3.11 || true # the browser does not care for ansible-core's version
try "$core" "$version" test_page.py -rP "$@"
[ -z "$page_only" ] || exit 0
try 2.14.18 3.11 test_role.py "$@"
try 2.21.5 3.13 test_role.py ${SHORT:+-k "every_form or hostile or overrides"} "$@"
try 2.14.18 3.11 test_fix.py ${SHORT:+-k "template or smallest"} "$@"
try 2.21.5 3.13 test_fix.py "$@"
[ "$ran" -gt 3 ]
