package deb

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pathRules are dpkg's path-exclude and path-include, in order: the last that matches decides.
type pathRules []pathRule

type pathRule struct {
	pattern string // glob against the absolute path
	include bool
}

// parsePathRules finds the rules in the configuration. Whatever else it says is not about paths.
func parsePathRules(config []configLine) pathRules {
	var rules pathRules
	for _, c := range config {
		if c.valued && !c.unbalanced && (c.name == "path-exclude" || c.name == "path-include") {
			rules = append(rules, pathRule{c.value, c.name == "path-include"})
		}
	}
	return rules
}

// excludes tells whether dpkg leaves out the file with this absolute path. For folders and symbolic links it is not the whole
// truth: see bringsBack.
func (rules pathRules) excludes(name string) bool {
	for i := len(rules) - 1; i >= 0; i-- {
		if fnmatch(rules[i].pattern, name) {
			return !rules[i].include
		}
	}
	return false
}

// bringsBack finds the path-include for whose sake dpkg installs a folder or a symbolic link all the same: one that has this path below the
// part in front of its first wildcard. That may be more than the rule needs (src/main/filters.c, filter_should_skip).
func (rules pathRules) bringsBack(name string) (pattern string, found bool) {
	for _, r := range rules {
		literal := r.pattern
		if i := strings.IndexAny(literal, `*?[\`); i >= 0 {
			literal = literal[:i]
		}
		if r.include && strings.HasPrefix(name, strings.TrimRight(literal, "/")) {
			return r.pattern, true
		}
	}
	return "", false
}

// fnmatch is fnmatch(3) without flags in the C.UTF-8 locale: "*" and "?" match a slash too. Collating symbols and
// equivalence classes, [.a.] and [=a=], are those of single characters.
func fnmatch(pattern, name string) bool {
	star, retry := -1, 0 // where to go on after the last "*", and how much of name it leaves
	p, n := 0, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, retry = p, n
			continue
		}
		if p < len(pattern) {
			if width, length := matchOne(pattern[p:], name[n:]); length > 0 {
				p += width
				n += length
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, length := utf8.DecodeRuneInString(name[retry:])
		retry += length
		p, n = star, retry
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne matches the first element of the pattern, which is no "*", and the first character of the name: it returns the
// length of both, and 0 for the second if they do not match.
func matchOne(pattern, name string) (width, length int) {
	c, length := utf8.DecodeRuneInString(name)
	switch {
	case pattern[0] == '?':
		return 1, length
	case pattern[0] == '[':
		if in, width := matchBracket(pattern, c); width > 0 {
			if !in {
				return width, 0
			}
			return width, length
		}
	case pattern[0] == '\\':
		if len(pattern) == 1 {
			return 1, 0
		}
		if pattern[1] != name[0] {
			return 2, 0
		}
		return 2, 1
	}
	if pattern[0] != name[0] {
		return 1, 0
	}
	return 1, 1
}

// matchBracket matches a [...] of the width it returns; width 0 means that it never ends, so that its "[" is only itself.
func matchBracket(pattern string, c rune) (in bool, width int) {
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(pattern) {
			return false, 0
		}
		if pattern[i] == ']' && !first {
			return in != negated, i + 1
		}
		if name, ok := className(pattern[i:]); ok {
			class, known := classes[name]
			if !known {
				return false, 1 // nothing matches, whatever else is there
			}
			in = in || class(c)
			i += len("[:") + len(name) + len(":]")
			continue
		}
		low, next, ok := bracketRune(pattern, i)
		if !ok {
			return false, 0
		}
		high := low
		if i = next; i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			if high, i, ok = bracketRune(pattern, i+1); !ok {
				return false, 0
			}
		}
		in = in || low <= c && c <= high
	}
}

// bracketRune reads one character inside of a bracket: itself, one behind a backslash, or [.a.] and [=a=].
func bracketRune(pattern string, i int) (c rune, next int, ok bool) {
	if pattern[i] == '\\' {
		i++
	} else if len(pattern)-i > 4 && pattern[i] == '[' && (pattern[i+1] == '.' || pattern[i+1] == '=') {
		c, size := utf8.DecodeRuneInString(pattern[i+2:])
		if end := i + 2 + size; strings.HasPrefix(pattern[end:], pattern[i+1:i+2]+"]") {
			return c, end + 2, true
		}
	}
	if i >= len(pattern) {
		return 0, 0, false
	}
	c, size := utf8.DecodeRuneInString(pattern[i:])
	return c, i + size, true
}

// className finds the alpha of [:alpha:].
func className(pattern string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(pattern, "[:")
	name, _, ended := strings.Cut(rest, ":]")
	return name, ok && ended && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == ""
}

var classes = map[string]func(rune) bool{
	"alnum":  func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) },
	"alpha":  unicode.IsLetter,
	"blank":  func(c rune) bool { return c == ' ' || c == '\t' },
	"cntrl":  unicode.IsControl,
	"digit":  func(c rune) bool { return '0' <= c && c <= '9' },
	"graph":  func(c rune) bool { return unicode.IsGraphic(c) && !unicode.IsSpace(c) },
	"lower":  unicode.IsLower,
	"print":  unicode.IsGraphic,
	"punct":  func(c rune) bool { return unicode.IsPunct(c) || unicode.IsSymbol(c) },
	"space":  unicode.IsSpace,
	"upper":  unicode.IsUpper,
	"xdigit": func(c rune) bool { return strings.ContainsRune("0123456789abcdefABCDEF", c) },
}
