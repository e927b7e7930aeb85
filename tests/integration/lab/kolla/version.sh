#!/usr/bin/env bash
# Prints the last version of kolla for a release, which is also the name of the folder beside this file.
# usage: version.sh RELEASE
set -euo pipefail
case $1 in
bullseye | bookworm) echo 21.0.0 ;; # 2025.2; for Debian 11 it stands in: kolla's last for that is too old for PyPI's tools of today
trixie | noble) echo 23.0.0 ;;      # 2026.2
*)
  echo "the lab has no images of $1: there are bullseye, bookworm, trixie and noble" >&2
  exit 1
  ;;
esac
