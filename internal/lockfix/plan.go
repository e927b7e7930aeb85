package lockfix

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
)

// Seen is what was observed of one container. It is plain data: the same Seen gives the same plan.
type Seen struct {
	Name, ID, Image string
	State           string // the engine's word: "running"
	StartedAt       time.Time
	Returns         bool              // it does not run, and its unit is about to start it
	Unasked         bool              // it is here only because a dead run began something in it
	Dead            *Before           // what that run found, and what it began
	Astray          map[string]string // by package: in what it is not as that run found it
	Triggers        bool              // dpkg has noted some and given them to no package yet
	Room            Room
	ReadOnly        bool
	Distribution    kolla.Distribution
	Architecture    string
	Packages        []deb.Package                 // everything in its dpkg database
	Problems        map[string][]deb.FileProblem  // by package: files that are not as the wanted package has them
	Dpkg            deb.Facts                     // what dpkg would come upon there
	Links           []deb.Refusal                 // hard links that it could not make
	Hollow          []HollowPackage               // those of QEMU's that this host keeps nothing of, and that have lost their content
	Kept            *baseline.Index               // the packages from before, if this host keeps them
	Judged          map[string]baseline.Judgement // by package: whose it is; nil where packages are not of interest
	KeptDamage      string                        // why those cannot be used
	Library         preloaded.Place               // what there is of the preloaded library
	LibraryDamage   string                        // why that could not be seen
	Program         preloaded.Program             // one that the library is for
	Daemons         []Daemon                      // libvirt's, where guests run
	Recorded        string                        // the id of the container of this name in which this host put the library
	Failure         *Failure                      // it could not be observed
}

// Set is a patch set, as far as planning needs it. Contents holds, by checksum, the control part of each wanted file.
type Set struct {
	patchset.Manifest
	Contents map[string]deb.Archive
}

// installed is what the record of a container is to say of the set's packages for it.
func (set Set) installed(s Seen) (list []baseline.Installed) {
	for _, p := range wanted(set.Manifest, s) {
		list = append(list, baseline.Installed{
			Name: p.Name, Version: p.Version, Sum: baseline.Sum(set.Contents[p.SHA256].Md5sums),
			Graft: deb.Graft{Variant: set.Variant, Suffix: set.Suffix, BuiltFrom: p.BuiltFrom, Stock: p.Stock},
		})
	}
	return list
}

// Verb is what a step does.
type Verb string

// The verbs, in the order in which they happen.
const (
	Keep    Verb = "keep"    // repack the installed packages into the baseline
	Install Verb = "install" // copy files in, one dpkg call, verify
	Hold    Verb = "hold"    // keep apt from replacing them
	Unhold  Verb = "unhold"
	Load    Verb = "load"   // put the library, then its list
	Unload  Verb = "unload" // take the list's entry, then the library
	Restart Verb = "restart"
	Forget  Verb = "forget" // remove the baseline
)

// Step is one change to one container. It says what, not how.
type Step struct {
	Verb     Verb
	Packages []string // names; none for what is not about packages
}

// ContainerPlan is what is to happen to one container.
type ContainerPlan struct {
	Seen    Seen
	Status  Status // what it will be when all goes well
	Changes []Change
	Steps   []Step
	Files   []patchset.Package // for Install of a patch set
	Reasons map[string]string  // why a package is installed again in the version it has
	Notes   []string           // for the warnings
	Library preloaded.Files    // for Load and Unload: what is to be there
	Wanted  preloaded.State    // what was asked for; empty: as it is
	Back    bool               // the steps lead back to what a dead run found
	// PackagesBack: those of the packages do, though the container is brought forward otherwise.
	PackagesBack bool
	reloaded     bool     // the restart is to show in what libvirt has loaded
	Stays        string   // why what a dead run left cannot be worked on now; nobody asked for this container
	Stuck        string   // why dpkg would refuse the way back of what a dead run left: it is not begun
	Reason       string   // why it is passed over
	Failure      *Failure // it cannot be brought to what was asked for
}

// MakePlan decides what is to be done. It reads nothing but its arguments.
func MakePlan(o Options, set Set, seen []Seen) []ContainerPlan {
	plans := make([]ContainerPlan, len(seen))
	for i, s := range seen {
		plans[i] = ContainerPlan{Seen: s, Reasons: map[string]string{}}
		p := &plans[i]
		p.Failure = s.unfit()
		if s.Unasked && p.Failure != nil {
			p.Stays, p.Status, p.Failure = p.Failure.Message, Skipped, nil
			continue
		}
		if s.passedOver(o) {
			p.Status, p.Reason, p.Failure = Skipped, "it is "+s.State, nil
			keeps := "what it has"
			if o.packages() {
				keeps = "its packages"
			}
			p.Notes = []string{fmt.Sprintf("%s is %s: it was passed over and keeps %s; start it and run again", s.Name, s.State, keeps)}
			continue
		}
		switch {
		case p.Failure != nil:
		case s.Unasked:
			p.takeBack()
		default:
			p.aim(o, set)
		}
		if p.Failure == nil {
			p.Failure = p.lacksRoom(set)
		}
		if p.Failure != nil {
			p.Status, p.Steps, p.Files = Failed, nil, nil
			if s.Dead != nil && s.unfit() == nil {
				p.takeBack()
			}
		}
	}
	return plans
}

func (p *ContainerPlan) step(verb Verb) (Step, bool) {
	i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Verb == verb })
	if i < 0 {
		return Step{}, false
	}
	return p.Steps[i], true
}

// stopped: somebody stopped it, or it was never started, and nothing is about to start it.
func (s Seen) stopped() bool {
	return (s.State == "exited" || s.State == "created" || s.State == "dead") && !s.Returns
}

// passedOver: the container was stopped and nobody named it. Not one that a dead run left between two states, and not one from which something of ours
// is to be taken back: a run that says that it did that must have done it.
func (s Seen) passedOver(o Options) bool {
	ours := o.packages() && (s.Kept != nil && s.Kept.ID == s.ID || s.KeptDamage != "") || o.library() && s.Recorded != "" && s.Recorded == s.ID
	owed := s.Dead != nil || o.absent() && ours
	return s.Failure == nil && s.stopped() && len(o.Containers) == 0 && !owed
}

// unfit says why a container cannot be worked on at all.
func (s Seen) unfit() *Failure {
	switch {
	case s.Failure != nil:
		return s.Failure
	case s.Returns:
		return &Failure{
			Step: "observe", Message: fmt.Sprintf("cannot work in %s: it is %s, and its unit is about to start it", s.Name, s.State),
			Hint: "run again when it runs; if it ends again and again, see its log",
		}
	case s.State != "running":
		return &Failure{
			Step: "observe", Message: fmt.Sprintf("cannot work in %s: it is %s", s.Name, s.State),
			Hint: "start or unpause it, or name the other containers with the option containers",
		}
	}
	return nil
}

func (s Seen) withoutDpkg() *Failure {
	return &Failure{
		Step: "observe", Message: fmt.Sprintf("cannot work in %s: its image is %s, and only Debian's and Ubuntu's packages can be rebuilt", s.Name, s.Distribution.ID),
		Hint: "method: library needs no package; see the README for what helps without both: rpcbind and rpc.statd on the host, or NFSv4",
	}
}

// present tells whether dpkg has the package in some state other than removed. One that is half installed counts: it is
// to be mended.
func present(p deb.Package) bool {
	switch p.Status.State {
	case "", "not-installed", "config-files":
		return false
	}
	return true
}

func (s Seen) find(name string) (deb.Package, bool) {
	for _, p := range s.Packages {
		if p.Name == name && present(p) && (p.Architecture == s.Architecture || p.Architecture == "all") {
			return p, true
		}
	}
	return deb.Package{}, false
}

// wanted are the packages of the set that are to be in the container: those that are installed there in some version.
func wanted(set patchset.Manifest, s Seen) []patchset.Package {
	var list []patchset.Package
	for _, p := range set.For(s.Distribution.ID, s.Distribution.Release, s.Architecture) {
		if _, ok := s.find(p.Name); ok {
			list = append(list, p)
		}
	}
	return list
}

func (p *ContainerPlan) patch(o Options, set Set) {
	s := p.Seen
	if len(set.For(s.Distribution.ID, s.Distribution.Release, s.Architecture)) == 0 {
		p.Failure = &Failure{
			Step: "plan", Message: fmt.Sprintf("cannot patch %s: the patch set has nothing for %s %s %s; it has packages for %s", s.Name,
				s.Distribution.ID, s.Distribution.Release, s.Architecture, strings.Join(set.Platforms(), ", ")),
			Hint: "build the patch set from this container's image",
		}
		return
	}
	want := wanted(set.Manifest, s)
	if len(want) == 0 {
		p.Status = Skipped
		return
	}
	var names, keep, hold []string
	var replace []deb.Package
	var refused []baseline.Judgement
	for _, w := range want {
		have, _ := s.find(w.Name)
		judged, reason := s.Judged[w.Name], s.differs(have, w.Version)
		if reason != "" && judged.Keeping() == baseline.Refuse {
			refused = append(refused, judged)
			continue
		}
		if p.Failure = versionChange(o, s, judged, w); p.Failure != nil {
			return
		}
		change := Change{Name: w.Name, Before: describe(have), After: describe(have), Wanted: w.Version}
		if reason != "" {
			change.After = w.Version
			p.Reasons[w.Name] = reason
			names = append(names, w.Name)
			p.Files = append(p.Files, w)
			replace = append(replace, set.Contents[w.SHA256].Package)
			switch {
			case judged.Whose == baseline.Doubtful:
				p.Notes = append(p.Notes, fmt.Sprintf("%s: whose %s %s is cannot be told: %s; state: absent brings %s back, which is from before it",
					s.Name, w.Name, describe(have), judged.Why, judged.Kept.Version))
			case judged.Keeping() != baseline.Keep:
			case !whole(have):
				p.Notes = append(p.Notes, fmt.Sprintf("%s: %s is %s, so it cannot be kept for state: absent", s.Name, w.Name, describe(have)))
			default:
				keep = append(keep, w.Name)
			}
		}
		// dpkg drops a hold when it installs, so what was held, before a dead run too, is held again in any case.
		held, replaced := have.Status.Want == "hold", p.Reasons[w.Name] != ""
		found, _ := s.foundDead(w.Name)
		if (o.Hold || held || found.Held) && (!held || replaced) {
			hold = append(hold, w.Name)
		}
		p.Changes = append(p.Changes, change)
	}
	if len(refused) > 0 {
		p.Failure = &Failure{
			Step: "plan", Hint: baseline.WaysOut(refused),
			Message: fmt.Sprintf("cannot replace packages in %s that nobody could bring back: %s", s.Name,
				reasons(refused, func(j baseline.Judgement) string { return j.Why })),
		}
		return
	}
	if p.Failure = cmp.Or(p.dpkgRefuses(replace, len(hold) > 0), s.misses(set)); p.Failure != nil {
		return
	}
	if p.Failure = unmet(s, replace, "the patch set lacks packages that are tied to them by exact version"); p.Failure != nil {
		return
	}
	if len(names) > 0 {
		if p.Failure = s.writable(); p.Failure != nil {
			return
		}
		if len(keep) > 0 {
			p.Steps = append(p.Steps, Step{Keep, keep})
		}
		p.Steps = append(p.Steps, Step{Install, names})
	}
	if len(hold) > 0 {
		p.Steps = append(p.Steps, Step{Hold, hold})
	}
	if s.KeptDamage != "" {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: %s", s.Name, s.KeptDamage))
	}
	if s.Kept != nil && s.Kept.ID != s.ID && len(keep) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s was recreated since it was patched: the packages kept from its predecessor are replaced by its own", s.Name))
	}
}

// finish adds the restart and names the status.
func (p *ContainerPlan) finish(o Options) {
	if p.Status == Skipped && len(p.Steps) == 0 {
		return
	}
	_, programs := p.step(Install)
	p.Status = Unchanged
	if slices.ContainsFunc(p.Steps, func(s Step) bool { return slices.Contains([]Verb{Install, Hold, Unhold, Load, Unload}, s.Verb) }) {
		p.Status = Patched
		if o.absent() {
			p.Status = Restored
		}
	}
	if !kolla.RunsGuests(p.Seen.Name) {
		return
	}
	programs = programs || p.reloads(o) || p.Seen.owesRestart()
	if o.Restart == RestartAlways || o.Restart == RestartAuto && programs {
		p.Steps = append(p.Steps, Step{Verb: Restart})
		p.reloaded = o.library()
	} else {
		p.noteDaemons()
	}
}

// owesRestart: a run died between the install and the restart, and nobody has started the container since.
func (s Seen) owesRestart() bool {
	return s.Dead != nil && s.Dead.Owed != nil && s.StartedAt.Equal(*s.Dead.Owed)
}

// differs says why the package has to be installed again, or nothing.
func (s Seen) differs(have deb.Package, version string) string {
	if have.Version != version {
		return have.Version + " -> " + version
	}
	if !whole(have) {
		return "is " + have.Status.String() + ", not installed whole"
	}
	if problems := s.Problems[have.Name]; len(problems) > 0 {
		first := problems[0]
		if len(problems) == 1 {
			return fmt.Sprintf("%s is %s", first.Path, first.Kind)
		}
		return fmt.Sprintf("%s is %s, and %d more", first.Path, first.Kind, len(problems)-1)
	}
	return ""
}

// writable is asked only of containers that are to change: a read-only one that needs nothing is fine.
func (s Seen) writable() *Failure {
	if !s.ReadOnly {
		return nil
	}
	return &Failure{
		Step: "plan", Message: fmt.Sprintf("cannot change %s: its root filesystem is read-only", s.Name),
		Hint: "put the packages into its image instead",
	}
}

// describe gives a version, with dpkg's state in front where that is not plainly installed or held.
func describe(p deb.Package) string {
	if whole(p) {
		return p.Version
	}
	return p.Status.String() + " " + p.Version
}

// whole: dpkg has finished with it.
func whole(p deb.Package) bool { return p.Status.State == "installed" && p.Status.Flag == "ok" }

func versionChange(o Options, s Seen, judged baseline.Judgement, w patchset.Package) *Failure {
	if judged.Source() == w.BuiltFrom || o.AllowVersionChange {
		return nil
	}
	f := &Failure{
		Step: "plan", Message: fmt.Sprintf("cannot replace %s %s in %s: the patch set's was built from %s", w.Name, judged.Package.Version, s.Name, w.BuiltFrom),
		Hint: "build the patch set from this container's image, or set allow_version_change: true",
	}
	if judged.Whose == baseline.Doubtful {
		f.Message += ", and whose this one is cannot be told: " + judged.Why
		f.Hint = baseline.WaysOut([]baseline.Judgement{judged}) + "; or set allow_version_change: true"
	}
	return f
}

// reasons says of each package what there is to say.
func reasons(judged []baseline.Judgement, why func(baseline.Judgement) string) string {
	var parts []string
	for _, j := range judged {
		parts = append(parts, fmt.Sprintf("%s %s: %s", j.Package.Name, describe(j.Package), why(j)))
	}
	return strings.Join(parts, "; ")
}

// unmet refuses a set that dpkg would install without a word, after which apt no longer works in the container.
func unmet(s Seen, replace []deb.Package, reason string) *Failure {
	broken, err := deb.NewlyUnmet(s.Packages, replace)
	if err != nil {
		return &Failure{Step: "plan", Message: fmt.Sprintf("cannot compute the dependencies in %s: %v", s.Name, err)}
	}
	if len(broken) == 0 {
		return nil
	}
	var lines, missing []string
	for _, u := range broken {
		lines = append(lines, u.String())
		missing = append(missing, u.Package)
	}
	slices.Sort(missing)
	return &Failure{
		Step:    "plan",
		Message: fmt.Sprintf("cannot change the packages of %s: %s would break apt there: %s", s.Name, names(replace), strings.Join(lines, "; ")),
		Hint:    fmt.Sprintf("%s: %s", reason, strings.Join(slices.Compact(missing), ", ")),
	}
}

func names(packages []deb.Package) string {
	var list []string
	for _, p := range packages {
		list = append(list, p.Name+" "+p.Version)
	}
	return strings.Join(list, " and ")
}
