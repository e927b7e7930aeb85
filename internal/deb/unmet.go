package deb

import (
	"fmt"
	"slices"
	"strings"
)

// Unmet is a clause of an installed package that an exchange of packages breaks.
type Unmet struct {
	Package, Version string
	Field            string // Pre-Depends, Depends, Conflicts or Breaks
	Clause           string
}

// String is like "qemu-system-arm 1:10.0 Depends qemu-system-common (= 1:10.0)".
func (u Unmet) String() string {
	return u.Package + " " + u.Version + " " + u.Field + " " + u.Clause
}

// NewlyUnmet computes what dpkg does not refuse and apt stumbles over from then on: every clause of a package present
// after the exchange that holds among before, and not once the packages of replace have taken their places; and every
// clause new with a package of replace that does not hold. What was broken and stays so is not listed. The rules are those
// of lib/dpkg/depcon.c: Multi-Arch, versions in Provides, and a name provided without version, which meets no versioned
// clause. Recommends do not count.
func NewlyUnmet(before, replace []Package) ([]Unmet, error) {
	old := pointers(before)
	places, now := exchange(old, pointers(replace))
	native := nativeArchitecture(now)
	oldSystem, err := newSystem(old, native, nil)
	if err != nil {
		return nil, err
	}
	nowSystem, err := newSystem(now, native, nil)
	if err != nil {
		return nil, err
	}
	touched, err := touchedNames(places)
	if err != nil {
		return nil, err
	}
	var unmet []Unmet
	for _, p := range now {
		if !p.present() {
			continue
		}
		former, exchanged := places[p]
		if !exchanged {
			former = p
		}
		for _, field := range relationFields {
			if !exchanged && !slices.ContainsFunc(touched, func(name string) bool { return strings.Contains(field.of(p), name) }) {
				continue
			}
			clauses, err := field.parse(p)
			if err != nil {
				return nil, err
			}
			formerClauses, err := field.parse(former)
			if err != nil {
				return nil, err
			}
			for _, clause := range clauses {
				if nowSystem.holds(p, clause, field.negative) {
					continue
				}
				wasThere := slices.ContainsFunc(formerClauses, func(f []relation) bool { return slices.Equal(f, clause) })
				if !wasThere || oldSystem.holds(former, clause, field.negative) {
					unmet = append(unmet, Unmet{p.Name, p.Version, field.name, clauseString(clause)})
				}
			}
		}
	}
	return unmet, nil
}

// relationField is one of those that dpkg and apt demand.
type relationField struct {
	name     string
	of       func(*Package) string
	negative bool
}

var relationFields = []relationField{
	{"Pre-Depends", func(p *Package) string { return p.PreDepends }, false},
	{"Depends", func(p *Package) string { return p.Depends }, false},
	{"Conflicts", func(p *Package) string { return p.Conflicts }, true},
	{"Breaks", func(p *Package) string { return p.Breaks }, true},
}

func (f relationField) parse(p *Package) ([][]relation, error) {
	clauses, err := parseRelations(f.of(p))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s of %s %s: %w", f.name, p.Name, p.Version, err)
	}
	return clauses, nil
}

func pointers(packages []Package) []*Package {
	list := make([]*Package, len(packages))
	for i := range packages {
		list[i] = &packages[i]
	}
	return list
}

// exchange puts each package of replace into the place of the one that dpkg would remove for it. It returns what there is
// then, and for each newcomer what was in its place: an empty package if nothing was.
func exchange(before, replace []*Package) (places map[*Package]*Package, now []*Package) {
	newcomers := map[string][]*Package{}
	places = map[*Package]*Package{}
	for _, p := range replace {
		newcomers[p.Name] = append(newcomers[p.Name], p)
		places[p] = &Package{}
	}
	taken := map[*Package]bool{}
	for _, p := range before {
		i := slices.IndexFunc(newcomers[p.Name], func(r *Package) bool { return samePlace(p, r) })
		if i < 0 {
			now = append(now, p)
			continue
		}
		newcomer := newcomers[p.Name][i]
		if p.present() {
			places[newcomer] = p
		}
		if !taken[newcomer] {
			now = append(now, newcomer)
		}
		taken[newcomer] = true
	}
	for _, p := range replace {
		if !taken[p] {
			now = append(now, p)
		}
	}
	return places, now
}

// samePlace: only packages that are both Multi-Arch: same can be there for several architectures.
func samePlace(a, b *Package) bool {
	return a.Name == b.Name && (a.Architecture == b.Architecture || a.MultiArch != "same" || b.MultiArch != "same")
}

// nativeArchitecture is that of dpkg itself, which is always there; lists made by hand have that of the first package.
func nativeArchitecture(packages []*Package) string {
	native := ""
	for _, p := range packages {
		if p.Name == "dpkg" && p.present() {
			return p.Architecture
		}
		if native == "" && p.Architecture != "all" {
			native = p.Architecture
		}
	}
	return native
}

// touchedNames are all by which a clause can mean a newcomer or what was in its place.
func touchedNames(places map[*Package]*Package) ([]string, error) {
	var names []string
	for newcomer, former := range places {
		names = append(names, newcomer.Name)
		for _, p := range []*Package{newcomer, former} {
			provides, err := parseProvides(p)
			if err != nil {
				return nil, err
			}
			for _, r := range provides {
				names = append(names, r.name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// system is every name by which something is there.
type system struct {
	native string
	offers map[string][]offer
}

// offer is a package under its own name, or under one that it provides.
type offer struct {
	by      *Package
	arch    string
	version string // "" for a name provided without one
}

// newSystem has the names that are meant alone; nil means all.
func newSystem(packages []*Package, native string, meant map[string]bool) (system, error) {
	s := system{native, map[string][]offer{}}
	for _, p := range packages {
		if !p.present() {
			continue
		}
		if meant == nil || meant[p.Name] {
			s.offers[p.Name] = append(s.offers[p.Name], offer{p, p.Architecture, p.Version})
		}
		if p.Provides == "" {
			continue
		}
		provides, err := parseProvides(p)
		if err != nil {
			return system{}, err
		}
		for _, r := range provides {
			if meant != nil && !meant[r.name] {
				continue
			}
			arch := r.arch
			if arch == "" {
				arch = p.Architecture
			}
			s.offers[r.name] = append(s.offers[r.name], offer{p, arch, r.version})
		}
	}
	return s, nil
}

// parseProvides reads the names provided. dpkg ignores one with a version range, so it is left out.
func parseProvides(p *Package) ([]relation, error) {
	clauses, err := parseRelations(p.Provides)
	if err != nil {
		return nil, fmt.Errorf("cannot read Provides of %s %s: %w", p.Name, p.Version, err)
	}
	var provides []relation
	for _, clause := range clauses {
		for _, r := range clause {
			if r.op == "" || r.op == "=" {
				provides = append(provides, r)
			}
		}
	}
	return provides, nil
}

// holds tells whether one alternative is there, or, of Conflicts and Breaks, none.
func (s system) holds(p *Package, clause []relation, negative bool) bool {
	for _, r := range clause {
		for _, o := range s.offers[r.name] {
			if negative && s.hits(p, r, o) {
				return false
			}
			if !negative && r.means(o) && s.fits(p, r, o) {
				return true
			}
		}
	}
	return negative
}

// means: a name that is provided without a version meets no clause with one.
func (r relation) means(o offer) bool { return (r.op == "" || o.version != "") && r.allows(o.version) }

// hits tells whether a Conflicts or Breaks of p means the offer; none means p itself.
func (s system) hits(p *Package, r relation, o offer) bool {
	return r.means(o) && o.by.Name != p.Name && (r.arch == "" || r.arch == "any" || s.plain(r.arch) == s.plain(o.arch))
}

// fits is deparchsatisfied of lib/dpkg/depcon.c.
func (s system) fits(p *Package, r relation, o offer) bool {
	switch r.arch {
	case "":
		return o.by.MultiArch == "foreign" || s.plain(p.Architecture) == s.plain(o.arch)
	case "any":
		return o.by.MultiArch == "allowed"
	}
	return s.plain(r.arch) == s.plain(o.arch)
}

// plain names the architecture that "all" stands for.
func (s system) plain(arch string) string {
	if arch == "all" || arch == "" {
		return s.native
	}
	return arch
}
