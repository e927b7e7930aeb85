package lockfix

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// report makes the result of what was planned and of what came of it.
func (j *job) report(call ansible.Call, all []*work, guests []Stale, result Result) (Result, error) {
	for _, w := range all {
		row := w.row(call.CheckMode, j.baseline(w.seen.Name))
		if kolla.RunsGuests(row.Name) {
			row.StaleQEMU = append(row.StaleQEMU, guests...)
		}
		result.Containers = append(result.Containers, row)
		result.Changed = result.Changed || w.changes(call.CheckMode)
	}
	result.KeptBytes = keptBytes(j.dir)
	if call.Diff {
		result.Diff = difference(call, all, result.Containers)
	}
	if err := failures(result.Containers); err != nil {
		return result, err
	}
	result.Msg = summary(result.Containers, call.CheckMode)
	return result, nil
}

// changes: something is other than it was, or was felt, as a restart is.
func (w *work) changes(check bool) bool {
	switch {
	case check || w.done || w.plan.Back && w.rolledBack:
		return len(w.plan.Steps) > 0
	case w.rolledBack:
		return w.restarted || w.plan.Seen.Dead != nil
	case !w.begun:
		return false
	}
	return true // it failed half way
}

func (w *work) row(check bool, baseline string) Row {
	s := w.seen
	row := Row{
		Name: s.Name, ID: s.ID, Image: s.Image, Architecture: s.Architecture,
		Distribution: strings.TrimSpace(s.Distribution.ID + " " + s.Distribution.Release),
		Status:       w.plan.Status, Reason: w.plan.reason(), Packages: append([]Change{}, w.plan.Changes...), StaleQEMU: []Stale{}, Restarted: w.restarted,
		Library: w.plan.libraryRow(check, s.Library),
		Error:   w.plan.Failure,
	}
	if check {
		_, row.Restarted = w.step(Restart)
		return row
	}
	if f := w.failure(baseline); f != nil {
		row.Status, row.Error = Failed, f
	} else if !w.done && len(w.plan.Steps) > 0 {
		row.Status = Unchanged // another one failed before this one was begun
	}
	if w.rolledBack {
		row.Status = RolledBack
	}
	for i := range row.Packages {
		have, _ := s.find(row.Packages[i].Name)
		row.Packages[i].After = describe(have)
	}
	return row
}

// reason is for rows that are skipped.
func (p *ContainerPlan) reason() string {
	switch {
	case p.Status != Skipped:
		return ""
	case p.Stays != "":
		return p.Stays
	}
	return cmp.Or(p.Reason, "it has none of the packages")
}

func summary(rows []Row, check bool) string {
	count := map[Status]int{}
	for _, r := range rows {
		count[r.Status]++
	}
	var parts []string
	for _, s := range []Status{Patched, Restored, RolledBack, Unchanged, Skipped} {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], strings.ReplaceAll(string(s), "_", " ")))
		}
	}
	text := strings.Join(parts, ", ")
	if check {
		text = "would be: " + text
	}
	return text
}

// difference shows, per container and package, versions and holds before and after, why a package is installed again in
// the same version, and what is restarted.
func difference(call ansible.Call, all []*work, rows []Row) []ansible.Diff {
	var diffs []ansible.Diff
	add := func(header, before, after string) {
		if before != after {
			diffs = append(diffs, ansible.Diff{Before: before, After: after, BeforeHeader: header, AfterHeader: header})
		}
	}
	for i, w := range all {
		var before, after strings.Builder
		for _, c := range rows[i].Packages {
			held := w.held(c.Name)
			fmt.Fprintf(&before, "%s %s%s", c.Name, c.Before, mark(held))
			if reason := w.plan.Reasons[c.Name]; c.Before == c.After && reason != "" {
				fmt.Fprintf(&before, ": %s", reason)
			}
			before.WriteString("\n")
			fmt.Fprintf(&after, "%s %s%s\n", c.Name, c.After, mark(w.willBeHeld(c.Name, held)))
		}
		library, libraryAfter := describeFiles(w.plan.Seen.Library.Files), describeFiles(w.plan.filesAfter(call.CheckMode, w.seen.Library))
		if rows[i].Restarted && before.String() == after.String() && library != libraryAfter {
			libraryAfter += "restarted\n"
		} else if rows[i].Restarted {
			after.WriteString("restarted\n")
		}
		add(rows[i].Name+" (packages)", before.String(), after.String())
		add(rows[i].Name+" (library)", library, libraryAfter)
	}
	return diffs
}

func mark(held bool) string {
	if held {
		return " (held)"
	}
	return ""
}

func (w *work) held(name string) bool {
	p, ok := w.plan.Seen.find(name)
	return ok && p.Status.Want == "hold"
}

// willBeHeld tells what is, once something was begun, else what the plan leads to.
func (w *work) willBeHeld(name string, held bool) bool {
	if w.begun {
		p, ok := w.seen.find(name)
		return ok && p.Status.Want == "hold"
	}
	if s, ok := w.step(Hold); ok && slices.Contains(s.Packages, name) {
		return true
	}
	if s, ok := w.step(Unhold); ok && slices.Contains(s.Packages, name) {
		return false
	}
	return held
}
