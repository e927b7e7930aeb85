package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

func options(mode Mode) Options {
	return Options{State: "present", Mode: mode, Statd: true, ContainerName: "nfs_rpcbind", Timeout: 60}
}

// A state is how a host is found.
type state struct {
	name  string
	build func(w *toy)
	well  bool // a statd answers and watches the server
}

func hostRuns(w *toy) {
	w.install()
	_ = w.start(statdUnit)
	w.watched["host"] = []string{server}
	w.mark = false // as if it had been started by hand, without a notification in this boot
}

func ghostRuns(home string) func(w *toy) {
	return func(w *toy) {
		w.install()
		w.runStatd(home)
		w.watched[home] = []string{server}
		w.mark = false
	}
}

func containerRuns(w *toy) {
	if _, err := carryOut(context.Background(), w, options(InContainer), ansible.Call{}); err != nil {
		panic(err)
	}
	w.watched["ours"] = []string{server}
	w.mark = false
}

// olderRuns is as version 0.1.0 left it: from kolla's image, under a unit called as kolla's are.
func olderRuns(w *toy) {
	containerRuns(w)
	w.images, w.box.ImageID, w.box.Inherited, w.box.Spec = map[string]string{}, w.base, true, "by 0.1.0"
	now, then := ownUnit("nfs_rpcbind"), kolla.Unit("nfs_rpcbind")
	if text, ok := w.files[unitFolder+now]; ok {
		w.files[unitFolder+then], w.units[then] = text, w.units[now]
		delete(w.files, unitFolder+now)
		delete(w.units, now)
	}
}

var states = []state{
	{"nothing", func(*toy) {}, false},
	{"packages only", func(w *toy) { w.install(); w.stop(socketUnit) }, false},
	{"rpcbind without statd", func(w *toy) { w.install() }, false},
	{"right as distributed", hostRuns, true},
	{"statd dead", func(w *toy) {
		hostRuns(w)
		w.endStatds("host", false)
		w.activate(statdUnit, "failed")
	}, true},
	{"statd hangs", func(w *toy) { hostRuns(w); w.statds[0].stopped = true }, true},
	{"statd unregistered", func(w *toy) { hostRuns(w); clear(w.table) }, true},
	{"rpcbind hangs", func(w *toy) { hostRuns(w); w.rpcbind.stopped = true }, true},
	{"statd in cinder_volume", ghostRuns("cinder_volume"), true},
	{"statd by hand", ghostRuns("hand"), true},
	{"two statds", func(w *toy) {
		hostRuns(w)
		w.statds = append(w.statds, &daemon{home: "cinder_volume", pid: w.pid()})
	}, true},
	{"statd dead in cinder_volume", func(w *toy) {
		ghostRuns("cinder_volume")(w)
		w.endStatds("cinder_volume", false)
	}, true},
	{"masked", func(w *toy) {
		w.install()
		w.stop(socketUnit)
		_ = w.doUnits(Step{Verb: Mask, Names: []string{socketUnit, rpcUnit}})
	}, false},
	{"masked statd", func(w *toy) {
		w.install()
		_ = w.doUnits(Step{Verb: Mask, Names: []string{statdUnit}})
	}, false},
	{"our container", containerRuns, true},
	{"our container, statd dead", func(w *toy) { containerRuns(w); w.endStatds("ours", false) }, true},
	{"our container, rpcbind hangs", func(w *toy) { containerRuns(w); w.rpcbind.stopped = true }, true},
	{"our container, paused", func(w *toy) {
		containerRuns(w)
		w.box.State, w.rpcbind.stopped, w.statds[0].stopped = "paused", true, true
	}, true},
	{"our container, statd dead in cinder_volume", func(w *toy) { containerRuns(w); w.watched = map[string][]string{"cinder_volume": {server}} }, true},
	{"our container, removed by hand", func(w *toy) { containerRuns(w); w.stopBox(); w.box = nil }, true},
	{"our container, stopped", func(w *toy) { containerRuns(w); w.stopBox() }, true},
	{"our container, and a statd in cinder_volume", func(w *toy) {
		containerRuns(w)
		w.statds = append(w.statds, &daemon{home: "cinder_volume", pid: w.pid()})
	}, true},
	{"our container, of an older version", olderRuns, true},
	{"our container, whose image was superseded", func(w *toy) { containerRuns(w); w.base = "sha256:2" }, true},
	{"our container, with kolla's labels", func(w *toy) { w.whole = true; containerRuns(w) }, true},
	{"our container, whose image has lost its name", func(w *toy) {
		containerRuns(w)
		w.images = map[string]string{"another": w.box.ImageID}
	}, true},
	{"our container, other options", func(w *toy) { containerRuns(w); w.box.Spec = "old" }, true},
}

// TestEveryStateIsMendedWithoutHarm goes through states, modes and surroundings: the services answer where they should, exactly one statd
// runs, it watches whom its predecessor watched, no server is told of a reboot while locks are in use, and a second run changes nothing.
func TestEveryStateIsMendedWithoutHarm(t *testing.T) {
	for _, st := range states {
		for _, mode := range []Mode{OnHost, InContainer, Auto} {
			for _, inUse := range []bool{false, true} {
				for _, kollaUnits := range []bool{false, true} {
					name := fmt.Sprintf("%s/%s/in use %v/units %v", st.name, mode, inUse, kollaUnits)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { // its clock jumps where a run waits
							w := newToy()
							w.kollaUnits = kollaUnits
							st.build(w)
							w.harm, w.inUse = nil, inUse
							mend(t, w, st, options(mode))
						})
					})
				}
			}
		}
	}
}

func mend(t *testing.T, w *toy, st state, o Options) {
	before := len(w.commands)
	r, err := carryOut(t.Context(), w, o, ansible.Call{})
	defer func() {
		if t.Failed() {
			t.Logf("mode %s (%s), error %v, steps:\n%s", r.Mode, r.Reason, err, strings.Join(w.commands[before:], "\n"))
		}
	}()
	if len(w.harm) > 0 {
		t.Errorf("harm: %v", w.harm)
	}
	if err != nil {
		// The host's own rpcbind was there first: nothing may have been done.
		if o.Mode != InContainer || !strings.Contains(err.Error(), "beside rpcbind of the host") || len(w.commands) > before {
			t.Errorf("%v", err)
		}
		return
	}
	home := map[Mode]string{OnHost: "host", InContainer: "ours"}[r.Mode]
	if !r.RPCBind.Running || !r.Statd.Running || !r.RPCBind.Enabled || !r.Statd.Enabled {
		t.Errorf("rpcbind %+v, statd %+v", r.RPCBind, r.Statd)
	}
	if w.rpcbind.home != home || len(w.statds) != 1 || w.statds[0].home != home {
		t.Errorf("rpcbind in %s, %d statds, the first in %s", w.rpcbind.home, len(w.statds), w.statds[0].home)
	}
	if st.well && !slices.Contains(w.watched[home], server) {
		t.Errorf("%s no longer watches the server: %v", home, w.watched)
	}
	again, err := carryOut(t.Context(), w, o, ansible.Call{})
	if err != nil || again.Changed {
		t.Errorf("second run: changed %v, %v", again.Changed, err)
	}
	_, old := w.files[unitFolder+kolla.Unit("nfs_rpcbind")]
	if images := len(w.images); old || r.Mode == OnHost && images > 0 || r.Mode == InContainer && (images > 1 || images == 0 && !w.whole) {
		t.Errorf("the unit of versions before is there: %v; images of ours: %v", old, w.images)
	}
	warned := slices.ContainsFunc(again.Warnings, func(text string) bool { return strings.Contains(text, "kolla-ansible destroy would remove it") })
	if warned != (r.Mode == InContainer && w.whole) {
		t.Errorf("warnings: %q", again.Warnings)
	}
}

// TestAFailedStepIsMadeUpForByTheNextRun, whichever it is, without harm.
func TestAFailedStepIsMadeUpForByTheNextRun(t *testing.T) { synctest.Test(t, failAnywhere) }

func failAnywhere(t *testing.T) {
	for _, st := range states {
		for _, mode := range []Mode{OnHost, InContainer} {
			for failAt := 1; ; failAt++ {
				w := newToy()
				st.build(w)
				w.harm, w.inUse, w.stepped = nil, true, 0
				w.failAt = failAt
				_, err := carryOut(t.Context(), w, options(mode), ansible.Call{})
				if w.stepped < failAt {
					break // there are no more steps
				}
				if err == nil || !strings.Contains(err.Error(), "it was told to fail") {
					t.Errorf("%s, %s, step %d: %v", st.name, mode, failAt, err)
				}
				if mend(t, w, st, options(mode)); t.Failed() {
					t.Fatalf("%s, %s, step %d", st.name, mode, failAt)
				}
			}
		}
	}
}

// TestAbsentLeavesTheHostAsItWasFound, whatever a run did to it.
func TestAbsentLeavesTheHostAsItWasFound(t *testing.T) {
	for _, st := range states {
		if strings.HasPrefix(st.name, "our container") {
			continue // that is ours
		}
		for _, mode := range []Mode{OnHost, InContainer} {
			w, untouched := newToy(), newToy()
			st.build(w)
			st.build(untouched)
			if _, err := carryOut(t.Context(), w, options(mode), ansible.Call{}); err != nil {
				continue // a collision, tested above
			}
			o := options(mode)
			o.State = absent
			if r, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil || !r.Changed {
				t.Errorf("%s, %s: changed %v, %v", st.name, mode, r.Changed, err)
			}
			if w.installed != untouched.installed || len(w.files) > 0 || w.box != nil || w.volume || len(w.images) > 0 || !w.record.empty() {
				t.Errorf("%s, %s: left behind: installed %v, files %v, container %v, volume %v, record %+v", st.name, mode, w.installed, w.files, w.box, w.volume, w.record)
			}
			for _, name := range []string{socketUnit, rpcUnit} {
				if have, want := w.units[name], untouched.units[name]; have.File != want.File || have.Runs() != want.Runs() {
					t.Errorf("%s, %s: %s is %+v, was %+v", st.name, mode, name, have, want)
				}
			}
			if r, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil || r.Changed {
				t.Errorf("%s, %s, second time: changed %v, %v", st.name, mode, r.Changed, err)
			}
		}
	}
}

// TestTheServerHearsOfAReboot once, before guests, and from the statd that watches it; both services are back where they were.
func TestTheServerHearsOfAReboot(t *testing.T) {
	for _, st := range states {
		for _, mode := range []Mode{OnHost, InContainer} {
			for _, kollaUnits := range []bool{false, true} {
				w := newToy()
				w.kollaUnits = kollaUnits
				st.build(w)
				if _, err := carryOut(t.Context(), w, options(mode), ansible.Call{}); err != nil {
					continue // a collision, tested above
				}
				home := map[Mode]string{OnHost: "host", InContainer: "ours"}[mode]
				w.watched[home] = []string{server}
				w.harm = nil
				w.boot()
				name := fmt.Sprintf("%s, %s, units %v", st.name, mode, kollaUnits)
				if len(w.harm) > 0 || w.told != 1 {
					t.Errorf("%s: told %d times, harm %v", name, w.told, w.harm)
				}
				if w.rpcbind == nil || w.rpcbind.home != home || len(w.statds) != 1 || w.statds[0].home != home {
					t.Fatalf("%s: rpcbind %v, statds %v", name, w.rpcbind, w.statds)
				}
				if r, err := carryOut(t.Context(), w, options(mode), ansible.Call{}); err != nil || r.Changed || len(w.harm) > 0 {
					t.Errorf("%s: changed %v, %v, harm %v", name, r.Changed, err, w.harm)
				}
			}
		}
	}
}

// refusing fails at one kind of step, every time.
type refusing struct {
	*toy
	verb Verb
}

func (w *refusing) do(ctx context.Context, step Step) error {
	if step.Verb == w.verb {
		return errors.New("it refuses, every time")
	}
	return w.toy.do(ctx, step)
}

// TestWhatCannotBeTakenAwayStopsNothing: neither packages that do not go nor a mirror without them leave a host without statd, however often it
// is tried.
func TestWhatCannotBeTakenAwayStopsNothing(t *testing.T) {
	for _, test := range []struct {
		verb     Verb
		from, to Mode
		runs     string // where
	}{
		{Uninstall, OnHost, InContainer, "ours"},
		{Disable, OnHost, InContainer, "ours"},
		{Delete, OnHost, InContainer, "ours"},
		{Fetch, InContainer, OnHost, "ours"},
		{Install, InContainer, OnHost, "ours"},
	} {
		w := newToy()
		if test.from == OnHost && test.verb == Disable {
			w.install() // packages that stay
			w.stop(socketUnit)
			_ = w.doUnits(Step{Verb: Disable, Names: []string{rpcUnit}})
		}
		if _, err := carryOut(t.Context(), w, options(test.from), ansible.Call{}); err != nil {
			t.Fatal(err)
		}
		w.inUse = true
		for range 3 {
			_, err := carryOut(t.Context(), &refusing{w, test.verb}, options(test.to), ansible.Call{})
			if err == nil || !strings.Contains(err.Error(), "it refuses") {
				t.Errorf("%s: %v", test.verb, err)
			}
			if w.rpcbind == nil || w.rpcbind.home != test.runs || len(w.statds) != 1 || len(w.harm) > 0 {
				t.Fatalf("%s: rpcbind %v, %d statds, harm %v", test.verb, w.rpcbind, len(w.statds), w.harm)
			}
			if test.from == InContainer { // back to where it was
				if r, err := carryOut(t.Context(), w, options(InContainer), ansible.Call{}); err != nil || !r.Statd.Running || len(w.harm) > 0 {
					t.Errorf("%s, and back: %v, harm %v", test.verb, err, w.harm)
				}
			}
		}
		if _, err := carryOut(t.Context(), w, options(test.to), ansible.Call{}); err != nil || len(w.harm) > 0 {
			t.Errorf("%s, at last: %v, harm %v", test.verb, err, w.harm)
		}
	}
}

// TestPackagesThatOthersNeedStay, with a warning, and remain on record until nobody needs them.
func TestPackagesThatOthersNeedStay(t *testing.T) {
	w := newToy()
	if _, err := carryOut(t.Context(), w, options(OnHost), ansible.Call{}); err != nil {
		t.Fatal(err)
	}
	w.needed = true
	gone := options(InContainer)
	gone.State = absent
	for _, o := range []Options{options(InContainer), gone} {
		for i := range 2 {
			r, err := carryOut(t.Context(), w, o, ansible.Call{})
			if err != nil || r.Changed != (i == 0) || !slices.ContainsFunc(r.Warnings, func(text string) bool { return strings.HasPrefix(text, "package rpcbind stays") }) {
				t.Errorf("%s, run %d: changed %v, %v, %q", o.State, i, r.Changed, err, r.Warnings)
			}
		}
		if !slices.Contains(w.record.Packages, "rpcbind") {
			t.Errorf("%s: %+v", o.State, w.record)
		}
		// Beside the container it must not come back at boot; afterwards whoever needs the package needs it.
		if file := w.units[socketUnit].File; (file == "enabled") != (o.State == absent) {
			t.Errorf("%s: the socket is %s", o.State, file)
		}
	}
	w.needed = false
	if r, err := carryOut(t.Context(), w, gone, ansible.Call{}); err != nil || !r.Changed || w.installed || !w.record.empty() {
		t.Errorf("changed %v, %v, %+v", r.Changed, err, w.record)
	}
}

// TestWhatRanBeforeTheFirstRunGoesOn, also where a later run had to start it.
func TestWhatRanBeforeTheFirstRunGoesOn(t *testing.T) {
	w := newToy()
	w.install()
	if _, err := carryOut(t.Context(), w, options(OnHost), ansible.Call{}); err != nil {
		t.Fatal(err)
	}
	w.stop(socketUnit) // weeks later
	_ = w.doUnits(Step{Verb: Disable, Names: []string{rpcUnit}})
	o := options(OnHost)
	if _, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil {
		t.Fatal(err)
	}
	o.State = absent
	if _, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{socketUnit, rpcUnit} {
		if u := w.units[name]; !u.Runs() || u.File != "enabled" {
			t.Errorf("%s is %+v", name, u)
		}
	}
}

// TestGuestsThatComeUpMeanwhileAreSeen: packages take minutes.
func TestGuestsThatComeUpMeanwhileAreSeen(t *testing.T) {
	w := newToy()
	w.late = true
	w.watched["host"] = []string{server} // from before, when the packages were there
	if _, err := carryOut(t.Context(), w, options(OnHost), ansible.Call{}); err != nil || len(w.harm) > 0 || !w.inUse {
		t.Errorf("%v, harm %v", err, w.harm)
	}
}

// TestPackagesHaveTheirOwnTime: the steps behind them still have theirs.
func TestPackagesHaveTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{newToy()}
		if r, err := carryOut(t.Context(), w, options(OnHost), ansible.Call{}); err != nil || !r.Statd.Running {
			t.Errorf("%v", err)
		}
	})
}

type slow struct{ *toy }

func (w *slow) do(ctx context.Context, step Step) error {
	if step.Verb == Install {
		time.Sleep(5 * time.Minute)
		return w.toy.do(ctx, step)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return w.toy.do(ctx, step)
}

// TestAContainerThatSomebodyRemovedLeavesNothing: its unit starts it again and again.
func TestAContainerThatSomebodyRemovedLeavesNothing(t *testing.T) {
	unit := ownUnit("nfs_rpcbind")
	for name, o := range map[string]Options{
		"absent": {State: absent, Mode: Auto, Statd: true, ContainerName: "nfs_rpcbind", Timeout: 60},
		"host":   options(OnHost), "auto": options(Auto), "container": options(InContainer),
	} {
		w := newToy()
		w.kollaUnits = true
		containerRuns(w)
		w.stopBox()
		w.box = nil
		w.activate(unit, "activating")
		r, err := carryOut(t.Context(), w, o, ansible.Call{})
		if err != nil || len(w.harm) > 0 {
			t.Fatalf("%s: %v, harm %v", name, err, w.harm)
		}
		_, there := w.files[unitFolder+unit]
		stays := name == "auto" || name == "container"
		if there != stays || w.units[unit].Runs() != stays || (w.box != nil) != stays {
			t.Errorf("%s: file %v, unit %+v, container %v", name, there, w.units[unit], w.box)
		}
		if name == "auto" && (r.Mode != InContainer || w.installed) {
			t.Errorf("auto went over to %s (%s)", r.Mode, r.Reason)
		}
		if again, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil || again.Changed {
			t.Errorf("%s, second run: changed %v, %v", name, again.Changed, err)
		}
	}
}

func TestAbsentIsRefusedWhileInUse(t *testing.T) {
	for _, mode := range []Mode{OnHost, InContainer} {
		w := newToy()
		if _, err := carryOut(t.Context(), w, options(mode), ansible.Call{}); err != nil {
			t.Fatal(err)
		}
		w.inUse = true
		o := options(mode)
		o.State = absent
		before := len(w.commands)
		_, err := carryOut(t.Context(), w, o, ansible.Call{})
		if err == nil || !strings.Contains(err.Error(), server+":/export at /mnt") || len(w.commands) > before {
			t.Errorf("%s: %v", mode, err)
		}
		o.Force = true
		if r, err := carryOut(t.Context(), w, o, ansible.Call{}); err != nil || !r.Changed || len(w.statds) > 0 {
			t.Errorf("%s: %v, %v", mode, r, err)
		}
	}
}

// TestARunThatGetsNoAnswerFails, in time, and says where to look.
func TestARunThatGetsNoAnswerFails(t *testing.T) {
	for mode, where := range map[Mode]string{OnHost: "journalctl -b -u rpcbind.socket", InContainer: "docker logs nfs_rpcbind"} {
		synctest.Test(t, func(t *testing.T) {
			w := newToy()
			w.deaf = true
			began := time.Now()
			r, err := carryOut(t.Context(), w, options(mode), ansible.Call{})
			if err == nil || !strings.Contains(err.Error(), "rpc.statd hangs") || !strings.Contains(err.Error(), where) || !r.Changed {
				t.Errorf("%s: changed %v, %v", mode, r.Changed, err)
			}
			if took := time.Since(began); took > startLimit+30*time.Second {
				t.Errorf("%s: it took %v", mode, took)
			}
		})
	}
}

// TestNothingIsGivenUpForAnImageThatWillNotDo: neither the host's services nor a container that runs.
func TestNothingIsGivenUpForAnImageThatWillNotDo(t *testing.T) {
	for name, build := range map[string]func(w *toy){
		"host":      func(w *toy) { _, _ = carryOut(t.Context(), w, options(OnHost), ansible.Call{}) },
		"container": func(w *toy) { containerRuns(w); w.box.Spec = "old" },
	} {
		w := newToy()
		build(w)
		w.poor = true
		running := *w.statds[0]
		_, err := carryOut(t.Context(), w, options(InContainer), ansible.Call{})
		if err == nil || !strings.Contains(err.Error(), "it lacks rpc.statd") || len(w.statds) != 1 || *w.statds[0] != running {
			t.Errorf("%s: %v, %d statds", name, err, len(w.statds))
		}
	}
}

// TestARunThatIsToldToStopGoesOn: half way there would be no statd.
func TestARunThatIsToldToStopGoesOn(t *testing.T) {
	w := newToy()
	ctx, cancel := context.WithCancel(t.Context())
	stopper := &stoppedWorld{toy: w, stop: cancel}
	if r, err := carryOut(ctx, stopper, options(OnHost), ansible.Call{}); err != nil || !r.Statd.Running {
		t.Errorf("%+v, %v", r.Statd, err)
	}
}

// stoppedWorld gets the signal at the first step.
type stoppedWorld struct {
	*toy
	stop func()
}

func (w *stoppedWorld) do(ctx context.Context, step Step) error {
	w.stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return w.toy.do(ctx, step)
}

// TestCheckModeChangesNothing, and says what the run then does.
func TestCheckModeChangesNothing(t *testing.T) {
	for _, st := range states {
		w := newToy()
		st.build(w)
		before := len(w.commands)
		checked, err := carryOut(t.Context(), w, options(Auto), ansible.Call{CheckMode: true, Diff: true})
		if err != nil || len(w.commands) > before {
			t.Errorf("%s: %v, %v", st.name, err, w.commands[before:])
		}
		done, err := carryOut(t.Context(), w, options(Auto), ansible.Call{})
		if err != nil || done.Changed != checked.Changed || done.Changed != (len(checked.Diff) > 0) {
			t.Errorf("%s: would change %v, changed %v, %d diffs, %v", st.name, checked.Changed, done.Changed, len(checked.Diff), err)
		}
	}
}
