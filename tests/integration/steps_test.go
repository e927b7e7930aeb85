//go:build lab

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEveryStep kills the program at each of its steps, alone, with a restart of the containers, and with a restart of the
// engine, on the way there, on the way back, and while it rolls back. One more run has to make the host whole.
func TestEveryStep(t *testing.T) {
	l := newFaultLab(t, "nova_libvirt", "cinder_volume") // the first is restarted at the end
	scripted := l.scripted()
	for _, way := range []struct {
		name string
		args func() map[string]any // of the run that dies
		set  func()                // what there is before
		next func() map[string]any // of the run after it
		to   string
	}{
		{"present", l.present, func() {}, l.present, "new"},
		{"present, then absent", l.present, func() {}, l.absent, "old"},
		{"absent", l.absent, func() { l.well(l.present()) }, l.absent, "old"},
		{"absent, then present", l.absent, func() { l.well(l.present()) }, l.present, "new"},
		{"rollback", scripted, l.failing, l.present, "new"},
		{"rollback, then absent", scripted, l.failing, l.absent, "old"},
		{"library", l.library, func() {}, l.library, "library"},
		{"library, then absent", l.library, func() {}, l.withoutLibrary, "old"},
		{"library absent", l.withoutLibrary, func() { l.well(l.library()) }, l.withoutLibrary, "old"},
		{"library absent, then library", l.withoutLibrary, func() { l.well(l.library()) }, l.library, "library"},
	} {
		then := strings.Contains(way.name, "then")
		way.set()
		points := l.points(way.args())
		if len(points) < 10 {
			t.Fatalf("%s: only %v", way.name, points)
		}
		l.well(l.absent())
		l.whole("old")
		if strings.HasPrefix(way.name, "rollback") { // until there it is the same as present
			points = points[slices.IndexFunc(points, func(p string) bool { return strings.HasPrefix(p, "undo ") }):]
		}
		for i, point := range points {
			for k, fault := range []struct {
				name string
				make func()
			}{{"kill", func() {}}, {"container restart", l.restartContainers}, {"engine restart", l.restartEngine}} {
				if testing.Short() && (then || l.twin(point, points[:i]) || k > 0 && (way.name != "present" || k == 2 && !strings.HasPrefix(point, "unpacked"))) {
					continue // each step once, and each fault on one way
				}
				if (k > 0 || then) && l.twin(point, points[:i]) || k > 0 && then {
					continue // the same step in the other container, or the same state with another run after it
				}
				t.Run(fmt.Sprintf("%s/%s/%s", way.name, point, fault.name), func(t *testing.T) {
					outer := l.t
					l.t = t
					defer func() { l.t = outer }()
					way.set()
					if r := l.run(way.args(), "NFSLOCK_DIE_AT="+point); r != nil {
						t.Fatalf("it did not come to %q: %v", point, r["msg"])
					}
					fault.make()
					l.well(way.next())
					l.whole(way.to)
					if r := l.well(way.next()); r["changed"] != false {
						t.Errorf("the run after that changed something: %v", r["msg"])
					}
					if way.to != "old" {
						l.well(l.absent())
					}
				})
				if t.Failed() {
					return // the host is not as the next case needs it
				}
			}
		}
	}
	l.whole("old")
}

// twin: an earlier point is the same step in the other container.
func (l *faultLab) twin(point string, earlier []string) bool {
	step := func(p string) string {
		for _, c := range l.containers {
			p = strings.ReplaceAll(p, c, "")
		}
		return p
	}
	return slices.ContainsFunc(earlier, func(p string) bool { return step(p) == step(point) })
}
