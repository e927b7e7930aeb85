#!/usr/bin/env bash
# Prints whose release this is: debian or ubuntu.
# usage: distribution.sh RELEASE
set -euo pipefail
case $1 in
  bullseye | bookworm | trixie) echo debian ;;
  focal | jammy | noble) echo ubuntu ;;
  *) echo "cannot make an image of $1: there are bullseye, bookworm, trixie, focal, jammy, noble; name an image of your own by IMAGE=" >&2 && exit 1 ;;
esac
