package deb

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDpkgIsAskedWhatItNeeds has what is there, what is to be installed, and the clauses for which dpkg would not. The same is then tried.
func TestDpkgIsAskedWhatItNeeds(t *testing.T) {
	const dep = "x amd64 1 ii Depends: y\n"
	for name, c := range map[string]struct {
		before, install, config string
		want                    []string
	}{
		"all there":                   {before: dep + "y amd64 1 ii", install: "x amd64 2 ii Depends: y"},
		"held":                        {before: dep + "y amd64 1 hi", install: "x amd64 2 ii Depends: y"},
		"to be removed":               {before: dep + "y amd64 1 ri", install: "x amd64 2 ii Depends: y"},
		"missing before too":          {before: dep, install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y"}},
		"removed":                     {before: dep + "y amd64 1 rc", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y"}},
		"half configured":             {before: dep + "y amd64 1 iF", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y (y is half-configured)"}},
		"unpacked":                    {before: dep + "y amd64 1 iU", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y (y is unpacked)"}},
		"half installed":              {before: dep + "y amd64 1 iHR", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y (y is half-installed)"}},
		"triggers pending":            {before: dep + "y amd64 1 it Triggers-Pending: t", install: "x amd64 2 ii Depends: y"},
		"triggers awaited":            {before: dep + "y amd64 1 iW Triggers-Awaited: z\nz amd64 1 it Triggers-Pending: t", install: "x amd64 2 ii Depends: y"},
		"another alternative":         {before: dep + "y amd64 1 iF\nz amd64 1 ii", install: "x amd64 2 ii Depends: y | z"},
		"no alternative":              {before: dep + "y amd64 1 iF\nz amd64 1 iU", install: "x amd64 2 ii Depends: y | z", want: []string{"x: x 2 Depends y | z (z is unpacked)"}},
		"too old":                     {before: dep + "y amd64 1 ii", install: "x amd64 2 ii Depends: y (>= 2)", want: []string{"x: x 2 Depends y (>= 2) (y is 1)"}},
		"provided":                    {before: dep + "z amd64 1 ii Provides: y", install: "x amd64 2 ii Depends: y"},
		"provided by one unpacked":    {before: dep + "z amd64 1 iU Provides: y", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y (z is unpacked)"}},
		"both to be installed":        {before: dep + "y amd64 1 iF", install: "x amd64 2 ii Depends: y (= 2)\ny amd64 2 ii"},
		"itself":                      {before: "x amd64 1 ii", install: "x amd64 2 ii Depends: v; Provides: v"},
		"mended itself":               {before: "x amd64 1 iF\ny amd64 1 ii", install: "x amd64 1 ii Depends: y"},
		"half installed itself":       {before: "x amd64 1 iHR\ny amd64 1 ii", install: "x amd64 1 ii Depends: y"},
		"of another, half configured": {before: dep + "y amd64 1 ii\nz amd64 1 iF", install: "x amd64 2 ii Depends: y"},
		"broken elsewhere":            {before: "x amd64 1 ii\nz amd64 1 ii Depends: nothing", install: "x amd64 2 ii"},
		"another architecture":        {before: dep + "y i386 1 ii", install: "x amd64 2 ii Depends: y", want: []string{"x: x 2 Depends y"}},
		"foreign":                     {before: dep + "y i386 1 ii Multi-Arch: foreign", install: "x amd64 2 ii Depends: y"},

		"Pre-Depends":                 {before: dep + "y amd64 1 ii", install: "x amd64 2 ii Pre-Depends: y"},
		"Pre-Depends missing":         {before: dep, install: "x amd64 2 ii Pre-Depends: y", want: []string{"x: x 2 Pre-Depends y"}},
		"Pre-Depends half configured": {before: dep + "y amd64 1 iF Config-Version: 1", install: "x amd64 2 ii Pre-Depends: y", want: []string{"x: x 2 Pre-Depends y (y is half-configured)"}},
		"Pre-Depends installed too":   {before: dep + "y amd64 1 ii", install: "x amd64 2 ii Pre-Depends: y\ny amd64 2 ii"},

		"conflict before too":        {before: "x amd64 1 ii Conflicts: y\ny amd64 1 ii", install: "x amd64 2 ii Conflicts: y", want: []string{"x: x 2 Conflicts y (y 1 is there)"}},
		"conflict with one unpacked": {before: "x amd64 1 ii\ny amd64 1 iU", install: "x amd64 2 ii Conflicts: y", want: []string{"x: x 2 Conflicts y (y 1 is there)"}},
		"conflict with a removed":    {before: "x amd64 1 ii\ny amd64 1 rc", install: "x amd64 2 ii Conflicts: y"},
		"conflict of another":        {before: "x amd64 1 ii\ny amd64 1 ii Conflicts: x (>= 2)", install: "x amd64 2 ii", want: []string{"x: y 1 Conflicts x (>= 2) (x 2 would be there)"}},
		"conflict elsewhere":         {before: "x amd64 1 ii\ny amd64 1 ii Conflicts: z\nz amd64 1 ii", install: "x amd64 2 ii"},
		"conflict by a name":         {before: "x amd64 1 ii\ny amd64 1 ii Conflicts: v", install: "x amd64 2 ii Provides: v", want: []string{"x: y 1 Conflicts v (x 2 would be there)"}},
		"conflict with itself":       {before: "x amd64 1 ii", install: "x amd64 2 ii Provides: v; Conflicts: v"},
		"breaks":                     {before: "x amd64 1 ii\ny amd64 1 ii", install: "x amd64 2 ii Breaks: y (<< 2)", want: []string{"x: x 2 Breaks y (<< 2) (y 1 is there)"}},
		"breaks a newer one":         {before: "x amd64 1 ii\ny amd64 2 ii", install: "x amd64 2 ii Breaks: y (<< 2)"},
		"breaks one unpacked":        {before: "x amd64 1 ii\ny amd64 1 iU", install: "x amd64 2 ii Breaks: y (<< 2)"},
		"broken by another":          {before: "x amd64 1 ii\ny amd64 1 ii Breaks: x", install: "x amd64 2 ii", want: []string{"x: y 1 Breaks x (x 2 would be there)"}},
		"broken by one unpacked":     {before: "x amd64 1 ii\ny amd64 1 iU Breaks: x", install: "x amd64 2 ii", want: []string{"x: y 1 Breaks x (x 2 would be there)"}},

		"forced":               {before: dep, install: "x amd64 2 ii Depends: y", config: "force-depends"},
		"version forced":       {before: dep + "y amd64 1 ii", install: "x amd64 2 ii Depends: y (= 2)", config: "force-depends-version"},
		"version forced only":  {before: dep, install: "x amd64 2 ii Depends: y (= 2)", config: "force-depends-version", want: []string{"x: x 2 Depends y (= 2)"}},
		"configured meanwhile": {before: dep + "y amd64 1 iU", install: "x amd64 2 ii Depends: y", config: "force-configure-any"},
		"ignored":              {before: dep, install: "x amd64 2 ii Depends: y", config: "ignore-depends y"},
		"ignored for itself":   {before: dep, install: "x amd64 2 ii Depends: y", config: "ignore-depends x", want: []string{"x: x 2 Depends y"}},
		"ignored there":        {before: dep + "y amd64 1 iF", install: "x amd64 2 ii Depends: y", config: "ignore-depends z,y"},
		"conflicts forced":     {before: "x amd64 1 ii\ny amd64 1 ii", install: "x amd64 2 ii Conflicts: y", config: "force-conflicts"},
		"breaks forced":        {before: "x amd64 1 ii\ny amd64 1 ii", install: "x amd64 2 ii Breaks: y", config: "force-breaks"},
	} {
		t.Run(name, func(t *testing.T) {
			settings := settle(parseConfig("/etc/dpkg/dpkg.cfg", c.config), "1.21.22")
			install := packagesOf(t, c.install)[1:]
			found, err := findBlocked(packagesOf(t, c.before), install, settings)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range found {
				text := b.pkg + ": " + b.String()
				if b.cause != "" {
					text += " (" + b.cause + ")"
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			said, whole := tryInstall(t, c.before, c.install, c.config)
			if whole != (len(c.want) == 0) {
				t.Errorf("dpkg installed all: %v; it says:\n%s", whole, said)
			}
		})
	}
}

// tryInstall has dpkg install packages without files among others, and tells whether it did.
func tryInstall(t *testing.T, before, install, config string) (said string, whole bool) {
	t.Helper()
	dir, home := t.TempDir(), t.TempDir()
	dpkgInstall(t, dir, "--audit")
	status := strings.ReplaceAll(statusOf(before), "\nVersion:", "\nMaintainer: x\nDescription: x\nVersion:")
	if err := os.WriteFile(filepath.Join(dir, statusFile), []byte(status), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg/arch"), []byte("amd64\ni386\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".dpkg.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(before, "Triggers-Pending: t") { // for a package of this name
		for name, content := range map[string]string{
			"info/z.list": "/.\n", "info/z.triggers": "interest t\n", "info/z.postinst": "#!/bin/sh\n", "triggers/t": "z\n",
		} {
			file := filepath.Join(dir, "var/lib/dpkg", name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o700)); err != nil {
				t.Fatal(err)
			}
		}
	}
	args := []string{"--root=" + dir, "--force-script-chrootless,unsafe-io,not-root,bad-path", "--log=/dev/null", "--install"}
	wanted := packagesOf(t, install)[1:]
	for stanza := range strings.SplitSeq(statusOf(install), "\n\n") {
		var control strings.Builder
		for line := range strings.Lines(stanza) {
			if !strings.HasPrefix(line, "Status:") && line != "\n" {
				control.WriteString(line)
			}
		}
		if strings.HasPrefix(stanza, "Package: dpkg\n") || stanza == "" {
			continue
		}
		text := strings.TrimRight(control.String(), "\n") + "\nMaintainer: x\nDescription: x\n"
		args = append(args, writeFile(t, testDeb{control: text, files: []testFile{{name: "./"}}}.bytes(t)))
	}
	command := exec.Command("dpkg", args...)
	command.Env = append(os.Environ(), "HOME="+home, "LC_ALL=C")
	out, _ := command.CombinedOutput()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	db, err := OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), !slices.ContainsFunc(wanted, func(w Package) bool {
		p, _ := db.Package(w.Name)
		return p.Version != w.Version || p.Status.State != "installed"
	})
}
