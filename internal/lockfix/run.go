package lockfix

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/carriers"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// stateDir is where this host's store, baselines and run lock are.
const stateDir = "/var/lib/nfslock"

// job is one run on one host.
type job struct {
	engine  containers
	units   units
	dir     string // stateDir
	proc    string // "/proc"
	journal *journal
	cli     string // the engine's command, for what is to be done by hand
}

// units is the host's systemd.
type units struct {
	runs    func(ctx context.Context, unit string) (bool, error)
	restart func(ctx context.Context, unit string, limit time.Duration) error
}

// Run is the module: it does what the options say and reports. The result is valid also beside an error.
func Run(ctx context.Context, o Options, call ansible.Call) (Result, error) {
	result := Result{Containers: []Row{}}
	if err := o.check(); err != nil {
		return result, err
	}
	var set Set
	var f *files
	if o.patches() {
		var err error
		if set.Manifest, f, err = openSet(ctx, o); err != nil {
			return result, err
		}
		defer f.close()
		result.PatchSet = &PatchSetRow{Variant: set.Variant, SHA256: f.sha256, Signer: f.signer}
	}
	e, err := engine.Connect(ctx, o.Engine, o.EngineSocket)
	if err != nil {
		return result, err
	}
	defer e.Close()
	result.Engine = &EngineRow{Name: e.Name, Version: e.Version}
	j := &job{engine: e, units: units{host.UnitRuns, host.RestartUnit}, dir: stateDir, proc: "/proc", cli: e.Name}
	return j.run(ctx, o, call, set, f, result)
}

func (j *job) run(ctx context.Context, o Options, call ansible.Call, set Set, f *files, result Result) (Result, error) {
	found, err := carriers.Choose(ctx, j.engine, j.dir, o.Containers)
	if err != nil {
		return result, err
	}
	if err := checkFolder(j.dir, !call.CheckMode); err != nil {
		return result, err
	}
	j.journal = &journal{dir: filepath.Join(j.dir, "journal")}
	if len(found.Names) == 0 && !j.journal.exists() {
		result.Msg, result.Warnings = nothingHere, j.notes(o, found)
		return result, nil
	}
	if !call.CheckMode {
		if err := statedir.MakeFolder(j.dir); err != nil {
			return result, fmt.Errorf("cannot use %s: %w", j.dir, err)
		}
		waiting, cancel := context.WithTimeout(ctx, o.limit())
		unlock, waited, err := statedir.TakeLock(waiting, j.dir)
		cancel()
		if err != nil {
			return result, err
		}
		defer unlock()
		if waited { // the containers may have been recreated since
			if found, err = carriers.Choose(ctx, j.engine, j.dir, o.Containers); err != nil {
				return result, err
			}
		}
	}
	// A run that waited long still has all its time for the work.
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), o.timeIsUp())
	defer cancel()
	dead, warnings, err := j.findDead(call.CheckMode)
	if err != nil {
		return result, err
	}
	names, open, gone, notes := withDead(found.Names, dead, found.IDs)
	if !call.CheckMode {
		for _, name := range gone {
			if err := j.journal.end(name); err != nil {
				return result, err
			}
		}
	}
	result.Warnings = slices.Concat(result.Warnings, j.notes(o, found), warnings, notes)
	if len(names) == 0 {
		result.Msg = nothingHere
		return result, nil
	}
	record, err := preloaded.ReadRecord(j.dir)
	if err != nil { // without it only drift is not noticed
		result.Warnings = append(result.Warnings, err.Error())
	}
	targets := j.observe(ctx, names, sight{found.Names, open, record, o.packages(), o.absent() && o.packages(), o.library(), !call.CheckMode})
	defer func() {
		for _, t := range targets {
			t.close()
		}
	}()
	if o.patches() {
		if err := f.openStore(j.dir, !call.CheckMode); err != nil {
			return result, err
		}
		need := needed(set.Manifest, targets)
		if err := f.take(ctx, need, !call.CheckMode); err != nil {
			return result, err
		}
		var missing []patchset.Package
		if set.Contents, missing, err = f.contents(set.Manifest, need); err != nil {
			return result, err
		}
		if len(missing) > 0 {
			for _, p := range missing {
				result.Missing = append(result.Missing, p.SHA256)
			}
			return result, fmt.Errorf("cannot go on without %d files of the patch set that this host does not have yet: nothing was changed", len(missing))
		}
	}
	j.judge(ctx, o, set, targets)
	j.foresee(ctx, o, set, targets)
	return j.carryOut(ctx, o, call, set, f, targets, record, result)
}

// notes are what is to be said of the choice. The way back also names the containers that are gone and of which packages from before are kept: they
// are left alone, as another engine may have them.
func (j *job) notes(o Options, found carriers.Choice) []string {
	if !o.absent() || !o.packages() || len(found.Gone) == 0 {
		return found.Notes
	}
	var names []string
	for _, name := range found.Gone {
		names = append(names, fmt.Sprintf("%q", name))
	}
	return append(slices.Clone(found.Notes), fmt.Sprintf("%s has packages of containers that this engine does not have: %s. If no other engine of this host has them either, remove these folders",
		filepath.Join(j.dir, "baseline"), strings.Join(names, ", ")))
}

const nothingHere = "this host has no kolla container that can carry QEMU: nothing to do"

// carryOut plans, applies unless it is check mode, and reports.
func (j *job) carryOut(ctx context.Context, o Options, call ansible.Call, set Set, f *files, targets []*target, record preloaded.Record, result Result) (Result, error) {
	plans := j.plan(ctx, o, set, call.CheckMode, targets)
	hostLacksRoom(set, measureHost(j.dir), plans)
	j.findUnits(ctx, plans)
	if o.OnError == OnErrorRollback {
		result.Warnings = append(result.Warnings, allOrNothing(plans)...)
	}
	var all []*work
	for i, p := range plans {
		result.Warnings = append(result.Warnings, p.Notes...)
		if p.Seen.Dead != nil {
			result.Warnings = append(result.Warnings, p.fate(call.CheckMode))
		}
		all = append(all, &work{target: targets[i], plan: p})
	}
	if !call.CheckMode {
		result.Warnings = append(result.Warnings, j.apply(ctx, o, set, f, all)...)
		j.lookAgain(ctx, all)
		result.Warnings = append(result.Warnings, j.tidyHost(o, set, f, all)...)
		result.Warnings = append(result.Warnings, j.writeRecord(record, all)...)
	}
	if set.Variant == "disable_ofd" && slices.ContainsFunc(all, func(w *work) bool { return len(w.plan.Files) > 0 && (call.CheckMode || w.done) }) {
		result.Warnings = append(result.Warnings, disableOFDWarning)
	}
	guests, warning := j.staleGuests(ctx, all)
	if warning != "" {
		result.Warnings = append(result.Warnings, warning)
	}
	return j.report(call, all, guests, result)
}

// allOrNothing empties every plan if one container is known to fail: what cannot be done everywhere is begun nowhere, and
// what a dead run began is taken back.
func allOrNothing(plans []ContainerPlan) (warnings []string) {
	var bad, left []string
	for _, p := range plans {
		if p.Failure != nil && !p.Seen.alone() {
			bad = append(bad, p.Seen.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	for i := range plans {
		p := &plans[i]
		if p.Stays != "" || p.Back {
			continue
		}
		if p.Failure == nil && p.Seen.Dead != nil {
			p.takeBack()
			continue
		}
		if len(p.Steps) == 0 {
			continue
		}
		left = append(left, p.Seen.Name)
		p.Steps, p.Files, p.Status = nil, nil, Unchanged
		for k := range p.Changes {
			p.Changes[k].After = p.Changes[k].Before
		}
	}
	if len(left) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("nothing was begun in %s, because %s cannot be worked on and on_error is rollback", strings.Join(left, ", "), strings.Join(bad, ", "))}
}

// lookAgain reads what is in the containers in which something was begun: the report tells what is, not what was meant.
func (j *job) lookAgain(ctx context.Context, all []*work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
	defer cancel()
	for _, w := range all {
		w.undo.close()
		if !w.begun || w.gone {
			continue
		}
		if err := j.reopen(ctx, w.target); err != nil && w.err == nil {
			w.err = fail("verify", "cannot tell how %s ended: %w", w.seen.Name, err)
		}
	}
}

const disableOFDWarning = "the patch set's variant disable_ofd turns QEMU's own image locking off: two writers on one image are no longer kept apart; the variant fallback keeps locking wherever locks work"

// staleGuests looks, in the container that runs the guests, for those with another program than its own, or without the library where it has that.
func (j *job) staleGuests(ctx context.Context, all []*work) (stale []Stale, warning string) {
	i := slices.IndexFunc(all, func(w *work) bool { return kolla.RunsGuests(w.seen.Name) })
	if i < 0 || all[i].root == nil {
		return nil, ""
	}
	guests, err := host.Guests(j.proc)
	found := guests
	if err == nil && len(found) > 0 {
		found, err = host.Stale(found, all[i].root)
	}
	if err == nil && all[i].seen.Library.Active() {
		found, err = j.withoutLibrary(ctx, guests, found)
	}
	if err != nil {
		return nil, fmt.Sprintf("cannot tell which guests still run an old program: %v", err)
	}
	for _, g := range found {
		stale = append(stale, Stale{PID: g.PID, Guest: g.Name})
	}
	return stale, ""
}

// failures collects what went wrong in the containers into one error, nil if nothing did.
func failures(rows []Row) error {
	var all *multierror.Error
	for _, r := range rows {
		if r.Error != nil {
			err := error(r.Error)
			if r.Error.Hint != "" {
				err = fmt.Errorf("%w (%s)", err, r.Error.Hint)
			}
			all = multierror.Append(all, err)
		}
	}
	return all.ErrorOrNil()
}
