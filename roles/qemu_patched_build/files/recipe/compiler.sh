# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# Across architectures: whose compiler. A release's cross compilers are built once and get no updates: Debian 12's lacks the fix of CVE-2023-4039
# that its native one has, and what it compiles is protected less. Where the two differ, the native compiler does the work under an emulator.
# That is the program that turns C into assembler, cc1, alone: all others (driver, assembler, linker, Meson, ninja) run as they are.

# built_from VERSION: of a cross compiler's package, the version of the native one that it was made from.
built_from() { printf '%s' "${1%cross[0-9]*}"; }

# choose_compiler: sets native_compiler, the native one's version if it differs from the cross compiler's, else nothing.
choose_compiler() {
  local cross native
  compiler_major=$("${tool_prefix}gcc" -dumpversion | cut -d . -f 1)
  cross=$(dpkg-query -W -f '${Version}' "cpp-$compiler_major-${tool_prefix%-}")
  native=$(apt-cache policy "cpp-$compiler_major$apt_suffix" | sed -n 's/^  Candidate: //p')
  [[ $native == [0-9]* ]] || die "cannot choose a compiler for $architecture: apt knows no cpp-$compiler_major$apt_suffix to compare the cross compiler with"
  native_compiler=
  if [ "$(built_from "$cross")" = "$native" ]; then
    announce "  compiler: the cross compiler, $cross, as new as $architecture's own"
  else
    native_compiler=$native
    announce "  compiler: $architecture's own, $native, under an emulator, which is slow; the cross compiler, $cross, is of another version"
  fi
}

# libraries_of PACKAGE.deb: the packages of shared libraries that it depends on.
libraries_of() { dpkg-deb -f "$1" Depends | tr ',' '\n' | sed -nE 's/^ *((lib|zlib)[a-z0-9.+-]*).*/\1/p'; }

# use_native_compiler: the cross driver starts the native cc1 and cc1plus in place of its own, and links with what the native compiler links with.
# Its own packages cannot be installed beside those of this container's compiler, so they are unpacked only.
use_native_compiler() {
  [ -n "$native_compiler" ] || return 0
  local folder=/usr/local/lib/native-compiler package program own libraries=() native_folder=usr/lib/gcc/${tool_prefix%-}/$compiler_major
  mkdir -p "$private/compiler" "$folder"
  (cd "$private/compiler" && quiet "download $architecture's own compiler" apt-get "${apt_options[@]}" download \
    "cpp-$compiler_major$apt_suffix=$native_compiler" "g++-$compiler_major$apt_suffix=$native_compiler")
  for package in "$private/compiler/"*.deb; do
    quiet "unpack ${package##*/}" dpkg-deb -x "$package" "$folder"
    mapfile -t -O ${#libraries[@]} libraries < <(libraries_of "$package")
  done
  quiet "install the libraries of $architecture's own compiler" apt-get "${apt_options[@]}" install --no-install-recommends \
    "${libraries[@]/%/$apt_suffix}" "libgcc-$compiler_major-dev$apt_suffix"
  for program in cc1 cc1plus; do
    own=$("${tool_prefix}g++" "-print-prog-name=$program")
    [ -x "$own" ] || die "cannot put $architecture's own compiler in place: ${tool_prefix}g++ has no $program"
    rm "$own"
    printf '#!/bin/sh\nexec %s %s "$@"\n' "${emulator[*]}" "$folder/$native_folder/$program" > "$own"
    chmod 0755 "$own"
  done
  link_options+=" -B/$native_folder/"
  echo 'int main(void) { return 0; }' > "$private/try.c"
  quiet "compile with $architecture's own compiler" "${tool_prefix}gcc" -O2 -S "$private/try.c" -o "$private/try.s"
  grep -qF "$native_compiler)" "$private/try.s" || die "cannot compile with $architecture's own compiler $native_compiler: what it made says $(grep -F .ident "$private/try.s")"
}

# compiler_name: for the record.
compiler_name() {
  "${tool_prefix}gcc" --version | head -n 1
  [ -z "${native_compiler:-}" ] || echo "with cc1 of cpp-$compiler_major$apt_suffix $native_compiler under ${emulator[*]}"
}
