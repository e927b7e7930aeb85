package baseline

import (
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
	// Excluded are paths of which the file has only placeholders. One that an older version kept has none, and lacks them.
	Excluded []deb.Excluded    `json:"excluded,omitempty"`
	Refused  string            `json:"-"` // why dpkg would not take it now
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

func (x Index) kept(name string) *Kept {
	if i := slices.IndexFunc(x.Packages, func(k Kept) bool { return k.Name == name }); i >= 0 {
		return &x.Packages[i]
	}
	return nil
}

func (x Index) installed(name, version string) bool {
	return slices.ContainsFunc(x.Installed, func(i Installed) bool { return i.Name == name && i.Version == version })
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
