package deb

import (
	"fmt"
	"slices"
	"strings"
)

// blocked is a clause for which dpkg does not unpack or not configure a package, whether or not it held before.
type blocked struct {
	pkg string // of the packages to be installed
	Unmet
	cause string // "libssh-4 is half-configured"; "" where nothing is there at all
}

// findBlocked asks of the packages to be installed what dpkg asks when it unpacks and when it configures them: src/main/packages.c,
// dependencies_ok and breakses_ok, and src/main/archives.c, check_conflict and check_breaks. Unlike apt it wants what they depend on configured. What it
// would remove another package for is blocked too.
func findBlocked(before, replace []Package, s Settings) ([]blocked, error) {
	places, now := exchange(pointers(before), pointers(replace))
	names, err := touchedNames(places)
	if err != nil {
		return nil, err
	}
	incoming := func(p *Package) bool { return places[p] != nil }
	type question struct {
		p      *Package
		field  relationField
		clause []relation
	}
	var questions []question
	meant := map[string]bool{}
	for _, p := range now {
		if !p.present() {
			continue
		}
		for _, field := range relationFields {
			text := field.of(p)
			if text == "" || !incoming(p) && (!field.negative || !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(text, name) })) {
				continue
			}
			clauses, err := field.parse(p)
			if err != nil {
				return nil, err
			}
			for _, clause := range clauses {
				questions = append(questions, question{p, field, clause})
				for _, r := range clause {
					meant[r.name] = true
				}
			}
		}
	}
	there, err := newSystem(now, nativeArchitecture(now), meant)
	if err != nil {
		return nil, err
	}
	var found []blocked
	for _, q := range questions {
		b := blocked{pkg: q.p.Name, Unmet: Unmet{q.p.Name, q.p.Version, q.field.name, clauseString(q.clause)}}
		if q.field.negative {
			o := there.against(q.p, q.clause, func(o offer) bool { return s.minds(q.field.name, q.p, o.by, incoming) })
			if o == nil {
				continue
			}
			b.cause = o.Name + " " + o.Version + " is there"
			if incoming(o) {
				b.cause = o.Name + " " + o.Version + " would be there"
			}
			if !incoming(q.p) {
				b.pkg = o.Name
			}
		} else {
			holds, cause := there.ready(q.p, q.clause, s, incoming)
			if holds {
				continue
			}
			b.cause = cause
		}
		found = append(found, b)
	}
	return found, nil
}

// ready tells whether one alternative is there and configured, or would be with the packages to be installed. Else cause says what is with the
// one that comes nearest.
func (s system) ready(p *Package, clause []relation, settings Settings, incoming func(*Package) bool) (holds bool, cause string) {
	if settings.forces("depends") {
		return true, ""
	}
	for _, r := range clause {
		if slices.Contains(settings.ignored, r.name) {
			return true, ""
		}
		for _, o := range s.offers[r.name] {
			if !s.fits(p, r, o) {
				continue
			}
			if !r.means(o) && !settings.forces("depends-version") {
				if cause == "" {
					cause = fmt.Sprintf("%s is %s", o.by.Name, o.by.Version)
				}
				continue
			}
			switch state := o.by.Status.State; {
			case incoming(o.by), slices.Contains(settings.ignored, o.by.Name):
				return true, ""
			case state == "installed", state == "triggers-pending", state == "triggers-awaited":
				return true, ""
			case state == "unpacked" && settings.forces("configure-any") && o.by.Status.Want != "hold":
				return true, ""
			default:
				cause = o.by.Name + " is " + state
			}
		}
	}
	return false, cause
}

// minds tells whether dpkg stops at a Conflicts or Breaks of p that means other. Two packages that stay as they are it does not ask.
func (s Settings) minds(field string, p, other *Package, incoming func(*Package) bool) bool {
	if !incoming(p) && !incoming(other) {
		return false
	}
	if field == "Conflicts" {
		return !s.forces("conflicts")
	}
	if s.forces("breaks") || slices.Contains(s.ignored, p.Name) || slices.Contains(s.ignored, other.Name) {
		return false
	}
	// It may break what is not configured. That shows when it is to be configured.
	return incoming(other) || slices.Contains([]string{"installed", "triggers-pending", "triggers-awaited"}, other.Status.State)
}

// against finds the package that a Conflicts or Breaks of p means.
func (s system) against(p *Package, clause []relation, minds func(offer) bool) *Package {
	for _, r := range clause {
		for _, o := range s.offers[r.name] {
			if s.hits(p, r, o) && minds(o) {
				return o.by
			}
		}
	}
	return nil
}
