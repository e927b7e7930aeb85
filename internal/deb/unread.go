package deb

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Unread tells whether a dpkg that ended in the middle has left records beside its status file, and whether they say of any package what that does not.
// apt refuses to work until some dpkg reads them in.
func Unread(root *os.Root) (records, news bool, err error) {
	names, err := readDirNames(root, updatesDir)
	if err != nil {
		return false, false, fmt.Errorf("cannot look at dpkg's records: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.Trim(name, "0123456789") != "" })
	if len(names) == 0 {
		return false, false, nil
	}
	merged, err := OpenDatabase(root)
	if err != nil {
		return true, true, err
	}
	status, _, err := foreign.Open(root, statusFile)
	if err != nil {
		return true, true, fmt.Errorf("cannot read the dpkg database: %w", err)
	}
	defer status.Close()
	alone, err := ParseStatus(status)
	if err != nil {
		return true, true, err
	}
	return true, !maps.Equal(byInstance(merged.packages), byInstance(alone)), nil
}

func byInstance(packages []Package) map[[2]string]Package {
	all := map[[2]string]Package{}
	for _, p := range packages {
		all[[2]string{p.Name, p.Architecture}] = p
	}
	return all
}
