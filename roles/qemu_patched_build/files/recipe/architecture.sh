# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# The architecture that the packages are for, and the one that this container computes on. What follows from their difference is here,
# and nowhere else: $apt_suffix after a package's name, $tool_prefix before strip, objcopy and objdump.

choose_architecture() {
  local here
  here=$(dpkg --print-architecture)
  architecture=${architecture:-$here}
  apt_suffix='' tool_prefix=''
  [ "$architecture" = "$here" ] ||
    die "cannot build for $architecture: this container is $here; take an image of $architecture"
}
