// Package shown writes out what cannot be seen in texts that come from containers and hosts, for terminals and logs.
package shown

import ( // few and early ones: see internal/supervise
	"slices"
	"strconv"
	"unicode/utf8"
)

// Hidden tells whether a character cannot be seen, or reorders or hides what stands beside it: control characters, among them those with
// which a terminal is told to do something, and Unicode's for direction, width and tags. plugins/plugin_utils/lock_report_text.py has the same list.
func Hidden(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f, r == 0x61c:
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x2069:
	case r == 0xfeff, r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe007f:
	default:
		return false
	}
	return true
}

// Text is the text with all that is hidden written out, but for line ends and tabs, which lists of errors and stacks have: what a terminal
// is told by these two is harmless. A carriage return is not: it hides the line that it ends.
func Text(text string) string {
	if !slices.ContainsFunc([]rune(text), escaped) && utf8.ValidString(text) {
		return text
	}
	out := make([]byte, 0, len(text)+16)
	for _, r := range text { // a byte that is no UTF-8 becomes U+FFFD, as encoding/json has it
		switch {
		case r == '\r':
			out = append(out, `\r`...)
		case escaped(r):
			digits := strconv.FormatInt(int64(r), 16)
			out = append(out, `\u`+"0000"[min(len(digits), 4):]+digits...)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

func escaped(r rune) bool { return r != '\n' && r != '\t' && Hidden(r) }

// All is a copy of what encoding/json decodes into an any, with Text of all texts in it, keys included.
func All(v any) any {
	switch v := v.(type) {
	case string:
		return Text(v)
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = All(v[i])
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for key, value := range v {
			all[Text(key)] = All(value)
		}
		return all
	}
	return v
}
