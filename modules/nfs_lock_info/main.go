// Command nfs_lock_info is an Ansible module: it tells what is wrong with file locks on its host and its kolla containers, and the
// smallest cure, and changes nothing.
package main

import (
	"os"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/lockprobe"
	_ "github.com/nfslock/ansible-collection-kolla/internal/supervised"
)

func main() {
	if lockprobe.IsProbe(os.Args) { // started by another one of these, for the locks of one mount
		lockprobe.ProbeMain(os.Args, os.Stdout)
		return
	}
	ansible.Main(spec, lockprobe.Run)
}
