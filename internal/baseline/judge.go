// Package baseline knows what was in a container before this collection came, and what of ours is in it now. "Is it patched, by which variant, from
// which version, with which suffix" is answered here and nowhere else. It judges by what dpkg's database says, which is handed in, and by this host's own
// record, which lies beside the packages that it keeps.
package baseline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// Whose tells who made an installed package.
type Whose string

// A doubtful package is one of which neither is proven. It is told, nothing is called unchanged or restored beside it, and what is kept stays.
const (
	Stock    Whose = "stock" // the distribution's, as far as this collection is concerned: whoever made it, we did not
	Ours     Whose = "ours"
	Doubtful Whose = "doubtful"
)

// Known is what there is to judge a container's packages by, beside dpkg's database.
type Known struct {
	ID    string      // of the container
	Index *Index      // what this host wrote down of it or of its predecessor; nil if nothing
	Set   []Installed // the patch set at hand, if there is one
}

// Judgement is whose an installed package is, and what follows from that.
type Judgement struct {
	Package deb.Package
	Whose   Whose
	Graft   deb.Graft // what is known of a package of ours
	Why     string    // a package is doubtful
	Kept    *Kept     // what this host keeps of it, from this container or its predecessor
	same    bool      // Kept is from this very container, or nothing is kept and the record is this container's
	put     bool      // this host wrote down that it put just this into this very container
}

// usualSuffix is that of sets whose builder did not choose another one.
var usualSuffix = regexp.MustCompile(`\+nfslock[0-9]+$`)

// Judge tells whose a package is that is there: installed, held, half installed or half configured. sum is Sum of its md5sums, and is asked for only where
// NeedsSum says so.
//
// What dpkg keeps is believed first, then what this host wrote down, by checksum, then the set at hand. The text of a version proves nothing. It can only
// raise a doubt, and a doubt leads to no step.
func (k Known) Judge(p deb.Package, sum string) Judgement {
	j := Judgement{Package: p, Whose: Stock}
	if k.Index != nil {
		j.Kept = k.Index.kept(p.Name)
		j.same = k.Index.ID == k.ID && (j.Kept == nil || j.Kept.From == "")
	}
	doubt := func(why string) Judgement {
		j.Whose, j.Why = Doubtful, why
		return j
	}
	was, put := k.recorded(p, sum)
	j.put = put
	graft, ours := deb.GraftOf(p)
	switch {
	case ours:
		j.Whose, j.Graft = Ours, graft
		if was != nil && graft.Variant == "" {
			j.Graft.Variant = was.Graft.Variant
		}
		return j
	case p.Graft != deb.Graft{}:
		j.Graft = graft
		return doubt("its fields that begin with Nfslock are not those that a build writes")
	case was != nil:
		j.Whose, j.Graft = Ours, was.Graft
		return j
	}
	if k.Index != nil && k.Index.ID == k.ID {
		if i := find(k.Index.Installed, p); i != nil {
			j.Graft = i.Graft
			return doubt("this host put another package of that version there")
		}
	}
	if i := find(k.Set, p); i != nil {
		j.Graft = i.Graft
		return doubt("the patch set has another package of that version")
	}
	if j.same && j.Kept != nil {
		source := j.Kept.source()
		switch {
		case p.Version == j.Kept.Version:
		case k.Index.Suffix != "" && p.Version == source+k.Index.Suffix:
			// A record of an earlier release has no checksums. It says that this version took the kept one's place in this container.
			j.Whose, j.put, j.Graft = Ours, true, deb.Graft{Suffix: k.Index.Suffix, BuiltFrom: source, Stock: j.Kept.Version}
			return j
		case extends(p.Version, source):
			return doubt(fmt.Sprintf("it is neither %s, which this host keeps, nor one that it put there", j.Kept.Version))
		}
	}
	switch {
	case p.Source == "qemu" && extends(p.Version, p.SourceVersion):
		return doubt(fmt.Sprintf("it was built from %s and has a longer version, as patched ones have", p.SourceVersion))
	case usualSuffix.MatchString(p.Version):
		return doubt("its version looks like that of a patched one, and nothing else says so")
	}
	return j
}

// recorded finds the package among those that this host put into this container, into its predecessor, from which an image may have been made, and in the
// set at hand.
func (k Known) recorded(p deb.Package, sum string) (found *Installed, put bool) {
	is := func(i Installed) bool {
		same := i.Sum == sum || i.Sum == ""
		if p.Graft != (deb.Graft{}) {
			same = i.Graft == p.Graft
		}
		return same && i.Name == p.Name && i.Version == p.Version
	}
	if k.Index != nil {
		if i := slices.IndexFunc(k.Index.Installed, is); i >= 0 && (k.Index.ID == k.ID || k.Index.Installed[i].Sum != "") {
			return &k.Index.Installed[i], k.Index.ID == k.ID
		}
	}
	if i := slices.IndexFunc(k.Set, is); i >= 0 {
		return &k.Set[i], false
	}
	return nil, false
}

// NeedsSum tells whether Judge asks for the checksum of a package: where dpkg's fields do not say whose it is, and a record might.
func (k Known) NeedsSum(p deb.Package) bool {
	if p.Graft != (deb.Graft{}) {
		return false
	}
	return k.Index != nil && find(k.Index.Installed, p) != nil || find(k.Set, p) != nil
}

// find gives the last one of that name and version.
func find(list []Installed, p deb.Package) *Installed {
	for at := len(list) - 1; at >= 0; at-- {
		if i := &list[at]; i.Name == p.Name && i.Version == p.Version {
			return i
		}
	}
	return nil
}

// JudgeIn judges a package of a database, of which it reads the checksums where they decide. Checksums that cannot be read prove nothing.
func (k Known) JudgeIn(db *deb.Database, p deb.Package) Judgement {
	sum := ""
	if k.NeedsSum(p) {
		if sums, err := db.Md5sums(p); err == nil {
			sum = Sum(sums)
		}
	}
	return k.Judge(p, sum)
}

// JudgeAll judges what is there, by name: packages of QEMU, those of the record and of the set at hand, and what else is not the
// distribution's. One of a foreign architecture has it in its name, as apt takes it, and nothing is kept of it.
func (k Known) JudgeAll(db *deb.Database) map[string]Judgement {
	all, named := map[string]Judgement{}, k.names()
	for _, p := range db.Packages() {
		if p.Status.State == "not-installed" || p.Status.State == "config-files" {
			continue
		}
		if p.Architecture != db.Architecture() && p.Architecture != "all" {
			p.Name += ":" + p.Architecture
		}
		by := k
		if !named[p.Name] { // there are hundreds: neither the record nor the set has anything to say
			by = Known{ID: k.ID}
		}
		if j := by.JudgeIn(db, p); j.Whose != Stock || p.Source == "qemu" || named[p.Name] {
			all[p.Name] = j
		}
	}
	return all
}

// names are the packages of which the record or the set has something.
func (k Known) names() map[string]bool {
	all := map[string]bool{}
	if k.Index != nil {
		for _, name := range k.Index.Names() {
			all[name] = true
		}
	}
	for _, i := range k.Set {
		all[i.Name] = true
	}
	return all
}

// extends tells whether a version is that of its source with a suffix behind it, other than the +bN of the distribution's rebuilds.
func extends(version, source string) bool {
	rest, longer := strings.CutPrefix(version, source)
	return longer && strings.HasPrefix(rest, "+") && deb.WithoutRebuild(version) != source
}

// Sum is the one checksum of all checksums that a package has of its files, the same for a .deb and for what is installed of it. A package without
// any has none.
func Sum(md5sums map[string]string) string {
	if len(md5sums) == 0 {
		return ""
	}
	sum := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(md5sums)) {
		fmt.Fprintf(sum, "%s  %s\n", md5sums[path], path)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
