package deb

import (
	"fmt"
	"slices"
	"strings"
)

// relation is one alternative of a dependency: deb-control(5).
type relation struct{ name, arch, op, version string }

// parseRelations splits a field into clauses, each of which is met by any of its alternatives. Restrictions to
// architectures and build profiles do not occur in binary packages.
func parseRelations(field string) ([][]relation, error) {
	var clauses [][]relation
	for text := range strings.SplitSeq(field, ",") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		var clause []relation
		for alternative := range strings.SplitSeq(text, "|") {
			r, err := parseRelation(strings.TrimSpace(alternative))
			if err != nil {
				return nil, err
			}
			clause = append(clause, r)
		}
		clauses = append(clauses, clause)
	}
	return clauses, nil
}

func parseRelation(text string) (r relation, err error) {
	name, rest, versioned := strings.Cut(text, "(")
	r.name, r.arch, _ = strings.Cut(strings.TrimSpace(name), ":")
	if r.name == "" || strings.ContainsAny(r.name, " \t") {
		return r, fmt.Errorf("no dependency: %.80q", text)
	}
	if !versioned {
		return r, nil
	}
	rest, closed := strings.CutSuffix(strings.TrimSpace(rest), ")")
	rest = strings.TrimSpace(rest)
	end := strings.IndexFunc(rest, func(c rune) bool { return !strings.ContainsRune("<>=", c) })
	if !closed || end < 1 {
		return r, fmt.Errorf("no dependency: %.80q", text)
	}
	r.op, r.version = rest[:end], strings.TrimSpace(rest[end:])
	switch r.op {
	case "<": // as dpkg still reads the two old forms
		r.op = "<="
	case ">":
		r.op = ">="
	case "<<", "<=", "=", ">=", ">>":
	default:
		return r, fmt.Errorf("no dependency: %.80q", text)
	}
	return r, nil
}

func (r relation) String() string {
	text := r.name
	if r.arch != "" {
		text += ":" + r.arch
	}
	if r.op != "" {
		text += " (" + r.op + " " + r.version + ")"
	}
	return text
}

// allows tells whether that version fits. A version that cannot be read fits nothing.
func (r relation) allows(version string) bool {
	if r.op == "" {
		return true
	}
	d, err := CompareVersions(version, r.version)
	if err != nil {
		return false
	}
	switch r.op {
	case "<<":
		return d < 0
	case "<=":
		return d <= 0
	case "=":
		return d == 0
	case ">=":
		return d >= 0
	}
	return d > 0
}

// offer is a package, or a name that one provides; a name provided without a version meets only what asks for none.
type offer struct {
	by        *Package
	version   string
	versioned bool
}

type world map[string][]offer

func newWorld(packages []Package) (world, error) {
	w := world{}
	for i := range packages {
		p := &packages[i]
		if !unpacked(*p) {
			continue
		}
		w[p.Name] = append(w[p.Name], offer{p, p.Version, true})
		provides, err := parseRelations(p.Provides)
		if err != nil {
			return nil, fmt.Errorf("%s: Provides: %w", p.Name, err)
		}
		for _, clause := range provides {
			w[clause[0].name] = append(w[clause[0].name], offer{p, clause[0].version, clause[0].op == "="})
		}
	}
	return w, nil
}

// unpacked: its files are there, so it counts for others' dependencies. A .deb that is to be installed has no state.
func unpacked(p Package) bool {
	switch p.Status.State {
	case "not-installed", "config-files", "half-installed":
		return false
	}
	return true
}

func (w world) meets(who *Package, clause []relation) bool {
	return slices.ContainsFunc(clause, func(r relation) bool {
		return slices.ContainsFunc(w[r.name], func(o offer) bool {
			return o.fits(who, r)
		})
	})
}

func (o offer) fits(who *Package, r relation) bool {
	if r.op != "" && !o.versioned || !r.allows(o.version) {
		return false
	}
	a := o.by.Architecture
	return r.arch != "" || a == who.Architecture || a == "all" || who.Architecture == "all" || o.by.MultiArch == "foreign"
}

// hit tells whether a package that who conflicts with is there; a package never conflicts with itself.
func (w world) hit(who *Package, r relation) bool {
	return slices.ContainsFunc(w[r.name], func(o offer) bool {
		return o.by.Name != who.Name && (r.op == "" || o.versioned) && r.allows(o.version)
	})
}

// Unmet is a relation that holds no longer.
type Unmet struct {
	Package, Version string // whose
	Field, Clause    string // "Depends", "qemu-system-common (= 1:10.0)"
}

func (u Unmet) String() string {
	return fmt.Sprintf("%s %s %s %s", u.Package, u.Version, u.Field, u.Clause)
}

// NewlyUnmet computes what dpkg does not refuse: the relations of every installed package that hold among before and no longer once
// the packages of replace took the place of those of the same name. Each result breaks apt.
func NewlyUnmet(before, replace []Package) ([]Unmet, error) {
	after := slices.Clone(before)
	var touched []string // names whose meaning may change
	for _, r := range replace {
		i := slices.IndexFunc(after, func(p Package) bool { return p.Name == r.Name && p.Architecture == r.Architecture })
		if i < 0 {
			after = append(after, r)
		} else {
			touched = append(touched, provided(after[i])...)
			after[i] = r
		}
		touched = append(touched, provided(r)...)
	}
	old, err := newWorld(before)
	if err != nil {
		return nil, err
	}
	now, err := newWorld(after)
	if err != nil {
		return nil, err
	}
	var unmet []Unmet
	for i := range after {
		p := &after[i]
		if !unpacked(*p) {
			continue
		}
		isNew := i >= len(before) || before[i].Version != p.Version || before[i].Status != p.Status
		found, err := p.broken(old, now, isNew, touched)
		if err != nil {
			return nil, err
		}
		unmet = append(unmet, found...)
	}
	return unmet, nil
}

// provided are the names by which other packages may mean this one.
func provided(p Package) []string {
	list := []string{p.Name}
	for text := range strings.SplitSeq(p.Provides, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(text), " ")
		if name != "" {
			list = append(list, name)
		}
	}
	return list
}

func (p *Package) broken(old, now world, isNew bool, touched []string) (unmet []Unmet, err error) {
	for _, f := range []struct {
		name, text string
		negative   bool
	}{{"Pre-Depends", p.PreDepends, false}, {"Depends", p.Depends, false}, {"Conflicts", p.Conflicts, true}, {"Breaks", p.Breaks, true}} {
		if f.text == "" || !isNew && !slices.ContainsFunc(touched, func(name string) bool { return strings.Contains(f.text, name) }) {
			continue
		}
		clauses, err := parseRelations(f.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", p.Name, f.name, err)
		}
		for _, clause := range clauses {
			holds := func(w world) bool {
				if f.negative {
					return !w.hit(p, clause[0])
				}
				return w.meets(p, clause)
			}
			// What a new package asks for must be there; an installed one may have been broken before.
			if !holds(now) && (isNew || holds(old)) {
				unmet = append(unmet, Unmet{p.Name, p.Version, f.name, clauseText(clause)})
			}
		}
	}
	return unmet, nil
}

func clauseText(clause []relation) string {
	var parts []string
	for _, r := range clause {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, " | ")
}
