package deb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

const overridesFile = "var/lib/dpkg/statoverride"

// sysusersFrom is the first dpkg that looks for names in /etc/passwd and /etc/group and nowhere else (its changelog, 1.22.16).
const sysusersFrom = "1.22.16"

// accounts are the names of users, or of groups, as dpkg looks for them.
type accounts struct {
	names map[string]bool
	more  bool // others may be known to a service that was not asked
}

func (a accounts) lack(name string) bool { return !a.more && !a.names[name] }

// readOverrides finds what dpkg cannot take in its list of dpkg-statoverride(1). For one such line it installs nothing.
func readOverrides(root *os.Root, version string) ([]Refusal, error) {
	text, err := readSmall(root, overridesFile)
	if err != nil || text == "" {
		return nil, err
	}
	users, err := readAccounts(root, "etc/passwd", "passwd", version)
	if err != nil {
		return nil, err
	}
	groups, err := readAccounts(root, "etc/group", "group", version)
	if err != nil {
		return nil, err
	}
	return judgeOverrides(text, users, groups), nil
}

// readSmall reads one of dpkg's own files whole; one that is not there is empty.
func readSmall(root *os.Root, name string) (string, error) {
	f, _, err := foreign.OpenLinked(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(bounded(f, maxListing, "the file"))
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", name, err)
	}
	return string(text), nil
}

func readAccounts(root *os.Root, file, service, version string) (accounts, error) {
	a := accounts{names: map[string]bool{}}
	text, err := readSmall(root, file)
	if err != nil {
		return a, err
	}
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			a.names[name] = true
		}
	}
	if order, err := CompareVersions(version, sysusersFrom); err == nil && order >= 0 {
		return a, nil
	}
	switches, err := readSmall(root, "etc/nsswitch.conf")
	a.more = asksMore(switches, service)
	return a, err
}

// asksMore: systemd makes up names of its own, which nobody gives a file of a package.
func asksMore(switches, service string) bool {
	lines := bufio.NewScanner(strings.NewReader(switches))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		name, sources, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != service {
			continue
		}
		for _, source := range strings.Fields(sources) {
			if !strings.HasPrefix(source, "[") && !strings.HasSuffix(source, "]") && !slices.Contains([]string{"files", "compat", "systemd"}, source) {
				return true
			}
		}
	}
	return lines.Err() != nil
}

// judgeOverrides goes through the list as lib/dpkg/db-fsys-override.c does.
func judgeOverrides(text string, users, groups accounts) (refusals []Refusal) {
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(text) {
		if len(refusals) >= maxRefusals {
			break // one is enough for dpkg
		}
		number++
		where := fmt.Sprintf("/%s:%d", overridesFile, number)
		refuse := func(why, remedy string) {
			refusals = append(refusals, Refusal{Where: where, Why: why + ": dpkg installs nothing", Remedy: remedy})
		}
		const mend = "mend that line in the container"
		line, ended := strings.CutSuffix(line, "\n")
		fields := strings.SplitN(line, " ", 4)
		switch {
		case !ended:
			refuse("the last line does not end", mend)
			continue
		case line == "":
			refuse("the line is empty", mend)
			continue
		case len(fields) < 4:
			refuse("the line is no user, group, mode and path", mend)
			continue
		}
		remove := "make it, or remove the override in the container: dpkg-statoverride --remove " + fields[3]
		if why := judgeAccount(fields[0], "user", users); why != "" {
			refuse(why, remove)
		} else if why := judgeAccount(fields[1], "group", groups); why != "" {
			refuse(why, remove)
		} else if mode, ok := parseLong(fields[2], 8); !ok || mode > 0o7777 {
			refuse(quote(fields[2])+" is no mode", mend)
		}
		name := fields[3]
		for strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") {
			name = name[1:]
		}
		if seen[name] {
			refuse("there are two lines for "+quote(fields[3]), mend)
		}
		seen[name] = true
	}
	return refusals
}

func judgeAccount(name, kind string, known accounts) string {
	number, numeric := strings.CutPrefix(name, "#")
	if numeric {
		id, ok := parseLong(number, 10)
		if !ok {
			return quote(name) + " is no number of a " + kind
		}
		if uint32(id) != ^uint32(0) { // dpkg's mark for a name that is not known
			return ""
		}
	} else if !known.lack(name) {
		return ""
	}
	return "there is no " + kind + " " + quote(name)
}

// parseLong is strtol(3) of a number that is not negative, and of nothing behind it.
func parseLong(text string, base int) (n int64, ok bool) {
	text = strings.TrimPrefix(strings.TrimLeft(text, spaces), "+")
	if strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") && strings.Trim(text[1:], "0") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(text, base, 64)
	return n, err == nil
}
