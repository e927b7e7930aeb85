package lockfix

import (
	"fmt"
	"slices"

	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// Daemon is a process of libvirt's in a container.
type Daemon struct {
	PID    int
	Name   string
	Loaded bool
}

// aim plans both ways to QEMU without locks: the packages, and the library. What of one was not asked for is left as it is, except what a dead run began.
func (p *ContainerPlan) aim(o Options, set Set) {
	switch dpkg := p.Seen.Distribution.UsesDpkg(); {
	case o.packages() && dpkg && o.absent():
		p.restore()
	case o.packages() && dpkg:
		p.patch(o, set)
	case o.packages() && !o.library():
		p.Failure = p.Seen.withoutDpkg()
		return
	default: // they were not asked for, or there is the library alone to be taken back
		p.packagesBack()
		p.Failure = p.backRefused()
	}
	switch {
	case p.Failure != nil:
	case !o.library():
		p.libraryBack()
	case p.Seen.LibraryDamage != "":
		p.Failure = &Failure{Step: "observe", Message: fmt.Sprintf("cannot look at the library in %s: %s", p.Seen.Name, p.Seen.LibraryDamage)}
	case o.absent():
		p.unload(o)
	default:
		p.load(o)
	}
	p.refuseHollow()
	if p.Failure == nil {
		p.finish(o)
	}
}

// load plans the library in a container that lacks it.
func (p *ContainerPlan) load(o Options) {
	s := p.Seen
	p.Wanted = preloaded.Installed
	switch s.Library.State {
	case preloaded.Bound:
		p.Wanted = preloaded.Bound
		if !s.Library.Current {
			p.Notes = append(p.Notes, fmt.Sprintf("%s has another build of the library than this program's, by a volume: the role nfs_lock_keep puts this one into the host's folder",
				s.Name))
		}
		return
	case preloaded.Installed:
		return
	}
	if s.Program.Path == "" {
		p.pass("it has none of the programs that the library is for")
		return
	}
	if err := s.Program.Fit(); err != nil {
		if len(o.Containers) == 0 {
			p.pass(err.Error())
			return
		}
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf("cannot put the library into %s: %v", s.Name, err),
			Hint: "see the README for what helps without it: rpcbind and rpc.statd on the host, or NFSv4",
		}
		return
	}
	p.want(Load, s.Library.Present(), "cannot put the library into %s: %s")
	if p.Failure == nil && s.Kept != nil && s.Kept.ID == s.ID {
		p.Notes = append(p.Notes, fmt.Sprintf("%s has the patched packages too, which is harmless: they are left as they are; state: absent with method: packages takes them back",
			s.Name))
	}
}

// unload plans a container without the library.
func (p *ContainerPlan) unload(o Options) {
	s := p.Seen
	p.Wanted = preloaded.None
	there := s.Library.State != preloaded.None && s.Library.State != ""
	if there && s.Library.Mounted {
		message := fmt.Sprintf("cannot take the library out of %s: it is bound into it by kolla's volumes", s.Name)
		way := "take its lines out of globals.d/nfslock.yml and run kolla-ansible deploy, then the role nfs_lock_keep with state: absent"
		if len(o.Containers) > 0 && o.Method == MethodLibrary {
			p.Failure = &Failure{Step: "plan", Message: message, Hint: way}
			return
		}
		p.Wanted = s.Library.State
		p.Notes = append(p.Notes, message+"; "+way)
		return
	}
	if there && s.Library.Refusal != "" {
		p.Failure = &Failure{Step: "plan", Message: fmt.Sprintf("cannot take the library out of %s: %s", s.Name, s.Library.Refusal), Hint: removeByHand}
		return
	}
	p.want(Unload, s.Library.Absent(), "cannot take the library out of %s: %s")
}

const removeByHand = "remove it, or put there what the container's image has, and run again"

// want adds a step where something is to be written.
func (p *ContainerPlan) want(verb Verb, files preloaded.Files, cannot string) {
	s := p.Seen
	if !s.Library.Needs(files) {
		return
	}
	switch {
	case s.Library.Mounted:
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf(cannot, s.Name, s.Library.Refusal),
			Hint: "a volume's files are the host's: the role nfs_lock_keep looks after those; else take the volume out of the container's, and run again",
		}
	case s.Library.Refusal != "":
		p.Failure = &Failure{Step: "plan", Message: fmt.Sprintf(cannot, s.Name, s.Library.Refusal), Hint: removeByHand}
	case s.ReadOnly:
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf(cannot, s.Name, "its root filesystem is read-only"),
			Hint: "kolla can bind it in: see the role nfs_lock_keep",
		}
	default:
		p.Library = files
		p.Steps = append(p.Steps, Step{Verb: verb})
	}
}

// pass: the library is not for this container. A step of the packages that go back stays.
func (p *ContainerPlan) pass(reason string) {
	p.Status, p.Reason, p.Wanted = Skipped, reason, p.Seen.Library.State
}

// libraryBack plans the way back to what was there before a run died while it worked on the library.
func (p *ContainerPlan) libraryBack() {
	dead := p.Seen.Dead
	if dead == nil || dead.Library == nil || !slices.ContainsFunc(dead.Begun, func(v Verb) bool { return v == Load || v == Unload || v == Undo }) {
		return
	}
	verb, files := back(*dead.Library)
	p.Wanted = files.Effect()
	p.want(verb, files, "cannot bring the library of %s back to what it was: %s")
}

// back is the way to what was found. Where a list named a library that nothing could load, both go: nothing goes back to that.
func back(found preloaded.Files) (Verb, preloaded.Files) {
	files := found.Sound()
	if s := files.Effect(); s == preloaded.Installed || s == preloaded.Old {
		return Load, files
	}
	return Unload, files
}

// libraryStep is the one that changes its files.
func (p *ContainerPlan) libraryStep() (Step, bool) {
	if s, ok := p.step(Load); ok {
		return s, true
	}
	return p.step(Unload)
}

// reloads tells whether libvirt has to be started again because of the library: it was changed, or a daemon that runs is not as programs that start now.
func (p *ContainerPlan) reloads(o Options) bool {
	s := p.Seen
	if _, ok := p.step(Load); ok {
		return true
	}
	active, loaded := s.Library.Active(), func(is bool) bool {
		return slices.ContainsFunc(s.Daemons, func(d Daemon) bool { return d.Loaded == is })
	}
	if _, ok := p.step(Unload); ok {
		return active || loaded(true)
	}
	return o.library() && p.Status != Skipped && loaded(!active)
}

// loadedAfter is whether libvirt's daemons are to have it when all is done.
func (p *ContainerPlan) loadedAfter() bool {
	if _, ok := p.libraryStep(); ok {
		return p.Library.Effect() == preloaded.Installed || p.Library.Effect() == preloaded.Old
	}
	return p.Seen.Library.Active()
}

// noteDaemons says what is left to the operator where nothing is restarted.
func (p *ContainerPlan) noteDaemons() {
	for _, d := range p.Seen.Daemons {
		if after := p.loadedAfter(); d.Loaded != after && kolla.RunsGuests(p.Seen.Name) {
			word := "without"
			if d.Loaded {
				word = "with"
			}
			p.Notes = append(p.Notes, fmt.Sprintf("%s: %s (process %d) runs %s the library until the container is restarted", p.Seen.Name, d.Name, d.PID, word))
		}
	}
}

// LibraryRow is what there is of the library in a container: see preloaded.State.
type LibraryRow struct {
	Before preloaded.State `json:"before"`
	After  preloaded.State `json:"after"`
	Wanted preloaded.State `json:"wanted"`
}

// libraryRow is nil where nothing could be seen, as in a container that does not run. now is what was seen last.
func (p *ContainerPlan) libraryRow(check bool, now preloaded.Place) *LibraryRow {
	if p.Seen.Library.State == "" {
		return nil
	}
	row := &LibraryRow{Before: p.Seen.Library.State, After: now.State, Wanted: p.Wanted}
	if _, ok := p.libraryStep(); ok && check {
		row.After = p.Library.Effect()
	}
	if row.Wanted == "" {
		row.Wanted = row.Before
	}
	return row
}

func (p *ContainerPlan) filesAfter(check bool, now preloaded.Place) preloaded.Files {
	if _, ok := p.libraryStep(); ok && check {
		return p.Library
	}
	return now.Files
}

// describeFiles are lines for a diff.
func describeFiles(f preloaded.Files) string {
	text := fmt.Sprintf("%s: none\n", preload.Library)
	if f.Library != nil {
		text = fmt.Sprintf("%s: sha256 %s\n", preload.Library, f.Library.SHA256())
	}
	if f.List == nil {
		return text + preload.List + ": none\n"
	}
	return fmt.Sprintf("%s%s:\n%s", text, preload.List, f.List.Data)
}
