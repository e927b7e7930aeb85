package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

const triggersFile = "var/lib/dpkg/triggers/Unincorp" // dpkg's lib/dpkg/trigdeferred.l

// astray is what of a container is not as it was found. Exit codes tell nothing of that: it is looked at.
type astray struct {
	packages   map[string]string // that were to be replaced, and what is the matter
	hold       []string          // that were held and are not
	unhold     []string          // likewise
	unfinished []string          // others, with which dpkg had finished and has not now
	unread     bool              // dpkg has left records beside its database, or triggers
	library    string            // what is the matter with the two files
	restart    bool              // it runs since before what it runs was put back
}

func (a astray) nothing() bool { return len(a.lines()) == 0 }

// lines say what it is.
func (a astray) lines() (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(a.packages)) {
		lines = append(lines, name+": "+a.packages[name])
	}
	if len(a.hold) > 0 {
		lines = append(lines, "not held any more: "+strings.Join(a.hold, ", "))
	}
	if len(a.unhold) > 0 {
		lines = append(lines, "held, and was not: "+strings.Join(a.unhold, ", "))
	}
	if len(a.unfinished) > 0 {
		lines = append(lines, "dpkg has not finished with "+strings.Join(a.unfinished, ", "))
	}
	if a.unread {
		lines = append(lines, "dpkg has left records in /var/lib/dpkg that it has not read in")
	}
	if a.library != "" {
		lines = append(lines, a.library)
	}
	if a.restart {
		lines = append(lines, "it was not started again with what was put back")
	}
	return lines
}

// stateOf is dpkg's word for how far it is with a package, without what it wants of it.
func stateOf(p deb.Package) string { return p.Status.Flag + " " + p.Status.State }

// nameOf is what dpkg's command line calls it.
func nameOf(p deb.Package) string {
	if p.MultiArch == "same" {
		return p.Name + ":" + p.Architecture
	}
	return p.Name
}

// unfinished are the packages that dpkg --audit would name, with their states.
func unfinished(packages []deb.Package) map[string]string {
	all := map[string]string{}
	for _, p := range packages {
		if present(p) && !whole(p) {
			all[nameOf(p)] = stateOf(p)
		}
	}
	return all
}

// astrayFrom tells what is not as it was found, by what was read of the container last.
func (t *target) astrayFrom(ctx context.Context, b Before, u *undoSet) (a astray, err error) {
	if len(b.Packages) > 0 {
		if a.packages, err = t.strayed(ctx, b, u); err != nil {
			return a, err
		}
		for _, p := range b.Packages {
			now, ok := t.seen.find(p.Name)
			if held := now.Status.Want == "hold"; ok && p.Held && !held {
				a.hold = append(a.hold, p.Name)
			} else if ok && held && !p.Held {
				a.unhold = append(a.unhold, p.Name)
			}
		}
		a.unfinished = b.othersUnfinished(t.seen.Packages)
		triggers, err := t.triggersNoted()
		if err != nil {
			return a, err
		}
		records, _, err := deb.Unread(t.root)
		if err != nil {
			return a, err
		}
		a.unread = records || triggers && (b.Dpkg == nil || !b.Dpkg.Triggers)
	}
	switch {
	case b.Library == nil:
	case t.seen.LibraryDamage != "":
		a.library = t.seen.LibraryDamage
	default:
		if _, files := back(*b.Library); t.seen.Library.Needs(files) {
			a.library = fmt.Sprintf("the library's two files are not as they were: it is %s, and was %s", t.seen.Library.State, files.Effect())
		}
	}
	return a, nil
}

// othersUnfinished are those that this host's runs have not replaced, and which are worse off than they were found.
func (b Before) othersUnfinished(packages []deb.Package) (names []string) {
	if b.Dpkg == nil {
		return nil // a record of the first version does not know how they were
	}
	for name, state := range unfinished(packages) {
		plain, _, _ := strings.Cut(name, ":")
		replaced := slices.ContainsFunc(b.Packages, func(p BeforePackage) bool { return p.Replaced && p.Name == plain })
		if !replaced && b.Dpkg.Unfinished[name] != state {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// strayed tells which of the packages that were to be replaced are not as they were found, and in what: state, version, files by their checksums.
func (t *target) strayed(ctx context.Context, b Before, u *undoSet) (map[string]string, error) {
	all := map[string]string{}
	kept := t.found(b, u)
	for _, p := range b.Packages {
		if !p.Replaced {
			continue
		}
		now, ok := t.seen.find(p.Name)
		switch is := describe(now); {
		case !ok:
			all[p.Name] = "it is gone"
		case now.Version != p.Version || whole(now) != p.Whole || p.State != "" && stateOf(now) != p.State:
			all[p.Name] = fmt.Sprintf("%s is there, and %s was", is, p.was())
		case p.Whole:
			k, ok := kept.packages[p.Name]
			if !ok {
				continue // a run that died before it kept it did not replace it either
			}
			d := kept.delivery([]string{p.Name})
			sums, err := d.sums(k.Deb())
			if err != nil {
				all[p.Name] = fmt.Sprintf("its files cannot be compared: %v", err)
				continue
			}
			problems, err := t.db.VerifyFiles(ctx, now, sums)
			if err != nil {
				return nil, err
			}
			if len(problems) > 0 {
				all[p.Name] = fmt.Sprintf("%s is %s", problems[0].Path, problems[0].Kind)
			}
		}
	}
	return all, nil
}

// was is how it was found.
func (p BeforePackage) was() string {
	if p.Whole {
		return p.Version
	}
	return strings.TrimSpace(strings.TrimPrefix(p.State, "ok ") + " " + p.Version)
}

// foundSet are the packages as they were found, as far as this host keeps them, each from the folder beside the journal or from the baseline.
type foundSet struct {
	packages map[string]baseline.Kept
	from     map[string]*os.Root
}

func (t *target) found(b Before, u *undoSet) foundSet {
	f := foundSet{map[string]baseline.Kept{}, map[string]*os.Root{}}
	add := func(b Before, index *baseline.Index, root *os.Root) {
		if index == nil || index.ID != b.ID {
			return
		}
		for _, k := range index.Packages {
			// One from a predecessor was never in this container.
			if k.From == "" && slices.ContainsFunc(b.Packages, func(p BeforePackage) bool { return p.Whole && p.Name == k.Name && p.Version == k.Version }) {
				f.packages[k.Name], f.from[k.Name] = k, root
			}
		}
	}
	add(b, t.seen.Kept, t.kept)
	add(b, u.index, u.folder)
	return f
}

func (f foundSet) delivery(names []string) delivery {
	var packages []patchset.Package
	for _, name := range names {
		if k, ok := f.packages[name]; ok {
			packages = append(packages, k.Deb())
		}
	}
	return keptDelivery(packages, f.packages, f.from)
}

// triggersNoted: dpkg has noted some that it has given to no package yet.
func (t *target) triggersNoted() (bool, error) {
	info, err := t.root.Lstat(triggersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at dpkg's triggers: %w", err)
	}
	return info.Size() > 0, nil
}
