package lockprobe

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// BenchmarkTenMounts is what ten mounts cost beside their locks: a process for each, the looking around, the verdicts. Of an engine's
// answers nothing is in it. The goal is 150 ms and 40 MB for a whole run on five containers.
func BenchmarkTenMounts(b *testing.B) {
	dir := b.TempDir()
	o := Options{Timeout: 30, ConfigDir: "/nonexistent"}
	for i := range 10 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(name, 0o755); err != nil {
			b.Fatal(err)
		}
		o.Paths = append(o.Paths, name)
	}
	m := &machine{proc: "/proc", dir: dir, caller: well(), try: start}
	for b.Loop() {
		r := emptyResult()
		if err := m.run(b.Context(), o, &r); err != nil || r.Verdict != OK || len(r.Mounts) < 10 {
			b.Fatalf("%v, %s, %d mounts", err, r.Msg, len(r.Mounts))
		}
	}
	var all syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &all) == nil {
		b.ReportMetric(float64(all.Maxrss)/1024, "MB-largest-process")
	}
}
