#!/usr/bin/env bash
# The tests on a real engine: starts one if none runs, makes images and packages if they are not kept yet, runs the shipped program
# and real Ansible on five containers; with SHORT each step of a run dies once, not on every way; with MATRIX the matrix of image locks has the
# variant disable_ofd too, which is built for that, and other releases. usage: [SHORT=yes] [MATRIX=yes] run.sh [go test's options, as -run TestScripts/idempotence]
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
$lab/image.sh
NFSLOCK_PATCH_SET=$($lab/patch-set.sh | tail -1)
export NFSLOCK_PATCH_SET
if [ -n "${MATRIX:-}" ]; then
  NFSLOCK_PATCH_SET_DISABLE_OFD=$($lab/patch-set.sh disable_ofd | tail -1)
  NFSLOCK_MATRIX_RELEASES='bullseye trixie jammy noble'
  for release in $NFSLOCK_MATRIX_RELEASES; do $lab/image.sh "$release"; done
  export NFSLOCK_PATCH_SET_DISABLE_OFD NFSLOCK_MATRIX_RELEASES
fi
tests/integration/apt-install.sh dpkg-dev xz-utils xfsprogs e2fsprogs
go test -tags lab -count=1 -timeout 60m ${SHORT:+-short} ./tests/integration "$@"
if [ $# -eq 0 ]; then
  # Whole hosts are containers with engines of their own, and mostly wait: they boot beside the tests of Ansible, which have the five containers.
  nodes=$(mktemp)
  { tests/integration/nodes/test.sh && tests/integration/nodes/rpcbind.sh && tests/molecule/run.sh; } >"$nodes" 2>&1 &
  beside=$! failed=0
  tests/ansible/run.sh || failed=$?
  wait "$beside" || failed=$?
  cat "$nodes"
  rm "$nodes"
  exit "$failed"
fi
