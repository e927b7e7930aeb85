package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// foreseeLimit is for dpkg's configuration and the attributes of some hundred files, which take milliseconds.
const foreseeLimit = 30 * time.Second

const refusalsShown = 3 // an immutable folder makes one of each file in it

// foresee looks at what dpkg would come upon in each container, also in one in which a dead run left packages that nobody asks for this time.
func (j *job) foresee(ctx context.Context, o Options, set Set, targets []*target) {
	var group errgroup.Group
	for _, t := range targets {
		if t.seen.unfit() == nil && t.dpkg {
			group.Go(func() error {
				j.foreseeOne(ctx, o, set, t)
				return nil
			})
		}
	}
	_ = group.Wait()
}

func (j *job) foreseeOne(ctx context.Context, o Options, set Set, t *target) {
	db, packages := t.db, candidates(o, set, t.seen)
	facts, err := within(ctx, foreseeLimit, func() (deb.Facts, error) {
		mounts, err := j.mounts(t.PID)
		if err != nil {
			return deb.Facts{}, err
		}
		return db.Facts(packages, mounts, searchPath)
	})
	if err != nil {
		t.seen.Failure = &Failure{Step: "observe", Message: fmt.Sprintf("cannot tell what dpkg would do in %s: %v", t.seen.Name, err)}
		return
	}
	t.seen.Dpkg = facts
}

// candidates are the packages that may be installed in a container: those of the patch set, and on any way back those that are kept.
func candidates(o Options, set Set, s Seen) (list []deb.Incoming) {
	if !o.absent() && !s.Unasked {
		for _, w := range wanted(set.Manifest, s) {
			a := set.Contents[w.SHA256]
			list = append(list, deb.Incoming{Package: a.Package, Sums: a.Md5sums})
		}
	}
	if s.Kept != nil && (o.absent() || s.Dead != nil) {
		for _, k := range s.Kept.Packages {
			if k.Control.Name != "" { // else it is damaged, and is not brought back
				list = append(list, deb.Incoming{Package: k.Control, Sums: k.Sums})
			}
		}
	}
	return list
}

// mounts are what a container has mounted. Of one that was restarted just now nothing is known: its mounts went with its first process, so nobody is kept
// waiting by them.
func (j *job) mounts(pid int) (list []deb.Mount, err error) {
	points, err := host.ReadMounts(j.proc, pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return nil, nil
	}
	for _, p := range points {
		list = append(list, deb.Mount{Path: p.Path, ReadOnly: p.HasOption("ro")})
	}
	return list, err
}

// dpkgRefuses says why dpkg would not install these packages, or not those that are there now, should the run have to go back; holds are set by dpkg,
// too. Where it would do all of it, what is to be known of that is noted.
func (p *ContainerPlan) dpkgRefuses(install []deb.Package, holds bool) *Failure {
	s := p.Seen
	refusals, err := s.refusals(install, holds)
	if err != nil || len(refusals) > 0 {
		return s.refused("would refuse", refusals, err)
	}
	then, former := s.exchange(install)
	if refusals, err = s.Dpkg.Refusals(then, former); err != nil || len(refusals) > 0 {
		return s.refused("would refuse to take the change back", refusals, err)
	}
	if len(install) > 0 {
		p.Notes = append(p.Notes, s.dpkgNotes()...)
	}
	return nil
}

// refusals are all for which dpkg would not install, or not set a hold.
func (s Seen) refusals(install []deb.Package, holds bool) ([]deb.Refusal, error) {
	refusals, err := s.Dpkg.Refusals(s.Packages, install)
	if len(install) == 0 && holds {
		refusals = slices.Clone(s.Dpkg.Settings.Refusals)
	}
	if len(install) > 0 || holds {
		refusals = append(refusals, s.Links...)
	}
	return refusals, err
}

// refused is nil where nothing is.
func (s Seen) refused(would string, refusals []deb.Refusal, err error) *Failure {
	if err != nil {
		return &Failure{Step: "plan", Message: fmt.Sprintf("cannot compute what dpkg would refuse in %s: %v", s.Name, err)}
	}
	if len(refusals) == 0 {
		return nil
	}
	return &Failure{
		Step: "plan", Message: fmt.Sprintf("cannot change the packages of %s: dpkg %s: %s", s.Name, would, enumerate(refusals)), Hint: remedies(refusals),
	}
}

// exchange is what dpkg has after an install, and the whole packages that were in the places of those.
func (s Seen) exchange(install []deb.Package) (then, former []deb.Package) {
	then = slices.Clone(s.Packages)
	for _, p := range install {
		have, ok := s.find(p.Name)
		if !ok {
			continue
		}
		if whole(have) {
			former = append(former, have)
		}
		p.Status = deb.Status{Want: "install", Flag: "ok", State: "installed"}
		then[slices.Index(then, have)] = p
	}
	return then, former
}

// misses says which files of a patch set would not be what runs in the container, whether they are there already or not.
func (s Seen) misses(set Set) *Failure {
	var packages []deb.Package
	for _, w := range wanted(set.Manifest, s) {
		packages = append(packages, set.Contents[w.SHA256].Package)
	}
	missed := s.Dpkg.MissedOf(packages)
	if len(missed) == 0 {
		return nil
	}
	return &Failure{
		Step: "plan", Message: fmt.Sprintf("cannot patch %s: dpkg can put the packages there, and what runs would not be theirs: %s", s.Name, enumerate(missed)),
		Hint: remedies(missed),
	}
}

// noteMissed says the same of packages that are brought back, which is no reason not to do it.
func (p *ContainerPlan) noteMissed(packages []deb.Package) {
	if missed := p.Seen.Dpkg.MissedOf(packages); len(missed) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: what runs there is not what the packages from before hold: %s (%s)", p.Seen.Name, enumerate(missed), remedies(missed)))
	}
}

// dpkgNotes are of an install.
func (s Seen) dpkgNotes() (notes []string) {
	if options := s.Dpkg.Settings.Options; len(options) > 0 {
		notes = append(notes, fmt.Sprintf("%s: dpkg is called with %s there, against what its configuration says: else it would not install, or not go back", s.Name, strings.Join(options, " ")))
	}
	for _, h := range s.Dpkg.Settings.Hooks {
		notes = append(notes, fmt.Sprintf("%s: dpkg is configured to run another program, %q (%s, %s): if that fails, dpkg fails, and the change is taken back", s.Name, h.Command, h.Option, h.Where))
	}
	return notes
}

// backRefused says why dpkg would refuse to bring back what a dead run found, of which the plan has what is astray.
func (p *ContainerPlan) backRefused() *Failure {
	s := p.Seen
	install, _ := p.step(Install)
	var packages []deb.Package
	for _, name := range install.Packages {
		found, _ := s.foundDead(name)
		have, _ := s.find(name)
		back := deb.Package{Name: name, Version: found.Version, Architecture: have.Architecture} // what a patch set's says is read when it is brought back
		if s.Kept.Keeps(s.ID, back) {
			i := slices.IndexFunc(s.Kept.Packages, func(k baseline.Kept) bool { return k.Name == name })
			back = s.Kept.Packages[i].Control
		}
		packages = append(packages, back)
	}
	_, hold := p.step(Hold)
	_, unhold := p.step(Unhold)
	refusals, err := s.refusals(packages, hold || unhold)
	return s.refused("would refuse to bring back what was there", refusals, err)
}

// leaveRefused begins nothing on a way back that dpkg would refuse: what a dead run left stays, and is said. The container is stuck.
func (p *ContainerPlan) leaveRefused() {
	refused := p.backRefused()
	if refused == nil {
		return
	}
	p.Steps, p.Back, p.PackagesBack, p.Status = nil, false, false, Failed
	p.Stuck = fmt.Sprintf("%s (%s)", refused.Message, refused.Hint)
	for i := range p.Changes {
		p.Changes[i].After = p.Changes[i].Before
	}
	switch {
	case p.Seen.Unasked:
		p.Status, p.Stays = Skipped, p.Stuck
	case p.Failure == nil:
		p.Failure = refused
	}
}

// enumerate tells the first ones, and how many there are.
func enumerate(refusals []deb.Refusal) string {
	var parts []string
	for _, r := range refusals {
		if text := r.String(); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	if more := len(parts) - refusalsShown; more > 0 {
		parts = append(parts[:refusalsShown], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

// remedies are each told once.
func remedies(refusals []deb.Refusal) string {
	var parts []string
	for _, r := range refusals {
		if !slices.Contains(parts, r.Remedy) {
			parts = append(parts, r.Remedy)
		}
	}
	return strings.Join(parts, "; ")
}
