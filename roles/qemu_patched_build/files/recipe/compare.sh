# shellcheck shell=bash
# What vouches for the build: without the patch it is the distribution's own, and with it nothing else has changed.

# Checksum of what is executed and loaded. The build id covers the debug information, which is not made here.
essence() {
  if "${tool_prefix}objcopy" -R .note.gnu.build-id -R .gnu_debuglink -R .gnu_debugaltlink "$1" "$private/essence" 2>> "$detail"; then
    sha256sum < "$private/essence"
  else
    echo "none: $1" # equal to no other
  fi
}

# What the dynamic linker and QEMU's module loader look at: libraries, versions of their symbols, the stamp shared by program and modules.
links() {
  "${tool_prefix}objdump" -p "$1" | awk '/^ +NEEDED / { print $2 } /^ +required from / { from = $3 } /^ +0x/ && NF == 4 { print from, $4 }' | sort
  grep -aoE 'qemu_stamp_[0-9a-f]{40}' "$1" | sort -u || :
}

compare_with_stock() {
  local name
  different=()
  for name in "${programs[@]}" "${modules[@]}"; do
    if [ "$(essence "$private/plain/$name")" != "$(essence "${stock[$name]}")" ]; then different+=("$name"); fi
  done
  if [ ${#different[@]} = 0 ]; then
    announce "  identical: ${programs[*]} ${modules[*]}"
    return
  fi
  announce "  not identical: ${different[*]} (compiler here: $(gcc --version | head -n 1))"
  [ "$allow_different" = yes ] ||
    die "cannot vouch for ${different[*]}: the unpatched rebuild differs from the distribution's program, as it does where the image has libraries or headers that the release's own build had not; build in a plain image of the release with --version $version, or accept it with --allow-different"
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
    links "${stock[$name]}" > "$private/links.stock"
    links "$private/new/$name" > "$private/links.new"
    [ -s "$private/links.stock" ] || die "cannot read what $name is linked with"
    diff "$private/links.stock" "$private/links.new" >> "$detail" ||
      die "cannot ship $name: its libraries or its module stamp differ from the distribution's, see build-detail.log"
  done
}
