#!/usr/bin/env bash
# The image of the control plane that is played (control.sh), once. It has no QEMU and no label of kolla's, so that it is no container to be looked at.
# usage: control-image.sh IMAGE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1
inputs=$(cat "$here/control-image.sh" "$here/control.sh" "$here/../lab/debian-image.sh" | sha256sum | cut -c1-12)
if [ "$(docker image inspect -f '{{index .Config.Labels "nfslock.lab"}}' "$image" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
# shellcheck disable=SC2016 # $1 is the new root's folder
"$here/../lab/debian-image.sh" "$image" trixie --include=python3-minimal \
  --customize-hook='mkdir -p "$1/opt/ansible/bin" "$1/var/lib/ansible"' \
  --customize-hook='ln -s /usr/bin/python3 "$1/opt/ansible/bin/python3"' \
  --customize-hook="install -m 755 '$here/control.sh' \"\$1/opt/ansible/bin/ansible-runner\"" \
  --customize-hook='for name in openstack nova-manage sudo; do ln -s /opt/ansible/bin/ansible-runner "$1/usr/local/bin/$name"; done' \
  --customize-hook='chroot "$1" useradd ansible' \
  -- "LABEL nfslock.lab=$inputs" 'CMD ["sleep", "infinity"]'
