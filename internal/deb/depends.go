package deb

import (
	"fmt"
	"strings"
)

// relation is one alternative of a clause, as in "qemu-utils:amd64 (>= 1:7.2)"; see deb-control(5).
type relation struct {
	name string
	arch string // "" if not said
	op   string // <<, <=, =, >=, >> or ""
	// version is what op compares with; Provides has op "=" or "".
	version string
}

// parseRelations reads a field: clauses, which are all to be met, of alternatives, of which one is to be met. It takes
// what dpkg takes (lib/dpkg/fields.c, f_dependency), and a comma at the end, as apt does.
func parseRelations(field string) ([][]relation, error) {
	var clauses [][]relation
	for text := range strings.SplitSeq(field, ",") {
		if strings.Trim(text, spaces) == "" {
			continue
		}
		var clause []relation
		for alternative := range strings.SplitSeq(text, "|") {
			r, err := parseRelation(strings.Trim(alternative, spaces))
			if err != nil {
				return nil, err
			}
			clause = append(clause, r)
		}
		clauses = append(clauses, clause)
	}
	return clauses, nil
}

func parseRelation(text string) (relation, error) {
	name, rest, versioned := strings.Cut(text, "(")
	name, arch, qualified := strings.Cut(strings.TrimRight(name, spaces), ":")
	if !safeName(name) || qualified && !safeName(arch) {
		return relation{}, invalidRelation(text)
	}
	r := relation{name: name, arch: arch}
	if !versioned {
		return r, nil
	}
	rest, closed := strings.CutSuffix(rest, ")")
	rest = strings.Trim(rest, spaces)
	r.version = strings.TrimLeft(rest, "<=>")
	switch r.op = rest[:len(rest)-len(r.version)]; r.op {
	case "":
		r.op = "="
	case "<", ">":
		r.op += "="
	case "<<", "<=", "=", ">=", ">>":
	default:
		return relation{}, invalidRelation(text)
	}
	r.version = strings.TrimLeft(r.version, spaces)
	if !closed || r.version == "" || strings.ContainsAny(r.version, spaces+"()") {
		return relation{}, invalidRelation(text)
	}
	return r, nil
}

func invalidRelation(text string) error {
	return fmt.Errorf("%.80q is no relation to a package", text)
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

func clauseString(clause []relation) string {
	var text []string
	for _, r := range clause {
		text = append(text, r.String())
	}
	return strings.Join(text, " | ")
}

// allows tells whether the version fits. One that cannot be compared fits only itself.
func (r relation) allows(version string) bool {
	if r.op == "" {
		return true
	}
	order, err := 0, error(nil)
	if version != r.version {
		order, err = CompareVersions(version, r.version)
	}
	if err != nil {
		return false
	}
	switch r.op {
	case "<<":
		return order < 0
	case "<=":
		return order <= 0
	case ">=":
		return order >= 0
	case ">>":
		return order > 0
	}
	return order == 0
}
