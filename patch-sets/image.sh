#!/usr/bin/env bash
# A minimal image of a Debian or Ubuntu release with its updates and its security archive, from the distribution's own packages. It is
# made once a day, since a build wants the archive's present versions. Prints its name.
# usage: image.sh RELEASE [ARCHITECTURE]
# Ubuntu's signing keys are in Debian's package ubuntu-keyring (trixie and later); NFSLOCK_KEYRING names another file that holds them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
release=$1 architecture=${2:-$(dpkg --print-architecture)}
case $release in
  bullseye | bookworm | trixie) distribution=debian ;;
  focal | jammy | noble) distribution=ubuntu ;;
  *) echo "cannot make an image of $release: there are bullseye, bookworm, trixie, focal, jammy, noble; name an image of your own by IMAGE=" >&2 && exit 1 ;;
esac
image=nfslock-build/$distribution:$release-$architecture
inputs=$(cat "$here/image.sh" <(date +%F) | sha256sum | cut -c1-12)
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.build"}}' "$image" 2>/dev/null)" = "$inputs" ]; then
  echo "$image"
  exit
fi

options=(--quiet --variant=minbase --include=ca-certificates "--architectures=$architecture")
case $distribution in
  debian)
    mirror=${NFSLOCK_MIRROR:-http://deb.debian.org}
    sources=("deb $mirror/debian $release main" "deb $mirror/debian $release-updates main" "deb $mirror/debian-security $release-security main")
    ;;
  ubuntu)
    mirror=${NFSLOCK_MIRROR:-http://archive.ubuntu.com}
    sources=()
    for pocket in "" -updates -security; do sources+=("deb $mirror/ubuntu $release$pocket main universe"); done
    keyring=${NFSLOCK_KEYRING:-/usr/share/keyrings/ubuntu-archive-keyring.gpg}
    [ -e "$keyring" ] || { echo "cannot make an image of $release: $keyring is missing; install ubuntu-keyring, or name the file by NFSLOCK_KEYRING" >&2 && exit 1; }
    # apt is no part of Ubuntu's minimal set, and its keyring is what the image's own apt is to trust.
    options+=("--include=apt,ubuntu-keyring" "--keyring=$keyring")
    ;;
esac
"$here/../tests/integration/apt-install.sh" mmdebstrap >&2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "making a minimal image of $distribution $release $architecture" >&2
mmdebstrap "${options[@]}" "$release" "$scratch/root.tar" "${sources[@]}" >&2
# Through a file: the engine cannot tell a root whose making was cut short from a whole one.
docker import --platform "linux/$architecture" -c "LABEL nfslock.build=$inputs" "$scratch/root.tar" "$image" >/dev/null
echo "$image"
