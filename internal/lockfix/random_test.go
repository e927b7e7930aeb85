package lockfix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// disturbed is one run, disturbed at its n-th call of dpkg, restart or look at a container's files: killed there as by a power cut, told to stop, or the
// call fails.
func (w *world) disturbed(kind string, n int, half bool, o Options, set Set, f *files) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	count := 0
	copied := w.t.TempDir()
	var boxes map[string]box
	w.fail = func(call string) error {
		if count++; count != n {
			return nil
		}
		switch kind {
		case "kill":
			// The other containers are worked on meanwhile. The state goes last: no step may lack its line in the journal.
			for name := range w.boxes {
				w.copyTree(filepath.Join(w.dir, name), copied)
			}
			w.copyTree(w.job().dir, copied)
			boxes = map[string]box{}
			for name, b := range w.boxes {
				boxes[name] = *b
			}
			name, _, _ := strings.Cut(call, ":")
			if half && strings.Contains(call, "--install") {
				b := &box{root: filepath.Join(copied, name)}
				w.must(b.edit("qemu-utils", func(s string) string {
					return strings.NewReplacer("Status: install ok installed", "Status: install reinstreq half-installed", "Status: hold ok installed", "Status: install reinstreq half-installed").Replace(s)
				}))
			}
		case "stop":
			stop()
		case "fail":
			return errors.New("broken")
		}
		return nil
	}
	w.open = func(name string) error { return w.fail(name + ": look") }
	_, err := w.job().run(ctx, o, ansible.Call{}, set, f, Result{})
	w.fail, w.open = nil, nil
	if err != nil && strings.Contains(err.Error(), "internal error") {
		w.t.Error(err)
	}
	if boxes == nil {
		return
	}
	entries, err := os.ReadDir(w.dir)
	w.must(err)
	for _, e := range entries {
		w.must(os.RemoveAll(filepath.Join(w.dir, e.Name())))
	}
	w.copyTree(copied+"/.", w.dir)
	for name, b := range boxes {
		*w.boxes[name] = b
	}
}

// copyTree copies what stays there meanwhile.
func (w *world) copyTree(from, to string) {
	w.t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil && !strings.Contains(string(out), "No such file") {
		w.t.Errorf("%v: %s", err, out)
	}
}

// Any sequence of runs, each disturbed at random, in containers of which some get sick: then one that is not makes the host whole, whatever it is asked for, and
// state: absent brings back exactly what was there.
func TestRandomRunsEndInAWholeHost(t *testing.T) {
	sequences := 15
	if text := os.Getenv("NFSLOCK_RANDOM_SEQUENCES"); text != "" {
		sequences, _ = strconv.Atoi(text)
	}
	first := rand.Uint64()
	if text := os.Getenv("NFSLOCK_RANDOM_SEED"); text != "" {
		first, _ = strconv.ParseUint(text, 10, 64)
	}
	for seed := first; seed < first+uint64(sequences); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t)
			k := allKinds[r.IntN(len(allKinds))]
			set1, f1 := setOf(t, k, []string{"+nfslock1", "+site1"}[r.IntN(2)], tools(stock), blockExtra(stock))
			set2, f2 := setOf(t, allKinds[r.IntN(len(allKinds))], "+ours2", blockExtra(stock), tools(stock))
			names := []string{"nova_libvirt", "cinder_api", "cinder_volume"}
			for _, name := range names {
				w.add(name, tools(stock), blockExtra(stock))
			}
			w.must(os.WriteFile(filepath.Join(w.boxes["cinder_api"].root, preload.List), []byte("/usr/lib/other.so\n"), 0o644))
			w.must(w.boxes["cinder_volume"].hold("qemu-utils"))
			before := w.snapshot()
			var told []string
			for range 1 + r.IntN(4) {
				o, set, f := options(), set1, f1
				what := "present"
				switch r.IntN(6) {
				case 0:
					o.State, set, f, what = Absent, Set{}, nil, "absent"
				case 1:
					set, f, what = set2, f2, "second"
				case 2, 3:
					o, set, f, what = libraryOptions(), Set{}, nil, "library"
				case 4:
					o, set, f, what = withoutLibrary(), Set{}, nil, "without the library"
				}
				if r.IntN(3) == 0 {
					o.Containers = []string{names[r.IntN(3)]}
				}
				if r.IntN(4) == 0 {
					o.OnError = OnErrorKeep
				}
				o.Hold = r.IntN(4) > 0
				o.Restart = []string{RestartAuto, RestartAlways, RestartNever}[r.IntN(3)]
				asleep := ""
				if r.IntN(5) == 0 {
					asleep = names[r.IntN(3)]
					w.boxes[asleep].State = "paused"
				}
				if r.IntN(4) == 0 {
					sick := names[r.IntN(3)]
					w.boxes[sick].faults = []faults{{hook: true}, {fixed: "usr/bin/qemu-img"}, {fixed: blockFile}, {half: true}, {records: true}}[r.IntN(5)]
					told = append(told, fmt.Sprintf("%s gets sick: %+v", sick, w.boxes[sick].faults))
				}
				kind, n, half := []string{"kill", "kill", "stop", "fail", "nothing"}[r.IntN(5)], 1+r.IntN(24), r.IntN(2) == 0
				told = append(told, what+" "+strings.Join(o.Containers, ",")+" "+o.OnError+" hold "+strconv.FormatBool(o.Hold)+" "+kind+" "+strconv.Itoa(n)+" half "+strconv.FormatBool(half)+" paused "+asleep)
				w.disturbed(kind, n, half, o, set, f)
				if asleep != "" {
					w.boxes[asleep].State = "running"
				}
				for _, name := range names {
					if r.IntN(2) == 0 {
						w.boxes[name].faults = faults{}
					}
				}
				if r.IntN(6) == 0 {
					name := names[r.IntN(2)]
					told = append(told, "recreate "+name)
					w.must(os.RemoveAll(w.boxes[name].root))
					id := "r" + strconv.Itoa(len(told))
					w.add(name, tools(stock), blockExtra(stock)).ID = id
					if name == "cinder_api" {
						w.must(os.WriteFile(filepath.Join(w.boxes[name].root, preload.List), []byte("/usr/lib/other.so\n"), 0o644))
					}
				}
			}
			for _, name := range names {
				w.boxes[name].faults = faults{}
			}
			defer func() {
				if t.Failed() {
					t.Logf("seed %d:\n%s", seed, strings.Join(told, "\n"))
				}
			}()
			if r.IntN(3) == 0 {
				if run, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil {
					t.Fatalf("library: %v, %+v", err, run)
				}
				for _, name := range names {
					if w.state(name) != preloaded.Installed {
						t.Errorf("the library in %s is %s", name, w.state(name))
					}
				}
				if again, err := w.run(libraryOptions(), ansible.Call{}, Set{}, nil); err != nil || again.Changed || len(again.Warnings) > 0 {
					t.Errorf("library again: %v, %+v", err, again)
				}
			}
			if r.IntN(2) == 0 {
				if _, err := w.run(options(), ansible.Call{}, set1, f1); err != nil {
					t.Fatalf("present: %v", err)
				}
				for _, name := range names {
					if want := stock + " rebuilt, " + set1.Suffix; !strings.HasSuffix(w.program(name), "\x00"+want) {
						t.Errorf("%s has %s", name, w.program(name))
					}
				}
				if again, err := w.run(options(), ansible.Call{}, set1, f1); err != nil || again.Changed || len(again.Warnings) > 0 {
					t.Errorf("present again: %v, %+v", err, again)
				}
			}
			back := options()
			back.State = Absent
			if _, err := w.run(back, ansible.Call{}, Set{}, nil); err != nil {
				t.Fatalf("absent: %v", err)
			}
			if diff := cmp.Diff(before, w.snapshot()); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
			left, err := os.ReadDir(filepath.Join(w.job().dir, "journal"))
			if err == nil && slices.ContainsFunc(left, func(e os.DirEntry) bool { return !strings.HasSuffix(e.Name(), damagedSuffix) }) {
				t.Errorf("left in the journal's folder: %v", left)
			}
		})
	}
}
