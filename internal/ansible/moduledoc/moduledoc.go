// Package moduledoc writes the file that documents a compiled module: <name>.yml beside the program, which ansible-doc
// reads since ansible-core 2.14. It is apart from package ansible so that no module carries it.
package moduledoc

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"gopkg.in/yaml.v3"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// DocText is what the options do not say. Lists of text have one paragraph each, in the markup that every supported ansible-core shows.
type DocText struct {
	ShortDescription string `yaml:"short_description"`
	Description      []string
	VersionAdded     string `yaml:"version_added"` // of the collection
	Author           []string
	Requirements     []string
	Notes            []string
	Attributes       map[string]Attribute // check_mode, diff_mode, platform
	Examples         string               // YAML: a list of tasks
	Return           []Value              // in the order of the page
}

// Attribute is a promise that Ansible has a name for.
type Attribute struct {
	Description string
	Support     string // full, partial or none
	Details     string // the exceptions
}

// Value is one value that the module returns.
type Value struct {
	Name        string
	Description []string
	Returned    string // when
	Type        string // str, int, bool, list, dict, float
	Elements    string // of a list
	Sample      any
	Contains    []Value // of a dict, or of the elements of a list
}

type file struct {
	Documentation documentation `yaml:"DOCUMENTATION"`
	Examples      string        `yaml:"EXAMPLES"`
	Return        ordered       `yaml:"RETURN"`
}

type documentation struct {
	Module           string               `yaml:"module"`
	ShortDescription string               `yaml:"short_description"`
	Description      []string             `yaml:"description"`
	VersionAdded     string               `yaml:"version_added,omitempty"`
	Author           []string             `yaml:"author"`
	Requirements     []string             `yaml:"requirements,omitempty"`
	Options          map[string]option    `yaml:"options"` // yaml.v3 sorts keys
	Attributes       map[string]attribute `yaml:"attributes,omitempty"`
	Notes            []string             `yaml:"notes,omitempty"`
}

type option struct {
	Description []string `yaml:"description"`
	Type        string   `yaml:"type"`
	Elements    string   `yaml:"elements,omitempty"`
	Required    bool     `yaml:"required,omitempty"`
	Default     any      `yaml:"default,omitempty"` // false and 0 are written, only nil is not
	Choices     []string `yaml:"choices,omitempty"`
}

type attribute struct {
	Description string `yaml:"description"`
	Support     string `yaml:"support"`
	Details     string `yaml:"details,omitempty"`
}

type value struct {
	Description []string `yaml:"description"`
	Returned    string   `yaml:"returned,omitempty"`
	Type        string   `yaml:"type"`
	Elements    string   `yaml:"elements,omitempty"`
	Contains    ordered  `yaml:"contains,omitempty"`
	Sample      any      `yaml:"sample,omitempty"`
}

// ordered writes values as a mapping in the order in which they are given.
type ordered []Value

func (o ordered) MarshalYAML() (any, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, v := range o {
		var key, val yaml.Node
		key.SetString(v.Name)
		entry := value{Description: v.Description, Returned: v.Returned, Type: v.Type, Elements: v.Elements, Sample: v.Sample, Contains: ordered(v.Contains)}
		if err := val.Encode(entry); err != nil {
			return nil, err
		}
		node.Content = append(node.Content, &key, &val)
	}
	return node, nil
}

// ParseText reads a module's doc.yml. A key that DocText does not have is an error.
func ParseText(data []byte) (text DocText, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&text); err != nil {
		return DocText{}, fmt.Errorf("cannot read the text of a module's documentation: %w", err)
	}
	return text, nil
}

// Documentation is the content of <name>.yml. The same input gives the same bytes.
func Documentation(name string, spec ansible.Spec, extra DocText) ([]byte, error) {
	if err := check(spec, extra); err != nil {
		return nil, fmt.Errorf("cannot document module %s: %w", name, err)
	}
	f := file{
		Documentation: documentation{
			Module: name, ShortDescription: extra.ShortDescription, Description: extra.Description,
			VersionAdded: extra.VersionAdded, Author: extra.Author, Requirements: extra.Requirements,
			Options: map[string]option{}, Attributes: map[string]attribute{}, Notes: extra.Notes,
		},
		Examples: strings.TrimSpace(extra.Examples) + "\n", // several lines: yaml.v3 writes a literal block
		Return:   ordered(extra.Return),
	}
	for key, o := range spec {
		if o.Internal {
			continue
		}
		documented := option{
			Description: o.Description, Type: o.Type.String(), Required: o.Required, Default: o.Default, Choices: o.Choices,
		}
		if o.Type == ansible.List {
			documented.Elements = o.Elements.String()
		}
		f.Documentation.Options[key] = documented
	}
	for key, a := range extra.Attributes {
		f.Documentation.Attributes[key] = attribute(a)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "---\n# Written from the options in modules/%s: change them there.\n", name)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("cannot document module %s: %w", name, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("cannot document module %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// unshown is the semantic markup: ansible-doc shows it as it stands before ansible-core 2.15, and 2.14 is supported.
var unshown = regexp.MustCompile(`\b(?:E|O|P|RV|V)\(`)

const unshownReason = "E(), O(), P(), RV() and V() need ansible-core 2.15: write I() for a name and C() for a value"

// check finds what ansible-doc would stop at, or print as a page with holes.
func check(spec ansible.Spec, extra DocText) error {
	var errs *multierror.Error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = multierror.Append(errs, fmt.Errorf(format, args...))
		}
	}
	want(extra.ShortDescription != "", "short_description is missing")
	want(!strings.HasSuffix(extra.ShortDescription, "."), "short_description ends with a full stop")
	want(written(extra.Description), "description is missing")
	want(!unshown.MatchString(strings.Join(slices.Concat(extra.Description, extra.Notes), "\n")), "description or notes: %s", unshownReason)
	want(len(extra.Author) > 0, "author is missing")
	for _, name := range slices.Sorted(maps.Keys(spec)) {
		o := spec[name]
		want(o.Internal || written(o.Description), "option %s: description is missing", name)
		want(!unshown.MatchString(strings.Join(o.Description, "\n")), "option %s: %s", name, unshownReason)
		text, isText := o.Default.(string)
		want(o.Choices == nil || !isText || slices.Contains(o.Choices, text), "option %s: default %q is no choice", name, text)
		want(!o.Required || o.Default == nil, "option %s: required, and has a default", name)
	}
	for _, name := range slices.Sorted(maps.Keys(extra.Attributes)) {
		a := extra.Attributes[name]
		want(a.Description != "", "attribute %s: description is missing", name)
		want(slices.Contains([]string{"full", "partial", "none"}, a.Support), "attribute %s: support is %q", name, a.Support)
	}
	var examples []map[string]any
	err := yaml.Unmarshal([]byte(extra.Examples), &examples)
	want(err == nil && len(examples) > 0, "examples: not a list of tasks (%v)", err)
	errs = multierror.Append(errs, checkValues("", extra.Return))
	return errs.ErrorOrNil()
}

func checkValues(parent string, values []Value) error {
	var errs *multierror.Error
	for _, v := range values {
		name := parent + v.Name
		if v.Name == "" || !written(v.Description) {
			errs = multierror.Append(errs, fmt.Errorf("return value %q: name or description is missing", name))
		}
		if unshown.MatchString(strings.Join(v.Description, "\n")) {
			errs = multierror.Append(errs, fmt.Errorf("return value %q: %s", name, unshownReason))
		}
		if !slices.Contains([]string{"str", "int", "bool", "list", "dict", "float"}, v.Type) {
			errs = multierror.Append(errs, fmt.Errorf("return value %q: type is %q", name, v.Type))
		}
		errs = multierror.Append(errs, checkValues(name+".", v.Contains))
	}
	return errs.ErrorOrNil()
}

func written(paragraphs []string) bool {
	return len(paragraphs) > 0 && !slices.Contains(paragraphs, "")
}
