package kolla

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Distribution is what a container's os-release says.
type Distribution struct {
	ID      string // "debian", "ubuntu", "rocky"
	Release string // VERSION_CODENAME, "bookworm"; empty where there is none, as on Rocky
}

// UsesDpkg tells whether the packages in there are .debs.
func (d Distribution) UsesDpkg() bool { return d.ID == "debian" || d.ID == "ubuntu" }

// osReleaseLimit is far above any real os-release (about 400 bytes).
const osReleaseLimit = 64 << 10

// ReadDistribution reads os-release below root. /etc/os-release is a relative link to /usr/lib/os-release in most
// images, an absolute one or a file in some, so both are tried: os-release(5).
func ReadDistribution(root *os.Root) (Distribution, error) {
	file, _, err := foreign.OpenLinked(root, "etc/os-release")
	if err != nil {
		var second error
		if file, _, second = foreign.OpenLinked(root, "usr/lib/os-release"); second != nil {
			return Distribution{}, fmt.Errorf("cannot read os-release: %w", err)
		}
	}
	defer file.Close()
	d, err := ParseOSRelease(io.LimitReader(file, osReleaseLimit))
	if err != nil {
		return Distribution{}, fmt.Errorf("cannot read os-release: %w", err)
	}
	return d, nil
}

// ParseOSRelease reads ID and VERSION_CODENAME in the shell-like format of os-release(5).
func ParseOSRelease(r io.Reader) (Distribution, error) {
	var d Distribution
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			d.ID = value
		case "VERSION_CODENAME":
			d.Release = value
		}
	}
	if err := lines.Err(); err != nil {
		return Distribution{}, err
	}
	if d.ID == "" {
		return Distribution{}, fmt.Errorf("it has no ID")
	}
	return d, nil
}
