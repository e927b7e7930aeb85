#!/usr/bin/env bash
# The minimal root of a Debian or Ubuntu release with its updates and its security archive, from the distribution's own packages, as a tar file.
# usage: root.sh RELEASE FILE MMDEBSTRAP-OPTION…
# NFSLOCK_MIRROR is for http://deb.debian.org and http://archive.ubuntu.com. Ubuntu's signing keys are those of this machine's package
# ubuntu-keyring, else of Debian 13's, which is fetched for them; NFSLOCK_KEYRING names another file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=$1 file=$2
shift 2
"$here/../tests/integration/apt-install.sh" mmdebstrap >&2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # apt reads the keys as a user of its own

# find_keyring: the file with Ubuntu's keys
find_keyring() {
  local installed=/usr/share/keyrings/ubuntu-archive-keyring.gpg
  keyring=${NFSLOCK_KEYRING:-$installed}
  [ ! -e "$keyring" ] || return 0
  [ -z "${NFSLOCK_KEYRING:-}" ] || { echo "cannot make an image of $release: NFSLOCK_KEYRING names $keyring, which is missing" >&2 && exit 1; }
  keyring=$scratch/keys$installed
  mmdebstrap --quiet --variant=extract --include=ubuntu-keyring trixie "$scratch/keys" ${NFSLOCK_MIRROR:+"$NFSLOCK_MIRROR/debian"} >&2
}

options=(--quiet --variant=minbase)
distribution=$("$here/distribution.sh" "$release")
case $distribution in
  debian)
    mirror=${NFSLOCK_MIRROR:-http://deb.debian.org}
    sources=("deb $mirror/debian $release main" "deb $mirror/debian $release-updates main" "deb $mirror/debian-security $release-security main")
    ;;
  ubuntu)
    mirror=${NFSLOCK_MIRROR:-http://archive.ubuntu.com}
    sources=()
    for pocket in "" -updates -security; do sources+=("deb $mirror/ubuntu $release$pocket main universe"); done
    find_keyring
    install -m 644 "$keyring" "$scratch/keyring.gpg"
    # apt is no part of Ubuntu's minimal set, and its keyring is what the image's own apt is to trust.
    options+=("--include=apt,ubuntu-keyring" "--keyring=$scratch/keyring.gpg")
    ;;
esac
mmdebstrap "${options[@]}" "$@" "$release" "$file" "${sources[@]}" >&2
