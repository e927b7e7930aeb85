package ansible

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Type is the type of an option, or of a list's elements.
type Type int

// The zero Type is String, so that most options and lists need not name one.
const (
	String Type = iota
	Path        // String, with a leading ~ and $VARIABLES expanded on the target
	Int
	Bool
	List
	Dict
)

// String is the type's name in a module's documentation.
func (t Type) String() string {
	switch t {
	case String:
		return "str"
	case Path:
		return "path"
	case Int:
		return "int"
	case Bool:
		return "bool"
	case List:
		return "list"
	case Dict:
		return "dict"
	}
	return "Type(" + strconv.Itoa(int(t)) + ")"
}

// Option describes one option of a module.
type Option struct {
	Type     Type
	Elements Type // of a List
	Default  any  // coerced like a given value
	Required bool
	Choices  []string // of a String, or of the elements of a List
	NotEmpty bool     // of a List: where not giving it means all, an empty one is a mistake, such as a template that found nothing
	NoLog    bool     // a secret: hidden wherever it appears in the result
	// Secret says of a text that it is a secret though the option is none, such as an address with a password in it.
	Secret      func(text string) bool
	Internal    bool     // set by the collection's own action plugin: not documented, not echoed
	Description []string // one paragraph each
}

// Spec is a module's options by name.
type Spec map[string]Option

// input is what one call's arguments come to.
type input struct {
	values  map[string]any // every option of the spec, null where it is not given and has no default
	call    Call
	shown   map[string]any // for invocation: no internal option, no secret
	hidden  map[string]bool
	secrets []string
}

// read checks and coerces the arguments. What it returns beside an error is enough to report it.
func (s Spec) read(given map[string]any) (input, error) {
	in := input{values: map[string]any{}, shown: map[string]any{}, hidden: map[string]bool{}}
	var errs *multierror.Error
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if _, known := s[key]; !known && !strings.HasPrefix(key, "_ansible_") {
			errs = multierror.Append(errs, s.unknown(key))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		o, raw := s[name], given[name]
		if raw == nil {
			if o.Required {
				errs = multierror.Append(errs, fmt.Errorf("option %q is required", name))
			}
			raw = plain(o.Default)
		}
		value, err := o.coerce(name, raw)
		if err == nil && o.Type == Path && holdsContent(raw) {
			err = fmt.Errorf("option %q is no path: it looks like what a file holds, which is not shown here; name the file, on the target", name)
		}
		if err != nil {
			errs = multierror.Append(errs, err)
			value = raw
		}
		in.values[name] = value
		if o.NoLog || o.holdsSecret(raw) {
			in.secrets = secretsOf(secretsOf(in.secrets, raw), value)
			in.hidden[name] = value != nil
		}
		if !o.Internal {
			in.shown[name] = value
		}
	}
	maps.DeleteFunc(in.hidden, func(name string, given bool) bool { return !given || s[name].Internal })
	errs = multierror.Append(errs, in.readCall(given))
	return in, errs.ErrorOrNil()
}

// holdsSecret looks at every text in v, whatever the type of the option is.
func (o Option) holdsSecret(v any) bool {
	return slices.ContainsFunc(texts(nil, v), func(text string) bool {
		return holdsKey(text) || o.Secret != nil && o.Secret(text) || o.Type == Path && holdsContent(text)
	})
}

// holdsContent tells that v cannot be a path but may be the file itself, such as a private key.
func holdsContent(v any) bool {
	const pathMax = 4096 // PATH_MAX, <linux/limits.h>
	text, ok := v.(string)
	return ok && (holdsKey(text) || len(text) > pathMax || strings.ContainsAny(text, "\r\n"))
}

// holdsKey recognises private keys as OpenSSL, OpenSSH and PuTTY write them, with line ends or without, and in base64 once more.
func holdsKey(text string) bool {
	return slices.ContainsFunc([]string{"PRIVATE KEY-----", "PuTTY-User-Key-File-", "b3BlbnNzaC1rZXk", "LS0tLS1CRUdJTi"}, func(mark string) bool {
		return strings.Contains(text, mark)
	})
}

func (in *input) readCall(given map[string]any) error {
	var errs *multierror.Error
	flag := func(name string) bool {
		value, err := Option{Type: Bool}.coerce(name, given[name])
		errs = multierror.Append(errs, err)
		set, _ := value.(bool)
		return set
	}
	in.call.CheckMode = flag("_ansible_check_mode")
	in.call.Diff = flag("_ansible_diff")
	verbosity, err := Option{Type: Int}.coerce("_ansible_verbosity", given["_ansible_verbosity"])
	errs = multierror.Append(errs, err)
	n, _ := verbosity.(int64)
	in.call.Verbosity = int(n)
	return errs.ErrorOrNil()
}

// plain gives a default the form of a decoded argument.
func plain(v any) any {
	if v == nil {
		return nil
	}
	data, err := json.Marshal(map[string]any{"default": v})
	if err != nil {
		panic(fmt.Sprintf("default %v of an option: %v", v, err))
	}
	object, err := decodeObject(data)
	if err != nil {
		panic(fmt.Sprintf("default %v of an option: %v", v, err))
	}
	return object["default"]
}

func (s Spec) unknown(key string) error {
	var names []string
	best, distance := "", 3 // at most two slips
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name].Internal {
			continue
		}
		names = append(names, name)
		if d := slips(fold(key), fold(name)); d < distance && d < len(name)/2 {
			best, distance = name, d
		}
	}
	switch {
	case best != "":
		return fmt.Errorf("unknown option %q: did you mean %q?", key, best)
	case len(names) == 0:
		return fmt.Errorf("unknown option %q: this module has no options", key)
	}
	return fmt.Errorf("unknown option %q: the options are %s", key, strings.Join(names, ", "))
}

func fold(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "-", "_"))
}

// slips is the optimal string alignment distance in bytes: letters added, left out, wrong or swapped with the next one.
// A key much longer than an option name is not worth counting.
func slips(a, b string) int {
	if len(a) > len(b)+2 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

func (o Option) coerce(name string, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	value, err := coerce(o.Type, v)
	if err != nil {
		return nil, o.refuse(fmt.Sprintf("option %q", name), v, err)
	}
	list, isList := value.([]any)
	if !isList {
		return value, o.choose(name, value)
	}
	var errs *multierror.Error
	elements := make([]any, len(list))
	for i, v := range list {
		element, err := coerce(o.Elements, v)
		if err != nil {
			errs = multierror.Append(errs, o.refuse(fmt.Sprintf("element %d of option %q", i+1, name), v, err))
			continue
		}
		elements[i] = element
		errs = multierror.Append(errs, o.choose(name, element))
		if text, ok := element.(string); ok && o.NotEmpty && strings.TrimSpace(text) == "" {
			errs = multierror.Append(errs, fmt.Errorf("element %d of option %q is empty", i+1, name))
		}
	}
	if o.NotEmpty && len(list) == 0 {
		errs = multierror.Append(errs, fmt.Errorf("option %q is an empty list: name at least one, or leave the option out, which means all", name))
	}
	return elements, errs.ErrorOrNil()
}

func (o Option) refuse(where string, v any, err error) error {
	if o.NoLog {
		return fmt.Errorf("%s %w", where, err)
	}
	return fmt.Errorf("%s is %s, it %w", where, describe(v), err)
}

func (o Option) choose(name string, v any) error {
	text, ok := v.(string)
	if o.Choices == nil || !ok || slices.Contains(o.Choices, text) {
		return nil
	}
	return o.refuse(fmt.Sprintf("option %q", name), v, errors.New("must be one of "+strings.Join(o.Choices, ", ")))
}

// describe quotes what the user wrote, shortened.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case string:
		if runes := []rune(v); len(runes) > 80 {
			return strconv.Quote(string(runes[:80])) + "…"
		}
		return strconv.Quote(v)
	case []any:
		return "a list"
	}
	return "a dictionary"
}
