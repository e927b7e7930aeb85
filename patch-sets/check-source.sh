#!/usr/bin/env bash
# Whether the fallback patch and the classic edit fit sources of QEMU that are at hand, without compiling: the patch without fuzz, the edit
# at exactly two places. Each argument is a folder with a source, or an osdep.c; nothing in it is changed.
# usage: check-source.sh SOURCE…   prints a line for each, ends with 1 if something does not fit
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
patch_file=$here/../roles/qemu_patched_build/files/patches/fallback.patch
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bad=0
for source in "$@"; do
  file=$source
  [ -f "$file" ] || file=$source/util/osdep.c
  version=$(cat "${file%/util/osdep.c}/VERSION" 2>/dev/null || echo "version unknown")
  mkdir -p "$scratch/util"
  cp "$file" "$scratch/util/osdep.c"
  if out=$(patch -p1 -F0 --no-backup-if-mismatch -d "$scratch" -i "$(realpath "$patch_file")" 2>&1); then
    fallback="fallback fits"
    case $out in *offset*) fallback+=" (offset)" ;; esac
    case $out in *fuzz*) fallback="fallback only with fuzz" && bad=1 ;; esac
    # What it calls has to be known there.
    grep -q '#include "qemu/error-report.h"' "$file" || { fallback+=", but qemu/error-report.h is not included" && bad=1; }
  else
    fallback="fallback does NOT fit" bad=1
  fi
  places=$(sed 's|def F_OFD_SETLK| 0|g' "$file" | grep -c '^#if 0' || :)
  classic="disable_ofd fits"
  [ "$places" = 2 ] || { classic="disable_ofd finds $places places, not 2" && bad=1; }
  printf '%s: %s: %s, %s\n' "$source" "$version" "$fallback" "$classic"
done
exit $bad
