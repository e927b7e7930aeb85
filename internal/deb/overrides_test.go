package deb

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOverridesAreJudgedAsByDpkg has what is said of a list; the same is then tried.
func TestOverridesAreJudgedAsByDpkg(t *testing.T) {
	scratch := newScratch(t)
	for text, want := range map[string]string{
		"":                                          "",
		"root root 755 /a\n":                        "",
		"root root 0 /a b\n":                        "",
		"root root +755 a\n":                        "",
		"root root 755 \n":                          "",
		"#5 #006 755 /a\n":                          "",
		"#99999999999 root 755 /a\n":                "",
		"# 7 root 755 /a\n":                         `"#" is no number of a user`,
		"#-0 root 755 /a\n":                         "",
		"root root 755 /a\nroot root 1 /a/\n":       "",
		"nosuch1 root 755 /a\n":                     `there is no user "nosuch1"`,
		"root nosuch1 4754 /x\n":                    `there is no group "nosuch1"`,
		"root root 755 /\nnosuch1 nosuch1 755 /a\n": `there is no user "nosuch1"`,
		"#x root 755 /a\n":                          `"#x" is no number of a user`,
		"# root 755 /a\n":                           `"#" is no number of a user`,
		"#-1 root 755 /a\n":                         `"#-1" is no number of a user`,
		"#+-1 root 755 /a\n":                        `"#+-1" is no number of a user`,
		"#0x5 root 755 /a\n":                        `"#0x5" is no number of a user`,
		"#4294967295 root 755 /a\n":                 `there is no user "#4294967295"`,
		"root #4294967295 755 /a\n":                 `there is no group "#4294967295"`,
		"root root 9755 /a\n":                       `"9755" is no mode`,
		"root root 17777 /a\n":                      `"17777" is no mode`,
		"root root x /a\n":                          `"x" is no mode`,
		"root root -1 /a\n":                         `"-1" is no mode`,
		"root root /a\n":                            "the line is no user, group, mode and path",
		"root root 755\n":                           "the line is no user, group, mode and path",
		"root  root 755 /a\n":                       `there is no group ""`,
		" root root 755 /a\n":                       `there is no user ""`,
		"root root 755 /a\n\n":                      "the line is empty",
		"\n":                                        "the line is empty",
		"root root 755 /a":                          "the last line does not end",
		"root root 755 /a\nroot root 1 ./a\n":       `there are two lines for "./a"`,
		"root root 755 /a\nroot root 1 //a\n":       `there are two lines for "//a"`,
	} {
		known := accounts{names: map[string]bool{"root": true}}
		refusals := judgeOverrides(text, known, known)
		switch {
		case want == "" && len(refusals) > 0:
			t.Errorf("%q: %v", text, refusals)
		case want != "" && (len(refusals) != 1 || refusals[0].Why != want+": dpkg installs nothing"):
			t.Errorf("%q: %v", text, refusals)
		}
		name := filepath.Join(scratch.dir, overridesFile)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command("dpkg", "--root="+scratch.dir, "--force-not-root,bad-path", "--simulate", "--install", scratch.newer)
		command.Env = append(os.Environ(), "HOME=/nonexistent", "LC_ALL=C")
		if said, err := command.CombinedOutput(); (err == nil) != (want == "") {
			t.Errorf("%q: dpkg says %v\n%s", text, err, said)
		}
	}
}

func TestNamesOfUsersAreLookedForWhereDpkgLooks(t *testing.T) {
	for name, c := range map[string]struct {
		version, switches string
		refused           int
	}{
		"files alone":                 {"1.21.22", "passwd: files # ldap\ngroup: files systemd\n", 2},
		"nothing said":                {"1.21.22", "", 2},
		"another service":             {"1.21.22", "passwd: files ldap\ngroup:\tfiles [NOTFOUND=return] sss\nshadow: db\n", 0},
		"another service for one":     {"1.20.13", "passwd: files\ngroup: files extrausers\n", 1},
		"a dpkg that reads the files": {"1.22.21", "passwd: files ldap\ngroup: ldap\n", 2},
	} {
		root := newRoot(t, map[string]string{
			"etc/passwd": "root:x:0:0::/:\n", "etc/group": "root:x:0:\n", "etc/nsswitch.conf": c.switches,
			overridesFile: "root root 1 /a\nnosuch root 1 /b\nroot nosuch 1 /c\n",
		})
		refusals, err := readOverrides(root, c.version)
		if err != nil || len(refusals) != c.refused {
			t.Errorf("%s: %v %v", name, refusals, err)
		}
	}
	root := newRoot(t, map[string]string{"etc/passwd": "root:x:0:0::/:\n"})
	if refusals, err := readOverrides(root, "1.21.22"); err != nil || len(refusals) > 0 {
		t.Error(refusals, err)
	}
	if refusals := judgeOverrides("a b 1 /x\n", accounts{}, accounts{}); !strings.HasSuffix(refusals[0].Remedy, "dpkg-statoverride --remove /x") {
		t.Error(refusals)
	}
}
