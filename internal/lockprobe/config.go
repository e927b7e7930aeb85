package lockprobe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// setting is something that a configuration file says, and where.
type setting struct {
	value   string
	file    string
	line    int
	section string
	key     string
}

// share is a line of nfs_shares.
type share struct {
	export  string // "filer:/cinder"
	options string // what stands behind -o
	file    string
	line    int
}

// config is what kolla-ansible's files on this host say of NFS mounts.
type config struct {
	shares []share
	cinder []setting // nfs_mount_options of each backend
	nova   []setting // [libvirt] nfs_mount_options
	// Where those options belong if they are not there: sections of Cinder's that have nfs_shares_config, and nova.conf.
	backends, novas []setting
	glance          []setting // the folders of its stores
	fixed           []fixed   // /etc/fstab
	unread          []Finding
}

// The files of one kind, below the folder of kolla-ansible's configuration: what it wrote for the containers, and on a deployment host
// the overrides that it reads.
var (
	shareFiles  = []string{"cinder-volume/nfs_shares", "cinder-backup/nfs_shares", "config/nfs_shares", "config/cinder/nfs_shares", "config/nfs_shares.j2", "config/cinder/nfs_shares.j2"}
	cinderFiles = []string{"cinder-volume/cinder.conf", "config/cinder.conf", "config/cinder/cinder-volume.conf"}
	novaFiles   = []string{"nova-compute/nova.conf", "config/nova.conf", "config/nova/nova-compute.conf"}
)

// Bounds far above any real configuration: nova.conf has some kilobytes, a cloud some dozen shares. What is beyond is an error.
const (
	configLimit = 1 << 20 // bytes of a file
	mostShares  = 1000
	mostValues  = 200  // backends of Cinder
	longest     = 4096 // bytes of a value
)

var errTooMuch = errors.New("it holds more than any real configuration")

// readConfig reads the files that are there. A folder that is not there is an empty configuration.
func readConfig(dir string) config {
	var c config
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c
	}
	if err != nil {
		c.unread = append(c.unread, Finding{Kind: UnreadConfig, File: dir, Message: fmt.Sprintf("cannot read the configuration: %v", err)})
		return c
	}
	defer root.Close()
	each := func(names []string, parse func(io.Reader, string) error) {
		for _, name := range names {
			file, _, err := foreign.OpenLinked(root, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			full := path.Join(dir, name)
			if err == nil {
				err = parse(io.LimitReader(file, configLimit), full)
				file.Close()
			}
			if err != nil {
				c.unread = append(c.unread, Finding{Kind: UnreadConfig, File: full, Message: fmt.Sprintf("cannot read it: %v", err)})
			}
		}
	}
	each(shareFiles, func(r io.Reader, name string) error {
		found, err := parseShares(r, name)
		c.shares = append(c.shares, found...)
		return err
	})
	each(cinderFiles, func(r io.Reader, name string) error {
		found, err := parseOptions(r, name, func(_, key string) bool {
			return key == "nfs_mount_options" || key == "nas_mount_options" || key == "nfs_shares_config"
		})
		for _, s := range found {
			if s.key == "nfs_shares_config" {
				c.backends = append(c.backends, s)
			} else {
				c.cinder = append(c.cinder, s)
			}
		}
		return err
	})
	each(novaFiles, func(r io.Reader, name string) error {
		found, err := parseOptions(r, name, func(section, key string) bool { return section == "libvirt" && key == "nfs_mount_options" })
		c.nova = append(c.nova, found...)
		c.novas = append(c.novas, setting{file: name, section: "libvirt"})
		return err
	})
	each(glanceFiles, func(r io.Reader, name string) error {
		found, err := parseOptions(r, name, func(_, key string) bool {
			return key == "filesystem_store_datadir" || key == "filesystem_store_datadirs"
		})
		c.glance = append(c.glance, found...)
		return err
	})
	return c
}

// parseShares reads lines "host:/export", with "-o OPTIONS" behind for some; # begins a comment (cinder's remotefs driver).
func parseShares(r io.Reader, name string) ([]share, error) {
	var all []share
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		export, rest, _ := strings.Cut(text, " ")
		rest = strings.TrimSpace(rest)
		if value, ok := strings.CutPrefix(rest, "-o"); ok {
			rest = strings.TrimSpace(value)
		}
		if !strings.Contains(export, ":/") {
			continue // a template's line, or nothing that NFS could mount
		}
		if len(all) == mostShares {
			return all, errTooMuch
		}
		all = append(all, share{export, rest, name, n})
	}
	return all, lines.Err()
}

// parseOptions reads the values of oslo.config's format that want picks, by section and key: "[section]", "key = value", comments with
// # or ;, and lines that begin with a space go on the one before.
func parseOptions(r io.Reader, name string, want func(section, key string) bool) ([]setting, error) {
	var all []setting
	section, open := "DEFAULT", false
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		raw := lines.Text()
		text := strings.TrimSpace(raw)
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		if raw[0] == ' ' || raw[0] == '\t' {
			if open {
				last := &all[len(all)-1]
				if last.value += "," + text; len(last.value) > longest {
					return all, errTooMuch
				}
			}
			continue
		}
		open = false
		if text[0] == '[' {
			section, _, _ = strings.Cut(text[1:], "]")
			continue
		}
		i := strings.IndexAny(text, "=:")
		if i < 0 {
			continue
		}
		key, value := strings.TrimSpace(text[:i]), strings.Trim(strings.TrimSpace(text[i+1:]), `"'`)
		if want(section, key) {
			if len(all) == mostValues || len(value) > longest {
				return all, errTooMuch
			}
			all = append(all, setting{value, name, n, section, key})
			open = true
		}
	}
	return all, lines.Err()
}

// nfsOptions are those that decide on locks.
type nfsOptions struct {
	vers  string // "3", "4.2"; empty if not said
	local string // an option that makes locks local; empty if none
}

// readOptions reads mount options: nfs(5). Of one that is there twice the last counts.
func readOptions(text string) (o nfsOptions) {
	minor := ""
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "vers", "nfsvers":
			o.vers = value
		case "v2", "v3", "v4", "v4.0", "v4.1", "v4.2":
			o.vers = key[1:]
		case "minorversion":
			minor = value
		case "nolock":
			o.local = word
		case "lock":
			if o.local == "nolock" {
				o.local = ""
			}
		case "local_lock":
			switch value {
			case "all", "posix":
				o.local = word
			}
		}
	}
	if o.vers == "4" && minor != "" {
		o.vers += "." + minor
	}
	return o
}

// mayBeV3 is true unless the options ask for version 4.
func (o nfsOptions) mayBeV3() bool { return !strings.HasPrefix(o.vers, "4") }

// join gives the options that a mount gets: those behind the share, and the service's own.
func join(own string, shared string) nfsOptions {
	return readOptions(own + "," + shared)
}

// lint compares what Cinder and Nova would mount. It knows nothing of the mounts that there are.
func (c config) lint() []Finding {
	all := slices.Clone(c.unread)
	for _, s := range slices.Concat(c.cinder, c.nova) {
		if o := readOptions(s.value); o.local != "" {
			all = append(all, Finding{NoLockOption, fmt.Sprintf("%s makes locks local to this host: two hosts may write to one image", o.local), s.file, s.line})
		}
	}
	for _, s := range c.shares {
		if o := readOptions(s.options); o.local != "" {
			all = append(all, Finding{NoLockOption, fmt.Sprintf("%s at the share %s makes locks local to this host: two hosts may write to one image", o.local, s.export), s.file, s.line})
		}
		all = append(all, c.compare(s)...)
	}
	return all
}

// settings are what the files say, and the places where they say nothing yet, for who is to change them.
func (c config) settings() []Setting {
	all := []Setting{}
	for _, s := range c.shares {
		all = append(all, Setting{Service: "share", Export: s.export, Options: s.options, File: s.file, Line: s.line})
	}
	add := func(service string, said, places []setting) {
		for _, s := range said {
			all = append(all, Setting{Service: service, Section: s.section, Option: s.key, Options: s.value, File: s.file, Line: s.line})
		}
		for _, p := range places {
			if !slices.ContainsFunc(said, func(s setting) bool { return s.file == p.file && s.section == p.section }) {
				all = append(all, Setting{Service: service, Section: p.section, File: p.file, Line: p.line})
			}
		}
	}
	add("cinder", c.cinder, c.backends)
	add("nova", c.nova, c.novas)
	return all
}

// compare looks at one share as Cinder and as Nova mount it: Cinder hands Nova what stands behind the share, and never its own
// nfs_mount_options (read in Cinder and os-brick).
func (c config) compare(s share) []Finding {
	nova := setting{}
	if len(c.nova) > 0 {
		nova = c.nova[0]
	}
	var all []Finding
	cinders := c.cinder
	if len(cinders) == 0 {
		cinders = []setting{{}}
	}
	open := false
	for _, own := range cinders {
		a, b := join(own.value, s.options), join(nova.value, s.options)
		switch {
		case a.vers == b.vers && a.local == b.local:
			open = open || a.vers == ""
		case own.file == "" && nova.file == "":
		default:
			at := own
			if at.file == "" {
				at = nova
			}
			all = append(all, Finding{
				OptionsDiffer, fmt.Sprintf("Cinder mounts %s with %s, Nova with %s: write the options behind the share, which both get", s.export, a, b), at.file, at.line,
			})
		}
	}
	if open {
		all = append(all, Finding{ShareNoVersion, fmt.Sprintf("the share %s has no vers option: Cinder tries 4.1 and then whatever the server has, Nova whatever it has, and neither says which", s.export), s.file, s.line})
	}
	return all
}

func (o nfsOptions) String() string {
	text := "no vers option"
	if o.vers != "" {
		text = "vers=" + o.vers
	}
	if o.local != "" {
		text += " and " + o.local
	}
	return text
}

// asksFor tells whether anything in the configuration asks for that version of an export.
func (c config) asksFor(export, vers string) bool {
	texts := []string{}
	for _, s := range slices.Concat(c.cinder, c.nova) {
		texts = append(texts, s.value)
	}
	for _, s := range c.shares {
		if s.export == export {
			texts = append(texts, s.options)
		}
	}
	for _, f := range c.fixed {
		if f.export == export {
			texts = append(texts, f.options)
		}
	}
	return slices.ContainsFunc(texts, func(t string) bool { return readOptions(t).vers == vers })
}

// lintMounts compares what is mounted: one export with several versions or lock options, and version 3 that nobody asked for.
func (c config) lintMounts(mounts []Mount) []Finding {
	var all []Finding
	first := map[string]Mount{}
	told := map[string]bool{}
	for _, m := range mounts {
		if m.Vers == "" || m.Image {
			continue
		}
		if strings.HasPrefix(m.Vers, "3") && !c.asksFor(m.Source, m.Vers) && !told[m.Source] && len(c.shares) > 0 {
			told[m.Source] = true
			all = append(all, Finding{Kind: SilentV3, Message: fmt.Sprintf("%s is mounted with version 3 at %s %s, though no option under the configuration asks for it: the server or the mount program settled on it", m.Source, m.Path, in(m.Container))})
		}
		other, seen := first[m.Source]
		if !seen {
			first[m.Source] = m
			continue
		}
		a, b := readOptions(other.Options), readOptions(m.Options)
		if key := "differ " + m.Source; (other.Vers != m.Vers || a.local != b.local) && !told[key] {
			told[key] = true
			all = append(all, Finding{Kind: OptionsDiffer, Message: fmt.Sprintf("%s is mounted with %s at %s %s, and with %s at %s %s", m.Source, a, other.Path, in(other.Container), b, m.Path, in(m.Container))})
		}
	}
	return all
}
