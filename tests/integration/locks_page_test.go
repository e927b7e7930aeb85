//go:build lab

package integration

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// lockPage is the page with what was measured; its tables stand after the mark.
const (
	lockPage  = "../../docs/locks.md"
	tableMark = "<!-- From here on the page is written by tests/integration, TestImageLocks -update. -->\n"
)

// comparePage compares the page's tables with what was measured, or rewrites them. What this run left out is taken from the page.
func (m *matrix) comparePage(measured table) {
	head, tables := m.readPage()
	whole := parseTables(tables)
	for at, result := range measured {
		whole[at] = result
	}
	want := whole.page()
	if *update {
		m.check(os.WriteFile(lockPage, []byte(head+tableMark+want), 0o644))
		return
	}
	if diff := cmp.Diff(tables, want); diff != "" {
		m.t.Errorf("%s is not what was measured (-page +measured):\n%s", lockPage, diff)
	}
}

func (m *matrix) readPage() (head, tables string) {
	data, err := os.ReadFile(lockPage)
	m.check(err)
	head, tables, found := strings.Cut(string(data), tableMark)
	if !found {
		m.t.Fatalf("%s has no line %q", lockPage, tableMark)
	}
	return head, tables
}

// page is what the page's tables say.
func (m *matrix) page() table {
	_, tables := m.readPage()
	return parseTables(tables)
}

// rows of a build's table, in order.
func rows(variant string) (titles []string) {
	for _, o := range operations {
		titles = append(titles, o.title)
	}
	for _, p := range pairs {
		if p.holder == variant {
			continue
		}
		if p.titleOpen != "" {
			titles = append(titles, p.titleOpen, p.titleLocks)
		}
		titles = append(titles, p.title)
	}
	return titles
}

// page writes the tables.
func (t table) page() string {
	var b strings.Builder
	for _, v := range []string{stock, disableOFD, fallback, library} {
		fmt.Fprintf(&b, "\n### %s\n\n|", v)
		for _, s := range lockStates {
			fmt.Fprintf(&b, " | %s", s.title)
		}
		fmt.Fprintf(&b, " |\n|%s\n", strings.Repeat("---|", len(lockStates)+1))
		for _, row := range rows(v) {
			fmt.Fprintf(&b, "| %s |", row)
			for _, s := range lockStates {
				fmt.Fprintf(&b, " %s |", t[place{v, row, s.title}])
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// parseTables is the way back from page.
func parseTables(text string) table {
	t := table{}
	variant := ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			variant = strings.TrimSpace(name)
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != len(lockStates)+3 || strings.HasPrefix(line, "|-") || strings.HasPrefix(line, "| |") {
			continue
		}
		for i, s := range lockStates {
			t[place{variant, strings.TrimSpace(cells[1]), s.title}] = strings.TrimSpace(cells[i+2])
		}
	}
	return t
}
