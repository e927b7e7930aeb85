package deb

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	version "github.com/knqyf263/go-deb-version"
)

// CompareVersions is negative if a is older than b, positive if it is newer, 0 if they are equal, in dpkg's order.
// Versions of which dpkg only warns, such as one that begins with a letter, are an error here.
func CompareVersions(a, b string) (int, error) {
	left, err := parseVersion(a)
	if err != nil {
		return 0, err
	}
	right, err := parseVersion(b)
	if err != nil {
		return 0, err
	}
	return cmp.Compare(left.Compare(right), 0), nil
}

func parseVersion(s string) (version.Version, error) {
	if err := checkVersion(s); err != nil {
		return version.Version{}, fmt.Errorf("invalid version %.80q: %w", s, err)
	}
	return version.NewVersion(s)
}

// checkVersion has the rules of deb-version(7). go-deb-version takes letters of any script, and holds all numbers that do
// not fit an int for equal.
func checkVersion(s string) error {
	epoch, rest, found := strings.Cut(s, ":")
	if !found {
		rest = s
	} else if n, err := strconv.ParseUint(epoch, 10, 32); err != nil || n > math.MaxInt32 {
		return errors.New("its epoch is not a small number")
	}
	upstream := rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		upstream = rest[:i]
		if i == len(rest)-1 {
			return errors.New("its revision is empty")
		}
	}
	if upstream == "" || upstream[0] < '0' || upstream[0] > '9' {
		return errors.New("it does not begin with a digit")
	}
	digits := 0
	for i := range len(rest) {
		c := rest[i]
		if !isAlnum(c) && strings.IndexByte(".+-~:", c) < 0 || c == ':' && i > len(upstream) {
			return fmt.Errorf("it has the character %q", c)
		}
		if digits++; c < '0' || c > '9' {
			digits = 0
		}
		if digits > 18 {
			return errors.New("it has a number of more than 18 digits")
		}
	}
	return nil
}
