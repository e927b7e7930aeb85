package sshsig

import "strings"

// matchList is true where some pattern of the list, which is parted by commas, matches, and none that begins with an
// exclamation mark does: PATTERNS in ssh_config(5).
func matchList(text, list string) bool {
	some := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if match(text, pattern) {
			if negated {
				return false
			}
			some = true
		}
	}
	return some
}

// match knows * and ?. It goes back to the last star only, so that no pattern takes long.
func match(text, pattern string) bool {
	t, p := 0, 0
	star, from := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			t++
			p++
		case star >= 0:
			from++
			t, p = from, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
