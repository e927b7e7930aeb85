package deb

import (
	"fmt"

	version "github.com/knqyf263/go-deb-version"
)

// CompareVersions orders two versions as dpkg does, deb-version(7): below zero if a is the older one.
func CompareVersions(a, b string) (int, error) {
	x, err := version.NewVersion(a)
	if err != nil {
		return 0, fmt.Errorf("no version of a package: %q: %w", a, err)
	}
	y, err := version.NewVersion(b)
	if err != nil {
		return 0, fmt.Errorf("no version of a package: %q: %w", b, err)
	}
	return x.Compare(y), nil
}
