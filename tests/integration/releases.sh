#!/usr/bin/env bash
# One patch set for several releases, installed into containers of each, and into such of one host in the middle of an upgrade.
# usage: [NFSLOCK_RELEASES_SET=FOLDER] releases.sh [go test's options]
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=tests/integration/lab
export NFSLOCK_RELEASE='bullseye bookworm trixie'
$lab/engine.sh up
eval "$($lab/engine.sh env)"
trap '$lab/down.sh; $lab/engine.sh down' EXIT
for release in $NFSLOCK_RELEASE; do
  $lab/image.sh "$release"
done
