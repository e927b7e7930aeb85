# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# The architecture that the packages are for, and the one that this container computes on. What follows from their difference is here:
# $apt_suffix after a package's name, $tool_prefix before gcc, strip, objcopy and objdump, $for_host before debian/rules, $link_options for the linker,
# $emulator before a program of the other architecture.

choose_architecture() {
  local here
  here=$(dpkg --print-architecture)
  architecture=${architecture:-$here}
  apt_suffix='' tool_prefix='' for_host=() link_options='' emulator=() native_compiler=''
  [ "$architecture" != "$here" ] || return 0
  [ "$here $architecture" = "amd64 arm64" ] ||
    die "cannot build for $architecture: this container is $here, and only arm64 is built on another architecture, on amd64; take an image of $architecture"
  apt_suffix=:$architecture tool_prefix=aarch64-linux-gnu- for_host=(dpkg-architecture "-a$architecture" -c)
  # The start-up objects (crt1.o) of libc6-dev:arm64, as in the distribution's own build. The cross compiler's own come from another package and,
  # in Debian 13, leave a note of that in each program.
  link_options=-B/usr/lib/aarch64-linux-gnu/
  # Two architectures of one library can be installed only in the same version, which is what the archive's own lists ensure.
  dpkg --add-architecture "$architecture" || die "cannot build for $architecture: dpkg does not take it as a foreign architecture"
}

# install_cross_tools: compilers for both architectures (what QEMU generates code with runs here), and what runs a test of the other one.
install_cross_tools() {
  [ -n "$tool_prefix" ] || return 0
  quiet "install the cross compiler" apt-get "${apt_options[@]}" install --no-install-recommends \
    "crossbuild-essential-$architecture" build-essential dpkg-dev xz-utils qemu-user-static
  emulator=(qemu-aarch64-static)
  choose_compiler
}

# without_manual < debian/control: the same, less Sphinx. Its theme cannot be installed for a foreign architecture, and no manual is made here.
without_manual() { sed -E 's/\bpython3-sphinx[a-z-]*(:[a-z]+)?( \([^)]*\)| \[[^]]*\]| <[^>]*>)*,? *//g'; }

# name_build_dependencies: sets build_dependencies, by which apt-get build-dep knows what is wanted.
name_build_dependencies() {
  build_dependencies=(--only-source "$source_name=$source_version")
  [ -n "$tool_prefix" ] || return 0
  local tree=$private/cross
  quiet "unpack the source's list of build dependencies" dpkg-source -x "$dsc" "$tree"
  without_manual < "$tree/debian/control" > "$private/control"
  cat "$private/control" > "$tree/debian/control"
  build_dependencies=("--host-architecture=$architecture" "$tree")
}
