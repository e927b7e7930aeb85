package preloaded

import (
	"bytes"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

// With is a list that names the library too, on a line of its own behind all others, which are kept to the byte. A nil list is none. What ended
// without a line's end is given back so by Without: ours then has none either.
func With(list []byte) []byte {
	switch {
	case slices.Contains(Entries(list), preload.Library):
		return list
	case list == nil || bytes.HasSuffix(list, []byte("\n")):
		return slices.Concat(list, []byte(preload.Library+"\n"))
	}
	return slices.Concat(list, []byte("\n"+preload.Library))
}

// Without is a list that does not name the library, and keeps everything else to the byte. It is nil where nothing is left.
func Without(list []byte) []byte {
	if !slices.Contains(Entries(list), preload.Library) {
		return list
	}
	if rest, ok := bytes.CutSuffix(list, []byte("\n"+preload.Library)); ok && !slices.Contains(Entries(rest), preload.Library) {
		return rest
	}
	var rest []byte
	for line := range strings.Lines(string(list)) {
		rest = append(rest, withoutIn(line)...)
	}
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// withoutIn takes the library out of one line, with what separates it from its neighbour; a line that has nothing else goes whole.
func withoutIn(line string) string {
	named, comment, commented := strings.Cut(line, "#")
	entries := Entries([]byte(named))
	if !slices.Contains(entries, preload.Library) {
		return line
	}
	if !commented && !slices.ContainsFunc(entries, func(e string) bool { return e != preload.Library }) {
		return ""
	}
	var rest strings.Builder
	for len(named) > 0 {
		gap := len(named) - len(strings.TrimLeft(named, separators))
		end := gap + strings.IndexAny(named[gap:]+" ", separators)
		if named[gap:end] != preload.Library {
			rest.WriteString(named[:end])
		}
		named = named[end:]
	}
	if commented {
		return rest.String() + "#" + comment
	}
	if strings.HasSuffix(line, "\n") && !strings.HasSuffix(rest.String(), "\n") {
		return rest.String() + "\n"
	}
	return rest.String()
}
