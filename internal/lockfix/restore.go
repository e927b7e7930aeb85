package lockfix

import (
	"fmt"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// restore plans the way back to the packages from before.
func (p *ContainerPlan) restore() {
	s := p.Seen
	if s.KeptDamage != "" {
		p.Failure = &Failure{Step: "plan", Message: fmt.Sprintf("cannot restore %s: %s", s.Name, s.KeptDamage), Hint: s.stockByHand()}
		return
	}
	if s.Kept == nil {
		p.withoutBaseline()
		return
	}
	var install, hold, unhold []string
	var replace []deb.Package
	for _, k := range s.Kept.Packages {
		have, ok := s.find(k.Name)
		if !ok {
			p.Notes = append(p.Notes, fmt.Sprintf("%s: %s is no longer installed, it is not brought back", s.Name, k.Name))
			continue
		}
		ours := s.patched(have.Version, "")
		if from := s.sourceVersion(have, ""); ours && from != k.Control.SourceVersion {
			p.Failure = &Failure{
				Step: "plan", Message: fmt.Sprintf("cannot restore %s: %s %s is installed there, and what this host keeps was built from another version, %s", s.Name, k.Name, have.Version, k.Control.SourceVersion),
				Hint: s.stockByHand(),
			}
			return
		}
		change := Change{Name: k.Name, Before: describe(have), After: describe(have), Wanted: k.Version}
		reason := s.differs(have, k.Version)
		if !ours && whole(have) && have.Version != k.Version {
			// The distribution's own, newer or from another image: nothing of ours to take back.
			change.Wanted, reason = have.Version, ""
		}
		if reason != "" && k.Refused != "" {
			p.Failure = &Failure{
				Step: "plan", Message: fmt.Sprintf("cannot restore %s: %s", s.Name, k.Refused),
				Hint: "take that line out of the files below /etc/dpkg in the container until the packages are back, or " + s.stockByHand(),
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

// withoutBaseline is right where nothing was ever patched, and an error where something is.
func (p *ContainerPlan) withoutBaseline() {
	s := p.Seen
	for _, have := range s.Packages {
		if present(have) && s.patched(have.Version, "") {
			p.Changes = append(p.Changes, Change{Name: have.Name, Before: describe(have), After: describe(have)})
		}
	}
	if len(p.Changes) > 0 {
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf("cannot restore %s: the packages from before are not kept on this host", s.Name),
			Hint: s.stockByHand(),
		}
	}
}

// stockByHand is what to do where this host cannot bring the distribution's packages back.
func (s Seen) stockByHand() string {
	var apt []string
	for _, have := range s.Packages {
		if present(have) && s.patched(have.Version, "") {
			apt = append(apt, have.Name+"="+s.sourceVersion(have, ""))
		}
	}
	if len(apt) == 0 {
		return "nothing in the container is patched: remove /var/lib/nfslock/baseline/" + s.Name
	}
	return "recreate the container from its image, or run as root inside it: apt-get update && apt-get install --allow-downgrades --allow-change-held-packages " +
		strings.Join(apt, " ") + " (with +b1, +b2 … behind the version where apt-cache policy shows it)"
}
