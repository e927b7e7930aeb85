# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# Programs and modules: which files of the stock packages they are, which of ninja's targets, and how they are compiled and stripped.

is_elf() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(head -c 4 "$1" | tr -d '\0')" = $'\x7fELF' ]; }

# list_programs: the ELF files of the stock packages by name. Sets programs, modules, and stock (name: path).
list_programs() {
  local package file name
  programs=() modules=()
  declare -gA stock=()
  for package in "${packages[@]}"; do
    while IFS= read -r -d '' file; do
      is_elf "$file" || continue
      name=${file##*/}
      [ -z "${stock[$name]:-}" ] || die "cannot tell two files named $name apart: $file and ${stock[$name]}"
      stock[$name]=$file
      case $name in
        *.so) modules+=("$name") ;;
        *) programs+=("$name") ;;
      esac
    done < <(find "$private/stock/$package/usr" -type f -print0 | sort -z)
  done
}

# The microvm program is the emulator of a tree of its own, under another name.
tree() { case $1 in *-microvm) printf '%s' "$microvm_tree" ;; *) printf '%s' "$main_tree" ;; esac; }

# target NAME: the ninja target that makes the program or module of that file name.
target() {
  local found
  case $1 in *-microvm) printf '%s' "${1%-microvm}" && return ;; esac
  found=$(awk -F ': ' -v name="$1" '{ n = split($1, p, "/"); if (p[n] == name) print $1 }' "$private/targets")
  [ "$(grep -c . <<< "$found")" = 1 ] || die "cannot tell how $1 is built: ninja's targets of that name are: ${found:-none}"
  printf '%s' "$found"
}

# count_steps BEFORE ALL: ninja's lines in, all of them to build-detail.log, its count to the terminal.
count_steps() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >> "$detail"
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    printf '%s' "${BASH_REMATCH[1]}" > "$private/count"
    progress "$(($1 + BASH_REMATCH[1]))" "$2"
  done
}

# generated TREE: headers that QEMU 7.2 forgets to name to ninja as what its objects need. With all targets asked for they are there in time by luck.
generated() { ninja -C "$1" -t targets all | sed -n 's|^\(ui/dbus-display1\.h\): .*|\1|p'; }

# compile NAME…: programs, modules or tests.
compile() {
  local name t all=0 before=0
  local -A targets=()
  for name in "$@"; do
    t=$(tree "$name")
    targets[$t]+=" $(target "$name")"
  done
  for t in "${!targets[@]}"; do
    # shellcheck disable=SC2046 # a list of ninja's targets
    [ -z "$(generated "$t")" ] || quiet "make the headers of $t" ninja -C "$t" $(generated "$t")
  done
  progress_percent=0
  for t in "${!targets[@]}"; do
    # shellcheck disable=SC2086 # a list of ninja's targets
    all=$((all + $(ninja -n -C "$t" ${targets[$t]} | sed -nE 's|^\[[0-9]+/([0-9]+)\].*|\1|p' | tail -n 1)))
  done
  for t in "${!targets[@]}"; do
    printf '\n## ninja -C %s%s\n' "$t" "${targets[$t]}" >> "$detail"
    printf 0 > "$private/count"
    # shellcheck disable=SC2086 # a list of ninja's targets
    if ! nice -n 5 ninja -C "$t" -j"$(nproc)" ${targets[$t]} 2>&1 < /dev/null | count_steps "$before" "$all"; then
      grep -A 30 -m 1 '^FAILED' "$detail" >&2 || tail -n 30 "$detail" >&2
      die "cannot compile QEMU $version: ninja failed, see build-detail.log"
    fi
    before=$((before + $(cat "$private/count")))
  done
}

# collect DIR: the programs as dh_strip would leave them (debhelper 13: modules keep no symbol that the dynamic linker does not need).
collect() {
  local name
  mkdir -p "$1"
  for name in "${programs[@]}" "${modules[@]}"; do
    install -m 0755 "$(tree "$name")/$(target "$name")" "$1/$name"
  done
  "${tool_prefix}strip" --remove-section=.comment --remove-section=.note "${programs[@]/#/$1/}"
  [ ${#modules[@]} = 0 ] || "${tool_prefix}strip" --remove-section=.comment --remove-section=.note --strip-unneeded "${modules[@]/#/$1/}"
}

# QEMU's own test of image locks. It needs no image and no guest; after the classic edit it has nothing to test.
run_lock_test() {
  local out passed
  compile test-image-locking
  out=$(cd "$main_tree" && "${emulator[@]}" "./$(target test-image-locking)" --tap 2>&1) || {
    printf '%s\n' "$out" >&2
    die "cannot trust the build: QEMU's own test-image-locking failed"
  }
  printf '%s\n' "$out" >> "$detail"
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
