package deb

import "slices"

// Refusal is one thing for which dpkg would not install, or not wholly.
type Refusal struct {
	Package string // "" where it concerns every package
	Where   string // a line of a file, a path, a package
	Why     string // what dpkg would do there
	Remedy  string // what somebody can do about it
}

// String is like "/etc/dpkg/dpkg.cfg:3: no-act makes dpkg do nothing at all".
func (r Refusal) String() string {
	text := r.Where + ": " + r.Why
	if r.Package != "" {
		text = r.Package + ": " + text
	}
	return text
}

// Refusals finds all for which dpkg would not install these packages, among those of the root that the facts are of. It reads nothing but its arguments.
func (f Facts) Refusals(before, install []Package) ([]Refusal, error) {
	if len(install) == 0 {
		return nil, nil
	}
	refusals := slices.Concat(f.Settings.Refusals, f.Standing)
	for _, p := range install {
		refusals = append(refusals, f.Settings.passesOver(before, p)...)
		for _, r := range f.Files {
			if r.Package == p.Name {
				refusals = append(refusals, r)
			}
		}
	}
	unmet, err := findBlocked(before, install, f.Settings)
	if err != nil {
		return nil, err
	}
	for _, b := range unmet {
		why := "nothing meets it: dpkg does not configure the package"
		if b.cause != "" {
			why = b.cause + ": dpkg does not configure the package"
		}
		remedy := "mend that in the container first: apt-get -f install"
		if b.Field == "Conflicts" || b.Field == "Breaks" {
			why = b.cause + ": dpkg does not install the package"
			remedy = "remove one of them from the container"
		}
		refusals = append(refusals, Refusal{Package: b.pkg, Where: b.String(), Why: why, Remedy: remedy})
	}
	return refusals, nil
}

// MissedOf are the files of these packages that the container would not run, or that are not its own.
func (f Facts) MissedOf(packages []Package) (missed []Refusal) {
	for _, r := range f.Missed {
		if slices.ContainsFunc(packages, func(p Package) bool { return p.Name == r.Package }) {
			missed = append(missed, r)
		}
	}
	return missed
}

// passesOver: with these settings dpkg leaves a package as it is, and says that all went well. It tries what is only half there: src/main/archives.c,
// wanttoinstall.
func (s Settings) passesOver(before []Package, p Package) []Refusal {
	i := slices.IndexFunc(before, func(b Package) bool { return samePlace(&b, &p) })
	if i < 0 {
		return nil // lists made by hand
	}
	there := before[i]
	wanted := there.Status.Want == "install" || there.Status.Want == "hold"
	switch {
	case !wanted && s.selectedOnly != "":
		return []Refusal{{
			Package: p.Name, Where: s.selectedOnly, Why: "it makes dpkg pass over a package that is to be removed",
			Remedy: "take that line out of the file in the container, or: echo " + p.Name + " install | dpkg --set-selections",
		}}
	case wanted && s.skipSame != "" && there.Status.Flag != "reinstreq" && there.present() && there.Status.State != "half-installed" &&
		there.Version == p.Version && there.Architecture == p.Architecture:
		return []Refusal{{
			Package: p.Name, Where: s.skipSame, Remedy: takeOut,
			Why: "it makes dpkg pass over a package in the version that is there, though its files are not whole",
		}}
	}
	return nil
}
