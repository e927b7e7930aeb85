package lockfix

import (
	"fmt"
	"maps"
	"slices"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// restore plans the way back to the packages from before. While there is one without a way back nothing is restored by halves, and what is kept stays.
func (p *ContainerPlan) restore() {
	s := p.Seen
	if s.KeptDamage != "" {
		p.Failure = &Failure{Step: "plan", Message: fmt.Sprintf("cannot restore %s: %s", s.Name, s.KeptDamage), Hint: s.waysOut()}
		return
	}
	if _, stuck := baseline.Ways(s.judged()); len(stuck) > 0 {
		p.stick(stuck)
		return
	}
	if s.Kept == nil {
		return // nothing was ever patched
	}
	var install, hold, unhold []string
	var replace []deb.Package
	for _, k := range s.Kept.Packages {
		have, ok := s.find(k.Name)
		if !ok {
			p.Notes = append(p.Notes, fmt.Sprintf("%s: %s is no longer installed, it is not brought back", s.Name, k.Name))
			continue
		}
		judged := s.Judged[k.Name]
		ours := judged.Whose == baseline.Ours
		change := Change{Name: k.Name, Before: describe(have), After: describe(have), Wanted: k.Version}
		reason := s.differs(have, k.Version)
		if !ours && whole(have) && have.Version != k.Version {
			// The distribution's own, newer or from another image: nothing of ours to take back.
			change.Wanted, reason = have.Version, ""
		}
		if reason != "" && k.Refused != "" {
			p.Failure = &Failure{
				Step: "plan", Message: fmt.Sprintf("cannot restore %s: %s", s.Name, k.Refused),
				Hint: "take that line out of the files below /etc/dpkg in the container until the packages are back, or " + baseline.WaysOut([]baseline.Judgement{judged}),
			}
			return
		}
		if reason != "" {
			change.After = k.Version
			p.Reasons[k.Name] = reason
			install = append(install, k.Name)
			replace = append(replace, k.Control)
		}
		_, begun := s.foundDead(k.Name) // a dead run may have come as far as the install
		if k.Held && (reason != "" || begun && have.Version == k.Version && have.Status.Want != "hold") {
			hold = append(hold, k.Name) // dpkg drops a hold when it installs
		}
		if ours && have.Status.Want == "hold" && !k.Held {
			unhold = append(unhold, k.Name)
		}
		p.Changes = append(p.Changes, change)
	}
	if p.Failure = p.dpkgRefuses(replace, len(hold)+len(unhold) > 0); p.Failure != nil {
		return
	}
	p.noteMissed(replace)
	if p.Failure = unmet(s, replace, "these were installed or upgraded since"); p.Failure != nil {
		return
	}
	if len(install) > 0 {
		if p.Failure = s.writable(); p.Failure != nil {
			return
		}
		p.Steps = append(p.Steps, Step{Install, install})
	} else if s.Kept.ID != s.ID {
		p.Notes = append(p.Notes, fmt.Sprintf("%s was recreated since it was patched: the packages kept from its predecessor are removed", s.Name))
	}
	if len(hold) > 0 {
		p.Steps = append(p.Steps, Step{Hold, hold})
	}
	if len(unhold) > 0 {
		p.Steps = append(p.Steps, Step{Unhold, unhold})
	}
	p.Steps = append(p.Steps, Step{Verb: Forget})
}

// stick fails the plan for packages without a way back, whatever this host keeps.
func (p *ContainerPlan) stick(stuck []baseline.Judgement) {
	for _, j := range stuck {
		p.Changes = append(p.Changes, Change{Name: j.Package.Name, Before: describe(j.Package), After: describe(j.Package)})
	}
	p.Failure = &Failure{
		Step: "plan", Hint: baseline.WaysOut(stuck),
		Message: fmt.Sprintf("cannot restore %s, where packages have no way back: %s", p.Seen.Name, reasons(stuck, func(j baseline.Judgement) string {
			_, why := j.Back()
			return why
		})),
	}
}

// judged are all judgements, sorted by name.
func (s Seen) judged() (all []baseline.Judgement) {
	for _, name := range slices.Sorted(maps.Keys(s.Judged)) {
		all = append(all, s.Judged[name])
	}
	return all
}

// waysOut is what to do where what this host keeps cannot be used.
func (s Seen) waysOut() string {
	var patched []baseline.Judgement
	for _, j := range s.judged() {
		if j.Whose != baseline.Stock {
			patched = append(patched, j)
		}
	}
	if len(patched) == 0 {
		return "nothing in the container is known to be patched: see there with apt-cache policy that its QEMU is the distribution's, and remove " +
			"/var/lib/nfslock/baseline/" + s.Name
	}
	return baseline.WaysOut(patched)
}
