package deb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSettingsAreJudgedAsByDpkg has a configuration each, what is said of it, and what the command line sets against it. The same is then tried: dpkg
// goes back to an older version just where nothing is said.
func TestSettingsAreJudgedAsByDpkg(t *testing.T) {
	scratch := newScratch(t)
	for config, c := range map[string]struct {
		options string
		refused bool
	}{
		"":                                         {},
		"no-debsig\nlog /var/log/dpkg.log\n":       {},
		"force-unsafe-io\nno-debsig":               {},
		"no-debsig\nrefuse-downgrade":              {options: "--force-downgrade"},
		"no-debsig\nno-force-downgrade":            {options: "--force-downgrade"},
		"no-debsig\nrefuse downgrade,hold":         {options: "--force-downgrade"},
		"no-debsig\nrefuse-all":                    {options: "--force-downgrade"},
		"no-debsig\nrefuse=all\nforce-all":         {options: "--refuse-confnew --refuse-confmiss --refuse-confask"},
		"no-debsig\nforce-confnew":                 {options: "--refuse-confnew"},
		"no-debsig\nforce confask,confmiss":        {options: "--refuse-confmiss --refuse-confask"},
		"no-debsig\nforce-confnew\nrefuse-confnew": {},
		"no-debsig\nno-triggers":                   {options: "--triggers"},
		"no-debsig\nno-triggers\ntriggers":         {},
		"no-debsig\nskip-same-version":             {},
		"no-debsig\nselected-only":                 {},
		"no-debsig\npending":                       {},
		"no-debsig\nrobot":                         {},
		"no-debsig\nno-pager":                      {},
		"no-debsig\nauto-deconfigure":              {},
		"no-debsig\nabort-after 0":                 {},
		"no-debsig\nabort-after 0x10":              {},
		"no-debsig\ndebug 0":                       {},
		"no-debsig\nstatus-fd 2":                   {},
		"no-debsig\nignore-depends a,b+":           {},
		"no-debsig\nverify-format rpm":             {},
		"no-debsig\nlog /nonexistent/log":          {},
		"no-debsig\npre-invoke true":               {},
		"no-debsig\nstatus-logger cat >/dev/null":  {},
		"no-debsig\nno-debsig\r":                   {},

		"no-debsig\nno-act":                                   {refused: true},
		"no-debsig\ndry-run":                                  {refused: true},
		"no-debsig\nsimulate":                                 {refused: true},
		"no-debsig\nno-act yes":                               {refused: true},
		"no-debsig\nrecursive":                                {refused: true},
		"no-debsig\ninstall":                                  {refused: true},
		"no-debsig\naudit":                                    {refused: true},
		"no-debsig\nversion":                                  {refused: true},
		"no-debsig\nassert-multi-arch":                        {refused: true},
		"no-debsig\nforce-help":                               {refused: true},
		"no-debsig\nforce-nosuch":                             {refused: true},
		"no-debsig\nforce-depends,hold":                       {refused: true},
		"no-debsig\nforce depends,nosuch":                     {refused: true},
		"no-debsig\nforce-":                                   {refused: true},
		"no-debsig\nforce":                                    {refused: true},
		"no-debsig\nnosuch":                                   {refused: true},
		"no-debsig\nno-debsig no":                             {refused: true},
		"no-debsig\n force-hold":                              {refused: true},
		"no-debsig\nE":                                        {refused: true},
		"no-debsig\nlog":                                      {refused: true},
		"no-debsig\nlog \"/a":                                 {refused: true},
		"no-debsig\npath-exclude":                             {refused: true},
		"no-debsig\ndebug h":                                  {refused: true},
		"no-debsig\ndebug 9":                                  {refused: true},
		"no-debsig\nabort-after x":                            {refused: true},
		"no-debsig\nabort-after -1":                           {refused: true},
		"no-debsig\nstatus-fd 9":                              {refused: true},
		"no-debsig\nignore-depends ,a":                        {refused: true},
		"no-debsig\nignore-depends a,,b":                      {refused: true},
		"no-debsig\nverify-format html":                       {refused: true},
		"no-debsig\ncommand-fd 0":                             {refused: true},
		"no-debsig\n#" + strings.Repeat("x", 1022) + "no-act": {refused: true},
	} {
		t.Run(config, func(t *testing.T) {
			s := settle(parseConfig("/etc/dpkg/dpkg.cfg", config), "1.21.22")
			if diff := cmp.Diff(c.options, strings.Join(s.Options, " ")); diff != "" {
				t.Error(diff)
			}
			if refused := len(s.Refusals) > 0; refused != c.refused {
				t.Errorf("refused: %v", s.Refusals)
			}
			said, back := scratch.goBack(t, config, s.Options)
			if back == c.refused {
				t.Errorf("dpkg went back: %v; it says:\n%s", back, said)
			}
			if back {
				dpkgInstall(t, scratch.dir, "--install", scratch.newer)
			}
		})
	}
}

// scratch is a root with a package that dpkg is to replace by an older one, configured as a test wants it.
type scratch struct {
	dir          string
	newer, older string // files
}

func newScratch(t *testing.T) scratch {
	deb := func(version string) string {
		files := append(slices.Clone(helloFiles[:3]), testFile{name: "./usr/bin/hello", content: version, mode: 0o755})
		return writeFile(t, testDeb{control: strings.Replace(testControl, "1:2.0-1", version, 1), files: files}.bytes(t))
	}
	s := scratch{t.TempDir(), deb("2"), deb("1")}
	dpkgInstall(t, s.dir, "--install", s.newer)
	return s
}

// goBack tells whether dpkg is content, and the older package there.
func (s scratch) goBack(t *testing.T, config string, options []string) (said string, back bool) {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".dpkg.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--root=" + s.dir, "--force-script-chrootless,unsafe-io,not-root,bad-path,confdef,confold"}, options...)
	command := exec.Command("dpkg", append(args, "--install", s.older)...)
	command.Env = append(os.Environ(), "HOME="+home, "LC_ALL=C")
	out, failed := command.CombinedOutput()
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	db, err := OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := db.Package("hello")
	return string(out), failed == nil && p.Version == "1" && p.Status.State == "installed"
}

// TestSettingsThatCannotBeTriedInAScratchRoot: dpkg would have to work in the machine's own root for these.
func TestSettingsThatCannotBeTriedInAScratchRoot(t *testing.T) {
	for config, want := range map[string]string{
		"root /srv":                         "/etc/x:1: root makes dpkg work in \"/srv\", not where the container's packages are",
		"root /":                            "",
		"root=/srv\nroot /":                 "",
		"root //\nadmindir /var/lib/dpkg/":  "",
		"instdir /srv":                      "/etc/x:1: instdir makes dpkg work in \"/srv\", not where the container's packages are",
		"admindir /srv/dpkg":                "/etc/x:1: admindir makes dpkg work in \"/srv/dpkg\", not where the container's packages are",
		"root /srv\nadmindir /var/lib/dpkg": "/etc/x:1: root makes dpkg work in \"/srv\", not where the container's packages are",
		"root /srv\ninstdir /":              "/etc/x:1: root makes dpkg work in \"/srv\", not where the container's packages are",
		"root /srv\ninstdir /\nadmindir /var/lib/dpkg": "",
	} {
		var got []string
		for _, r := range settle(parseConfig("/etc/x", config), "1.22.6").Refusals {
			got = append(got, r.String())
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%q: %s", config, got)
		}
	}
}

func TestANewerDpkgIsLeftToJudgeOptionsOfItsOwn(t *testing.T) {
	config := parseConfig("/etc/x", "force-nosuch\nnosuch\nno-act")
	for version, want := range map[string]int{"1.20.13": 3, "1.23.99": 3, "1.24.0": 1, "2.0": 1} {
		if got := settle(config, version).Refusals; len(got) != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func TestHooksAndWhatIsOverlookedAreKnown(t *testing.T) {
	s := settle(parseConfig("/etc/x", "pre-invoke=a b\n\npost-invoke 'c'\nstatus-logger d\nignore-depends a,b:amd64\nforce-depends\nrefuse-depends\nforce-breaks"), "1.21.22")
	want := []Hook{{"/etc/x:1", "pre-invoke", "a b"}, {"/etc/x:3", "post-invoke", "c"}, {"/etc/x:4", "status-logger", "d"}}
	if diff := cmp.Diff(want, s.Hooks); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(s.ignored, []string{"a", "b"}) || s.forces("depends") || !s.forces("breaks") || !s.forces("downgrade") {
		t.Error(fmt.Sprint(s.ignored, s.forced))
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("force-unsafe-io\nno-debsig\nlog /var/log/dpkg.log\nroot /srv\nignore-depends a,b:c", "1.21.22")
	f.Add("refuse=all\npre-invoke 'x'\nstatus-fd 0x1\n force", "odd")
	f.Fuzz(func(t *testing.T, text, version string) {
		s := settle(parseConfig("/etc/x", text), version)
		if len(s.Refusals) > maxRefusals+2 {
			t.Errorf("%d refusals", len(s.Refusals))
		}
		for _, option := range s.Options {
			if again := settle(parseConfig("/etc/x", text+"\n"+strings.TrimPrefix(option, "--")), version); len(again.Refusals) < len(s.Refusals) {
				t.Errorf("%s takes away refusals", option)
			}
		}
	})
}

func FuzzOverrides(f *testing.F) {
	f.Add("root root 4754 /x\n#1 #+2 0755 ./y\n")
	f.Add("a b\n\n# # - /")
	f.Fuzz(func(t *testing.T, text string) {
		known := accounts{names: map[string]bool{"root": true}}
		if got := judgeOverrides(text, known, known); len(got) > maxRefusals+2 || text != "" && !strings.HasSuffix(text, "\n") && len(got) == 0 {
			t.Errorf("%d refusals", len(got))
		}
	})
}
