# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# From the archive's source to configured build trees, by the distribution's own rules.

# unpack_source: into $root; a tree that an earlier, interrupted run with the same inputs left there is gone on with.
unpack_source() {
  local inputs tree
  inputs=$( (
    printf '%s\n' "$source_name" "$source_version" "$version" "$architecture" "$recipe_sha256" "$configure_options" "${packages[*]}" "$native_compiler"
    dpkg-query -W
  ) | sha256sum)
  if [ "$(cat "$root/inputs" 2> /dev/null)" = "$inputs" ] && [ -e "$root/osdep.c" ]; then
    cd "$root/source" || return
    # A fresh time, so that ninja compiles it again.
    cmp -s "$root/osdep.c" util/osdep.c || cp "$root/osdep.c" util/osdep.c
    announce "  going on with what an earlier run compiled in $root"
    return
  fi
  rm -rf "$root/inputs" "$root/osdep.c" "$root/source"
  quiet "unpack the source" dpkg-source -x "$dsc" "$root/source"
  cd "$root/source" || return
  if [ "$version" != "$source_version" ]; then
    # PKGVERSION, and with it the stamp of QEMU's modules, holds the +bN of a rebuild: its changelog entry lies in the package only.
    tree=$private/stock/${packages[0]}/usr/share/doc/${packages[0]}/changelog.Debian.$architecture.gz
    [ -e "$tree" ] || die "cannot rebuild $version: ${packages[0]} has no changelog entry for it, and the source is $source_version"
    zcat "$tree" | cat - debian/changelog > "$private/changelog"
    cat "$private/changelog" > debian/changelog
  fi
  [ "$(dpkg-parsechangelog -SVersion)" = "$version" ] || die "cannot rebuild $version: the changelog begins with $(dpkg-parsechangelog -SVersion)"
  cp util/osdep.c "$root/osdep.c"
  printf '%s\n' "$inputs" > "$root/inputs"
}

# configure: runs the part of debian/rules that configures. Sets main_tree and microvm_tree, where ninja then works. PYTHONHASHSEED is for old
# versions of Meson: with it they put the objects of a program into the same order each time.
configure() {
  local goals microvm=''
  [[ " ${programs[*]} " != *"-microvm "* ]] || microvm=yes
  SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -STimestamp)
  DEB_BUILD_OPTIONS="nocheck terse noautodbgsym parallel=$(nproc)"
  export SOURCE_DATE_EPOCH DEB_BUILD_OPTIONS DEB_CFLAGS_APPEND=-g0 PYTHONHASHSEED=0 QEMU_CONFIGURE_OPTIONS=$configure_options
  [ -z "$link_options" ] || export DEB_LDFLAGS_APPEND=$link_options
  main_tree=b/qemu
  if grep -q '^configure-qemu:' debian/rules; then
    microvm_tree=b/microvm
    goals=(configure-qemu ${microvm:+configure-microvm})
  elif grep -q '^b/configure-stamp:' debian/rules; then
    # QEMU 5.2 and thereabouts configure all trees in one go. Without the user-mode packages there is no tree of static programs; their
    # dynamic ones, and what they add to the emulators, are no part of what is rebuilt.
    microvm_tree=b/qemu-microvm
    goals=(b/configure-stamp "BUILD_PACKAGES=qemu-system qemu-utils")
  else
    die "cannot configure qemu $version: debian/rules has neither configure-qemu nor b/configure-stamp"
  fi
  quiet "configure qemu $version" "${for_host[@]}" make -f debian/rules "${goals[@]}"
  [ -e "$main_tree/build.ninja" ] || die "cannot compile qemu $version: it is built by make alone, as QEMU was before 5.2; take a newer release"
  ninja -C "$main_tree" -t targets all > "$private/targets"
}
