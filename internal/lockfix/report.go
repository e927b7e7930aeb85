package lockfix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// report makes the result of what was planned and of what came of it.
func report(o Options, call ansible.Call, all []*work, guests []Stale, result Result) (Result, error) {
	for _, w := range all {
		row := w.row(call.CheckMode)
		if kolla.RunsGuests(row.Name) {
			row.StaleQEMU = append(row.StaleQEMU, guests...)
		}
		result.Containers = append(result.Containers, row)
		planned := len(w.plan.Steps) > 0
		result.Changed = result.Changed || planned && (call.CheckMode || row.changed())
	}
	if call.Diff {
		result.Diff = difference(all, result.Containers)
	}
	if err := failures(result.Containers); err != nil {
		return result, err
	}
	result.Msg = summary(result.Containers, call.CheckMode)
	return result, nil
}

// changed: what was rolled back is as it was, but the host was worked on, and a restart is felt.
func (r Row) changed() bool { return r.Status == Patched || r.Status == Restored || r.Restarted }

func (w *work) row(check bool) Row {
	s := w.seen
	row := w.rows
	row.Name, row.ID, row.Image, row.Architecture = s.Name, s.ID, s.Image, s.Architecture
	row.Distribution = strings.TrimSpace(s.Distribution.ID + " " + s.Distribution.Release)
	row.Status, row.Packages, row.StaleQEMU = w.plan.Status, slices.Clone(w.plan.Changes), []Stale{}
	if row.Packages == nil {
		row.Packages = []Change{}
	}
	_, restart := w.step(Restart)
	switch {
	case w.plan.Failure != nil:
		row.Error = w.plan.Failure
	case w.err != nil:
		row.Status, row.Error = Failed, w.failure()
		if w.back {
			row.Status = RolledBack
		}
	case w.back:
		row.Status = RolledBack
	case check:
		row.Restarted = restart
	}
	if !check || row.Status == Failed {
		w.measure(row.Packages)
	}
	return row
}

// measure replaces the planned versions by what dpkg's database says now.
func (w *work) measure(changes []Change) {
	for i := range changes {
		if have, ok := w.seen.find(changes[i].Name); ok {
			changes[i].After = describe(have)
		} else {
			changes[i].After = ""
		}
	}
}

func summary(rows []Row, check bool) string {
	count := map[Status]int{}
	for _, r := range rows {
		count[r.Status]++
	}
	var parts []string
	for _, s := range []Status{Patched, Restored, Unchanged, Skipped} {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	text := strings.Join(parts, ", ")
	if check {
		text = "would be: " + text
	}
	return text
}

// difference shows, per container and package, versions and holds before and after, and what is restarted.
func difference(all []*work, rows []Row) []ansible.Diff {
	var diffs []ansible.Diff
	for i, w := range all {
		var before, after strings.Builder
		for _, c := range rows[i].Packages {
			held := w.held(c.Name)
			fmt.Fprintf(&before, "%s %s%s\n", c.Name, c.Before, mark(held))
			fmt.Fprintf(&after, "%s %s%s\n", c.Name, c.After, mark(w.willBeHeld(c.Name, held)))
		}
		if rows[i].Restarted {
			after.WriteString("restarted\n")
		}
		if before.String() != after.String() {
			name := rows[i].Name
			diffs = append(diffs, ansible.Diff{Before: before.String(), After: after.String(), BeforeHeader: name + " (packages)", AfterHeader: name + " (packages)"})
		}
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

func (w *work) willBeHeld(name string, held bool) bool {
	if s, ok := w.step(Hold); ok && slices.Contains(s.Packages, name) {
		return !w.back && w.err == nil
	}
	if s, ok := w.step(Unhold); ok && slices.Contains(s.Packages, name) {
		return w.err != nil
	}
	return held
}
