// Package patchset reads a patch set: a manifest and the .deb files that it names, in a folder or in the host's store.
// What is inside a .deb, and whether it belongs into a container, others decide.
package patchset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"
	"gopkg.in/yaml.v3"

	"github.com/nfslock/ansible-collection-kolla/internal/sshsig"
)

// The texts of a patch set and how many bytes each may have.
const (
	ManifestName     = "manifest.yml"
	MaxManifestSize  = 1 << 20               // some 3,000 packages
	SignatureName    = ManifestName + ".sig" // as ssh-keygen names it; a set may lack it
	MaxSignatureSize = sshsig.MaxSize
)

const (
	schema         = 1
	maxPackageSize = 2 << 30 // bytes
	maxErrors      = 10
)

// Manifest is what a patch set says of itself.
type Manifest struct {
	Schema   int
	Variant  string // fallback or disable_ofd
	Suffix   string // what is appended to the version that a package was built from
	Packages []Package
}

// Package is one .deb file.
type Package struct {
	Name         string
	Version      string
	BuiltFrom    string // the source version
	Stock        string // the distribution's package that it was made of, +bN included; empty in sets of earlier releases
	Distribution string // ID of os-release(5)
	Release      string // VERSION_CODENAME there
	Architecture string // dpkg's name; "all" fits every container
	File         string // plain file name
	Size         int64  // bytes
	SHA256       string // lower-case hex
}

// For lists the packages made for such a container, in the manifest's order.
func (m Manifest) For(distribution, release, architecture string) []Package {
	var fit []Package
	for _, p := range m.Packages {
		if p.Distribution == distribution && p.Release == release && (p.Architecture == architecture || p.Architecture == "all") {
			fit = append(fit, p)
		}
	}
	return fit
}

// Platforms lists, sorted, what the packages are made for, such as "debian bookworm amd64".
func (m Manifest) Platforms() []string {
	var platforms []string
	for _, p := range m.Packages {
		platforms = append(platforms, p.platform())
	}
	slices.Sort(platforms)
	return slices.Compact(platforms)
}

func (p Package) platform() string {
	return p.Distribution + " " + p.Release + " " + p.Architecture
}

// Digest is the SHA-256 of the manifest's bytes in hex, which is what the option manifest_sha256 pins.
func Digest(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return hex.EncodeToString(sum[:])
}

// ParseManifest accepts a manifest only if every word of it is understood. Its error names up to ten places by line.
func ParseManifest(data []byte) (Manifest, error) {
	p := &parser{}
	m := p.manifest(data)
	if err := p.err(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

type parser struct {
	errs    []error
	further int // errors that were not kept
}

func (p *parser) errorf(line int, format string, args ...any) {
	if len(p.errs) == maxErrors {
		p.further++
		return
	}
	where := "manifest: "
	if line > 0 {
		where = fmt.Sprintf("manifest line %d: ", line)
	}
	p.errs = append(p.errs, fmt.Errorf(where+format, args...))
}

func (p *parser) err() error {
	if p.further > 0 {
		p.errs = append(p.errs, fmt.Errorf("and %d more", p.further))
	}
	var all *multierror.Error
	for _, err := range p.errs {
		all = multierror.Append(all, err)
	}
	if all != nil {
		all.ErrorFormat = func(errs []error) string {
			if len(errs) == 1 {
				return errs[0].Error()
			}
			text := fmt.Sprintf("%d errors:", len(p.errs)+max(p.further-1, 0))
			for _, err := range errs {
				text += "\n- " + err.Error()
			}
			return text
		}
	}
	return all.ErrorOrNil()
}

func (p *parser) manifest(data []byte) (m Manifest) {
	root := p.document(data)
	if root == nil {
		return m
	}
	f := p.fields(root, "the manifest", "", []string{"schema", "variant", "suffix", "packages"})
	if n := f["schema"]; n != nil {
		got, ok := p.number(n, "", "schema")
		if ok && got != schema {
			// Another schema makes every other complaint pointless.
			p.errs = nil
			p.errorf(n.Line, "this program reads schema %d, the manifest says %d: update the collection", schema, got)
			return m
		}
		m.Schema = int(got)
	}
	m.Variant = p.text(f["variant"], "", "variant", "fallback or disable_ofd", func(s string) bool {
		return s == "fallback" || s == "disable_ofd"
	})
	m.Suffix = p.text(f["suffix"], "", "suffix", "a plus sign and then letters, digits or . + ~", isSuffix)
	list := f["packages"]
	if list == nil {
		return m
	}
	if list.Kind != yaml.SequenceNode {
		p.errorf(list.Line, "packages must be a list")
		return m
	}
	if len(list.Content) == 0 {
		p.errorf(list.Line, "packages is empty")
	}
	named := map[string]int{}  // lines of name, distribution and release, with and without the architecture
	files := map[string]seen{} // what the manifest says of a file
	for i, n := range list.Content {
		pkg, who := p.pkg(n, i+1, m.Suffix)
		m.Packages = append(m.Packages, pkg)
		if pkg.Name != "" {
			p.unique(n.Line, who, pkg, named)
		}
		if pkg.File != "" {
			was, twice := files[pkg.File]
			if twice && (was.size != pkg.Size || was.sha256 != pkg.SHA256) {
				p.errorf(n.Line, "%s: file %s has another size or sha256 in line %d", who, pkg.File, was.line)
			}
			files[pkg.File] = seen{pkg.Size, pkg.SHA256, n.Line}
		}
	}
	return m
}

type seen struct {
	size   int64
	sha256 string
	line   int
}

// unique makes sure that no container gets two packages of one name. Architecture all is in the way of every other.
func (p *parser) unique(line int, who string, pkg Package, named map[string]int) {
	key := strings.Join([]string{pkg.Name, pkg.Distribution, pkg.Release}, " ")
	before := named[key+" "+pkg.Architecture]
	if before == 0 {
		before = named[key+" all"]
	}
	if before == 0 && pkg.Architecture == "all" {
		before = named[key]
	}
	if before != 0 {
		p.errorf(line, "%s: there is one for %s already, in line %d", who, pkg.platform(), before)
	}
	named[key], named[key+" "+pkg.Architecture] = line, line
}

// document is the one YAML document's top, nil after an error. Aliases are refused before anything follows them.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > MaxManifestSize {
		p.errorf(0, "it has %d bytes, %d are allowed", len(data), MaxManifestSize)
		return nil
	}
	if !utf8.Valid(data) {
		p.errorf(0, "it is not UTF-8 text")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		p.errorf(0, "it is empty")
		return nil
	} else if err != nil {
		p.notYAML(err)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		p.errorf(second.Line, "a second document begins")
		return nil
	} else if !errors.Is(err, io.EOF) {
		p.notYAML(err)
		return nil
	}
	if !p.plain(&doc) {
		return nil
	}
	return doc.Content[0]
}

// notYAML says "near": yaml.v3 counts the line of some errors from 0.
func (p *parser) notYAML(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.HasPrefix(text, "line ") {
		text = "near " + text
	}
	p.errorf(0, "it is not YAML: %.200s", text) // it may quote a name of any length
}

func (p *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		p.errorf(n.Line, "YAML anchors and aliases are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		p.errorf(n.Line, "YAML tags are not allowed")
	default:
		return !slices.ContainsFunc(n.Content, func(child *yaml.Node) bool { return !p.plain(child) })
	}
	return false
}

// fields are the values of a mapping that has exactly these keys, and those that it may have; in who the mapping's place goes before its errors.
func (p *parser) fields(n *yaml.Node, what, who string, keys []string, optional ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		p.errorf(n.Line, "%s must be a mapping of %s", what, strings.Join(keys, ", "))
		return nil
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(keys, key.Value) && !slices.Contains(optional, key.Value):
			p.errorf(key.Line, "%sunknown key %s", who, quote(key.Value))
		case fields[key.Value] != nil:
			p.errorf(key.Line, "%s%s is given twice", who, key.Value)
		default:
			fields[key.Value] = value
		}
	}
	for _, key := range keys {
		if fields[key] == nil {
			p.errorf(n.Line, "%s%s is missing", who, key)
		}
	}
	return fields
}

// pkg reads one package and also returns what its errors call it.
func (p *parser) pkg(n *yaml.Node, number int, suffix string) (pkg Package, who string) {
	who = fmt.Sprintf("package %d", number)
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if name := n.Content[i+1].Value; n.Content[i].Value == "name" && isPackageName(name) {
			who = "package " + name
		}
	}
	at := who + ": "
	f := p.fields(n, who, at, []string{"name", "version", "built_from", "distribution", "release", "architecture", "file", "size", "sha256"}, "stock")
	word := "lower-case letters, digits or . _ -"
	pkg.Name = p.text(f["name"], at, "name", "a Debian package name", isPackageName)
	pkg.Version = p.text(f["version"], at, "version", "a Debian version", isVersion)
	pkg.BuiltFrom = p.text(f["built_from"], at, "built_from", "a Debian version", isVersion)
	pkg.Stock = p.text(f["stock"], at, "stock", "a Debian version", isVersion)
	pkg.Distribution = p.text(f["distribution"], at, "distribution", word, isWord)
	pkg.Release = p.text(f["release"], at, "release", word, isWord)
	pkg.Architecture = p.text(f["architecture"], at, "architecture", "a Debian architecture, such as amd64", isArchitecture)
	pkg.File = p.text(f["file"], at, "file", "a plain file name that ends in .deb", isFileName)
	pkg.SHA256 = p.text(f["sha256"], at, "sha256", "64 lower-case hex digits", isSHA256)
	if size := f["size"]; size != nil {
		got, ok := p.number(size, at, "size")
		if ok && (got <= 0 || got > maxPackageSize) {
			p.errorf(size.Line, "%ssize is %d, it must be 1 to %d bytes", at, got, int64(maxPackageSize))
		}
		pkg.Size = got
	}
	if v := f["version"]; pkg.Version != "" && pkg.BuiltFrom != "" && suffix != "" && pkg.Version != pkg.BuiltFrom+suffix {
		p.errorf(v.Line, "%sversion is %s, it must be built_from and suffix: %s", at, pkg.Version, pkg.BuiltFrom+suffix)
	}
	if pkg.Stock != "" && pkg.Stock == pkg.Version {
		p.errorf(f["stock"].Line, "%sstock is %s, the version of the package itself", at, pkg.Stock)
	}
	return pkg, who
}

// text is a scalar's text as it is written, whatever YAML takes it for: the release 12.10 is not the number 12.1.
// It is empty after an error.
func (p *parser) text(n *yaml.Node, who, key, want string, ok func(string) bool) string {
	switch {
	case n == nil: // reported as missing, or optional
		return ""
	case n.Kind != yaml.ScalarNode:
		p.errorf(n.Line, "%s%s must be %s", who, key, want)
		return ""
	case n.Tag == "!!null":
		p.errorf(n.Line, "%s%s has no value", who, key)
		return ""
	case !ok(n.Value):
		p.errorf(n.Line, "%s%s is %s, it must be %s", who, key, quote(n.Value), want)
		return ""
	}
	return n.Value
}

func (p *parser) number(n *yaml.Node, who, key string) (int64, bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" {
		if got, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return got, true
		}
	}
	if n.Kind == yaml.ScalarNode {
		p.errorf(n.Line, "%s%s is %s, it must be a whole number", who, key, quote(n.Value))
	} else {
		p.errorf(n.Line, "%s%s must be a whole number", who, key)
	}
	return 0, false
}

func quote(text string) string {
	if runes := []rune(text); len(runes) > 80 {
		return strconv.Quote(string(runes[:80])) + "…"
	}
	return strconv.Quote(text)
}
