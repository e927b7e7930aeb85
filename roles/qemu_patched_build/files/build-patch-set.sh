#!/usr/bin/env bash
# Rebuilds QEMU packages of this Debian or Ubuntu release with another lock code and writes them, with their manifest, as a patch set.
# It installs hundreds of packages: run it as root in a throwaway container of the image that is to be patched, or of its release.
#
# What is shipped is the distribution's own .deb with the rebuilt programs grafted in. Its name is the same, its version is the source
# version plus a suffix, and it still provides the version that companions (qemu-block-extra, qemu-system-*) demand exactly.
#
# Here are the options and the steps in their order; each step's work is in a file of recipe/.
#
# shellcheck disable=SC2034,SC2154 # the variables are shared with the files of the recipe
set -euo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'END'
build-patch-set.sh --out DIR [options]
  --out DIR            folder that receives manifest.yml, the packages, the build records and the logs
  --variant NAME       fallback (default): no lock and a warning where a filesystem has no locks
                       disable_ofd: the classic edit; opening an image takes no lock at all, nowhere
  --profile NAME       tools (default): qemu-utils
                       host: also the qemu-system package that runs guests of the host's own architecture
  --also NAME,…        further packages of QEMU's, for instance qemu-system-arm on amd64
  --architecture NAME  dpkg's name of the packages' architecture; default: this container's. arm64 is also built on amd64
  --suffix SUFFIX      of the packages' versions; default +nfslock1
  --patch-dir DIR      folder with fallback.patch; default: patches, beside this script
  --version VERSION    binary version of qemu-utils to rebuild; default: the installed one, else apt's candidate
  --work DIR           keep source and object files there: an interrupted build goes on with them, another variant needs seconds
  --image NAME, --image-id ID
                       what this container was made from, for the build record
  --allow-different    ship even if the unpatched rebuild is not the distribution's own program
  --check              build nothing: end with 0 if DIR holds this build already, with 3 if it does not
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=recipe/say.sh
. "$here/recipe/say.sh"
# shellcheck source=recipe/architecture.sh
. "$here/recipe/architecture.sh"
# shellcheck source=recipe/compiler.sh
. "$here/recipe/compiler.sh"
# shellcheck source=recipe/profile.sh
. "$here/recipe/profile.sh"
# shellcheck source=recipe/archive.sh
. "$here/recipe/archive.sh"
# shellcheck source=recipe/patch.sh
. "$here/recipe/patch.sh"
# shellcheck source=recipe/configure.sh
. "$here/recipe/configure.sh"
# shellcheck source=recipe/compile.sh
. "$here/recipe/compile.sh"
# shellcheck source=recipe/compare.sh
. "$here/recipe/compare.sh"
# shellcheck source=recipe/graft.sh
. "$here/recipe/graft.sh"
# shellcheck source=recipe/record.sh
. "$here/recipe/record.sh"

out='' variant=fallback profile=tools also='' architecture='' suffix=+nfslock1 version='' work='' image='' image_id='' allow_different=no check=no
patch_dir=$here/patches
while [ $# -gt 0 ]; do
  case $1 in
    --out | --variant | --profile | --also | --architecture | --suffix | --patch-dir | --version | --work | --image | --image-id)
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
[[ $suffix =~ ^\+[a-z][a-z0-9.]*$ ]] || die "cannot use suffix $suffix: it is to be like +nfslock1, so that it sorts above the stock version and below the next update"
[ "$(id -u)" = 0 ] || die "cannot build as user $(id -un): packages are installed, so it takes root"
# The marks of Docker, of Podman, of systemd-nspawn. A mark alone proves nothing: a virtual machine made from an image keeps its /.dockerenv.
# 4026531836 is the machine's own pid namespace: PROC_PID_INIT_INO, linux/proc_ns.h.
if [ ! -e /.dockerenv ] && [ ! -e /run/.containerenv ] && [ -z "${container:-}" ] || [ "$(readlink /proc/self/ns/pid)" = "pid:[4026531836]" ]; then
  die "cannot build here: this is not a container with a pid namespace of its own, and hundreds of packages would be installed"
fi

# Images put a virtualenv first in PATH (kolla's cinder), whose python lacks what QEMU's configure wants. Compiler flags must be the distribution's.
# apt and dpkg are understood by what they print, and LANGUAGE would have them speak another language in any locale but C.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC DEBIAN_FRONTEND=noninteractive
unset -v CFLAGS CXXFLAGS CPPFLAGS LDFLAGS DEB_BUILD_PROFILES PYTHONPATH PYTHONHOME VIRTUAL_ENV LANGUAGE LANG
umask 022

choose_architecture
choose_packages
os_release() { sed -nE "s/^$1=\"?([^\"]*)\"?\$/\1/p" /etc/os-release; }
distribution=$(os_release ID)
release=$(os_release VERSION_CODENAME)
[ -n "$release" ] || die "cannot name this release: os-release has no VERSION_CODENAME"
out=$(realpath -m "$out")
patch_file=$(realpath -m "$patch_dir")/fallback.patch
case $variant in
  fallback) patch_sha256=$(sha256sum < "$patch_file" | cut -d ' ' -f 1) || die "cannot read $patch_file" ;;
  disable_ofd) patch_sha256=none ;;
esac
recipe_sums() { (cd "$here" && sha256sum build-patch-set.sh recipe/*.sh); }
recipe_sha256=$(recipe_sums | sha256sum | cut -d ' ' -f 1)
steps=9
began=$EPOCHSECONDS
private=$(mktemp -d /var/tmp/build-patch-set.XXXXXX)
detail=$private/detail.log
: > "$detail"
staging=
trap 'rm -rf "$private" ${staging:+"$staging"}' EXIT

[ -n "$version" ] || version=$(installed_version qemu-utils)
if [ -z "$version" ]; then
  read_lists
  version=$(apt-cache policy "qemu-utils$apt_suffix" | sed -n 's/^  Candidate: //p')
  [[ $version == [0-9]* ]] || die "cannot find qemu-utils: it is not installed, and the image's apt sources do not have it"
fi

what="$variant of qemu $version for $distribution $release $architecture"
if [ "$check" = yes ]; then
  if current; then
    echo "up to date: $what"
    exit 0
  fi
  refuse_other_set
  echo "to build: $what"
  exit 3
fi

mkdir -p "$out"
exec {lock}< "$out"
flock -n "$lock" || die "cannot build into that folder: another build into it is running"
if current; then
  echo "up to date: $what; nothing done"
  exit 0
fi
refuse_other_set
rm -rf "$out"/.new.??????
log=$out/build.log
cat "$detail" > "$out/build-detail.log"
detail=$out/build-detail.log
: > "$log"
announce "building $what: ${packages[*]} (details: build-detail.log)"

step fetch "the stock packages and their source"
root=/build/reproducible-path # where Debian's build daemons build
if [ -n "$work" ]; then
  root=$(realpath -m "$work")/$distribution-$release-$architecture
fi
mkdir -p "$root"
exec {root_lock}< "$root"
flock -n "$root_lock" || die "cannot compile in $root: another build in it is running"
enable_sources
read_lists
fetch_stock
new_version=$source_version$suffix
dpkg --compare-versions "$new_version" gt "$version" || die "cannot name the new version: $new_version would not be newer than $version"
list_programs
mkdir -p "$private/source"
cd "$private/source"
fetch_source

step install "what the build needs"
install_build_dependencies

step configure "by the distribution's rules"
unpack_source
rehearse_variant
configure

step compile "without the patch"
compile "${programs[@]}" "${modules[@]}"
collect "$private/plain"

step compare "with the distribution's programs"
compare_with_stock

step patch "$variant, and compile again"
apply_variant
compile "${programs[@]}" "${modules[@]}"
collect "$private/new"
check_patched

step test "the image locks"
run_lock_test

step pack "${packages[*]}"
for package in "${packages[@]}"; do
  graft "$package"
done

step publish "into the folder"
publish
announce "done in $((EPOCHSECONDS - began)) s: $(cd "$private/result" && echo *.deb)"
