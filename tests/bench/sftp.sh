#!/usr/bin/env bash
# A file of 200 MB by this collection's SFTP client, checksum and sync included, and by OpenSSH's sftp, in turn, from one
# server on loopback. Fails below 0.8 of OpenSSH's speed. usage: sftp.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/integration/apt-install.sh openssh-server openssh-client
NFSLOCK_SSHD=required NFSLOCK_SFTP_ROUNDS=${1:-5} go test -run '^TestSpeed$' -count=1 -v ./internal/sftpset |
  sed -n 's/^ *bench_test.go:[0-9]*: //p; /^\(FAIL\|ok\|---\|panic\)/p'
