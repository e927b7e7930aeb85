package baseline

import (
	"fmt"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// Keeping is what becomes of an installed package before one of a set takes its place.
type Keeping string

// A refusal is an error: what is there would be lost, and nobody knows what it is.
const (
	Keep    Keeping = "keep"    // repack it
	NotKept Keeping = "no"      // there is nothing to keep, or it is kept already
	Refuse  Keeping = "refused" // it is not replaced
)

// Keeping tells whether the package is to be repacked for the way back. Only what is proven to be the distribution's ever is: so it alone can
// take the place of what is kept already.
func (j Judgement) Keeping() Keeping {
	switch {
	case j.Whose == Stock && j.same && j.Kept != nil && j.Kept.Version == j.Package.Version && j.Kept.Damage == "":
		return NotKept // it may be half replaced by now, though it still has the version from before
	case j.Whose == Stock:
		return Keep
	case j.Whose == Doubtful && (j.Kept == nil || !j.same):
		return Refuse
	}
	return NotKept
}

// Source is the version of the source that the package was made from, as far as that is known.
func (j Judgement) Source() string {
	if j.Graft.BuiltFrom != "" {
		return j.Graft.BuiltFrom
	}
	return j.Package.SourceVersion
}

// Back is what state absent does with a package.
type Back string

// Stuck is an error, and never "unchanged": a package of ours is there, or may be, and this host has nothing to put in its place.
const (
	Stays   Back = "stays"   // it is the distribution's
	Restore Back = "restore" // what is kept takes its place
	Stuck   Back = "stuck"
)

// Back tells what state absent does with the package, and of one that is stuck why. Whether a package from before is damaged and is to be
// installed again is another question, of those that stay.
func (j Judgement) Back() (back Back, why string) {
	switch {
	case j.Whose == Stock:
		return Stays, ""
	case j.Whose == Doubtful:
		return Stuck, j.Why
	case j.Kept == nil:
		return Stuck, "the package from before is not kept on this host"
	}
	if _, ours := deb.GraftOf(j.Kept.Control); ours {
		return Stuck, fmt.Sprintf("what this host keeps, %s, is a patched one itself", j.Kept.Version)
	}
	if !j.fits() {
		return Stuck, fmt.Sprintf("what this host keeps was built from another version, %s", j.Kept.source())
	}
	return Restore, ""
}

// fits: the kept package is what was there before. Either this host put the package of ours in its place, or both were made from one version.
func (j Judgement) fits() bool {
	switch {
	case j.same && j.put:
		return true
	case !j.same && j.Graft.Stock != "":
		return j.Graft.Stock == j.Kept.Version
	}
	return j.Graft.BuiltFrom == j.Kept.source()
}

// Ways sorts a container's packages: those in whose place the kept ones come, and those for which there is no way back. While there is one of these
// the container is not "unchanged", nothing is restored by halves, and what is kept is not forgotten.
func Ways(judged []Judgement) (restore, stuck []Judgement) {
	for _, j := range judged {
		switch back, _ := j.Back(); back {
		case Restore:
			restore = append(restore, j)
		case Stuck:
			stuck = append(stuck, j)
		case Stays:
		}
	}
	return restore, stuck
}

// WaysOut says what to do with packages for which this host has nothing to go back to.
func WaysOut(stuck []Judgement) string {
	var apt, unknown []string
	guessed := ""
	for _, j := range stuck {
		switch {
		case j.Whose == Ours && j.Graft.Stock != "":
			apt = append(apt, j.Package.Name+"="+j.Graft.Stock)
		case j.Whose == Ours && j.Graft.BuiltFrom != "":
			apt = append(apt, j.Package.Name+"="+j.Graft.BuiltFrom)
			guessed = " (with +b1, +b2 … behind the version where apt-cache policy shows it)"
		default:
			apt = append(apt, j.Package.Name+"=VERSION")
			unknown = append(unknown, j.Package.Name)
		}
	}
	text := "recreate the container from an image without them, or run as root inside it: " +
		"apt-get update && apt-get install --allow-downgrades --allow-change-held-packages " + strings.Join(apt, " ") + guessed
	if len(unknown) > 0 {
		text += "; apt-cache policy " + strings.Join(unknown, " ") + " shows the distribution's VERSION"
	}
	return text
}
