#!/usr/bin/env bash
# Builds the library for both architectures. The same compiler gives the same bytes, wherever it runs: no path, no time and no build id gets in.
# usage: build.sh FOLDER [amd64|arm64]…
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
[ $# -gt 0 ] || set -- amd64 arm64

# shellcheck disable=SC2054 # commas for the linker
flags=(-std=gnu11 -O2 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden
  # No C library but what the program has, and no call that the compiler adds: memcpy, the stack protector's, FORTIFY's.
  -nostdlib -ffreestanding -fno-tree-loop-distribute-patterns -fno-stack-protector -U_FORTIFY_SOURCE
  # A thread may be cancelled while it waits for a lock: the way through this library has to be known.
  -fasynchronous-unwind-tables -fstack-clash-protection -fno-ident
  -Wl,-soname,libnfslock.so -Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,noseparate-code
  -Wl,--hash-style=gnu -Wl,--build-id=none -Wl,--strip-all)

out=$(realpath -m "$out")
cd "$here"
for arch in "$@"; do
  case $arch in
    # A library without these marks would switch such a protection off in every program that loads it.
    amd64) cc=x86_64-linux-gnu-gcc own=(-march=x86-64 -mtune=generic -fcf-protection=full) ;;
    arm64) cc=aarch64-linux-gnu-gcc own=(-march=armv8-a -mtune=generic -mbranch-protection=standard -mno-outline-atomics) ;;
    *) echo "cannot build for $arch: amd64 and arm64 are known" >&2 && exit 1 ;;
  esac
  mkdir -p "$out/$arch"
  "$cc" "${flags[@]}" "${own[@]}" -o "$out/$arch/libnfslock.so" nfslock.c
  chmod 644 "$out/$arch/libnfslock.so"
done
