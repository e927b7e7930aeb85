package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// findDead reads the journal of a run that did not come to its end. A damaged one is put aside and said: what is really in
// the containers counts. In check mode nothing is moved.
func (j *job) findDead(check bool) (dead *deadRun, warnings []string, err error) {
	dead, err = j.journal.read()
	switch {
	case errors.Is(err, errDamagedJournal):
		aside := filepath.Join(j.journal.dir, damagedName)
		warnings = append(warnings, fmt.Sprintf("%v: it is put aside as %s, and what is really in the containers is gone by", err, aside))
		if check {
			return nil, warnings, nil
		}
		if err := os.Rename(filepath.Join(j.journal.dir, journalName), aside); err != nil {
			return nil, nil, fmt.Errorf("cannot put the damaged journal aside: %w", err)
		}
		return nil, warnings, nil
	case err != nil:
		return nil, nil, err
	case check && dead != nil && host.Locked(j.dir):
		return nil, []string{"another run is at work on this host: what it changes is not in this answer"}, nil
	case check:
	case dead == nil:
		err = j.journal.sweep()
	default:
		err = j.sweepBaselines(dead)
	}
	return dead, warnings, err
}

// sweepBaselines removes what a run that died while it kept packages left half written.
func (j *job) sweepBaselines(dead *deadRun) error {
	for _, b := range dead.Containers {
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

// withDead adds the containers in which a dead run began something to those that were asked for. One that was recreated
// or removed since has nothing of it any more.
func withDead(asked []string, dead *deadRun, exist map[string]string) (names []string, open map[string]Before, notes []string) {
	names, open = slices.Clone(asked), map[string]Before{}
	for _, b := range dead.open() {
		switch id, ok := exist[b.Name]; {
		case !ok:
			notes = append(notes, fmt.Sprintf("%s was removed since a run died while it worked there: nothing is left to finish", b.Name))
			continue
		case id != b.ID:
			notes = append(notes, fmt.Sprintf("%s was recreated since a run died while it worked there: it is looked at as a new one", b.Name))
			continue
		}
		open[b.Name] = b
		if !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
	}
	kolla.Sort(names)
	return names, open, notes
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
		b = *s.Dead
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
			b.Packages = append(b.Packages, BeforePackage{c.Name, have.Version, whole(have), have.Status.Want == "hold", replaced})
		}
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
	p.Steps, p.Files, p.Changes, p.Back, p.Status = nil, nil, nil, true, RolledBack
	p.packagesBack()
	_, programs := p.step(Install)
	p.libraryBack()
	if _, ok := p.libraryStep(); (ok || programs) && slices.Contains(p.Seen.Dead.Begun, Restart) {
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
		case !b.Replaced || !begun:
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
func (p *ContainerPlan) fate(dead *deadRun, check bool) string {
	is, b := "is", p.Seen.Dead
	if check {
		is = "would be"
	}
	end := is + " finished by this run"
	switch {
	case p.Back:
		end = is + " taken back by this run"
	case p.Failure != nil:
		end = "that stays so: " + p.Failure.Message
	case p.Stays != "":
		end = "that stays so: " + p.Stays
	case len(p.Steps) == 0:
		end = "it was finished all the same"
	}
	return fmt.Sprintf("%s: a run that began at %s (process %d) left it unfinished, its last step here was %s; %s", b.Name,
		dead.Began.Format("2006-01-02 15:04:05 MST"), dead.Process, b.Begun[len(b.Begun)-1], end)
}

// openJournal writes the first line, if there is anything to do or to keep in mind.
func (j *job) openJournal(o Options, all []*work) error {
	var containers []Before
	for _, w := range all {
		w.before = w.plan.before()
		if len(w.plan.Steps) > 0 || w.seen.Dead != nil {
			containers = append(containers, w.before)
		}
	}
	if len(containers) == 0 {
		return nil
	}
	return j.journal.begin(containers, o.State)
}

// closeJournal settles what is whole, and ends the journal when all is. A run that was told to stop settles nothing: what
// it began everywhere is to be finished or taken back together.
func (j *job) closeJournal(all []*work, stopped bool) error {
	if j.journal.file == nil {
		return nil
	}
	defer j.journal.close()
	var whole []string
	open := false
	for _, w := range all {
		switch {
		case len(w.plan.Steps) == 0 && w.seen.Dead == nil:
		case w.plan.Stays != "":
			open = true
		case w.done || w.rolledBack || w.gone || !w.begun && w.seen.Dead == nil:
			whole = append(whole, w.Name)
		default:
			open = true
		}
	}
	if stopped && open {
		return nil
	}
	if err := j.journal.settle(whole); err != nil {
		return err
	}
	for _, w := range all {
		if _, ok := w.step(Forget); ok && w.done {
			if err := baseline.Forget(j.baseline(w.Name)); err != nil {
				return err
			}
		}
	}
	if open {
		return nil
	}
	return j.journal.end()
}

// tidyHost keeps of the store only what the patch set of this run names, and removes it when nothing on this host is
// patched any more. What could not be tidied does not make a run fail.
func (j *job) tidyHost(o Options, set Set, f *files, all []*work) (warnings []string) {
	if failed(all) || slices.ContainsFunc(all, func(w *work) bool { return w.plan.Failure != nil }) {
		return nil
	}
	store := filepath.Join(j.dir, "store")
	if o.absent() && o.packages() {
		kept, err := os.ReadDir(filepath.Join(j.dir, "baseline"))
		if err == nil && len(kept) == 0 || errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(os.RemoveAll(store), os.RemoveAll(filepath.Join(j.journal.dir, damagedName)))
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
