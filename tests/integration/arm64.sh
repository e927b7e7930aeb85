#!/usr/bin/env bash
# The proof for arm64 on an amd64 machine: one patch set with both architectures, an arm64 container with Debian's own packages, which this
# machine's kernel runs through an emulator, and the arm64 build of the module. Half an hour the first time, five minutes later.
# It says what is missing, and does nothing, where the kernel cannot run programs of another architecture.
# usage: [NFSLOCK_ARM64_SET=FOLDER] arm64.sh [RELEASE [go test's options]]
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab release=${1:-trixie} binfmt=/proc/sys/fs/binfmt_misc
[ $# = 0 ] || shift
scratch=$(mktemp -d) mounted='' registered=''

skip() {
  echo "arm64: skipped, nothing was tested: $*"
  exit 0
}

clean() {
  [ -z "${engine:-}" ] || { $lab/down.sh; $lab/engine.sh down; }
  [ -z "$registered" ] || echo -1 >"$binfmt/qemu-aarch64"
  [ -z "$mounted" ] || umount "$binfmt"
  rm -rf "$scratch"
}
trap clean EXIT

# emulate: the kernel hands arm64 programs to qemu-aarch64-static. Flag F: the kernel opens the emulator now, so containers need not have it.
emulate() {
  tests/integration/apt-install.sh qemu-user-static
  if [ ! -e $binfmt/register ]; then
    [ -d $binfmt ] || modprobe binfmt_misc 2>/dev/null || skip "this kernel has no binfmt_misc"
    mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || skip "binfmt_misc cannot be mounted here: is this a container?"
    mounted=yes
  fi
  if [ ! -e $binfmt/qemu-aarch64 ]; then
    local rule=/usr/lib/binfmt.d/qemu-aarch64.conf
    [ -e $rule ] || skip "qemu-user-static of this release brings no $rule; register the emulator by hand, with flag F"
    grep -v '^#' $rule >$binfmt/register || skip "binfmt_misc refuses the emulator: is this a container?"
    registered=yes
  fi
  grep -q '^enabled' $binfmt/qemu-aarch64 || skip "$binfmt/qemu-aarch64 is not enabled"
  grep -q '^flags:.*F' $binfmt/qemu-aarch64 || skip "$binfmt/qemu-aarch64 has no flag F, so it works in no container"
}

[ "$(dpkg --print-architecture)" = amd64 ] || skip "this machine is not amd64; on an arm64 one, make test-lab proves the same without an emulator"
[ "$(id -u)" = 0 ] || skip "it takes root"
emulate
$lab/engine.sh up
engine=up
eval "$($lab/engine.sh env)"
$lab/image.sh "$release"
$lab/image.sh "$release-arm64"
NFSLOCK_ARM64_SET=${NFSLOCK_ARM64_SET:-}
if [ -z "$NFSLOCK_ARM64_SET" ]; then
  NFSLOCK_ARM64_SET=${NFSLOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nfslock}/patch-set/$release-amd64-and-arm64-fallback
  patch-sets/build.sh "$release" amd64 tools "$NFSLOCK_ARM64_SET" fallback
  patch-sets/build.sh "$release" arm64 tools "$NFSLOCK_ARM64_SET" fallback
fi
GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$scratch/nfs_lock_fix" ./modules/nfs_lock_fix
export NFSLOCK_ARM64_SET NFSLOCK_PROGRAMS=$scratch NFSLOCK_RELEASE=$release
go test -tags lab -count=1 -timeout 30m -v -run TestArm64 ./tests/integration "$@"
