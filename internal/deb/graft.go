package deb

import "strings"

// Graft is what a package that this collection rebuilt says of itself, in fields that nobody else uses. dpkg keeps them in its database, so they
// tell what is installed, from what was put into an image too. The words are whatever the stanza has: who reads them judges.
type Graft struct {
	Variant   string `json:"variant"`    // fallback or disable_ofd
	Suffix    string `json:"suffix"`     // of its set
	BuiltFrom string `json:"built_from"` // the source's version
	Stock     string `json:"stock"`      // the version of the distribution's package into which the programs were put, +bN included
}

// Whole tells whether it has all that the recipe writes, and versions that are some.
func (g Graft) Whole() bool {
	return g.Variant != "" && g.Suffix != "" && checkVersion(g.BuiltFrom) == nil && checkVersion(g.Stock) == nil
}

// GraftOf tells whether a package is one of ours by what dpkg keeps of it, and what is known of it. Those of earlier releases have no fields of
// their own, but a shape that no other package has: built from a source of another version, which the package's own extends, they provide
// their own name in the version of the distribution's package. (Of 66,500 packages of Debian 12 two provide their own name in another version, and
// neither is made of it.) Their variant nothing tells.
func GraftOf(p Package) (g Graft, ours bool) {
	if p.Graft != (Graft{}) {
		return p.Graft, p.Graft.Whole()
	}
	suffix, extends := strings.CutPrefix(p.Version, p.SourceVersion)
	if !extends || !strings.HasPrefix(suffix, "+") {
		return Graft{}, false
	}
	clauses, err := parseRelations(p.Provides)
	if err != nil {
		return Graft{}, false
	}
	for _, clause := range clauses {
		for _, r := range clause {
			if r.name == p.Name && r.version != p.Version && WithoutRebuild(r.version) == p.SourceVersion && checkVersion(r.version) == nil {
				return Graft{Suffix: suffix, BuiltFrom: p.SourceVersion, Stock: r.version}, true
			}
		}
	}
	return Graft{}, false
}
