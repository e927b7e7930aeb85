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
	after := exchange(before, replace)
	native := nativeArchitecture(after)
	old, err := newSystem(before, native)
	if err != nil {
		return nil, err
	}
	now, err := newSystem(after, native)
	if err != nil {
		return nil, err
	}
	touched, err := touchedNames(before, replace)
	if err != nil {
		return nil, err
	}
	var unmet []Unmet
	for i := range after {
		p := &after[i]
		if !p.present() {
			continue
		}
		former := p // the instance whose place it took
		if isNew := slices.Contains(replace, *p); isNew {
			former = &Package{}
			for i := range before {
				if samePlace(before[i], *p) && before[i].present() {
					former = &before[i]
				}
			}
		}
		for _, field := range relationFields {
			text := field.of(p)
			if former == p && !slices.ContainsFunc(touched, func(name string) bool { return strings.Contains(text, name) }) {
				continue
			}
			clauses, err := parseRelations(text)
			if err != nil {
				return nil, fmt.Errorf("cannot read %s of %s %s: %w", field.name, p.Name, p.Version, err)
			}
			formerClauses, err := parseRelations(field.of(former))
			if err != nil {
				return nil, fmt.Errorf("cannot read %s of %s %s: %w", field.name, former.Name, former.Version, err)
			}
			for _, clause := range clauses {
				if now.holds(p, clause, field.negative) {
					continue
				}
				wasThere := slices.ContainsFunc(formerClauses, func(f []relation) bool { return slices.Equal(f, clause) })
				if !wasThere || old.holds(former, clause, field.negative) {
					unmet = append(unmet, Unmet{p.Name, p.Version, field.name, clauseString(clause)})
				}
			}
		}
	}
	return unmet, nil
}

var relationFields = []struct {
	name     string
	of       func(*Package) string
	negative bool
}{
	{"Pre-Depends", func(p *Package) string { return p.PreDepends }, false},
	{"Depends", func(p *Package) string { return p.Depends }, false},
	{"Conflicts", func(p *Package) string { return p.Conflicts }, true},
	{"Breaks", func(p *Package) string { return p.Breaks }, true},
}

// exchange puts each package of replace into the place of the one that dpkg would remove for it.
func exchange(before, replace []Package) []Package {
	after := slices.Clone(before)
	for _, p := range replace {
		place := slices.IndexFunc(after, func(q Package) bool { return samePlace(q, p) })
		if place < 0 {
			after = append(after, p)
			continue
		}
		after[place] = p
		rest := slices.DeleteFunc(after[place+1:], func(q Package) bool { return samePlace(q, p) })
		after = after[:place+1+len(rest)]
	}
	return after
}

// samePlace: only packages that are both Multi-Arch: same can be there for several architectures.
func samePlace(a, b Package) bool {
	return a.Name == b.Name && (a.Architecture == b.Architecture || a.MultiArch != "same" || b.MultiArch != "same")
}

// nativeArchitecture is that of dpkg itself, which is always there; lists made by hand have that of the first package.
func nativeArchitecture(packages []Package) string {
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

// touchedNames are all by which a clause can mean a package of replace, or one that it takes the place of.
func touchedNames(before, replace []Package) ([]string, error) {
	var names []string
	for _, p := range append(slices.Clone(before), replace...) {
		if !slices.ContainsFunc(replace, func(r Package) bool { return samePlace(p, r) }) {
			continue
		}
		provides, err := parseProvides(&p)
		if err != nil {
			return nil, err
		}
		names = append(names, p.Name)
		for _, r := range provides {
			names = append(names, r.name)
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

func newSystem(packages []Package, native string) (system, error) {
	s := system{native, make(map[string][]offer, 2*len(packages))}
	for i := range packages {
		p := &packages[i]
		if !p.present() {
			continue
		}
		s.offers[p.Name] = append(s.offers[p.Name], offer{p, p.Architecture, p.Version})
		provides, err := parseProvides(p)
		if err != nil {
			return system{}, err
		}
		for _, r := range provides {
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
			if r.op != "" && o.version == "" || !r.allows(o.version) {
				continue
			}
			if negative && o.by.Name != p.Name && (r.arch == "" || r.arch == "any" || s.plain(r.arch) == s.plain(o.arch)) {
				return false
			}
			if !negative && s.fits(p, r, o) {
				return true
			}
		}
	}
	return negative
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
