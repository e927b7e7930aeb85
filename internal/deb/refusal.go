package deb

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
