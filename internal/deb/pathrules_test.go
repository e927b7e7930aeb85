package deb

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kollaRules is /etc/dpkg/dpkg.cfg.d/dpkg_reducing_disk_footprint of kolla's images.
const kollaRules = `# Drop all documentation ...
path-exclude /usr/share/doc/*

# ... except copyright files
path-include /usr/share/doc/*/copyright

path-exclude /usr/share/man/*
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/en*
`

func TestKollasRulesLeaveOutDocumentation(t *testing.T) {
	rules := parsePathRules(parseConfig("", kollaRules))
	for name, want := range map[string]bool{
		"/usr/share/doc/qemu-utils/changelog.gz":      true,
		"/usr/share/doc/qemu-utils/copyright":         false,
		"/usr/share/doc/qemu-utils/deep/er/copyright": false,
		"/usr/share/doc/qemu-utils/copyright.old":     true,
		"/usr/share/doc":                                 false,
		"/usr/share/docs/x":                              false,
		"/usr/share/man/man1/qemu-img.1.gz":              true,
		"/usr/share/locale/de/LC_MESSAGES/qemu.mo":       true,
		"/usr/share/locale/en_GB/LC_MESSAGES/qemu.mo":    false,
		"/usr/share/lintian/overrides/qemu-system-arm":   true,
		"/usr/bin/qemu-img":                              false,
		"/usr/lib/x86_64-linux-gnu/qemu/block-curl.so":   false,
		"/usr/share/qemu/keymaps/de":                     false,
		"/srv/chroot/usr/share/doc/qemu-utils/changelog": false,
	} {
		if got := rules.excludes(name); got != want {
			t.Errorf("excludes(%s) = %v", name, got)
		}
	}
}

func TestConfigurationIsReadAsByDpkg(t *testing.T) {
	text := `path-exclude=/a
path-exclude = /b
path-exclude  = /c
path-exclude	/d e
path-include="/f g"
path-include '/h'
path-include="/i
path-exclude
path-excluded /j
#path-exclude /k
 path-exclude /l
path-exclude=` + "/m \t\r" + `
no-debsig
#` + strings.Repeat("x", 1022) + `path-exclude /n
path-exclude=`
	want := pathRules{{"/a", false}, {"/b", false}, {"= /c", false}, {"/d e", false}, {"/f g", true}, {"/h", true}, {"/m", false}, {"/n", false}, {"", false}}
	if diff := cmp.Diff(want, parsePathRules(parseConfig("", text)), cmp.AllowUnexported(pathRule{})); diff != "" {
		t.Error(diff)
	}
}

func TestRulesAreReadInDpkgsOrder(t *testing.T) {
	root := newRoot(t, map[string]string{
		"etc/dpkg/dpkg.cfg":            "path-exclude /last",
		"root/.dpkg.cfg":               "path-exclude /home",
		"etc/dpkg/dpkg.cfg.d/b":        "path-exclude /second",
		"etc/dpkg/dpkg.cfg.d/a":        "path-exclude /first",
		"etc/dpkg/dpkg.cfg.d/c.bak":    "path-exclude /never",
		"etc/dpkg/dpkg.cfg.d/.hidden":  "path-exclude /never",
		"etc/dpkg/dpkg.cfg.d/ä":        "path-exclude /never",
		"etc/dpkg/dpkg.cfg.d/Z-_9":     "path-exclude /upper",
		"etc/dpkg/dpkg.cfg.d/a.d/file": "path-exclude /never",
		"etc/dpkg/dpkg.cfg.d/d":        "-> /srv/rules",
		"etc/dpkg/dpkg.cfg.d/e":        "-> ../../../srv/rules",
		"etc/dpkg/dpkg.cfg.d/f":        "-> /nowhere",
		"srv/rules":                    "-> more",
		"srv/more":                     "path-exclude /linked",
	})
	config, err := readConfig(root)
	if err != nil {
		t.Fatal(err)
	}
	rules := parsePathRules(config)
	want := pathRules{{"/upper", false}, {"/first", false}, {"/second", false}, {"/linked", false}, {"/linked", false}, {"/last", false}, {"/home", false}}
	if diff := cmp.Diff(want, rules, cmp.AllowUnexported(pathRule{})); diff != "" {
		t.Error(diff)
	}
}

func TestConfigurationOutsideOfTheRootIsNotRead(t *testing.T) {
	outside := writeFile(t, []byte("path-exclude=*"))
	up := strings.Repeat("../", 30)
	for _, target := range []string{outside, up + outside[1:], "loop", "../dpkg.cfg.d"} {
		root := newRoot(t, map[string]string{"etc/dpkg/dpkg.cfg.d/loop": "-> " + target})
		if rules, _ := readConfig(root); len(rules) > 0 {
			t.Errorf("%s: read %v", target, rules)
		}
	}
}

// TestGlobsMatchAsInTheCLibrary has what glibc's fnmatch(3) answers in the C.UTF-8 locale.
func TestGlobsMatchAsInTheCLibrary(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "/a/.b", true},
		{"**a*", "ba", true},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"/usr/*/READ*", "/usr/share/doc/package/README", true},
		{"?", "/", true},
		{"?", "é", true},
		{"??", "é", false},
		{"?", "\xff", true},
		{"?", "", false},
		{"a?", "a", false},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`\a`, "a", true},
		{`a\`, "a", false},
		{`a\`, `a\`, false},
		{"[abc]", "b", true},
		{"[abc]", "d", false},
		{"[!abc]", "d", true},
		{"[^abc]", "b", false},
		{"[a-c]", "b", true},
		{"[c-a]", "b", false},
		{"[a-]", "-", true},
		{"[-a]", "-", true},
		{"[]a]", "]", true},
		{"[!]a]", "]", false},
		{"[!]a]", "b", true},
		{"[a", "[a", true},
		{"[a", "a", false},
		{"[", "[", true},
		{"x[", "x[", true},
		{"[]", "[]", true},
		{`[\]]`, "]", true},
		{`[\a]`, "a", true},
		{`[\a]`, `\`, false},
		{"[[:alpha:]]", "x", true},
		{"[[:alpha:]]", "1", false},
		{"[[:digit:]_]", "_", true},
		{"[![:space:]]", "a", true},
		{"[[:upper:][:digit:]]", "7", true},
		{"[é]", "é", true},
		{"[é]", "e", false},
		{"[a-é]", "z", true},
		{"[[.a.]]", "a", true},
		{"[[=a=]]", "a", true},
		{"[[.-.]]", "-", true},
		{"[*]", "*", true},
		{"[*]", "a", false},
		{"*[0-9].mo", "a/b7.mo", true},
		{"[/]", "/", true},
	} {
		if got := fnmatch(c.pattern, c.name); got != c.want {
			t.Errorf("fnmatch(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func FuzzPathRules(f *testing.F) {
	f.Add(kollaRules, "/usr/share/doc/a/copyright")
	f.Add("path-exclude=[[:alpha:]-z]*\\", "/x")
	f.Add("path-exclude=/a[!b-", "/a[!b-")
	f.Fuzz(func(t *testing.T, text, name string) {
		rules := parsePathRules(parseConfig("", text))
		excluded := rules.excludes(name)
		if len(rules) == 0 && excluded {
			t.Errorf("no rule excludes %q", name)
		}
		all := append(pathRules{{"*", true}}, rules...)
		if all.excludes(name) != excluded {
			t.Errorf("a first rule that includes everything changes %q", name)
		}
		if append(rules, pathRule{"*", true}).excludes(name) || !append(rules, pathRule{"*", false}).excludes(name) {
			t.Errorf("a last rule does not decide on %q", name)
		}
		// Whatever it is, a name behind backslashes is that name.
		quoted := strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(name)
		if !fnmatch(quoted, name) {
			t.Errorf("%q does not match %q", quoted, name)
		}
	})
}
