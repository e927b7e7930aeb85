package deb

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Settings is what dpkg's configuration says to an install.
type Settings struct {
	// Options go in front of --install: on the command line dpkg lets them win over what its configuration says.
	Options []string
	// Refusals are for what cannot be undone on the command line: with these dpkg does nothing, or it does it elsewhere.
	Refusals []Refusal
	// Hooks are programs that dpkg runs around an install. If one fails, so does dpkg.
	Hooks []Hook

	unsigned     bool     // signatures within packages are not asked for
	skipSame     string   // the line that makes dpkg pass over packages in the version that they have
	selectedOnly string   // the line that makes dpkg pass over packages that are to be removed
	forced       []string // the problems that dpkg overlooks
	ignored      []string // packages whose dependencies it overlooks
}

// Hook is a line of the configuration that names a program of somebody else.
type Hook struct{ Where, Option, Command string }

func (s Settings) forces(thing string) bool { return slices.Contains(s.forced, thing) }

// knownUpTo is the first version of dpkg that may have options which are not in the lists below: a newer one is left to judge for itself.
const knownUpTo = "1.24"

// The options of dpkg 1.20 to 1.23 (src/main/main.c, cmdinfos) that its configuration may have.
var (
	plainOptions = strings.Fields(`pending recursive no-act dry-run simulate no-pager no-debsig selected-only no-also-select triggers no-triggers
		skip-same-version auto-deconfigure robot`)
	valuedOptions = strings.Fields(`pre-invoke post-invoke path-exclude path-include verify-format status-logger status-fd log root abort-after
		admindir instdir ignore-depends debug`)
	actions = strings.Fields(`install unpack record-avail configure remove purge triggers-only verify listfiles status get-selections set-selections
		clear-selections print-avail update-avail merge-avail clear-avail forget-old-unavail audit yet-to-unpack list search
		add-architecture remove-architecture print-architecture print-foreign-architectures predep-package validate-pkgname validate-trigname
		validate-archname validate-version compare-versions help version build contents control info field extract vextract ctrl-tarfile fsys-tarfile`)
	forceable = strings.Fields(`all security-mac downgrade configure-any hold not-root bad-path bad-verify bad-version statoverride-add
		statoverride-remove overwrite overwrite-diverted overwrite-dir unsafe-io script-chrootless confnew confold confdef confmiss confask
		architecture breaks conflicts depends depends-version remove-reinstreq remove-protected remove-essential`)
)

// takeOut is the way out of most of what a configuration file says.
const takeOut = "take that line out of the file in the container until the run is over"

// settle goes through the configuration as dpkg does. dpkg's own version tells whether an option that is not known here can be one.
func settle(config []configLine, version string) Settings {
	s := Settings{forced: []string{"security-mac", "downgrade"}} // what dpkg does without being told
	order, err := CompareVersions(version, knownUpTo)
	newer := err != nil || order >= 0
	triggers := ""
	usual := map[string]string{"admindir": "/var/lib/dpkg", "instdir": "/"}
	folders := maps.Clone(usual)
	set := map[string]configLine{}
	refuse := func(c configLine, why string) {
		s.Refusals = append(s.Refusals, Refusal{Where: c.where(), Why: why, Remedy: takeOut})
	}
	for _, c := range config {
		if len(s.Refusals) >= maxRefusals {
			break // one is enough for dpkg
		}
		if c.unbalanced {
			refuse(c, "dpkg finds that a quote is missing, and does nothing at all")
			continue
		}
		if force, things := c.force(); force != "" {
			for thing := range strings.SplitSeq(things, ",") {
				switch {
				case things == "help":
					refuse(c, "it makes dpkg show a help text and do nothing")
				case slices.Contains(forceable, thing):
					s.force(thing, force == "force")
				case !newer:
					refuse(c, "dpkg does not know "+quote(thing)+", and does nothing at all")
				}
			}
			continue
		}
		valued := slices.Contains(valuedOptions, c.name)
		switch {
		case slices.Contains(actions, c.name) || strings.HasPrefix(c.name, "assert-"):
			refuse(c, c.name+" is a command and no setting: dpkg takes one at a time, and does nothing at all")
			continue
		case !valued && !slices.Contains(plainOptions, c.name):
			if !newer {
				refuse(c, "dpkg does not know "+quote(c.name)+", and does nothing at all")
			}
			continue
		case valued && !c.valued:
			refuse(c, c.name+" needs a value: without one dpkg does nothing at all")
			continue
		case !valued && c.valued:
			refuse(c, c.name+" takes no value: with one dpkg does nothing at all")
			continue
		}
		if why := c.invalid(); why != "" {
			refuse(c, why)
			continue
		}
		switch c.name {
		case "no-act", "dry-run", "simulate":
			refuse(c, c.name+" makes dpkg do nothing, and say that all went well")
		case "recursive":
			refuse(c, "recursive makes dpkg look for folders of packages, and refuse their files")
		case "no-debsig":
			s.unsigned = true
		case "triggers", "no-triggers":
			triggers = c.name
		case "skip-same-version":
			s.skipSame = c.where()
		case "selected-only", "no-also-select":
			s.selectedOnly = c.where()
		case "root":
			folders["instdir"], folders["admindir"] = c.value, path.Join(c.value, "/var/lib/dpkg")
			set["instdir"], set["admindir"] = c, c
		case "admindir", "instdir":
			folders[c.name], set[c.name] = c.value, c
		case "pre-invoke", "post-invoke", "status-logger":
			s.Hooks = append(s.Hooks, Hook{c.where(), c.name, c.value})
		case "ignore-depends":
			for name := range strings.SplitSeq(c.value, ",") {
				name, _, _ = strings.Cut(name, ":")
				s.ignored = append(s.ignored, name)
			}
		}
	}
	for _, name := range []string{"admindir", "instdir"} {
		if path.Clean(folders[name]) == usual[name] {
			continue
		}
		c := set[name]
		if !slices.ContainsFunc(s.Refusals, func(r Refusal) bool { return r.Where == c.where() }) {
			refuse(c, c.name+" makes dpkg work in "+quote(c.value)+", not where the container's packages are")
		}
	}
	s.override(triggers)
	return s
}

// override finds the options that make dpkg install as if its configuration were a distribution's.
func (s *Settings) override(triggers string) {
	if !s.forces("downgrade") {
		s.Options = append(s.Options, "--force-downgrade")
		s.force("downgrade", true)
	}
	// Any of these may ask somebody, or put back a file that the operator removed.
	for _, thing := range []string{"confnew", "confmiss", "confask"} {
		if s.forces(thing) {
			s.Options = append(s.Options, "--refuse-"+thing)
			s.force(thing, false)
		}
	}
	if triggers == "no-triggers" {
		s.Options = append(s.Options, "--triggers") // else packages stay as they are before their triggers
	}
}

func (s *Settings) force(thing string, on bool) {
	things := []string{thing}
	if thing == "all" {
		things = forceable
	}
	s.forced = slices.DeleteFunc(s.forced, func(f string) bool { return slices.Contains(things, f) })
	if on {
		s.forced = append(s.forced, things...)
	}
}

// force reads force-X, refuse-X and no-force-X, which may also have their value apart.
func (c configLine) force() (what, things string) {
	for _, option := range []struct{ name, what string }{{"force", "force"}, {"refuse", "refuse"}, {"no-force", "refuse"}} {
		if c.name == option.name && c.valued {
			return option.what, c.value
		}
		if things, ok := strings.CutPrefix(c.name, option.name+"-"); ok && !c.valued {
			return option.what, things
		}
	}
	return "", ""
}

// invalid finds values for which dpkg ends at once.
func (c configLine) invalid() string {
	ends := func(is string) string { return quote(c.value) + " is " + is + ": dpkg does nothing at all" }
	switch c.name {
	case "abort-after":
		if n, err := strconv.ParseInt(strings.TrimLeft(c.value, spaces), 0, 32); err != nil || n < 0 {
			return ends("no number")
		}
	case "status-fd":
		n, err := strconv.ParseInt(strings.TrimLeft(c.value, spaces), 0, 32)
		if err != nil || n < 0 {
			return ends("no number")
		}
		if n != 1 && n != 2 {
			return "no program that is started in a container has a file " + quote(c.value) + " for status-fd: dpkg does nothing at all"
		}
	case "debug":
		if strings.HasPrefix(c.value, "h") {
			return "it makes dpkg show a help text and do nothing"
		}
		if n, err := strconv.ParseInt(c.value, 8, 32); err != nil || n < 0 {
			return ends("no octal number")
		}
	case "verify-format":
		if c.value != "rpm" {
			return ends("no format of verify-format")
		}
	case "ignore-depends":
		for name := range strings.SplitSeq(c.value, ",") {
			if name, _, _ = strings.Cut(name, ":"); !safeName(name) {
				return ends("no list of packages")
			}
		}
	}
	return ""
}

// quote shows what somebody else wrote.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most]
	}
	return strconv.Quote(s)
}
