// Command nfs_lock_fix is an Ansible module: it brings the preloaded library or rebuilt QEMU packages into the kolla
// containers of its host, or takes them back.
package main

import (
	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/lockfix"
	_ "github.com/nfslock/ansible-collection-kolla/internal/supervised"
)

func main() { ansible.Main(spec, lockfix.Run) }
