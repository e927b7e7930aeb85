package baseline

import (
	"maps"
	"slices"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

// Index is what this host wrote down of one container: what it keeps from before, and what it put there instead.
type Index struct {
	Schema   int       `json:"schema"` // 1
	ID       string    `json:"id"`     // of the container they were taken from
	Image    string    `json:"image"`
	Suffix   string    `json:"suffix"` // of the first patch set that replaced them
	Made     time.Time `json:"made"`
	Packages []Kept    `json:"packages"`
	// Installed is written before anything of it is installed, the last at the end. Earlier releases did not write it.
	Installed []Installed `json:"installed,omitempty"`
}

// Kept is one repacked package from before.
type Kept struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	BuiltFrom string `json:"built_from,omitempty"` // the source's version; earlier releases did not write it
	Held      bool   `json:"held"`                 // apt was told to keep it, before we came
	File      string `json:"file"`                 // in the same folder
	Size      int64  `json:"size"`                 // bytes
	SHA256    string `json:"sha256"`
	// From is the container that it was taken from, where that is a predecessor of the index's. It is kept on while it may be the way back from what is
	// in this one.
	From string `json:"from,omitempty"`
	// Excluded are paths of which the file has only placeholders. One that an older version kept has none, and lacks them.
	Excluded []deb.Excluded    `json:"excluded,omitempty"`
	Refused  string            `json:"-"` // why dpkg would not take it now
	Damage   string            `json:"-"` // why the file cannot be used
	Control  deb.Package       `json:"-"` // from the file; zero where that was not read
	Sums     map[string]string `json:"-"` // of what is to be there
}

// Installed is a package that this host put into the container, or was about to.
type Installed struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Graft   deb.Graft `json:"graft"` // as its manifest says
	Sum     string    `json:"sum"`   // Sum of the .deb's md5sums
}

// mostInstalled is how many packages of one name are remembered.
const mostInstalled = 8

// Note adds what is about to be installed. What was noted before stays, except for all too old entries.
func (x *Index) Note(installed ...Installed) {
	list := slices.Clone(x.Installed)
	for _, i := range installed {
		list = append(slices.DeleteFunc(list, func(old Installed) bool { return old == i }), i)
	}
	count := map[string]int{}
	for at := len(list) - 1; at >= 0; at-- {
		if count[list[at].Name]++; count[list[at].Name] > mostInstalled {
			list = slices.Delete(list, at, at+1)
		}
	}
	x.Installed = list
}

// Names are the packages of which this host keeps something or put something there, sorted.
func (x Index) Names() []string {
	names := map[string]bool{}
	for _, k := range x.Packages {
		names[k.Name] = true
	}
	for _, i := range x.Installed {
		names[i.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Put is the version that this host last put in a kept package's place. One of an earlier release is its source's version with the set's suffix.
func (x Index) Put(name string) string {
	for _, i := range slices.Backward(x.Installed) {
		if i.Name == name {
			return i.Version
		}
	}
	if k := x.kept(name); k != nil && x.Suffix != "" {
		return k.source() + x.Suffix
	}
	return ""
}

// Keeps tells whether just this package of just this container is kept already. It is never kept twice: what is installed now may be half
// replaced, though it still has the version from before.
func (x *Index) Keeps(id string, p deb.Package) bool {
	if x == nil || x.ID != id {
		return false
	}
	k := x.kept(p.Name)
	return k != nil && k.From == "" && k.Version == p.Version && k.Damage == ""
}

// Record is the index that is to be written for the container as it is judged now, before a set with that suffix comes. What this host wrote down
// of it stays. Of a predecessor it has on what an image may have been made from, and what may be the way back from what is in the image.
func (k Known) Record(image, suffix string, judged map[string]Judgement) Index {
	if k.Index != nil && k.Index.ID == k.ID {
		return *k.Index
	}
	x := Index{ID: k.ID, Image: image, Suffix: suffix, Made: time.Now().UTC()}
	if k.Index == nil {
		return x
	}
	for _, i := range k.Index.Installed {
		if i.Sum != "" {
			x.Installed = append(x.Installed, i)
		}
	}
	for _, old := range k.Index.Packages {
		if j, there := judged[old.Name]; there && j.Whose != Stock {
			if old.From == "" {
				old.From = k.Index.ID
			}
			x.Packages = append(x.Packages, old)
		}
	}
	return x
}

func (x Index) kept(name string) *Kept {
	if i := slices.IndexFunc(x.Packages, func(k Kept) bool { return k.Name == name }); i >= 0 {
		return &x.Packages[i]
	}
	return nil
}

func (k Kept) source() string {
	switch {
	case k.Control.SourceVersion != "":
		return k.Control.SourceVersion
	case k.BuiltFrom != "":
		return k.BuiltFrom
	}
	return deb.WithoutRebuild(k.Version)
}
