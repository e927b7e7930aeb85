# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
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

# Meson before 0.57 keeps a source set in a Python set, whose order is drawn by lot in each run. So Debian 11's own builds of QEMU differ from one
# another in the order of the objects within a program, and no rebuild can be the same byte for byte.
order_is_drawn() { grep -qs 'SourceFiles(set()' /usr/lib/python3/dist-packages/mesonbuild/modules/sourceset.py; }

# What the order of the objects does not touch: every global symbol with its size, kind and binding, what is imported from which library, the
# number of all functions (static ones too: eight bytes each in .eh_frame_hdr) and of constructors, and the size of the code.
shape() {
  "${tool_prefix}readelf" -W --dyn-syms "$1" | awk '$7 != "UND" && NF >= 8 { print $3, $4, $5, $8 }' | LC_ALL=C sort
  "${tool_prefix}readelf" -W --dyn-syms "$1" | awk '$7 == "UND" { print $4, $5, $8 }' | sed 's/ *([0-9]*)//' | LC_ALL=C sort
  links "$1"
  "${tool_prefix}objdump" -h -w "$1" | awk '$2 ~ /^\.(text|eh_frame_hdr|init_array|fini_array)$/ { print $2, $3 }'
}

# ld puts the detours around an erratum of the Cortex-A53 (843419) behind the code in an order that the machine it runs on has a part in. Then
# everything but the code is the same byte for byte, function by function, and the code has the same instructions but for where its jumps lead.
all_but_detours() {
  {
    "${tool_prefix}objcopy" -R .note.gnu.build-id -R .gnu_debuglink -R .gnu_debugaltlink -R .text "$1" "$private/essence" &&
      sha256sum < "$private/essence" &&
      "${tool_prefix}objdump" -d -j .text --no-show-raw-insn "$1" > "$private/code" &&
      awk -F '\t' 'NF > 1 { print $2, $2 == "b" ? "" : $3 }' "$private/code" | LC_ALL=C sort | sha256sum
  } 2>> "$detail" || echo "none: $1" # equal to no other
}

# differs_in_order NAME: of two that are not the same, whether the order of things is all that differs, and why that is so.
differs_in_order() {
  if order_is_drawn && [ "$(shape "$private/plain/$1")" = "$(shape "${stock[$1]}")" ]; then
    echo "of its objects, which this release's Meson draws by lot"
  elif [ -n "$tool_prefix" ] && [ "$(all_but_detours "$private/plain/$1")" = "$(all_but_detours "${stock[$1]}")" ]; then
    echo "of the linker's detours around an erratum"
  else
    return 1
  fi
}

# compare_with_stock: sets different, and identical: true, but_order, or false.
compare_with_stock() {
  local name why same=()
  different=() identical=true
  for name in "${programs[@]}" "${modules[@]}"; do
    if [ "$(essence "$private/plain/$name")" = "$(essence "${stock[$name]}")" ]; then
      same+=("$name")
    elif why=$(differs_in_order "$name"); then
      announce "  the same but for the order $why: $name"
      identical=but_order
    else
      different+=("$name")
    fi
  done
  [ ${#same[@]} = 0 ] || announce "  identical: ${same[*]}"
  [ ${#different[@]} != 0 ] || return 0
  identical=false
  announce "  not identical: ${different[*]} (compiler here: $(compiler_name | paste -sd ' '))"
  [ "$allow_different" = yes ] || [ -z "$tool_prefix" ] ||
    die "cannot vouch for ${different[*]}: the unpatched rebuild differs from the distribution's program. Build in an image of $architecture, on such a machine, or accept it with --allow-different"
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
