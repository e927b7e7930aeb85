package lockfix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// findDead reads what runs did not bring to an end, containers in which something was begun. A damaged record is put aside and said: what is really in
// the container counts. In check mode nothing is moved or removed.
func (j *job) findDead(check bool) (dead []Before, warnings []string, err error) {
	records, damaged, err := j.journal.read()
	if err != nil {
		return nil, nil, err
	}
	older, err := j.journal.readRunLog()
	if errors.Is(err, errDamagedJournal) {
		damaged[runLogName] = err
	} else if err != nil {
		return nil, nil, err
	}
	for _, b := range older { // a run that died while it wrote these as records has written some
		if !slices.ContainsFunc(records, func(r Before) bool { return r.Name == b.Name }) {
			records = append(records, b)
		}
	}
	if check && len(records) > 0 && statedir.Locked(j.dir) {
		return nil, []string{"another run is at work on this host: what it changes is not in this answer"}, nil
	}
	for _, name := range slices.Sorted(maps.Keys(damaged)) {
		aside := filepath.Join(j.journal.dir, name+damagedSuffix)
		warnings = append(warnings, fmt.Sprintf("cannot use the journal %s: %v: it is put aside as %s, and what is really in the containers is gone by",
			filepath.Join(j.journal.dir, name), damaged[name], aside))
		if check {
			continue
		}
		if err := os.Rename(filepath.Join(j.journal.dir, name), aside); err != nil {
			return nil, nil, fmt.Errorf("cannot put the damaged journal aside: %w", err)
		}
	}
	if !check {
		if err := j.settleDead(records, older); err != nil {
			return nil, nil, err
		}
	}
	return slices.DeleteFunc(records, func(b Before) bool { return len(b.Begun) == 0 }), warnings, nil
}

// settleDead makes records of an older version's journal, and removes what runs left that died before they began.
func (j *job) settleDead(records, older []Before) error {
	for _, b := range older {
		if len(b.Begun) == 0 {
			continue
		}
		if err := j.journal.write(b); err != nil {
			return err
		}
	}
	if err := j.sweepBaselines(records); err != nil {
		return err
	}
	for _, b := range records {
		if len(b.Begun) == 0 {
			if err := j.journal.end(b.Name); err != nil {
				return err
			}
		}
	}
	if j.journal.exists() { // else there is not even a folder
		if err := j.journal.remove(runLogName); err != nil {
			return err
		}
	}
	return j.journal.sweep(records)
}

// sweepBaselines removes what a run that died while it kept packages left half written.
func (j *job) sweepBaselines(dead []Before) error {
	for _, b := range dead {
		dir := j.baseline(b.Name)
		kept, root, err := baseline.Open(dir)
		switch {
		case err != nil: // damaged: said where it is needed
		case kept != nil:
			err := kept.Sweep(root)
			root.Close()
			if err != nil {
				return err
			}
		case len(b.Begun) == 0: // the index is written last, and removed first
			if err := baseline.Forget(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// withDead adds the containers in which a dead run began something to those that were asked for, but not those that are stuck: these wait until they are
// asked for. One that was recreated or removed since has nothing of it any more: its name is among the gone.
func withDead(asked []string, dead []Before, exist map[string]string) (names []string, open map[string]Before, gone, notes []string) {
	names, open = slices.Clone(asked), map[string]Before{}
	for _, b := range dead {
		switch id, ok := exist[b.Name]; {
		case !ok:
			gone = append(gone, b.Name)
			notes = append(notes, fmt.Sprintf("%s was removed since a run died while it worked there: nothing is left to finish", b.Name))
			continue
		case id != b.ID:
			gone = append(gone, b.Name)
			notes = append(notes, fmt.Sprintf("%s was recreated since a run died while it worked there: it is looked at as a new one", b.Name))
			continue
		case b.Stuck != "" && !slices.Contains(asked, b.Name):
			continue
		}
		open[b.Name] = b
		if !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
	}
	kolla.Sort(names)
	return names, open, gone, notes
}

// tidy waits for whatever dpkg is at work, that of a dead run too, and removes what such a run had in the container: nothing
// of ours may be there when a run begins, whether a journal tells of it or not.
func (t *target) tidy(ctx context.Context) error {
	if err := t.awaitDpkg(ctx); err != nil {
		return err
	}
	if err := t.clean(); err != nil {
		return fmt.Errorf("cannot remove what an earlier run left: %w", err)
	}
	return nil
}

// before is what a rollback has to bring back: what the dead run found, and for the rest what this one finds.
func (p *ContainerPlan) before() Before {
	s := p.Seen
	b := Before{Name: s.Name, ID: s.ID}
	if s.Dead != nil {
		b = *s.Dead // what stands there of the run that died is replaced when this one begins
		b.Packages, b.Begun = slices.Clone(b.Packages), slices.Clone(b.Begun)
	}
	install, _ := p.step(Install)
	for _, c := range p.Changes {
		have, ok := s.find(c.Name)
		replaced := slices.Contains(install.Packages, c.Name)
		i := slices.IndexFunc(b.Packages, func(k BeforePackage) bool { return k.Name == c.Name })
		if i >= 0 {
			b.Packages[i].Replaced = b.Packages[i].Replaced || replaced
		} else if ok {
			b.Packages = append(b.Packages, BeforePackage{c.Name, have.Version, stateOf(have), whole(have), have.Status.Want == "hold", replaced})
		}
	}
	if first := s.Dead == nil || len(s.Dead.Packages) == 0; first && len(b.Packages) > 0 {
		b.Dpkg = &BeforeDpkg{Unfinished: unfinished(s.Packages), Triggers: s.Triggers}
	}
	if _, ok := p.libraryStep(); ok && b.Library == nil {
		found := s.Library.Files
		b.Library = &found
	}
	_, restart := p.step(Restart)
	b.Restart = b.Restart || restart
	return b
}

// takeBack plans the way back to what was there before a run died half way: for a container that nobody asked for this
// time, or that cannot be brought forward.
func (p *ContainerPlan) takeBack() {
	why := p.Failure
	p.Steps, p.Files, p.Changes, p.Back, p.Status = nil, nil, nil, true, RolledBack
	p.packagesBack()
	_, programs := p.step(Install)
	p.libraryBack()
	p.Failure = why // what is in the way of the way back is said by those who go it
	_, library := p.libraryStep()
	if p.Seen.Dead.owesRestartBack(programs || library, p.Seen.StartedAt) {
		p.Steps = append(p.Steps, Step{Verb: Restart})
	}
	p.leaveRefused()
}

// packagesBack plans the way back for the packages alone.
func (p *ContainerPlan) packagesBack() {
	dead := p.Seen.Dead
	if dead == nil || len(dead.Packages) == 0 {
		return
	}
	p.PackagesBack = true
	var install, hold, unhold []string
	for _, b := range dead.Packages {
		have, ok := p.Seen.find(b.Name)
		if !ok {
			continue
		}
		change := Change{Name: b.Name, Before: describe(have), After: describe(have), Wanted: b.Version}
		switch begun := slices.Contains(dead.Begun, Install) || slices.Contains(dead.Begun, Undo); {
		case !b.Replaced || !begun || p.Seen.Astray[b.Name] == "":
		case !b.Whole:
			p.Notes = append(p.Notes, fmt.Sprintf("%s: %s was not whole before either, so there is nothing to go back to", p.Seen.Name, b.Name))
		default:
			install = append(install, b.Name)
			p.Reasons[b.Name] = "a run died while it replaced it"
			change.After = b.Version
		}
		if held := have.Status.Want == "hold"; b.Held && (!held || slices.Contains(install, b.Name)) {
			hold = append(hold, b.Name)
		} else if held && !b.Held {
			unhold = append(unhold, b.Name)
		}
		p.Changes = append(p.Changes, change)
	}
	for _, s := range []Step{{Install, install}, {Hold, hold}, {Unhold, unhold}} {
		if len(s.Packages) > 0 {
			p.Steps = append(p.Steps, s)
		}
	}
}

// fate says what becomes of what a dead run left.
func (p *ContainerPlan) fate(check bool) string {
	is, b := "is", p.Seen.Dead
	if check {
		is = "would be"
	}
	end := is + " finished by this run"
	switch {
	case p.Back:
		end = is + " taken back by this run"
	case p.Stuck != "" && p.Stuck == b.Stuck:
		end = "that stays so"
	case p.Stuck != "" && p.Seen.Unasked:
		end = "that stays so until a run is for it: " + p.Stuck
	case p.Stuck != "":
		end = "that stays so: " + p.Stuck
	case p.Failure != nil:
		end = "that stays so: " + p.Failure.Message
	case p.Stays != "":
		end = "that stays so: " + p.Stays
	case len(p.Steps) == 0:
		end = "it was finished all the same"
	}
	left := "unfinished, its last step here was " + string(b.Begun[len(b.Begun)-1])
	if b.Stuck != "" {
		left = "stuck: " + b.Stuck
	}
	return fmt.Sprintf("%s: a run that began at %s (process %d) left it %s; %s", b.Name, b.Began.UTC().Format("2006-01-02 15:04:05 MST"), b.Process, left, end)
}

// open writes a container's record, in which nothing is begun yet unless a dead run began it.
func (j *job) open(w *work) error {
	w.before.Process, w.before.Began = os.Getpid(), time.Now().UTC()
	if err := j.journal.write(w.before); err != nil && !w.plan.Back { // which has one
		return fmt.Errorf("cannot begin in %s: %w", w.Name, err)
	}
	w.recorded = true
	faultpoint.Hit("journal " + w.Name)
	return nil
}

// note writes into it that a step is begun. Nothing of that has happened when this fails. The way back does not wait for a disk that is full.
func (j *job) note(w *work, verb Verb) error {
	was := w.before
	w.before.Begun = slices.Clone(was.Begun)
	w.before.begin(verb, w.StartedAt)
	if err := j.journal.write(w.before); err != nil {
		w.before = was
		if !w.onTheWayBack {
			return err
		}
	}
	faultpoint.Hit(string(verb) + " " + w.Name)
	return nil
}

// settle ends the records of containers that are whole, and writes into the others why they are stuck. A run that was told to stop ends none while something is
// open: what it began everywhere is to be finished or taken back together.
func (j *job) settle(all []*work, stopped bool) (failure error) {
	if stopped && slices.ContainsFunc(all, func(w *work) bool { return w.recorded && !w.whole() }) {
		return nil
	}
	for _, w := range all {
		failure = errors.Join(failure, j.leave(w))
		if !w.recorded {
			continue
		}
		if !w.whole() {
			if w.stuck() {
				w.before.Stuck = cmp.Or(w.undoErr, w.err).Error()
				failure = errors.Join(failure, j.journal.write(w.before))
			}
			continue
		}
		err := j.journal.end(w.Name)
		if _, ok := w.step(Forget); ok && w.done && err == nil {
			err = baseline.Forget(j.baseline(w.Name))
		}
		failure = errors.Join(failure, err)
	}
	return failure
}

// leave writes into the record of a container whose way back is not begun that it is stuck, unless that stands there.
func (j *job) leave(w *work) error {
	if w.plan.Stuck == w.before.Stuck || w.plan.Stuck == "" {
		return nil
	}
	w.before.Process, w.before.Began, w.before.Stuck = os.Getpid(), time.Now().UTC(), w.plan.Stuck
	return j.journal.write(w.before)
}

// tidyHost keeps of the store only what the patch set of this run names, and removes it when nothing on this host is
// patched any more. What could not be tidied does not make a run fail.
func (j *job) tidyHost(o Options, set Set, f *files, all []*work) (warnings []string) {
	if slices.ContainsFunc(all, func(w *work) bool { return w.err != nil || w.undoErr != nil || w.plan.Failure != nil }) {
		return nil
	}
	store := filepath.Join(j.dir, "store")
	if o.absent() && o.packages() {
		kept, err := os.ReadDir(filepath.Join(j.dir, "baseline"))
		if err == nil && len(kept) == 0 || errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(os.RemoveAll(store), j.journal.tidy())
		}
		if err != nil {
			return []string{fmt.Sprintf("cannot tidy %s: %v", j.dir, err)}
		}
		return nil
	}
	if f == nil || f.store == nil || !slices.ContainsFunc(all, func(w *work) bool { return w.done && len(w.plan.Files) > 0 }) {
		return nil
	}
	if err := f.store.Keep(set.Packages); err != nil {
		return []string{err.Error()}
	}
	return nil
}
