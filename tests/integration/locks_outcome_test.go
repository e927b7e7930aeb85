//go:build lab

package integration

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
)

// trial names one command: a row has several in one column, one for each errno.
type trial struct {
	place
	errno syscall.Errno // 0 where nothing is refused
}

// place is a cell of a build's table.
type place struct{ variant, row, state string }

// table has the results as the page shows them.
type table map[place]string

// outcome is what a command left: its exit code, or how it went on; its stderr; and for an image kept open the locks of its file.
type outcome struct{ code, err, locks string }

// The words for results.
const (
	succeeded = "ok"
	refused   = "refused" // somebody else has it
	hangs     = "hangs"
	strange   = "unexpected: "
	noHolder  = "–" // no holder, so no second writer
)

var (
	warned    = regexp.MustCompile(`^\S+: warning: (.+): image locks are refused here \(.+\); going on WITHOUT a lock, nothing keeps a second writer out$`)
	unlocking = regexp.MustCompile(`^\S+: warning: Failed to unlock byte \d+`)
	lockByte  = regexp.MustCompile(`Failed to lock byte (\d+)`)
	getLock   = regexp.MustCompile(`Failed to get (shared )?"\w+" lock`)
)

// result says in a few words how a command ended. A warning that comes twice for one file is unexpected: each line is from one process.
func (o outcome) result() string {
	var errors, warnings []string
	unlocks := 0
	for line := range strings.Lines(o.err) {
		line = strings.TrimSpace(line)
		switch w := warned.FindStringSubmatch(line); {
		case w != nil:
			for _, file := range warnings {
				if file == w[1] {
					return strange + "warned twice of " + file
				}
			}
			warnings = append(warnings, w[1])
		case unlocking.MatchString(line):
			unlocks++
		case strings.HasPrefix(line, "Is another process using the image ["), line == "":
		default:
			errors = append(errors, line)
		}
	}
	text := strings.Join(errors, " / ")
	var r string
	switch b := lockByte.FindStringSubmatch(text); {
	case o.code == noHolder:
		return noHolder
	case o.code == "124" || o.code == "137":
		r = hangs
	case (o.code == "0" || o.code == "open") && text == "":
		r = succeeded
	case b != nil && o.code == "1":
		r = "byte " + b[1]
	case getLock.MatchString(text) && o.code == "1":
		r = refused
	default:
		return strange + "exit code " + o.code + ", " + text
	}
	if n := len(warnings); n > 0 {
		r += fmt.Sprintf(", %d %s", n, plural("warning", n))
	}
	if unlocks > 0 {
		r += fmt.Sprintf(", %d of unlocking", unlocks)
	}
	return r
}

// heldLocks counts the lines of /proc/locks by their kind. Neighbouring bytes are one line.
func (o outcome) heldLocks() string {
	if o.code != "open" {
		return noHolder
	}
	var kinds []string
	for _, kind := range []string{"OFD", "POSIX", "FLOCK"} {
		if n := strings.Count(o.locks, ": "+kind); n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if kinds == nil {
		return "0"
	}
	return strings.Join(kinds, ", ")
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
