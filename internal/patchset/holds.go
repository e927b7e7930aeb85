package patchset

import (
	"fmt"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// Holds compares what the manifest says of a package with what is in its file. Fields of ours are demanded where the manifest names the stock
// package, as it does since packages have them; those of earlier sets are what they are.
func (m Manifest) Holds(p Package, is deb.Package) error {
	if is.Name != p.Name || is.Version != p.Version || is.Architecture != p.Architecture {
		return fmt.Errorf("cannot use %s: the manifest says %s %s %s, the file holds %s %s %s", p.File,
			p.Name, p.Version, p.Architecture, is.Name, is.Version, is.Architecture)
	}
	if p.Stock == "" {
		return nil
	}
	for _, field := range [...]struct{ name, want, is string }{
		{"Nfslock-Variant", m.Variant, is.Graft.Variant},
		{"Nfslock-Suffix", m.Suffix, is.Graft.Suffix},
		{"Nfslock-Built-From", p.BuiltFrom, is.Graft.BuiltFrom},
		{"Nfslock-Stock", p.Stock, is.Graft.Stock},
	} {
		switch field.is {
		case field.want:
		case "":
			return fmt.Errorf("cannot use %s: the field %s is missing, by which it is known as ours once it is installed: build the set again", p.File, field.name)
		default:
			return fmt.Errorf("cannot use %s: the manifest says %s, its field %s says %s", p.File, field.want, field.name, quote(field.is))
		}
	}
	return nil
}
