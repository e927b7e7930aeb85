// Package supervised has a module supervised from before its other packages are initialized, which spares the first process that work: two
// thirds of a start. A main package imports it for that alone.
package supervised

import "github.com/nfslock/ansible-collection-kolla/internal/supervise"

func init() { supervise.Start() }
