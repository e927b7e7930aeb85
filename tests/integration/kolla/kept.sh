# shellcheck shell=bash
# shellcheck disable=SC2154 # its words are those of test.sh, which sources it
# shellcheck disable=SC2016 # much here is for the shell in the node
# Sourced. The part `kept`: the library, bound by kolla-ansible itself into containers with stock packages and kolla's own qemu.conf.

kept_folder=/var/lib/nfslock/preload
all_bound="cinder_volume library bound true, nova_compute library bound true, nova_libvirt library bound true"

# in_containers: what nfs_lock_info says of the library in each
in_containers() { info '[.packages[] | "\(.container) \(.qemu) \(.library.state) \(.library.current)"] | sort | join(", ")'; }
# ids: of the three containers, by which one that was made anew is told
ids() { for name in nova_libvirt nova_compute cinder_volume; do of_container "$name" .Id; done | paste -sd' '; }
# refused_as: why a run failed
refused_as() { played '[.[] | select(.status == "failed") | .result.msg] | join(" ")'; }
# made_anew WHAT: kolla-ansible makes the containers whose definition has changed
made_anew() {
  local before
  before=$(ids)
  run "$1" kolla deploy-containers --tags nova-cell,cinder
  check "it ended with" "$code" 0
  libvirt_answers
  check "containers are others" "$([ "$(ids)" = "$before" ] || echo yes)" yes
  goes_on
}
# has_library: what is bound, what programs make of it
has_library() {
  local name
  for name in nova_libvirt nova_compute cinder_volume; do
    check "the list in $name" "$(in_container $name cat /etc/ld.so.preload)" /usr/lib/nfslock/libnfslock.so
    check "the library there" "$(in_container $name sha256sum /usr/lib/nfslock/libnfslock.so | cut -c1-64)" "$library"
    contains "writing there" "$(in_container -u root $name touch /usr/lib/nfslock/other)" "Read-only file system"
  done
  check "packages of ours" "$(patched nova_libvirt)$(patched nova_compute)$(patched cinder_volume)" ""
  contains "qemu-img create" "$(convert)" "create 0"
  contains "qemu-img convert" "$(convert)" "convert 0"
}

part_kept() {
  local library before volumes name meanwhile next=$tag-kept
  library=$(sed -n 's,  amd64/libnfslock.so$,,p' "$top/preload/built/SHA256SUMS")

  # The story's own settings have the file's name until here.
  mv "$work/etc/globals.d/nfslock.yml" "$work/etc/globals.d/lab.yml"

  before=$(ids)
  run "keep --check --diff" as_kolla deploy keep -C -D
  check "it ended with" "$code" 0
  check "the host's files then" "$(in_node sh -c "ls -d $kept_folder 2>/dev/null")" ""
  check "lines for kolla-ansible" "$(cat "$work/etc/globals.d/nfslock.yml" 2>/dev/null)" ""
  cp "$work/etc/globals.d/lab.yml" "$work/etc/globals.d/nfslock.yml"
  run "keep, where globals.d has another nfslock.yml" as_kolla deploy keep
  check "it ended with" "$code" 2
  contains "what is said" "$(refused_as)" "somebody else's"
  rm "$work/etc/globals.d/nfslock.yml"
  run "keep, by kolla-ansible" as_kolla deploy keep
  check "it ended with" "$code" 0
  check "the host's files" "$(in_node stat -c '%a %U:%G %n' $kept_folder $kept_folder/libnfslock.so $kept_folder/ld.so.preload | paste -sd' ')" \
    "755 root:root $kept_folder 644 root:root $kept_folder/libnfslock.so 644 root:root $kept_folder/ld.so.preload"
  check "lines for kolla-ansible" "$(sed -n 's/_extra_volumes: .*//p' "$work/etc/globals.d/nfslock.yml" | sort | paste -sd' ')" \
    "cinder_volume nova_compute nova_libvirt"
  contains "what they have of kolla's" "$(cat "$work/etc/globals.d/nfslock.yml")" "nova_libvirt_extra_volumes: \"{{ nova_extra_volumes + ["
  check "the containers are the same" "$(ids)" "$before"
  run "keep once more" as_kolla reconfigure keep
  check "it ended with" "$code" 0
  check "tasks that changed something" "$(changed)" 0

  made_anew "kolla-ansible makes the containers, which get the library"
  has_library
  check "remember_owner in kolla's qemu.conf" "$(in_container nova_libvirt sh -c 'grep -c remember_owner /etc/libvirt/qemu.conf')" 0
  contains "a guest on the store" "$(guest stored "$at_nova/volume")" "Domain 'stored' created"
  check "it is" "$(state_of stored)" running
  contains "and says" "$(in_container nova_libvirt cat /var/log/libvirt/qemu/stored.log)" "going on WITHOUT a lock"
  check "the library is in its process" "$(in_node sh -c "grep -q libnfslock /proc/$(process_of stored)/maps && echo yes")" yes

  run "diagnose, by kolla-ansible" as_kolla deploy diagnose
  check "it ended with" "$code" 0
  check "its QEMU" "$(in_containers)" "$all_bound"
  check "libvirt's own lock is covered" "$(info '.libvirt.locks.covered')" true
  check "guests without the library" "$(info '[.stale_guests[].guest] | join(" ")')" before
  before=$(ids)
  run "nfs_lock_fix, method library" ad_hoc nfs_lock_fix '{"method": "library"}'
  check "it ended with" "$code" 0
  check "containers" "$(rows)" "cinder_volume unchanged, nova_compute unchanged, nova_libvirt unchanged"
  check "tasks that changed something" "$(changed)" 0
  check "the containers are the same" "$(ids)" "$before"

  # The operator has a volume, too: in a file that is read after ours, and then before it.
  volumes='nova_libvirt_extra_volumes: ["/srv:/srv:ro"]'
  echo "$volumes" >"$work/etc/globals.d/volumes.yml"
  grep -v '^#' "$work/etc/globals.d/nfslock.yml" >"$work/lines"
  run "keep, beside a file that wins over it" as_kolla deploy keep
  check "it ended with" "$code" 2
  contains "what is said" "$(refused_as)" "is read after nfslock.yml and wins over it"
  check "its lines are" "$(grep -v '^#' "$work/etc/globals.d/nfslock.yml" | cmp "$work/lines" - && echo as before)" "as before"
  mv "$work/etc/globals.d/volumes.yml" "$work/etc/globals.d/mine.yml"
  run "keep, beside one that does not" as_kolla deploy keep
  check "it ended with" "$code" 0
  check "its line" "$(sed -n '/^nova_libvirt_extra_volumes:/,/^#/p' "$work/etc/globals.d/nfslock.yml" | grep -c -e /srv:/srv:ro -e "$kept_folder")" 3
  made_anew "kolla-ansible makes nova_libvirt, which gets that volume"
  check "the operator's volume" "$(of_container nova_libvirt 'range .Mounts}}{{if eq .Destination "/srv"}}{{.Source}}{{end}}{{end')" /srv
  has_library

  for name in nova-libvirt nova-compute cinder-volume; do
    in_node sh -c "id=\$(docker create kolla/$name:$tag) && docker commit -c 'LABEL nfslock.kept=yes' \$id kolla/$name:$next && docker rm \$id" >/dev/null
  done
  echo "openstack_tag: $next" >"$work/etc/globals.d/tag.yml"
  made_anew "kolla-ansible makes them from another tag"
  check "nova_libvirt is of" "$(of_container nova_libvirt .Config.Image)" "kolla/nova-libvirt:$next"
  has_library
  check "the guest on the store goes on" "$(state_of stored)" running

  # Another build of it, which is put in place as keep does. Each program that starts from then on has it.
  before=$(ids)
  in_node sh -ec "cd $kept_folder && cp libnfslock.so x && echo >>x && chmod 644 x && sync x && mv x libnfslock.so" >/dev/null
  run "diagnose, with another build of the library" as_kolla deploy diagnose
  contains "the library" "$(in_containers)" "nova_libvirt library bound false"
  contains "qemu-img convert" "$(convert)" "convert 0"
  in_container cinder_volume sh -c 'until [ -e /tmp/kept ]; do qemu-img --version >/dev/null || echo broken; done; echo all' >"$work/meanwhile" &
  meanwhile=$!
  run "keep, which updates the library" as_kolla deploy keep
  check "it ended with" "$code" 0
  check "tasks that changed something" "$(changed)" 2
  in_container cinder_volume touch /tmp/kept
  wait "$meanwhile"
  check "programs that were started meanwhile" "$(sort -u "$work/meanwhile")" all
  has_library
  check "the containers are the same" "$(ids)" "$before"
  contains "libvirt" "$(virsh version --daemon)" "Running against daemon"
  check "the guest on the store goes on" "$(state_of stored)" running
  virsh destroy stored >/dev/null
  contains "and starts anew" "$(guest stored "$at_nova/volume")" "Domain 'stored' created"
  virsh destroy stored >/dev/null

  # Going back.
  rm "$work/etc/globals.d/mine.yml" "$work/etc/globals.d/tag.yml"
  run "keep, state absent" as_kolla deploy keep -e nfs_lock_keep_state=absent
  check "it ended with" "$code" 0
  check "lines that are left" "$(cat "$work/etc/globals.d/nfslock.yml" 2>/dev/null)" ""
  contains "why the files stay" "$(said 'Say why it stays')" "have it bound"
  check "the host's files" "$(in_node ls $kept_folder | paste -sd' ')" "ld.so.preload libnfslock.so"
  made_anew "kolla-ansible makes the containers without the library"
  for name in nova_libvirt nova_compute cinder_volume; do
    check "of ours in $name" "$(in_container $name sh -c 'ls -d /etc/ld.so.preload /usr/lib/nfslock 2>/dev/null')" ""
  done
  contains "qemu-img" "$(convert)" "Failed to lock byte 100: No locks available"
  run "keep, state absent, once more" as_kolla deploy keep -e nfs_lock_keep_state=absent
  check "it ended with" "$code" 0
  check "the host's folder" "$(in_node sh -c "ls -d $kept_folder 2>/dev/null")" ""
  run "and again" as_kolla deploy keep -e nfs_lock_keep_state=absent
  check "tasks that changed something" "$(changed)" 0
  for name in nova-libvirt nova-compute cinder-volume; do in_node docker rmi "kolla/$name:$next" >/dev/null; done
  mv "$work/etc/globals.d/lab.yml" "$work/etc/globals.d/nfslock.yml"
}
