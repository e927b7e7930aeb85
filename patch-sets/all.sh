#!/usr/bin/env bash
# Every build that is shown to work, one after another, and each a second time in another container, which has to give the same bytes.
# A folder that holds its build already is left alone, so a run that was cut short goes on. Ends with a table of times.
# usage: all.sh OUT [RELEASE…]   RELEASE: only its builds
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
native=$(dpkg --print-architecture)
known=(
  "bookworm tools $native" "bookworm host $native" "bookworm tools arm64" "bullseye tools $native" "bullseye host $native"
  "trixie tools $native" "trixie host $native" "trixie tools arm64" "jammy tools $native" "jammy host $native" "noble tools $native" "noble host $native"
)
builds=()
for build in "${known[@]}"; do
  read -r release profile architecture <<<"$build"
  [ $# = 0 ] || [[ " $* " == *" $release "* ]] || continue
  # What is built for another architecture is arm64, on amd64.
  [ "$architecture" = "$native" ] || [ "$native" = amd64 ] || continue
  [[ " ${builds[*]/%/,} " == *" $build, "* ]] || builds+=("$build")
done
[ ${#builds[@]} -gt 0 ] || { echo "cannot build for $*: there are bookworm, bullseye, trixie, jammy, noble" >&2 && exit 1; }
variants=(fallback disable_ofd)
mkdir -p "$out"
number=0
for build in "${builds[@]}"; do
  read -r release profile architecture <<<"$build"
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
