#!/usr/bin/env bash
# Installs Debian packages that the tests need and this machine lacks; says what to do where it cannot.
# usage: apt-install.sh PACKAGE…
set -euo pipefail
missing=()
for p in "$@"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p"); done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "please install: ${missing[*]} (only root on Debian or Ubuntu can have it done by this script)" >&2
  exit 1
fi
# make -j runs several of us; apt waits for dpkg's lock at best, and never for that of its lists.
exec 9>"${TMPDIR:-/tmp}/nfslock-apt.lock"
flock 9
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq 9>&-
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 9>&- # a service that is started must not keep the lock
