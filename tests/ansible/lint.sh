#!/usr/bin/env bash
# yamllint, ansible-lint (profile production), the changelog's fragments, the tarball, and ansible-test sanity, all on a scratch
# copy of what git knows or would add, because some of these tools write beside what they read.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
# shellcheck source=tests/ansible/venv.sh
. "$root/tests/ansible/venv.sh"
# shellcheck source=tests/ansible/scratch.sh
. "$root/tests/ansible/scratch.sh"

if ! newest_python 3.11; then
    echo "cannot lint: python3.11 or newer with its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2
    exit 1
fi
bin="$(venv "lint-py$version" "$python" "ansible-core==$core" ansible-lint==26.10.1 yamllint==1.38.0 antsibull-changelog==0.36.0)"
export PATH="$bin:$PATH"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
copy="$scratch/ansible_collections/nfslock/kolla"
mkdir -p "$copy"
scratch_copy "$root" "$copy"
cd "$copy"
# The ignore files of ansible-test name the programs.
for module in modules/*/; do
    (cd "$root" && CGO_ENABLED=0 GOOS=linux go build -o "$copy/plugins/modules/" "./$module")
done
# The Pythons that ansible-test may take: those that work, and no pyenv shim of one that is switched off.
mkdir "$scratch/pythons"
for other in 3.8 3.9 3.10 3.11 3.12 3.13 3.14; do
    found="$(python_of "$other")"
    [ -z "$found" ] || ln -s "$("$found" -c 'import sys; print(sys.executable)')" "$scratch/pythons/python$other"
done
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
if tar -tzf "$scratch"/nfslock-kolla-*.tar.gz | grep -E '^(go|internal|library|modules|patch-sets|preload/(.*\.go$|testdata)|tests/[^s]|dist|Makefile|\.)'; then
    echo "these do not belong into the tarball: see build_ignore in galaxy.yml" >&2
    exit 1
fi

# ansible-test looks at the files that git knows. It makes virtual environments below its HOME, one for each test that needs packages:
# kept for the next time.
git add --force plugins/modules
export HOME="$venvs/sanity"
mkdir -p "$HOME/.ansible/test/cache"
# It wants PyPA's get-pip.py from a server of its own, in the version that it pins. PyPI has the same pip: venv's own copy fetches it.
pip="$(sed -n "s/^ *pip='\([0-9.]*\)',$/\1/p" "${bin%/bin}"/lib/python3*/site-packages/ansible_test/_internal/python_requirements.py)"
cat >"$HOME/.ansible/test/cache/get_pip_${pip//./_}.py" <<'END'
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip"])
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
END
echo "== ansible-test sanity"
if ! PATH="$bin:$scratch/pythons:/usr/sbin:/usr/bin:/sbin:/bin" ansible-test sanity --color no >"$scratch/sanity.log" 2>&1; then
    cat "$scratch/sanity.log" >&2
    exit 1
fi
grep '^WARNING: Skipping' "$scratch/sanity.log" | sort -u || true
