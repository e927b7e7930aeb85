package lockfix

import (
	"fmt"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// restore plans the way back to the packages from before.
func (p *ContainerPlan) restore(o Options) {
	s := p.Seen
	if s.Kept == nil {
		p.withoutBaseline()
		return
	}
	var install, unhold, why []string
	var replace []deb.Package
	for _, k := range s.Kept.Packages {
		have, ok := s.find(k.Name)
		if !ok {
			p.Note = fmt.Sprintf("%s: %s is no longer installed, it is not brought back", s.Name, k.Name)
			continue
		}
		change := Change{Name: k.Name, Before: describe(have), After: describe(have), Wanted: k.Version}
		recreated := s.Kept.ID != s.ID && !isPatched(have.Version, s.Kept.Suffix)
		if recreated {
			// Whatever version the new container came with is its own; the old one's packages are not for it.
			change.Wanted = have.Version
		} else if reason := s.differs(have, k.Version); reason != "" {
			change.After = k.Version
			install = append(install, k.Name)
			why = append(why, k.Name+" "+reason)
			replace = append(replace, k.Control)
		}
		if have.Status.Want == "hold" && !k.Held && !recreated {
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
		p.Steps = append(p.Steps, Step{Install, install, strings.Join(why, "; ")})
	}
	if len(unhold) > 0 {
		p.Steps = append(p.Steps, Step{Unhold, unhold, "they were not held before"})
	}
	p.Steps = append(p.Steps, Step{Verb: Forget, Why: "the packages from before are back"})
	if s.Kept.ID != s.ID && len(install)+len(unhold) == 0 {
		p.Note = fmt.Sprintf("%s was recreated since it was patched: the packages kept from its predecessor are removed", s.Name)
	}
	p.finish(o, Restored, len(install) > 0)
}

// withoutBaseline is right where nothing was ever patched, and an error where something is.
func (p *ContainerPlan) withoutBaseline() {
	p.Status = Unchanged
	var apt []string
	for _, have := range p.Seen.Packages {
		if present(have) && isPatched(have.Version, "") {
			p.Changes = append(p.Changes, Change{Name: have.Name, Before: describe(have), After: describe(have)})
			apt = append(apt, fmt.Sprintf("%s=%s", have.Name, sourceVersion(have, "")))
		}
	}
	if len(apt) > 0 {
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf("cannot restore %s: the packages from before are not kept on this host", p.Seen.Name),
			Hint: fmt.Sprintf("recreate the container from its image, or run as root inside it: apt-get install --allow-downgrades --allow-change-held-packages %s "+
				"(with +b1, +b2 … behind the version where apt-cache policy shows it)", strings.Join(apt, " ")),
		}
	}
}
