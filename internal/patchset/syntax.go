package patchset

import "strings"

const (
	lower    = "abcdefghijklmnopqrstuvwxyz"
	upper    = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits   = "0123456789"
	maxWord  = 128 // bytes; the longest package name in Debian has fewer than 80
	maxDebFS = 255 // bytes; NAME_MAX of Linux filesystems
)

// made says whether text is one character of first and then any number of rest.
func made(text, first, rest string, most int) bool {
	return text != "" && len(text) <= most && strings.Contains(first, text[:1]) && strings.Trim(text[1:], rest) == ""
}

// isPackageName: Debian policy 5.6.7 asks for two characters, too.
func isPackageName(s string) bool {
	return len(s) > 1 && made(s, lower+digits, lower+digits+"+-.", maxWord)
}

// isVersion: deb-version(7), and an upstream version that begins with a digit, which dpkg warns about otherwise.
func isVersion(s string) bool {
	if epoch, rest, found := strings.Cut(s, ":"); found {
		if !made(epoch, digits, digits, 9) {
			return false
		}
		s = rest
	}
	upstream, revision := s, "0"
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		upstream, revision = s[:i], s[i+1:]
	}
	const rest = lower + upper + digits + ".+~"
	return made(upstream, digits, rest+"-:", maxWord) && made(revision, rest, rest, maxWord)
}

// isSuffix: it ends a Debian revision, which holds no hyphen.
func isSuffix(s string) bool {
	return len(s) > 1 && made(s, "+", lower+upper+digits+".+~", 64)
}

func isArchitecture(s string) bool {
	return made(s, lower+digits, lower+digits+"-", maxWord)
}

// isWord: what os-release(5) allows in ID, for VERSION_CODENAME, too.
func isWord(s string) bool {
	return made(s, lower+digits, lower+digits+"._-", maxWord)
}

// isFileName: nothing that leaves the folder, is hidden, or is taken for an option. Some tools write the epoch's colon
// as %3a.
func isFileName(s string) bool {
	return strings.HasSuffix(s, ".deb") && made(s, lower+upper+digits, lower+upper+digits+"._+~:%-", maxDebFS)
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "abcdef"+digits) == ""
}
