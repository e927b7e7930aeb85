#!/usr/bin/env bash
# yamllint, ansible-lint (profile production), the changelog's fragments, and the tarball, all on a scratch copy of what
# git knows or would add, because some of these tools write beside what they read.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$root/tests/ansible/venv.sh"
# shellcheck source=tests/ansible/scratch.sh
. "$root/tests/ansible/scratch.sh"

for version in 3.13 3.12 3.11; do
    python="$(python_of "$version")"
    [ -z "$python" ] || break
done
if [ -z "$python" ]; then
    echo "cannot lint: python3.11 or newer with its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2
    exit 1
fi
core=2.21.5
[ "$version" != 3.11 ] || core=2.19.14 # the last for this Python
bin="$(venv "lint-py$version" "$python" "ansible-core==$core" ansible-lint==26.10.1 yamllint==1.38.0 antsibull-changelog==0.36.0)"
export PATH="$bin:$PATH"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
copy="$scratch/ansible_collections/nfslock/kolla"
mkdir -p "$copy"
scratch_copy "$root" "$copy"
cd "$copy"
# Outside of the user's own settings and collections; ansible-lint wants a repository.
export HOME="$scratch/home" ANSIBLE_HOME="$scratch/home/.ansible" ANSIBLE_COLLECTIONS_PATH="$scratch" ANSIBLE_CONFIG="$copy/ansible.cfg"
mkdir -p "$HOME"
git init -q .
git add -A

echo "== yamllint"
yamllint --strict .
echo "== ansible-lint"
ansible-lint --strict --nocolor
echo "== antsibull-changelog"
antsibull-changelog lint
echo "== ansible-galaxy collection build"
ansible-galaxy collection build --output-path "$scratch" . >/dev/null
if tar -tzf "$scratch"/nfslock-kolla-*.tar.gz | grep -E '^(go|internal|library|modules|tests/[^s]|dist|Makefile|\.)'; then
    echo "these do not belong into the tarball: see build_ignore in galaxy.yml" >&2
    exit 1
fi
