# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# The variants of the lock code, all of it in util/osdep.c.

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
