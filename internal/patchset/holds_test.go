package patchset

import (
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

func TestAPackageHoldsWhatItsManifestSays(t *testing.T) {
	const stock = "    built_from: 1:7.2+dfsg-7+deb12u18\n    stock: 1:7.2+dfsg-7+deb12u18+b2\n"
	newer := parse(t, strings.Replace(good, "    built_from: 1:7.2+dfsg-7+deb12u18\n", stock, 1))
	older := parse(t, good)
	graft := deb.Graft{Variant: "fallback", Suffix: "+nfslock1", BuiltFrom: "1:7.2+dfsg-7+deb12u18", Stock: "1:7.2+dfsg-7+deb12u18+b2"}
	const file = "cannot use qemu-utils_7.2+dfsg-7+deb12u18+nfslock1_amd64.deb: "
	for _, test := range []struct {
		name   string
		m      Manifest
		change func(*deb.Package)
		want   string
	}{
		{"as it says", newer, func(*deb.Package) {}, ""},
		{"of an earlier release", older, func(p *deb.Package) { p.Graft = deb.Graft{} }, ""},
		{"with a manifest from before", older, func(*deb.Package) {}, ""},
		{"no fields", newer, func(p *deb.Package) { p.Graft = deb.Graft{} }, "the field Nfslock-Variant is missing, by which it is known as ours once it is installed: build the set again"},
		{"a field less", newer, func(p *deb.Package) { p.Graft.Stock = "" }, "the field Nfslock-Stock is missing, by which it is known as ours once it is installed: build the set again"},
		{"another variant", newer, func(p *deb.Package) { p.Graft.Variant = "disable_ofd" }, `the manifest says fallback, its field Nfslock-Variant says "disable_ofd"`},
		{"another suffix", newer, func(p *deb.Package) { p.Graft.Suffix = "+site1" }, `the manifest says +nfslock1, its field Nfslock-Suffix says "+site1"`},
		{"another source", newer, func(p *deb.Package) { p.Graft.BuiltFrom = "1:7\n.2" }, `the manifest says 1:7.2+dfsg-7+deb12u18, its field Nfslock-Built-From says "1:7\n.2"`},
		{"another rebuild", newer, func(p *deb.Package) { p.Graft.Stock = graft.BuiltFrom }, `the manifest says 1:7.2+dfsg-7+deb12u18+b2, its field Nfslock-Stock says "1:7.2+dfsg-7+deb12u18"`},
		{
			"another name", older, func(p *deb.Package) { p.Name = "qemu" },
			"the manifest says qemu-utils 1:7.2+dfsg-7+deb12u18+nfslock1 amd64, the file holds qemu 1:7.2+dfsg-7+deb12u18+nfslock1 amd64",
		},
	} {
		p := deb.Package{Name: "qemu-utils", Version: "1:7.2+dfsg-7+deb12u18+nfslock1", Architecture: "amd64", Graft: graft}
		test.change(&p)
		got := ""
		if err := test.m.Holds(test.m.Packages[0], p); err != nil {
			got = strings.TrimPrefix(err.Error(), file)
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
