package lockfix

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

func installed(name, version string) deb.Package {
	return deb.Package{Name: name, Version: version, SourceVersion: strings.TrimSuffix(version, "+b3"), Architecture: "amd64", Status: deb.Status{Want: "install", Flag: "ok", State: "installed"}}
}

func stoppedIn(state string, s Seen) Seen {
	s.State = state
	return s
}

func with(p deb.Package, f func(*deb.Package)) deb.Package {
	f(&p)
	return p
}

func bookworm(name string, packages ...deb.Package) Seen {
	return Seen{Name: name, ID: "1", State: "running", Distribution: kolla.Distribution{ID: "debian", Release: "bookworm"}, Architecture: "amd64", Packages: packages}
}

func planSet(packages ...deb.Package) Set {
	set := Set{Manifest: patchset.Manifest{Suffix: "+nfslock1"}, Contents: map[string]deb.Archive{}}
	for _, p := range packages {
		m := patchset.Package{
			Name: p.Name, Version: p.Version, BuiltFrom: strings.TrimSuffix(p.Version, "+nfslock1"), Distribution: "debian", Release: "bookworm", Architecture: "amd64", SHA256: p.Name,
		}
		set.Packages = append(set.Packages, m)
		set.Contents[m.SHA256] = deb.Archive{Package: with(p, func(p *deb.Package) { p.Status = deb.Status{} })}
	}
	return set
}

// judge is what observing makes of the packages, of which no checksums are known.
func judge(s Seen, set Set) Seen {
	known := baseline.Known{ID: s.ID, Index: s.Kept, Set: set.installed(s)}
	s.Judged = map[string]baseline.Judgement{}
	for _, p := range s.Packages {
		if present(p) {
			s.Judged[p.Name] = known.Judge(p, "")
		}
	}
	return s
}

// rebuilt is a package of ours with the fields that the recipe writes.
func rebuilt(name, from, suffix string) deb.Package {
	return with(installed(name, from+suffix), func(p *deb.Package) {
		p.Graft = deb.Graft{Variant: "fallback", Suffix: suffix, BuiltFrom: from, Stock: from}
	})
}

// tell puts a plan into a line.
func tell(p ContainerPlan) string {
	if p.Failure != nil {
		return "failed: " + p.Failure.Message
	}
	parts := []string{string(p.Status)}
	for _, s := range p.Steps {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s", s.Verb, strings.Join(s.Packages, " "))))
	}
	return strings.Join(parts, "; ")
}

func TestPlan(t *testing.T) {
	utils, extra := installed("qemu-utils", stock), installed("qemu-block-extra", stock)
	newUtils, newExtra := installed("qemu-utils", patched), installed("qemu-block-extra", patched)
	held := func(p *deb.Package) { p.Status.Want = "hold" }
	set := planSet(newUtils, newExtra)
	kept := func(id string, packages ...baseline.Kept) *baseline.Index {
		return &baseline.Index{ID: id, Suffix: "+nfslock1", Packages: packages}
	}
	keptUtils := baseline.Kept{Name: "qemu-utils", Version: stock, Control: utils}
	for _, test := range []struct {
		name   string
		change func(*Options)
		set    Set
		seen   Seen
		want   string
	}{
		{name: "stock", set: set, seen: bookworm("cinder_volume", utils), want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils"},
		{
			name: "both packages in one install", set: set, seen: bookworm("nova_compute", utils, extra),
			want: "patched; keep qemu-utils qemu-block-extra; install qemu-utils qemu-block-extra; hold qemu-utils qemu-block-extra",
		},
		{name: "nova_libvirt is restarted", set: set, seen: bookworm("nova_libvirt", utils), want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils; restart"},
		{
			name: "unless restart is never", change: func(o *Options) { o.Restart = RestartNever }, set: set, seen: bookworm("nova_libvirt", utils),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{name: "a binary rebuild of the same source", set: set, seen: bookworm("cinder_api", installed("qemu-utils", stock+"+b3")), want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils"},
		{name: "all there and held", set: set, seen: bookworm("cinder_api", with(newUtils, held)), want: "unchanged"},
		{name: "all there, not held", set: set, seen: bookworm("cinder_api", newUtils), want: "patched; hold qemu-utils"},
		{name: "holds are not wanted", change: func(o *Options) { o.Hold = false }, set: set, seen: bookworm("cinder_api", newUtils), want: "unchanged"},
		{
			name: "half installed", set: set, seen: bookworm("cinder_api", with(newUtils, func(p *deb.Package) { p.Status.State, p.Status.Flag = "half-installed", "reinstreq" })),
			want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "half configured says the new version already", set: set, seen: bookworm("cinder_api", with(newUtils, func(p *deb.Package) { p.Status.State = "half-configured" })),
			want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "an altered file", set: set, seen: func() Seen {
				s := bookworm("cinder_api", with(newUtils, held))
				s.Problems = map[string][]deb.FileProblem{"qemu-utils": {{Path: "/usr/bin/qemu-img", Kind: "altered"}}}
				return s
			}(), want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "removed with its configuration left", set: set,
			seen: bookworm("cinder_api", utils, with(extra, func(p *deb.Package) { p.Status = deb.Status{Want: "deinstall", Flag: "ok", State: "config-files"} })),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{name: "none of the packages", set: set, seen: bookworm("cinder_api", installed("bash", "5")), want: "skipped"},
		{
			name: "another source version", set: set, seen: bookworm("cinder_api", installed("qemu-utils", "1:7.2-6")),
			want: "failed: cannot replace qemu-utils 1:7.2-6 in cinder_api: the patch set's was built from 1:7.2-7",
		},
		{
			name: "allowed", change: func(o *Options) { o.AllowVersionChange = true }, set: set, seen: bookworm("cinder_api", installed("qemu-utils", "1:7.2-6")),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{
			name: "another release", set: set, seen: func() Seen {
				s := bookworm("cinder_api", utils)
				s.Distribution.Release = "trixie"
				return s
			}(), want: "failed: cannot patch cinder_api: the patch set has nothing for debian trixie amd64; it has packages for debian bookworm amd64",
		},
		{
			name: "an rpm image", set: set, seen: func() Seen {
				s := bookworm("cinder_api")
				s.Distribution = kolla.Distribution{ID: "rocky"}
				return s
			}(), want: "failed: cannot work in cinder_api: its image is rocky, and only Debian's and Ubuntu's packages can be rebuilt",
		},
		{
			name: "tied versions are refused before copying", set: planSet(newUtils),
			seen: bookworm("cinder_api", utils, with(extra, func(p *deb.Package) { p.Depends = "qemu-system-any (= 1:7.2-7) | qemu-utils (= 1:7.2-7)" })),
			want: "failed: cannot change the packages of cinder_api: qemu-utils 1:7.2-7+nfslock1 would break apt there: " +
				"qemu-block-extra 1:7.2-7 Depends qemu-system-any (= 1:7.2-7) | qemu-utils (= 1:7.2-7)",
		},
		{
			name: "a package that provides the stock version keeps the tie", set: planSet(with(newUtils, func(p *deb.Package) { p.Provides = "qemu-utils (= 1:7.2-7)" })),
			seen: bookworm("cinder_api", utils, with(extra, func(p *deb.Package) { p.Depends = "qemu-system-any (= 1:7.2-7) | qemu-utils (= 1:7.2-7)" })),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{
			name: "read-only", set: set, seen: func() Seen {
				s := bookworm("cinder_api", utils)
				s.ReadOnly = true
				return s
			}(), want: "failed: cannot change cinder_api: its root filesystem is read-only",
		},
		{name: "one that is stopped is passed over", seen: stoppedIn("exited", bookworm("cinder_api")), want: "skipped"},
		{name: "one that was never started, too", seen: stoppedIn("created", bookworm("cinder_api")), want: "skipped"},
		{name: "but not where the user names it", change: func(o *Options) { o.Containers = []string{"cinder_api"} }, seen: stoppedIn("exited", bookworm("cinder_api")), want: "failed: cannot work in cinder_api: it is exited"},
		{
			name: "nor where its unit starts it again", seen: func() Seen {
				s := stoppedIn("exited", bookworm("cinder_api"))
				s.Returns = true
				return s
			}(), want: "failed: cannot work in cinder_api: it is exited, and its unit is about to start it",
		},
		{name: "one that is paused is none", seen: stoppedIn("paused", bookworm("cinder_api")), want: "failed: cannot work in cinder_api: it is paused"},
		{name: "absent passes over one that is stopped and has nothing of ours", change: absent, seen: stoppedIn("exited", bookworm("cinder_api")), want: "skipped"},
		{
			name: "absent fails for one that is stopped and was patched", change: absent, seen: func() Seen {
				s := stoppedIn("exited", bookworm("cinder_api"))
				s.Kept = kept("1", keptUtils)
				return s
			}(), want: "failed: cannot work in cinder_api: it is exited",
		},
		{
			name: "not for the predecessor of one that was recreated", change: absent, seen: func() Seen {
				s := stoppedIn("created", bookworm("cinder_api"))
				s.Kept = kept("0", keptUtils)
				return s
			}(), want: "skipped",
		},
		{
			name: "absent", change: absent, seen: func() Seen {
				s := bookworm("nova_libvirt", with(newUtils, held))
				s.Kept = kept("1", keptUtils)
				return s
			}(), want: "restored; install qemu-utils; unhold qemu-utils; forget; restart",
		},
		{
			name: "absent leaves a hold from before", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", with(newUtils, held))
				s.Kept = kept("1", withKept(keptUtils, func(k *baseline.Kept) { k.Held = true }))
				return s
			}(), want: "restored; install qemu-utils; hold qemu-utils; forget",
		},
		{
			name: "absent after the container was recreated", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", installed("qemu-utils", "1:7.2-8"))
				s.Kept = kept("0", keptUtils)
				return s
			}(), want: "unchanged; forget",
		},
		{
			name: "absent leaves a newer version of the distribution alone", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", installed("qemu-utils", "1:7.2-8"))
				s.Kept = kept("1", keptUtils)
				return s
			}(), want: "unchanged; forget",
		},
		{
			name: "absent refuses what dpkg would refuse", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", newUtils)
				s.Kept = kept("1", withKept(keptUtils, func(k *baseline.Kept) { k.Refused = "by now its dpkg wants a link" }))
				return s
			}(), want: "failed: cannot restore cinder_api: by now its dpkg wants a link",
		},
		{
			name: "absent refuses packages of another source version", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", rebuilt("qemu-utils", "1:7.2-8", "+nfslock1"))
				s.Kept = kept("0", keptUtils)
				return s
			}(), want: "failed: cannot restore cinder_api, where packages have no way back: qemu-utils 1:7.2-8+nfslock1: what this host keeps was built from another version, 1:7.2-7",
		},
		{
			name: "another suffix is known by the baseline", set: set, seen: func() Seen {
				s := bookworm("cinder_api", with(installed("qemu-utils", "1:7.2-7+acme1"), held))
				s.Kept = kept("1", keptUtils)
				s.Kept.Suffix = "+acme1"
				return s
			}(), want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "half installed stock cannot be kept", set: set,
			seen: bookworm("cinder_api", with(utils, func(p *deb.Package) { p.Status.State, p.Status.Flag = "half-installed", "reinstreq" })),
			want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "one is patched and lost its hold, one is stock", set: set, seen: bookworm("cinder_api", newUtils, extra),
			want: "patched; keep qemu-block-extra; install qemu-block-extra; hold qemu-utils qemu-block-extra",
		},
		{
			name: "hold: false leaves the operator's own hold", change: func(o *Options) { o.Hold = false }, set: set, seen: bookworm("cinder_api", with(utils, held)),
			want: "patched; keep qemu-utils; install qemu-utils; hold qemu-utils",
		},
		{
			name: "restart: always", change: func(o *Options) { o.Restart = RestartAlways }, set: set, seen: bookworm("nova_libvirt", with(newUtils, held)),
			want: "unchanged; restart",
		},
		{name: "absent where nothing was patched", change: absent, seen: bookworm("cinder_api", utils), want: "unchanged"},
		{
			name: "absent without the packages from before", change: absent, seen: bookworm("cinder_api", rebuilt("qemu-utils", stock, "+acme1")),
			want: "failed: cannot restore cinder_api, where packages have no way back: qemu-utils 1:7.2-7+acme1: the package from before is not kept on this host",
		},
		{
			name: "absent restores nothing by halves", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", rebuilt("qemu-utils", stock, "+acme1"), rebuilt("qemu-block-extra", stock, "+acme1"), rebuilt("qemu-x", stock, "+acme1"))
				s.Kept = kept("1", keptUtils)
				return s
			}(),
			want: "failed: cannot restore cinder_api, where packages have no way back: qemu-block-extra 1:7.2-7+acme1: the package from before is not kept on this host; " +
				"qemu-x 1:7.2-7+acme1: the package from before is not kept on this host",
		},
		{
			name: "absent never calls unchanged what is doubtful", change: absent, seen: bookworm("cinder_api", newUtils),
			want: "failed: cannot restore cinder_api, where packages have no way back: qemu-utils 1:7.2-7+nfslock1: its version looks like that of a patched one, and nothing else says so",
		},
		{
			name: "absent forgets a record that keeps nothing", change: absent, seen: func() Seen {
				s := bookworm("cinder_api", utils)
				s.Kept = kept("1")
				return s
			}(), want: "unchanged; forget",
		},
		{
			name: "what is doubtful and not kept is not replaced", set: planSet(installed("qemu-utils", stock+"+site2")), seen: bookworm("cinder_api", newUtils),
			want: "failed: cannot replace packages in cinder_api that nobody could bring back: qemu-utils 1:7.2-7+nfslock1: its version looks like that of a patched one, and nothing else says so",
		},
		{
			name: "ours, of another suffix, is replaced and not kept", set: set, seen: bookworm("cinder_api", rebuilt("qemu-utils", stock, "+site1")),
			want: "patched; install qemu-utils; hold qemu-utils",
		},
		{
			name: "what is doubtful and kept needs a word of the user's", set: set, seen: func() Seen {
				s := bookworm("cinder_api", installed("qemu-utils", stock+"+ours2"))
				s.Kept = kept("1", keptUtils)
				return s
			}(),
			want: "failed: cannot replace qemu-utils 1:7.2-7+ours2 in cinder_api: the patch set's was built from 1:7.2-7, and whose this one is cannot be told: it is neither 1:7.2-7, which this host keeps, nor one that it put there",
		},
		{
			name: "and with that it is replaced, and what is kept stays", change: func(o *Options) { o.AllowVersionChange = true }, set: set, seen: func() Seen {
				s := bookworm("cinder_api", installed("qemu-utils", stock+"+ours2"))
				s.Kept = kept("1", keptUtils)
				return s
			}(), want: "patched; install qemu-utils; hold qemu-utils",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options()
			if test.change != nil {
				test.change(&o)
			}
			if got := tell(MakePlan(o, test.set, []Seen{judge(test.seen, test.set)})[0]); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func absent(o *Options) { o.State = Absent }

func withKept(k baseline.Kept, f func(*baseline.Kept)) baseline.Kept {
	f(&k)
	return k
}

// A run died in the container; what it left, and what this one makes of it.
func TestPlanAfterADeadRun(t *testing.T) {
	start := time.Unix(1000, 0)
	set := planSet(installed("qemu-utils", patched))
	before := BeforePackage{Name: "qemu-utils", Version: stock, Whole: true, Replaced: true}
	half := with(installed("qemu-utils", patched), func(p *deb.Package) { p.Status.State = "half-configured" })
	done := with(installed("qemu-utils", patched), func(p *deb.Package) { p.Status.Want = "hold" })
	seen := func(name string, have deb.Package, dead Before) Seen {
		s := bookworm(name, have)
		dead.Name, dead.ID = name, s.ID
		s.Dead, s.StartedAt = &dead, start
		if have.Version != dead.Packages[0].Version {
			s.Astray = map[string]string{have.Name: "another one is there"}
		}
		s.Kept = &baseline.Index{ID: s.ID, Suffix: "+nfslock1", Packages: []baseline.Kept{{Name: "qemu-utils", Version: stock, Control: installed("qemu-utils", stock)}}}
		return s
	}
	unasked := func(s Seen) Seen {
		s.Unasked = true
		return s
	}
	other := func(s Seen) Seen {
		s.Distribution.Release = "trixie"
		return s
	}
	owed := func(at time.Time) Before {
		return Before{Packages: []BeforePackage{before}, Begun: []Verb{Install, Hold}, Restart: true, Owed: &at}
	}
	installing := Before{Packages: []BeforePackage{before}, Begun: []Verb{Install}}
	for _, test := range []struct {
		name   string
		change func(*Options)
		seen   Seen
		want   string
	}{
		{name: "it is finished", seen: seen("cinder_api", half, installing), want: "patched; install qemu-utils; hold qemu-utils"},
		{name: "its dpkg finished by itself", seen: seen("cinder_api", done, installing), want: "unchanged"},
		{name: "absent is another end", change: absent, seen: seen("cinder_api", half, installing), want: "restored; install qemu-utils; forget"},
		{name: "where nobody asks for the container it is taken back", seen: unasked(seen("cinder_api", half, installing)), want: "rolled_back; install qemu-utils"},
		{name: "all that was begun is", seen: unasked(seen("cinder_api", done, Before{Packages: []BeforePackage{before}, Begun: []Verb{Install, Hold}})), want: "rolled_back; install qemu-utils; unhold qemu-utils"},
		{
			name: "a hold from before is set again", seen: unasked(seen("cinder_api", half, Before{Packages: []BeforePackage{{Name: "qemu-utils", Version: stock, Whole: true, Held: true, Replaced: true}}, Begun: []Verb{Install}})),
			want: "rolled_back; install qemu-utils; hold qemu-utils",
		},
		{
			name: "only the hold was begun", seen: unasked(seen("cinder_api", done, Before{Packages: []BeforePackage{{Name: "qemu-utils", Version: patched, Whole: true}}, Begun: []Verb{Hold}})),
			want: "rolled_back; unhold qemu-utils",
		},
		{
			name: "after a restart with the new packages it is restarted with the old", seen: unasked(seen("nova_libvirt", done, Before{Packages: []BeforePackage{before}, Begun: []Verb{Install, Restart}})),
			want: "rolled_back; install qemu-utils; unhold qemu-utils; restart",
		},
		{name: "what is as it was found is not installed once more", seen: unasked(seen("cinder_api", installed("qemu-utils", stock), Before{Packages: []BeforePackage{before}, Begun: []Verb{Install, Undo}})), want: "rolled_back"},
		{
			name: "one that was put back and not started again since is restarted", want: "rolled_back; restart",
			seen: unasked(seen("nova_libvirt", installed("qemu-utils", stock), Before{Packages: []BeforePackage{before}, Begun: []Verb{Install, Restart, Undo}, Owed: &start})),
		},
		{name: "one that nobody asks for and that is stopped is left", seen: stoppedIn("exited", unasked(seen("cinder_api", half, installing))), want: "skipped"},
		{name: "one that is asked for and that is stopped is not passed over: it is between two states", seen: stoppedIn("exited", seen("cinder_api", half, installing)), want: "failed: cannot work in cinder_api: it is exited"},
		{name: "one that is asked for and cannot be patched is taken back", seen: other(seen("cinder_api", half, installing)), want: "failed: cannot patch cinder_api: the patch set has nothing for debian trixie amd64; it has packages for debian bookworm amd64; install qemu-utils"},
		{name: "a restart is owed", seen: seen("nova_libvirt", done, owed(start)), want: "unchanged; restart"},
		{name: "unless it was started since", seen: seen("nova_libvirt", done, owed(start.Add(-time.Second))), want: "unchanged"},
		{name: "also by a clock that was set back", seen: seen("nova_libvirt", done, owed(start.Add(time.Second))), want: "unchanged"},
		{name: "or the user wants none", change: func(o *Options) { o.Restart = RestartNever }, seen: seen("nova_libvirt", done, owed(start)), want: "unchanged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options()
			if test.change != nil {
				test.change(&o)
			}
			p := MakePlan(o, set, []Seen{judge(test.seen, set)})[0]
			got := tell(p)
			if p.Failure != nil {
				for _, s := range p.Steps {
					got += "; " + strings.TrimSpace(fmt.Sprintf("%s %s", s.Verb, strings.Join(s.Packages, " ")))
				}
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	big := func(p *deb.Package) { p.InstalledSize = 20 * mib }
	set := planSet(with(installed("qemu-utils", patched), big))
	set.Packages[0].Size = 5 * mib
	seen := func(name string, free uint64) Seen {
		s := bookworm(name, with(installed("qemu-utils", stock), big))
		s.Room = Room{Free: free, Total: 1000 * mib}
		return s
	}
	for _, test := range []struct {
		name string
		seen []Seen
		host Room
		want []string
	}{
		{"enough", []Seen{seen("cinder_api", 29*mib)}, Room{1000 * mib, 2000 * mib}, []string{""}},
		{"not enough in the container", []Seen{seen("cinder_api", 29*mib-1)}, Room{1000 * mib, 2000 * mib}, []string{"cannot change cinder_api: the install needs 29 MiB there, and 28 MiB are free"}},
		{
			"enough for one, not for two on the same filesystem",
			[]Seen{seen("cinder_api", 40*mib), seen("cinder_volume", 40*mib)},
			Room{1000 * mib, 2000 * mib},
			[]string{
				"cannot change cinder_api: the run needs 54 MiB in all containers that share its filesystem, and 40 MiB are free",
				"cannot change cinder_volume: the run needs 54 MiB in all containers that share its filesystem, and 40 MiB are free",
			},
		},
		{"the host shares it", []Seen{seen("cinder_api", 40*mib)}, Room{40 * mib, 1000 * mib}, []string{"cannot change cinder_api: the run needs 49 MiB on this host, with the packages from before that are kept, and 40 MiB are free"}},
		{"the host has none", []Seen{seen("cinder_api", 100*mib)}, Room{3 * mib, 2000 * mib}, []string{"cannot change cinder_api: the run needs 24 MiB on this host, with the packages from before that are kept, and 3 MiB are free"}},
		{"not measured", []Seen{bookworm("cinder_api", installed("qemu-utils", stock))}, Room{}, []string{""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all []Seen
			for _, s := range test.seen {
				all = append(all, judge(s, set))
			}
			plans := MakePlan(options(), set, all)
			hostLacksRoom(set, test.host, plans)
			for i, p := range plans {
				got := ""
				if p.Failure != nil {
					got = p.Failure.Message
				}
				if got != test.want[i] {
					t.Errorf("%s: got %q, want %q", p.Seen.Name, got, test.want[i])
				}
			}
		})
	}
}
