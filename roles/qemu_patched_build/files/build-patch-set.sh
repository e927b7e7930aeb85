#!/usr/bin/env bash
# Rebuilds QEMU packages of this Debian or Ubuntu release with another lock code and writes them, with their manifest, as a patch set.
# It installs hundreds of packages: run it as root in a throwaway container of the image that is to be patched, or of its release.
#
# What is shipped is the distribution's own .deb with the rebuilt programs grafted in. Its name is the same, its version is the source
# version plus a suffix, and it still provides the version that companions (qemu-block-extra, qemu-system-*) demand exactly.
set -euo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'END'
build-patch-set.sh --out DIR [options]
  --out DIR            folder that receives manifest.yml, the packages, build.yml and the logs
  --variant NAME       fallback (default): no lock and a warning where a filesystem has no locks
                       disable_ofd: the classic edit; opening an image takes no lock at all, nowhere
  --profile NAME       tools (default): qemu-utils and qemu-block-extra
  --suffix SUFFIX      of the packages' versions; default +nfslock1
  --patch-dir DIR      folder with fallback.patch; default: patches, beside this script
  --version VERSION    binary version of qemu-utils to rebuild; default: the installed one, else apt's candidate
  --allow-different    ship even if the unpatched rebuild is not the distribution's own program
  --check              build nothing: end with 0 if DIR holds this build already, with 3 if it does not
END
}

# Names of what is rebuilt. A profile says which stock packages are grafted and which programs' worth of configuration is enough for them.
profile_tools() {
  packages=(qemu-utils qemu-block-extra)
  # One target instead of thirty and no manual save 10 s of configure. The comparison with the stock programs proves that neither matters here.
  configure_options="--target-list=x86_64-softmmu --disable-docs"
}

die() {
  announce "error: $*" >&2
  exit 1
}

# announce LINE: for people, on the terminal and in build.log. Nothing is written into --out by --check.
announce() {
  printf '%s\n' "$*"
  [ -z "${log:-}" ] || printf '%s %s\n' "$(date +%T)" "$*" >> "$log"
}

step() {
  [ -z "${step_began:-}" ] || announce "  $((EPOCHSECONDS - step_began)) s"
  step_began=$EPOCHSECONDS
  step_number=$((${step_number:-0} + 1))
  announce "step $step_number of $steps: $*"
}

# quiet WHAT COMMAND…: its output goes to build-detail.log, and its end also to the terminal when it fails.
quiet() {
  local what=$1 from
  shift
  from=$(wc -l < "$detail")
  printf '\n## %s: %s\n' "$what" "$*" >> "$detail"
  "$@" >> "$detail" 2>&1 < /dev/null && return
  tail -n "+$((from + 1))" "$detail" | tail -n 30 >&2
  die "cannot $what: ${1##*/} failed, see build-detail.log"
}

# ninja's lines in, all of them to build-detail.log; of its count to the terminal what is 2 s and 5 % further than the last.
count_steps() {
  local line count='' shown='' at=0 percent=0
  while IFS= read -r line; do
    printf '%s\n' "$line" >> "$detail"
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    count=${BASH_REMATCH[0]}
    ((EPOCHSECONDS - at >= 2 && BASH_REMATCH[1] * 100 / BASH_REMATCH[2] - percent >= 5)) || continue
    announce "  $count"
    shown=$count at=$EPOCHSECONDS percent=$((BASH_REMATCH[1] * 100 / BASH_REMATCH[2]))
  done
  [ "$count" = "$shown" ] || announce "  $count"
}

compile() {
  printf '\n## ninja %s\n' "$*" >> "$detail"
  nice -n 5 ninja -C b/qemu -j"$(nproc)" "$@" 2>&1 < /dev/null | count_steps && return
  grep -A 30 -m 1 '^FAILED' "$detail" >&2 || tail -n 30 "$detail" >&2
  die "cannot compile QEMU $version: ninja failed, see build-detail.log"
}

# --- versions and the archive ---

apt_options=(-y -q -o Acquire::Retries=3 -o Acquire::Languages=none -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io)

enable_sources() {
  local list
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -e "$list" ] || sed -nE 's/^deb([[:space:]])/deb-src\1/p' "$list"
  done > "$private/deb-src.list"
  [ ! -s "$private/deb-src.list" ] || cp "$private/deb-src.list" /etc/apt/sources.list.d/deb-src.list
  for list in /etc/apt/sources.list.d/*.sources; do
    [ ! -e "$list" ] || sed -i -E 's/^(Types:[[:space:]]*)deb[[:space:]]*$/\1deb deb-src/' "$list"
  done
}

# nearest WANTED < VERSIONS: the oldest that is newer than WANTED, else the newest of all.
nearest() {
  local v above='' newest=''
  while IFS= read -r v; do
    if [ -z "$newest" ] || dpkg --compare-versions "$v" gt "$newest"; then newest=$v; fi
    dpkg --compare-versions "$v" gt "$1" || continue
    if [ -z "$above" ] || dpkg --compare-versions "$v" lt "$above"; then above=$v; fi
  done
  printf '%s' "${above:-$newest}"
}

# demand WHAT WANTED < VERSIONS: the archive must have exactly WANTED.
demand() {
  local list near
  list=$(sort -u)
  if grep -qxF -- "$2" <<< "$list"; then return; fi
  [ -n "$list" ] || die "cannot fetch $1 $2: apt knows no version of it; is the archive reachable, and does it offer sources? see build-detail.log"
  near=$(nearest "$2" <<< "$list")
  die "cannot fetch $1 $2: the archive does not have it, the nearest there is $near; update the image first, or add an archive of old versions to its apt sources"
}

binary_versions() { apt-cache madison "$1" | awk -F ' *[|] *' '$3 !~ / Sources$/ { print $2 }'; }
source_versions() { apt-cache showsrc --only-source "$1" 2> /dev/null | sed -n 's/^Version: //p'; }

# --- programs ---

is_elf() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(head -c 4 "$1" | tr -d '\0')" = $'\x7fELF' ]; }

# target NAME: the ninja target that makes the program or module of that file name.
target() {
  local found
  found=$(awk -F ': ' -v name="$1" '{ n = split($1, p, "/"); if (p[n] == name) print $1 }' "$private/targets")
  [ "$(grep -c . <<< "$found")" = 1 ] || die "cannot tell how $1 is built: ninja's targets of that name are: ${found:-none}"
  printf '%s' "$found"
}

# collect DIR: the programs as dh_strip would leave them (debhelper 13: modules keep no symbol that the dynamic linker does not need).
collect() {
  local name
  mkdir -p "$1"
  for name in "${programs[@]}" "${modules[@]}"; do
    install -m 0755 "b/qemu/$(target "$name")" "$1/$name"
  done
  strip --remove-section=.comment --remove-section=.note "${programs[@]/#/$1/}"
  [ ${#modules[@]} = 0 ] || strip --remove-section=.comment --remove-section=.note --strip-unneeded "${modules[@]/#/$1/}"
}

# Checksum of what is executed and loaded. The build id covers the debug information, which is not made here.
essence() {
  if objcopy -R .note.gnu.build-id -R .gnu_debuglink -R .gnu_debugaltlink "$1" "$private/essence" 2>> "$detail"; then
    sha256sum < "$private/essence"
  else
    echo "none: $1" # equal to no other
  fi
}

stock_file() { find "$private/stock" -path '*/DEBIAN' -prune -o -type f -name "$1" -print -quit; }

# What the dynamic linker and QEMU's module loader look at: libraries, versions of their symbols, the stamp shared by program and modules.
links() {
  objdump -p "$1" | awk '/^ +NEEDED / { print $2 } /^ +required from / { from = $3 } /^ +0x/ && NF == 4 { print from, $4 }' | sort
  grep -aoE 'qemu_stamp_[0-9a-f]{40}' "$1" | sort -u || :
}

compare_with_stock() {
  local name
  different=()
  for name in "${programs[@]}" "${modules[@]}"; do
    if [ "$(essence "$private/plain/$name")" != "$(essence "$(stock_file "$name")")" ]; then different+=("$name"); fi
  done
  if [ ${#different[@]} = 0 ]; then
    announce "  identical: ${programs[*]} ${modules[*]}"
    return
  fi
  announce "  not identical: ${different[*]} (compiler here: $(gcc --version | head -n 1))"
  [ "$allow_different" = yes ] ||
    die "cannot vouch for ${different[*]}: the unpatched rebuild differs from the distribution's program, as it does where the image has libraries or headers that the release's own build had not; build in a plain image of the release with --version $version, or accept it with --allow-different"
}

apply_variant() {
  case $variant in
    fallback)
      # Modules are shared with programs that are not rebuilt, so nothing that they include may change.
      [ "$(sed -n 's/^+++ //p' "$patch_file" | cut -f 1)" = b/util/osdep.c ] || die "cannot use $patch_file: it touches more than util/osdep.c"
      quiet "apply $patch_file to QEMU $version" patch -p1 -F0 --no-backup-if-mismatch -i "$patch_file"
      [ "$(grep -c '^#if 0' util/osdep.c)" = 0 ] || die "cannot build the fallback: util/osdep.c has an '#if 0', so the classic edit is in it"
      ;;
    disable_ofd)
      sed -i 's|def F_OFD_SETLK| 0|g' util/osdep.c
      [ "$(grep -c '^#if 0' util/osdep.c)" = 2 ] || die "cannot switch OFD locks off in QEMU $version: util/osdep.c has $(grep -c '^#if 0' util/osdep.c) '#if 0' after the edit, not 2"
      ;;
  esac
}

# So that an edit which does not fit is known before the compiler has run for minutes.
rehearse_variant() {
  cp -p util/osdep.c "$private/osdep.c"
  apply_variant
  cp -p "$private/osdep.c" util/osdep.c
}

# The edit is in every program, in no module, and changes nothing that other packages see.
check_patched() {
  local name marks want=0
  [ "$variant" = disable_ofd ] || want=1
  for name in "${programs[@]}"; do
    marks=$(grep -acF 'image locks are refused' "$private/new/$name" || :)
    [ "$marks" = "$want" ] || die "cannot ship $name: the fallback's warning is in $marks places of it, not in $want"
    [ "$(essence "$private/new/$name")" != "$(essence "$private/plain/$name")" ] || die "cannot ship $name: the edit did not change it"
  done
  for name in "${modules[@]}"; do
    [ "$(essence "$private/new/$name")" = "$(essence "$private/plain/$name")" ] || die "cannot ship $name: the edit changed it, but only programs may change"
  done
  for name in "${programs[@]}" "${modules[@]}"; do
    links "$(stock_file "$name")" > "$private/links.stock"
    links "$private/new/$name" > "$private/links.new"
    [ -s "$private/links.stock" ] || die "cannot read what $name is linked with"
    diff "$private/links.stock" "$private/links.new" >> "$detail" ||
      die "cannot ship $name: its libraries or its module stamp differ from the distribution's, see build-detail.log"
  done
}

# QEMU's own test of image locks. It needs no image and no guest; after the classic edit it has nothing to test.
run_lock_test() {
  local test out
  test=$(target test-image-locking)
  compile "$test"
  out=$(cd b/qemu && "./$test" --tap 2>&1) || {
    printf '%s\n' "$out" >&2
    die "cannot trust the build: QEMU's own test-image-locking failed"
  }
  printf '%s\n' "$out" >> "$detail"
  local passed
  passed=$(grep -c '^ok ' <<< "$out" || :)
  case $variant in
    fallback)
      [ "$passed" = 2 ] || die "cannot trust the build: QEMU's own test-image-locking passed $passed tests, not 2 (does $PWD have locks?)"
      announce "  QEMU's own test-image-locking: 2 of 2 passed"
      ;;
    disable_ofd)
      grep -q '^1\.\.0' <<< "$out" || die "cannot trust the build: QEMU's own test-image-locking still found OFD locks to test"
      announce "  QEMU's own test-image-locking: nothing to test, no OFD lock is left"
      ;;
  esac
}

# --- packages ---

# graft PACKAGE: the stock package with the new programs, as a file in $private/result.
graft() {
  local root=$private/stock/$1 file
  while IFS= read -r -d '' file; do
    is_elf "$file" || continue
    install -m "$(stat -c %a "$file")" "$private/new/${file##*/}" "$private/replacement"
    mv "$private/replacement" "$file"
  done < <(find "$root/usr" -type f -print0)

  # A companion may demand this package in exactly the stock version: the package goes on providing it.
  awk -v version="$new_version" -v provided="$1 (= $version)" -v source="$source_name ($source_version)" '
    BEGIN { FS = ": " }
    $1 == "Source" { next }
    $1 == "Package" { print; print "Source: " source; next }
    $1 == "Version" { print "Version: " version; next }
    $1 == "Provides" { print $0 ", " provided; provided = ""; next }
    $1 == "Description" && provided != "" { print "Provides: " provided }
    { print }' "$root/DEBIAN/control" > "$private/control"
  cat "$private/control" > "$root/DEBIAN/control"
  (cd "$root" && cut -c 35- DEBIAN/md5sums | tr '\n' '\0' | xargs -0 md5sum) > "$private/md5sums"
  cat "$private/md5sums" > "$root/DEBIAN/md5sums"
  quiet "pack $1" dpkg-deb --root-owner-group -Zxz -b "$root" "$private/result/$(deb_name "$1")"
}

deb_name() { printf '%s_%s_%s.deb' "$1" "${new_version#*:}" "$architecture"; }

# --- manifest.yml and build.yml: lists of flat maps, written by this script only ---

# entries FILE KEY…: one line per entry, first the values of KEYs, then its text with \037 for line ends.
entries() {
  awk -v keys="${*:2}" '
    function flush(  i, n, k, id) {
      if (text == "") return
      n = split(keys, k, " ")
      for (i = 1; i <= n; i++) id = id value[k[i]] " "
      print id "\t" text
      text = ""
      split("", value)
    }
    /^  - / { flush() }
    /^  (- |  )[a-z0-9_]+: / {
      name = $0; sub(/^  (- |  )/, "", name); v = name; sub(/:.*/, "", name); sub(/^[a-z0-9_]+: /, "", v); sub(/ +#.*/, "", v)
      value[name] = v
      text = text (text == "" ? "" : "\037") $0
    }
    END { flush() }' "$1"
}

# merge OLD NEW KEY…: the entries of both, where NEW wins over OLD of the same KEYs, in a fixed order.
merge() {
  { [ ! -e "$1" ] || entries "$1" "${@:3}"
    entries "$2" "${@:3}"
  } | awk -F '\t' '{ last[$1] = $0 } END { for (k in last) print last[k] }' | LC_ALL=C sort | cut -f 2- | tr '\037' '\n'
}

value_in() { sed -n "s/^$2: *//p" "$1" | sed -E 's/ +#.*//' | head -n 1; }

write_record() {
  cat <<END
  - distribution: $distribution
    release: $release
    architecture: $architecture
    profile: $profile
    version: $version
    variant: $variant
    suffix: $suffix
    patch_sha256: $patch_sha256
    recipe_sha256: $recipe_sha256
    identical: $1
END
}

# Whether --out holds what this call would build: the same inputs, and every package with the bytes that its manifest tells.
current() {
  local identical want name file size sum count=0
  [ -e "$out/build.yml" ] && [ -e "$out/manifest.yml" ] || return 1
  want=
  for identical in true false; do
    [ "$identical" = true ] || [ "$allow_different" = yes ] || continue
    write_record "$identical" > "$private/record"
    entries "$out/build.yml" version | cut -f 2- | grep -qxF -- "$(entries "$private/record" version | cut -f 2-)" && want=$identical
  done
  [ -n "$want" ] || return 1
  while IFS=$'\t' read -r name file size sum; do
    [[ " ${packages[*]} " == *" $name "* ]] || continue
    [ "$(stat -c %s "$out/$file" 2> /dev/null)" = "$size" ] || return 1
    [ "$(sha256sum < "$out/$file")" = "$sum  -" ] || return 1
    count=$((count + 1))
  done < <(entries "$out/manifest.yml" distribution release architecture | awk -v here="$distribution $release $architecture " -F '\t' '$1 == here { print $2 }' |
    while IFS= read -r entry; do
      tr '\037' '\n' <<< "$entry" | sed -nE 's/^  (- |  )(name|file|size|sha256): //p' | paste -sd '\t'
    done)
  [ "$count" = ${#packages[@]} ]
}

refuse_other_set() {
  local key
  [ -e "$out/manifest.yml" ] || return 0
  [ "$(value_in "$out/manifest.yml" schema)" = 1 ] || die "cannot add to the patch set in that folder: its schema is $(value_in "$out/manifest.yml" schema), not 1"
  for key in variant suffix; do
    [ "$(value_in "$out/manifest.yml" $key)" = "${!key}" ] ||
      die "cannot add to the patch set in that folder: its $key is $(value_in "$out/manifest.yml" $key), not ${!key}; one set has one $key, so use another folder"
  done
}

listed_files() { [ ! -e "$1" ] || sed -n 's/^    file: //p' "$1" | sort; }

publish() {
  local package file
  for package in "${packages[@]}"; do
    file=$(deb_name "$package")
    cat <<END
  - name: $package
    version: $new_version
    built_from: $source_version
    distribution: $distribution
    release: $release
    architecture: $architecture
    file: $file
    size: $(stat -c %s "$private/result/$file")
    sha256: $(sha256sum < "$private/result/$file" | cut -d ' ' -f 1)
END
  done > "$private/packages"
  write_record "$([ ${#different[@]} = 0 ] && echo true || echo false)" > "$private/record"

  # On the same filesystem as the result, so that each move is one rename.
  staging=$(mktemp -d "$out/.new.XXXXXX")
  local entry=(distribution release architecture)
  {
    printf 'schema: 1\nvariant: %s\nsuffix: %s\npackages:\n' "$variant" "$suffix"
    merge "$out/manifest.yml" "$private/packages" "${entry[@]}" name
  } > "$staging/manifest.yml"
  {
    printf '# What the packages were built from, for the next run to compare with. The patch set itself is manifest.yml.\nbuilds:\n'
    merge "$out/build.yml" "$private/record" "${entry[@]}"
  } > "$staging/build.yml"
  cp "$private/result/"*.deb "$staging/"
  chmod 0644 "$staging"/*
  comm -23 <(listed_files "$out/manifest.yml") <(listed_files "$staging/manifest.yml") > "$private/superseded"
  mv -f "$staging"/*.deb "$out/"
  mv -f "$staging/build.yml" "$out/build.yml"
  mv -f "$staging/manifest.yml" "$out/manifest.yml"
  while IFS= read -r file; do
    [[ $file == */* ]] || rm -f -- "$out/$file"
  done < "$private/superseded"
}

# --- the call ---

out='' variant=fallback profile=tools suffix=+nfslock1 version='' allow_different=no check=no
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
recipe=$here/$(basename "${BASH_SOURCE[0]}")
patch_dir=$here/patches
while [ $# -gt 0 ]; do
  case $1 in
    --out | --variant | --profile | --suffix | --patch-dir | --version)
      [ $# -ge 2 ] || die "cannot read the options: $1 needs a value"
      option=${1#--}
      printf -v "${option//-/_}" '%s' "$2"
      shift 2
      ;;
    --allow-different) allow_different=yes && shift ;;
    --check) check=yes && shift ;;
    --help) usage && exit 0 ;;
    *) die "cannot read the options: unknown option $1" ;;
  esac
done
[ -n "$out" ] || die "cannot read the options: --out is missing"
[[ $variant =~ ^(fallback|disable_ofd)$ ]] || die "cannot build variant $variant: there are fallback and disable_ofd"
[ "$profile" = tools ] || die "cannot build profile $profile: there is tools"
[[ $suffix =~ ^\+[a-z][a-z0-9.]*$ ]] || die "cannot use suffix $suffix: it is to be like +nfslock1, so that it sorts above the stock version and below the next update"
[ "$(id -u)" = 0 ] || die "cannot build as user $(id -un): packages are installed, so it takes root"
# The marks of Docker, of Podman, of systemd-nspawn. A mark alone proves nothing: a virtual machine made from an image keeps its /.dockerenv.
# 4026531836 is the machine's own pid namespace: PROC_PID_INIT_INO, linux/proc_ns.h.
if [ ! -e /.dockerenv ] && [ ! -e /run/.containerenv ] && [ -z "${container:-}" ] || [ "$(readlink /proc/self/ns/pid)" = "pid:[4026531836]" ]; then
  die "cannot build here: this is not a container with a pid namespace of its own, and hundreds of packages would be installed"
fi
"profile_$profile"

# Images put a virtualenv first in PATH (kolla's cinder), whose python lacks what QEMU's configure wants. Compiler flags must be the distribution's.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC DEBIAN_FRONTEND=noninteractive
unset -v CFLAGS CXXFLAGS CPPFLAGS LDFLAGS DEB_BUILD_PROFILES PYTHONPATH PYTHONHOME VIRTUAL_ENV
umask 022

os_release() { sed -nE "s/^$1=\"?([^\"]*)\"?\$/\1/p" /etc/os-release; }
distribution=$(os_release ID)
release=$(os_release VERSION_CODENAME)
architecture=$(dpkg --print-architecture)
[ -n "$release" ] || die "cannot name this release: os-release has no VERSION_CODENAME"
out=$(realpath -m "$out")
patch_file=$(realpath -m "$patch_dir")/fallback.patch
case $variant in
  fallback) patch_sha256=$(sha256sum < "$patch_file" | cut -d ' ' -f 1) || die "cannot read $patch_file" ;;
  disable_ofd) patch_sha256=none ;;
esac
recipe_sha256=$(sha256sum < "$recipe" | cut -d ' ' -f 1)
steps=9
began=$EPOCHSECONDS
private=$(mktemp -d /var/tmp/build-patch-set.XXXXXX)
detail=$private/detail.log
: > "$detail"
staging=
trap 'rm -rf "$private" ${staging:+"$staging"}' EXIT

if [ -z "$version" ]; then
  version=$(dpkg-query -W -f '${db:Status-Status} ${Version}' qemu-utils 2> /dev/null | sed -n 's/^installed //p') || :
fi
if [ -z "$version" ]; then
  quiet "read the archive's package lists" apt-get "${apt_options[@]}" update
  version=$(apt-cache policy qemu-utils | sed -n 's/^  Candidate: //p')
  [[ $version == [0-9]* ]] || die "cannot find qemu-utils: it is not installed, and the image's apt sources do not have it"
fi

if [ "$check" = yes ]; then
  if current; then
    echo "up to date: $variant of qemu $version for $distribution $release $architecture"
    exit 0
  fi
  refuse_other_set
  echo "to build: $variant of qemu $version for $distribution $release $architecture"
  exit 3
fi

mkdir -p "$out"
exec {lock}< "$out"
flock -n "$lock" || die "cannot build into that folder: another build into it is running"
if current; then
  echo "up to date: $variant of qemu $version for $distribution $release $architecture; nothing done"
  exit 0
fi
refuse_other_set
rm -rf "$out"/.new.??????
log=$out/build.log
cat "$detail" > "$out/build-detail.log"
detail=$out/build-detail.log
: > "$log"
announce "building $variant of qemu $version for $distribution $release $architecture, profile $profile (details: build-detail.log)"

step "fetch the stock packages and their source"
enable_sources
quiet "read the archive's package lists" apt-get "${apt_options[@]}" update
mkdir -p "$private/debs" "$private/stock" "$private/result"
for package in "${packages[@]}"; do
  demand "$package" "$version" < <(binary_versions "$package")
done
(cd "$private/debs" && quiet "download ${packages[*]} $version" apt-get "${apt_options[@]}" download "${packages[@]/%/=$version}")
for package in "${packages[@]}"; do
  # dpkg-deb -R keeps what path-exclude rules of the image would drop.
  quiet "unpack $package" dpkg-deb -R "$private/debs/${package}_"*.deb "$private/stock/$package"
done
control=$private/stock/${packages[0]}/DEBIAN/control
# "Source: qemu (1:7.2+dfsg-7+deb12u18)" where the binary was rebuilt without a change of the source, "Source: qemu" else.
source_name=$(sed -nE 's/^Source: ([^ ]+).*/\1/p' "$control")
source_version=$(sed -nE 's/^Source: [^ ]+ \((.*)\)$/\1/p' "$control")
source_name=${source_name:-${packages[0]}}
source_version=${source_version:-$version}
new_version=$source_version$suffix
dpkg --compare-versions "$new_version" gt "$version" || die "cannot name the new version: $new_version would not be newer than $version"
demand "source $source_name" "$source_version" < <(source_versions "$source_name")
mkdir -p /build/reproducible-path # where Debian's build daemons build
cd /build/reproducible-path
rm -rf "$source_name"-*/
quiet "download the source of $source_name $source_version" apt-get "${apt_options[@]}" source --download-only --only-source "$source_name=$source_version"

step "install what the build needs"
# No daemon of a build dependency may start: the container shares the host's network.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
quiet "install the build dependencies" apt-get "${apt_options[@]}" build-dep --arch-only --no-install-recommends --only-source "$source_name=$source_version"

step "configure by the distribution's rules"
quiet "unpack the source" dpkg-source -x "${source_name}_${source_version#*:}.dsc"
cd "$source_name"-*/
if [ "$version" != "$source_version" ]; then
  # PKGVERSION, and with it the stamp of QEMU's modules, holds the +bN of a rebuild: its changelog entry lies in the package only.
  rebuilt=$private/stock/${packages[0]}/usr/share/doc/${packages[0]}/changelog.Debian.$architecture.gz
  [ -e "$rebuilt" ] || die "cannot rebuild $version: ${packages[0]} has no changelog entry for it, and the source is $source_version"
  zcat "$rebuilt" | cat - debian/changelog > "$private/changelog"
  cat "$private/changelog" > debian/changelog
fi
[ "$(dpkg-parsechangelog -SVersion)" = "$version" ] || die "cannot rebuild $version: the changelog begins with $(dpkg-parsechangelog -SVersion)"
rehearse_variant
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -STimestamp)
DEB_BUILD_OPTIONS="nocheck terse noautodbgsym parallel=$(nproc)"
export SOURCE_DATE_EPOCH DEB_BUILD_OPTIONS DEB_CFLAGS_APPEND=-g0 QEMU_CONFIGURE_OPTIONS=$configure_options
grep -q '^configure-qemu:' debian/rules || die "cannot configure qemu $version: debian/rules has no configure-qemu"
quiet "configure qemu $version" make -f debian/rules configure-qemu
ninja -C b/qemu -t targets all > "$private/targets"
programs=() modules=()
for package in "${packages[@]}"; do
  while IFS= read -r -d '' file; do
    is_elf "$file" || continue
    case $file in
      *.so) modules+=("${file##*/}") ;;
      *) programs+=("${file##*/}") ;;
    esac
  done < <(find "$private/stock/$package/usr" -type f -print0 | sort -z)
done
targets=()
for file in "${programs[@]}" "${modules[@]}"; do
  targets+=("$(target "$file")")
done

step "compile without the patch"
compile "${targets[@]}"
collect "$private/plain"

step "compare with the distribution's programs"
compare_with_stock

step "apply $variant and compile again"
apply_variant
compile "${targets[@]}"
collect "$private/new"
check_patched

step "test the image locks"
run_lock_test

step "pack"
for package in "${packages[@]}"; do
  graft "$package"
done

step "move the result into the folder"
publish
announce "done in $((EPOCHSECONDS - began)) s: $(cd "$private/result" && echo *.deb)"
