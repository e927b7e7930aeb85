#!/usr/bin/env bash
# Every build that is shown to work, one after another, and each a second time in another container, which has to give the same bytes.
# A folder that holds its build already is left alone, so a run that was cut short goes on. Ends with a table of times.
# usage: all.sh OUT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
# release, profile
builds=("bookworm tools" "bookworm host" "bullseye tools" "bullseye host" "trixie tools" "trixie host" "jammy tools" "jammy host" "noble tools" "noble host")
variants=(fallback disable_ofd)
architecture=$(dpkg --print-architecture)
mkdir -p "$out"
number=0
for build in "${builds[@]}"; do
  read -r release profile <<<"$build"
  number=$((number + 1))
  name=$out/$release-$architecture-$profile
  echo "== $number/${#builds[@]} $release $architecture $profile: ${variants[*]}"
  "$here/build.sh" "$release" "$architecture" "$profile" "$name" "${variants[@]}"
  echo "== $number/${#builds[@]} $release $architecture $profile: again, from nothing"
  again=$(mktemp -d)
  WORK=$again "$here/build.sh" "$release" "$architecture" "$profile" "$name-again" "${variants[0]}"
  rm -rf "$again"
  diff <(cd "$name-${variants[0]}" && sha256sum -- *.deb) <(cd "$name-again" && sha256sum -- *.deb) ||
    { echo "the second build of $release $profile has other bytes" >&2 && exit 1; }
  echo "   the same bytes"
done
grep -H '^seconds: ' "$out"/*/build-*.yml | sed -E "s|^$out/||"
