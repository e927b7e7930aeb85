# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# The release's archive: which versions it has, the stock packages, their source, and what the build needs. apt verifies all of it.

apt_options=(-y -q -o Acquire::Retries=3 -o Acquire::Languages=none -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io)

read_lists() { quiet "read the archive's package lists" apt-get "${apt_options[@]}" update; }

enable_sources() {
  local list lists=()
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -e "$list" ] || lists+=("$list")
  done
  if [ ${#lists[@]} -gt 0 ]; then
    sed -nE 's/^deb([[:space:]])/deb-src\1/p' "${lists[@]}" | grep -vxFf <(grep -hE '^deb-src[[:space:]]' "${lists[@]}") > "$private/deb-src.list" || :
    [ ! -s "$private/deb-src.list" ] || cp "$private/deb-src.list" /etc/apt/sources.list.d/deb-src.list
  fi
  for list in /etc/apt/sources.list.d/*.sources; do
    [ ! -e "$list" ] || sed -i -E 's/^(Types:[[:space:]]*)deb[[:space:]]*$/\1deb deb-src/' "$list"
  done
}

installed_version() { dpkg-query -W -f '${db:Status-Status} ${Version}' "$1$apt_suffix" 2> /dev/null | sed -n 's/^installed //p' || :; }

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

binary_versions() { apt-cache madison "$1" 2>> "$detail" | awk -F ' *[|] *' '$3 !~ / Sources$/ { print $2 }'; }
source_versions() { apt-cache showsrc --only-source "$1" 2>> "$detail" | sed -n 's/^Version: //p'; }

# fetch_stock: the packages into $private/debs, unpacked into $private/stock. Sets source_name, source_version.
fetch_stock() {
  local package control
  mkdir -p "$private/debs" "$private/stock" "$private/result"
  for package in "${packages[@]}"; do
    demand "$package" "$version" < <(binary_versions "$package$apt_suffix")
  done
  (cd "$private/debs" && quiet "download ${packages[*]} $version" apt-get "${apt_options[@]}" download "${packages[@]/%/$apt_suffix=$version}")
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
}

# fetch_source: the .dsc and what it names, into the present folder.
fetch_source() {
  demand "source $source_name" "$source_version" < <(source_versions "$source_name")
  quiet "download the source of $source_name $source_version" apt-get "${apt_options[@]}" source --download-only --only-source "$source_name=$source_version"
  dsc=$PWD/${source_name}_${source_version#*:}.dsc
  [ -e "$dsc" ] || die "cannot find the source of $source_name $source_version: apt left no ${dsc##*/}"
}

# source_files: the .dsc and the files that it names, each as "sha256  name".
source_files() {
  (cd "${dsc%/*}" && sha256sum "${dsc##*/}")
  sed -n '/^Checksums-Sha256:/,/^[^ ]/s/^ \([0-9a-f]\{64\}\) [0-9]* \(.*\)$/\1  \2/p' "$dsc"
}

# The pool of a release at the end of its life loses packages that its lists still name. Each such version is set aside, with all that its
# source made (those packages demand one another exactly), and apt takes the one before, also where the image has the lost one installed, which a
# priority above 1000 says. Whether it made a difference the comparison tells.
# set_aside_lost FOLDER < apt-get's words: FOLDER is that of apt's preferences. Fails where nothing was lost.
set_aside_lost() {
  local name file_version version source lost=1 folder=$1
  while IFS=' ' read -r name file_version; do
    file_version=${file_version//%2b/+} file_version=${file_version//%3a/:} file_version=${file_version//%7e/\~}
    version=$(binary_versions "$name" | awk -v v="$file_version" '{ w = $0; sub(/^[0-9]+:/, "", w); u = v; sub(/^[0-9]+:/, "", u); if (w == u) { print; exit } }')
    [ -n "$version" ] || continue
    source=$(apt-cache show "$name=$version" | sed -nE 's/^Source: ([^ ]+).*/\1/p' | head -n 1)
    announce "  the archive lists $name $version and does not have it: set aside, with all of ${source:-$name} $version"
    # Of several that fit apt takes the first, and it reads the files by their names.
    printf 'Package: src:%s\nPin: version %s\nPin-Priority: -1\n\n' "${source:-$name}" "$version" >> "$folder/build-patch-set-1-lost"
    printf 'Package: src:%s\nPin: version *\nPin-Priority: 1001\n\n' "${source:-$name}" >> "$folder/build-patch-set-2-others"
    lost=0
  done < <(sed -nE 's|^E: Failed to fetch [^ ]*/([^/_ ]+)_([^/_ ]+)_[a-z0-9]+\.deb +404 .*|\1 \2|p' | sort -u)
  return $lost
}

install_build_dependencies() {
  local from more=() build_dependencies=()
  # No daemon of a build dependency may start: the container shares the host's network.
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 0755 /usr/sbin/policy-rc.d
  install_cross_tools
  name_build_dependencies
  for _ in 1 2 3; do
    from=$(wc -l < "$detail")
    printf '\n## install the build dependencies\n' >> "$detail"
    if apt-get "${apt_options[@]}" "${more[@]}" build-dep --arch-only --no-install-recommends "${build_dependencies[@]}" >> "$detail" 2>&1 < /dev/null; then
      use_native_compiler
      return
    fi
    tail -n "+$((from + 1))" "$detail" > "$private/build-dep"
    set_aside_lost /etc/apt/preferences.d < "$private/build-dep" || break
    more=(--allow-downgrades)
  done
  tail -n 30 "$private/build-dep" >&2
  die "cannot install what QEMU $version is built with: apt-get failed, see build-detail.log"
}
