// Command rpcbind_ensure is an Ansible module: it makes rpcbind and rpc.statd live on its host, or in a container that
// outlives the NFS mounts, and proves it by asking them.
package main

import (
	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/rpcbind"
	_ "github.com/nfslock/ansible-collection-kolla/internal/supervised"
)

func main() { ansible.Main(spec, rpcbind.Run) }
