package ansible

import (
	"encoding/json"
	"errors"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// coerce does what AnsibleModule does with a decoded argument (check_type_* in ansible-core 2.19,
// module_utils/common/validation.py), but for three cases where that hides a mistake: a list or dictionary is no text,
// null inside a list is no text either, and Python literals ("{'a': 1}") are no dictionaries. Its errors go on where
// "it" ends.
func coerce(t Type, v any) (any, error) {
	switch t {
	case String:
		return toText(v)
	case Path:
		text, err := toText(v)
		return expandHome(expandVariables(text)), err
	case Int:
		return toInt(v)
	case Bool:
		return toBool(v)
	case List:
		return toList(v)
	case Dict:
		return toDict(v)
	}
	panic("unknown option type " + t.String())
}

func toText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool: // as Python writes it
		if v {
			return "True", nil
		}
		return "False", nil
	}
	return "", errors.New("must be text")
}

func toInt(v any) (int64, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case json.Number:
		return parseInt(v.String())
	case string:
		return parseInt(v)
	}
	return 0, errNotInt
}

var errNotInt = errors.New("must be a whole number")

// parseInt reads a decimal number of Python's decimal module if its value is whole: 3, 3.0 and 3e2, also with
// underscores. It works on the digits, because 1e999999999 as a big number would take all memory.
func parseInt(text string) (int64, error) {
	text = strings.ReplaceAll(strings.TrimSpace(text), "_", "")
	mantissa, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		var err error
		if exponent, err = strconv.Atoi(text[i+1:]); err != nil {
			return 0, errNotInt
		}
	}
	sign := ""
	if mantissa != "" && (mantissa[0] == '-' || mantissa[0] == '+') {
		sign, mantissa = mantissa[:1], mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, errNotInt
	}
	significant := strings.TrimRight(digits, "0")
	if significant == "" {
		return 0, nil
	}
	const most = 19 // digits of an int64
	zeros := exponent - len(fraction) + len(digits) - len(significant)
	if zeros < 0 {
		return 0, errNotInt
	}
	significant = strings.TrimLeft(significant, "0")
	if zeros > most || len(significant)+zeros > most {
		return 0, errTooBig
	}
	n, err := strconv.ParseInt(sign+significant+strings.Repeat("0", zeros), 10, 64)
	if err != nil {
		return 0, errTooBig
	}
	return n, nil
}

var errTooBig = errors.New("must fit 64 bits")

func toBool(v any) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case json.Number:
		if n, err := v.Float64(); err == nil && (n == 0 || n == 1) {
			return n == 1, nil
		}
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "y", "yes", "on", "1", "true", "t":
			return true, nil
		case "n", "no", "off", "0", "false", "f":
			return false, nil
		}
	}
	return false, errors.New("must be a boolean, such as true, false, yes or no")
}

func toList(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case string:
		parts := strings.Split(v, ",")
		list := make([]any, len(parts))
		for i, part := range parts {
			list[i] = part
		}
		return list, nil
	case json.Number, bool:
		text, err := toText(v)
		return []any{text}, err
	}
	return nil, errors.New("must be a list")
}

func toDict(v any) (map[string]any, error) {
	const wrong = "must be a dictionary, JSON or key=value"
	switch v := v.(type) {
	case map[string]any:
		return v, nil
	case string:
		if strings.HasPrefix(v, "{") {
			dict, err := decodeObject([]byte(v))
			if err != nil {
				return nil, errors.New(wrong)
			}
			return dict, nil
		}
		dict := map[string]any{}
		for _, field := range splitFields(v) {
			key, value, found := strings.Cut(field, "=")
			if !found {
				return nil, errors.New(wrong)
			}
			dict[key] = value
		}
		if !strings.Contains(v, "=") {
			return nil, errors.New(wrong)
		}
		return dict, nil
	}
	return nil, errors.New(wrong)
}

// splitFields splits at commas and spaces outside quotes; a backslash takes the next character as it is.
func splitFields(text string) []string {
	var fields []string
	var field strings.Builder
	var quote rune
	escaped := false
	end := func() {
		if field.Len() > 0 {
			fields = append(fields, field.String())
			field.Reset()
		}
	}
	for _, c := range strings.TrimSpace(text) {
		switch {
		case escaped:
			field.WriteRune(c)
			escaped = false
		case c == '\\':
			escaped = true
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == ',' || c == ' '):
			end()
		default:
			field.WriteRune(c)
		}
	}
	end()
	return fields
}

// expandVariables is Python's os.path.expandvars: $NAME and ${NAME}, unknown ones stay, values are not expanded again.
func expandVariables(path string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(path, '$')
		if i < 0 {
			out.WriteString(path)
			return out.String()
		}
		out.WriteString(path[:i])
		path = path[i:]
		name, size := variable(path)
		value, known := os.LookupEnv(name)
		if !known {
			value = path[:size]
		}
		out.WriteString(value)
		path = path[size:]
	}
}

// variable is the name at the start of text, which is a dollar sign, and how many bytes it takes with the sign.
func variable(text string) (name string, size int) {
	if strings.HasPrefix(text, "${") {
		if end := strings.IndexByte(text, '}'); end >= 0 {
			return text[2:end], end + 1
		}
		return "", 1
	}
	size = 1
	for size < len(text) && (text[size] == '_' || text[size] >= '0' && text[size] <= '9' ||
		text[size] >= 'a' && text[size] <= 'z' || text[size] >= 'A' && text[size] <= 'Z') {
		size++
	}
	return text[1:size], size
}

// expandHome is Python's os.path.expanduser: ~ is $HOME or else this user's home, ~name that user's; who is unknown stays.
func expandHome(path string) string {
	if !strings.HasPrefix(path, "~") {
		return path
	}
	name, _, _ := strings.Cut(path[1:], "/")
	home, known := "", false
	if name == "" {
		home, known = os.LookupEnv("HOME")
	}
	if !known {
		u, err := user.Lookup(name)
		if name == "" {
			u, err = user.LookupId(strconv.Itoa(os.Getuid()))
		}
		if err != nil {
			return path
		}
		home = u.HomeDir
	}
	if path = strings.TrimRight(home, "/") + path[1+len(name):]; path == "" {
		return "/"
	}
	return path
}
