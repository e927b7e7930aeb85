package lockfix

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// What dpkg would refuse is in the plan, by the names of faults that were seen on real hosts.
func TestPlanBeginsNothingThatDpkgWouldRefuse(t *testing.T) {
	const file = "/usr/bin/qemu-img"
	held := func(p *deb.Package) { p.Status.Want = "hold" }
	utils, newUtils := installed("qemu-utils", stock), rebuilt("qemu-utils", stock, "+nfslock1")
	depends := func(p *deb.Package) { p.Depends = "libiscsi7 (>= 1.18)" }
	iscsi := installed("libiscsi7", "1.19")
	halfDone := with(iscsi, func(p *deb.Package) { p.Status.State = "half-configured" })
	refusal := func(why string) deb.Refusal {
		return deb.Refusal{Package: "qemu-utils", Where: file, Why: why, Remedy: "mend it"}
	}
	standing := deb.Refusal{Where: "/var/lib/dpkg/statoverride:1", Why: `there is no group "x": dpkg installs nothing`, Remedy: "remove it"}
	line := deb.Refusal{Where: "/etc/dpkg/dpkg.cfg:3", Why: "no-act makes dpkg do nothing", Remedy: "take it out"}
	link := deb.Refusal{Where: "/var/lib/dpkg/status", Why: "no hard link can be made of it", Remedy: "let the profile allow it"}
	seen := func(f func(*Seen), packages ...deb.Package) Seen {
		s := bookworm("cinder_api", packages...)
		f(&s)
		return s
	}
	kept := func(s *Seen) {
		s.Kept = &baseline.Index{ID: "1", Suffix: "+nfslock1", Packages: []baseline.Kept{{Name: "qemu-utils", Version: stock, Control: with(utils, depends)}}}
	}
	nothing := func(*Seen) {}
	const cannot = "failed: cannot change the packages of cinder_api: dpkg would refuse: "
	for _, test := range []struct {
		name   string
		change func(*Options)
		set    Set
		seen   Seen
		want   string
		hint   string
		notes  string
	}{
		{
			name: "a dependency that is missing", set: planSet(with(newUtils, depends)), seen: seen(nothing, utils),
			want: cannot + "qemu-utils: qemu-utils 1:7.2-7+nfslock1 Depends libiscsi7 (>= 1.18): nothing meets it: dpkg does not configure the package", hint: "mend that in the container first: apt-get -f install",
		},
		{
			name: "a dependency that is half configured", set: planSet(with(newUtils, depends)), seen: seen(nothing, utils, halfDone),
			want: cannot + "qemu-utils: qemu-utils 1:7.2-7+nfslock1 Depends libiscsi7 (>= 1.18): libiscsi7 is half-configured: dpkg does not configure the package", hint: "mend that in the container first: apt-get -f install",
		},
		{
			name: "a dependency that only the way back would lack", change: func(o *Options) { o.AllowVersionChange = true }, set: planSet(newUtils), seen: seen(nothing, with(utils, depends)),
			want: "failed: cannot change the packages of cinder_api: dpkg would refuse to take the change back: qemu-utils: qemu-utils 1:7.2-7 Depends libiscsi7 (>= 1.18): nothing meets it: dpkg does not configure the package",
			hint: "mend that in the container first: apt-get -f install",
		},
		{
			name: "a dependency that is half installed, and mended by the same install", set: planSet(newUtils, rebuilt("qemu-block-extra", stock, "+nfslock1")),
			seen: seen(nothing, with(utils, func(p *deb.Package) { p.Status.State = "half-installed" }), with(installed("qemu-block-extra", stock), func(p *deb.Package) { p.Depends = "qemu-utils" })),
			want: "patched; keep qemu-block-extra; install qemu-utils qemu-block-extra; hold qemu-utils qemu-block-extra", notes: "cinder_api: qemu-utils is iH 1:7.2-7, so it cannot be kept for state: absent",
		},
		{
			name: "a dependency of what is not to be installed", set: planSet(newUtils), seen: seen(nothing, utils, with(installed("qemu-system-arm", stock), depends)),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{
			name: "a dependency of the packages from before", change: absent, seen: seen(kept, newUtils),
			want: cannot + "qemu-utils: qemu-utils 1:7.2-7 Depends libiscsi7 (>= 1.18): nothing meets it: dpkg does not configure the package", hint: "mend that in the container first: apt-get -f install",
		},
		{
			name: "a line of dpkg's configuration", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Settings.Refusals = []deb.Refusal{line} }, utils),
			want: cannot + "/etc/dpkg/dpkg.cfg:3: no-act makes dpkg do nothing", hint: "take it out",
		},
		{
			name: "the same, where only a hold is to be set", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Settings.Refusals = []deb.Refusal{line} }, newUtils),
			want: cannot + "/etc/dpkg/dpkg.cfg:3: no-act makes dpkg do nothing", hint: "take it out",
		},
		{
			name: "the same, where dpkg has nothing to do", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Settings.Refusals = []deb.Refusal{line} }, with(newUtils, held)),
			want: "unchanged",
		},
		{
			name: "refuse-downgrade is set aside, and said", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Settings.Options = []string{"--force-downgrade"} }, utils),
			want:  "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
			notes: "cinder_api: dpkg is called with --force-downgrade there, against what its configuration says: else it would not install, or not go back",
		},
		{
			name: "a hook is said", set: planSet(newUtils), seen: seen(func(s *Seen) {
				s.Dpkg.Settings.Hooks = []deb.Hook{{Where: "/etc/dpkg/dpkg.cfg:1", Option: "post-invoke", Command: "exit 1"}}
			}, utils),
			want:  "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
			notes: `cinder_api: dpkg is configured to run another program, "exit 1" (post-invoke, /etc/dpkg/dpkg.cfg:1): if that fails, dpkg fails, and the change is taken back`,
		},
		{
			name: "an override of a group that is not there", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Standing = []deb.Refusal{standing} }, utils),
			want: cannot + `/var/lib/dpkg/statoverride:1: there is no group "x": dpkg installs nothing`, hint: "remove it",
		},
		{
			name: "a mount over a file", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Files = []deb.Refusal{refusal("something is mounted there")} }, utils),
			want: cannot + "qemu-utils: /usr/bin/qemu-img: something is mounted there", hint: "mend it",
		},
		{
			name: "a mount over a file of another package", set: planSet(newUtils), seen: seen(func(s *Seen) {
				s.Dpkg.Files = []deb.Refusal{{Package: "qemu-block-extra", Where: file, Why: "something is mounted there"}}
			}, utils), want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{
			name: "immutable files are counted", set: planSet(newUtils), seen: seen(func(s *Seen) {
				for i := range 5 {
					r := refusal("it is immutable")
					r.Where += fmt.Sprint(i)
					s.Dpkg.Files = append(s.Dpkg.Files, r)
				}
			}, utils),
			want: cannot + "qemu-utils: /usr/bin/qemu-img0: it is immutable; qemu-utils: /usr/bin/qemu-img1: it is immutable; qemu-utils: /usr/bin/qemu-img2: it is immutable; and 2 more", hint: "mend it",
		},
		{
			name: "hard links refused", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Links = []deb.Refusal{link} }, utils),
			want: cannot + "/var/lib/dpkg/status: no hard link can be made of it", hint: "let the profile allow it",
		},
		{
			name: "hard links refused on the way back", change: absent, seen: seen(func(s *Seen) {
				kept(s)
				s.Links = []deb.Refusal{link}
			}, newUtils, iscsi),
			want: cannot + "/var/lib/dpkg/status: no hard link can be made of it", hint: "let the profile allow it",
		},
		{
			name: "a program that is diverted", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Missed = []deb.Refusal{refusal("what runs is another program")} }, utils),
			want: "failed: cannot patch cinder_api: dpkg can put the packages there, and what runs would not be theirs: qemu-utils: /usr/bin/qemu-img: what runs is another program", hint: "mend it",
		},
		{
			name: "a program that is diverted, patched already", set: planSet(newUtils), seen: seen(func(s *Seen) { s.Dpkg.Missed = []deb.Refusal{refusal("what runs is another program")} }, with(newUtils, held)),
			want: "failed: cannot patch cinder_api: dpkg can put the packages there, and what runs would not be theirs: qemu-utils: /usr/bin/qemu-img: what runs is another program", hint: "mend it",
		},
		{
			name: "a program that is diverted does not stop the way back", change: absent, seen: seen(func(s *Seen) {
				kept(s)
				s.Dpkg.Missed = []deb.Refusal{refusal("what runs is another program")}
			}, newUtils, iscsi),
			want:  "restored; install qemu-utils; forget",
			notes: "cinder_api: what runs there is not what the packages from before hold: qemu-utils: /usr/bin/qemu-img: what runs is another program (mend it)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options()
			if test.change != nil {
				test.change(&o)
			}
			p := MakePlan(o, test.set, []Seen{judge(test.seen, test.set)})[0]
			if got := tell(p); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			hint := ""
			if p.Failure != nil {
				hint = p.Failure.Hint
			}
			if hint != test.hint || len(p.Steps) > 0 && p.Failure != nil {
				t.Errorf("hint %q, steps %v", hint, p.Steps)
			}
			if got := strings.Join(p.Notes, "\n"); got != test.notes {
				t.Errorf("notes %s", got)
			}
		})
	}
}

// A run died in the container, and dpkg would refuse to bring back what it found.
func TestPlanLeavesWhatDpkgWouldRefuseToBringBack(t *testing.T) {
	stockUtils, half := installed("qemu-utils", stock), with(rebuilt("qemu-utils", stock, "+nfslock1"), func(p *deb.Package) { p.Status.State = "half-configured" })
	line := deb.Refusal{Where: "/etc/dpkg/dpkg.cfg:3", Why: "no-act makes dpkg do nothing", Remedy: "take it out"}
	file := deb.Refusal{Package: "qemu-utils", Where: "/usr/bin/qemu-img", Why: "it is immutable", Remedy: "chattr -i"}
	const cannot = "cannot change the packages of cinder_api: dpkg would refuse to bring back what was there: "
	for _, test := range []struct {
		name   string
		have   deb.Package
		change func(*Seen)
		want   string // the plan
		stays  string
	}{
		{name: "nothing is refused", have: half, want: "rolled_back; install qemu-utils"},
		{
			name: "a line of the configuration", have: half, change: func(s *Seen) { s.Dpkg.Settings.Refusals = []deb.Refusal{line} },
			want: "skipped", stays: cannot + "/etc/dpkg/dpkg.cfg:3: no-act makes dpkg do nothing (take it out)",
		},
		{
			name: "a file", have: half, change: func(s *Seen) { s.Dpkg.Files = []deb.Refusal{file} },
			want: "skipped", stays: cannot + "qemu-utils: /usr/bin/qemu-img: it is immutable (chattr -i)",
		},
		{
			name: "a file of a package that is not kept", have: half, change: func(s *Seen) { s.Kept, s.Dpkg.Files = nil, []deb.Refusal{file} },
			want: "skipped", stays: cannot + "qemu-utils: /usr/bin/qemu-img: it is immutable (chattr -i)",
		},
		{
			name: "a dependency", have: half, change: func(s *Seen) { s.Kept.Packages[0].Control.Depends = "libiscsi7" },
			want: "skipped", stays: cannot + "qemu-utils: qemu-utils 1:7.2-7 Depends libiscsi7: nothing meets it: dpkg does not configure the package (mend that in the container first: apt-get -f install)",
		},
		{
			name: "hard links", have: half, change: func(s *Seen) { s.Links = []deb.Refusal{{Where: "/x", Why: "no link", Remedy: "allow it"}} },
			want: "skipped", stays: cannot + "/x: no link (allow it)",
		},
		{
			name: "what is there again is not asked of dpkg", have: stockUtils, change: func(s *Seen) { s.Astray, s.Dpkg.Files = nil, []deb.Refusal{file} },
			want: "rolled_back",
		},
		{
			name: "what is there again with other files is", have: stockUtils, change: func(s *Seen) { s.Dpkg.Files = []deb.Refusal{file} },
			want: "skipped", stays: cannot + "qemu-utils: /usr/bin/qemu-img: it is immutable (chattr -i)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := bookworm("cinder_api", test.have)
			s.Unasked = true
			s.Dead = &Before{Name: s.Name, ID: s.ID, Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Replaced: true}}, Begun: []Verb{Install}}
			s.Astray = map[string]string{"qemu-utils": "another one is there"}
			s.Kept = &baseline.Index{ID: s.ID, Suffix: "+nfslock1", Packages: []baseline.Kept{{Name: "qemu-utils", Version: stock, Control: stockUtils}}}
			if test.change != nil {
				test.change(&s)
			}
			p := MakePlan(options(), Set{}, []Seen{s})[0]
			if got := tell(p); got != test.want || p.Stays != test.stays {
				t.Errorf("got  %s; stays so: %s\nwant %s; stays so: %s", got, p.Stays, test.want, test.stays)
			}
			if c := p.Changes[0]; test.stays != "" && c.After != c.Before {
				t.Errorf("nothing is to change, and yet: %+v", c)
			}
			if test.stays == "" {
				return
			}
			s.Unasked = false
			s.Distribution.Release = "trixie" // it cannot be patched either
			p = MakePlan(options(), planSet(rebuilt("qemu-utils", stock, "+nfslock1")), []Seen{s})[0]
			if p.Status != Failed || p.Failure == nil || len(p.Steps) > 0 || p.Back {
				t.Errorf("asked for: %+v", p)
			}
		})
	}
}
