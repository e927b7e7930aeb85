package deb

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRelationsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"a":                                  "a",
		"a, b|c ,d":                          "a, b | c, d",
		"a (>= 1:2.0~rc1+b-3)":               "a (>= 1:2.0~rc1+b-3)",
		"a(<<1),b ( = 2 ),c (3)":             "a (<< 1), b (= 2), c (= 3)",
		"a (< 1) | b (> 2)":                  "a (<= 1) | b (>= 2)",
		"python3:any (>= 3.11)":              "python3:any (>= 3.11)",
		"libc6:amd64,\n libaio1 (>= 0.3.93)": "libc6:amd64, libaio1 (>= 0.3.93)",
		"g++-12, lib_x, R":                   "g++-12, lib_x, R",
		"a,":                                 "a",
	} {
		clauses, err := parseRelations(text)
		var got []string
		for _, clause := range clauses {
			got = append(got, clauseString(clause))
		}
		if strings.Join(got, ", ") != want || err != nil {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"|", "a|", "a||b", "a b", "a (", "a (1", "a )", "a (>= 1) x", "a ()", "a (=)", "a (=> 1)", "a (>>> 1)", "a (>= 1 2)", "a:", "a:b:c", "(1)", "a [amd64]",
		"a <!nocheck>", "../a", "a (>= (1))", "${misc:Depends}",
	} {
		if clauses, err := parseRelations(text); err == nil {
			t.Errorf("%q is read as %v", text, clauses)
		}
	}
}

const (
	stock   = "1:10.0.13+ds-0+deb13u1"
	patched = stock + "+nfslock1"
)

// novaLibvirt has the QEMU packages of kolla's nova_libvirt, as trixie ties them together.
func novaLibvirt() []Package {
	p := func(name, depends, provides string) Package {
		return Package{
			Name: name, Version: stock, Architecture: "amd64", Status: Status{"install", "ok", "installed"},
			Depends: strings.ReplaceAll(depends, "STOCK", stock), Provides: strings.ReplaceAll(provides, "STOCK", stock),
		}
	}
	packages := []Package{p("dpkg", "", ""), p("libc6", "", "")}
	for _, arch := range []string{"arm", "mips", "misc", "ppc", "riscv", "s390x", "sparc", "x86"} {
		packages = append(packages, p("qemu-system-"+arch, "qemu-system-common (= STOCK), libc6 (>= 2.38), qemu-system-data (>> 1:10.0.13+ds~)",
			"qemu-system-any (= STOCK), qemu-system-"+arch+"-core"))
	}
	packages = append(packages,
		p("qemu-system", "qemu-system-arm, qemu-system-mips, qemu-system-x86", ""),
		p("qemu-system-common", "libc6 (>= 2.38)", ""),
		p("qemu-system-modules-opengl", "qemu-system-any (= STOCK)", ""),
		p("qemu-system-modules-spice", "qemu-system-modules-opengl (= STOCK), qemu-system-any (= STOCK)", ""),
		p("qemu-block-extra", "qemu-system-any (= STOCK) | qemu-utils (= STOCK)", ""),
		p("qemu-utils", "libc6 (>= 2.38)", ""))
	data := p("qemu-system-data", "", "")
	data.Architecture, data.MultiArch = "all", "foreign"
	return append(packages, data)
}

// upgrade gives the named packages the patched version, their ties too if tied.
func upgrade(packages []Package, tied bool, names ...string) []Package {
	var replace []Package
	for _, p := range packages {
		if !slices.Contains(names, p.Name) {
			continue
		}
		p.Version, p.Status = patched, Status{}
		if tied {
			p.Depends, p.Provides = strings.ReplaceAll(p.Depends, stock, patched), strings.ReplaceAll(p.Provides, stock, patched)
		}
		replace = append(replace, p)
	}
	return replace
}

// exchanged is what dpkg has after it installed replace.
func exchanged(before, replace []Package) (after []Package) {
	_, now := exchange(pointers(before), pointers(replace))
	for _, p := range now {
		after = append(after, *p)
		after[len(after)-1].Status = Status{"install", "ok", "installed"}
	}
	return after
}

func texts(unmet []Unmet) (list []string) {
	for _, u := range unmet {
		list = append(list, u.String())
	}
	return list
}

// TestTheTieThatBreaksAContainer is the case that dpkg installs without a word.
func TestTheTieThatBreaksAContainer(t *testing.T) {
	libvirt := novaLibvirt()
	names := func(prefix string) (list []string) {
		for _, p := range libvirt {
			if strings.HasPrefix(p.Name, prefix) {
				list = append(list, p.Name)
			}
		}
		return list
	}
	compute := slices.DeleteFunc(slices.Clone(libvirt), func(p Package) bool {
		return strings.HasPrefix(p.Name, "qemu-system") && !slices.Contains([]string{"qemu-system-x86", "qemu-system-common", "qemu-system-data"}, p.Name)
	})
	volume := slices.DeleteFunc(slices.Clone(libvirt), func(p Package) bool { return strings.HasPrefix(p.Name, "qemu-system") })
	provideSelf := upgrade(volume, false, "qemu-utils")
	provideSelf[0].Provides = "qemu-utils (= " + stock + ")"
	four := []string{"qemu-utils", "qemu-block-extra", "qemu-system-common", "qemu-system-x86"}
	var fourBreak []string
	for _, arch := range []string{"arm", "mips", "misc", "ppc", "riscv", "s390x", "sparc"} {
		fourBreak = append(fourBreak, "qemu-system-"+arch+" "+stock+" Depends qemu-system-common (= "+stock+")")
	}
	for name, c := range map[string]struct {
		before, replace []Package
		want            []string
	}{
		"four of fifteen":            {libvirt, upgrade(libvirt, true, four...), fourBreak},
		"all of them":                {libvirt, upgrade(libvirt, true, names("qemu-")...), nil},
		"two that keep their ties":   {libvirt, upgrade(libvirt, false, "qemu-utils", "qemu-system-x86"), nil},
		"two with ties of their own": {libvirt, upgrade(libvirt, true, "qemu-utils", "qemu-system-x86"), []string{"qemu-system-x86 " + patched + " Depends qemu-system-common (= " + patched + ")"}},
		"two in nova_compute":        {compute, upgrade(compute, false, "qemu-utils", "qemu-system-x86"), nil},
		"x86 without its Provides": {
			compute, func() []Package {
				replace := upgrade(compute, false, "qemu-utils", "qemu-system-x86")
				for i := range replace {
					replace[i].Provides = "qemu-system-any"
				}
				return replace
			}(),
			[]string{"qemu-block-extra " + stock + " Depends qemu-system-any (= " + stock + ") | qemu-utils (= " + stock + ")"},
		},
		"utils alone":                    {volume, upgrade(volume, false, "qemu-utils"), []string{"qemu-block-extra " + stock + " Depends qemu-system-any (= " + stock + ") | qemu-utils (= " + stock + ")"}},
		"utils alone provides the stock": {volume, provideSelf, nil},
		"nothing":                        {libvirt, nil, nil},
		"the same again":                 {libvirt, libvirt, nil},
	} {
		got, err := NewlyUnmet(c.before, c.replace)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, texts(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// What broke is not listed a second time, and goes away with the way back.
	broken := exchanged(libvirt, upgrade(libvirt, true, four...))
	again, err := NewlyUnmet(broken, upgrade(libvirt, true, "qemu-utils"))
	if err != nil || len(again) > 0 {
		t.Error(texts(again), err)
	}
	back, err := NewlyUnmet(broken, libvirt)
	if err != nil || len(back) > 0 {
		t.Error(texts(back), err)
	}
}

// statusOf writes a status file from lines like "x amd64 1 ii Depends: y; Provides: z", with dpkg in front.
func statusOf(text string) string {
	var status strings.Builder
	for line := range strings.Lines("dpkg amd64 1 ii\n" + text) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 5)
		if len(words) < 4 {
			continue
		}
		fields := append(words, "")[4]
		status.WriteString(stanza(words[0], words[1], words[2], words[3], strings.Split(fields, "; ")...))
	}
	return status.String()
}

func packagesOf(t testing.TB, text string) []Package {
	t.Helper()
	packages, err := ParseStatus(strings.NewReader(statusOf(text)))
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// TestRelationsHoldAsForDpkg has one package of each kind before, and what its exchange breaks.
func TestRelationsHoldAsForDpkg(t *testing.T) {
	parse := func(text string) []Package { return packagesOf(t, text) }
	for name, c := range map[string]struct {
		before, replace string
		want            []string
	}{
		"a version too old":         {"u amd64 1 ii Depends: x (>= 2)\nx amd64 2 ii", "x amd64 1 ii", []string{"u 1 Depends x (>= 2)"}},
		"a version too new":         {"u amd64 1 ii Pre-Depends: x (<< 3)\nx amd64 2 ii", "x amd64 3 ii", []string{"u 1 Pre-Depends x (<< 3)"}},
		"strictly":                  {"u amd64 1 ii Depends: x (>> 1), x (<= 2)\nx amd64 2 ii", "x amd64 1 ii", []string{"u 1 Depends x (>> 1)"}},
		"another alternative":       {"u amd64 1 ii Depends: x (= 1) | y\nx amd64 1 ii\ny amd64 1 ii", "x amd64 2 ii", nil},
		"a removed alternative":     {"u amd64 1 ii Depends: x (= 1) | y\nx amd64 1 ii\ny amd64 1 rc", "x amd64 2 ii", []string{"u 1 Depends x (= 1) | y"}},
		"a removed package":         {"u amd64 1 rc Depends: x (= 1)\nx amd64 1 ii", "x amd64 2 ii", nil},
		"a half configured package": {"u amd64 1 iF Depends: x (= 1)\nx amd64 1 ii", "x amd64 2 ii", []string{"u 1 Depends x (= 1)"}},
		"half installed before":     {"u amd64 1 ii Depends: x (= 1)\nx amd64 1 iHR", "x amd64 2 ii", []string{"u 1 Depends x (= 1)"}},
		"unmet before":              {"u amd64 1 ii Depends: x (= 0), none\nx amd64 1 ii", "x amd64 2 ii", nil},
		"a name no longer provided": {"u amd64 1 ii Depends: v\nx amd64 1 ii Provides: v", "x amd64 2 ii", []string{"u 1 Depends v"}},
		"a name provided anew":      {"u amd64 1 ii Depends: v\nx amd64 1 ii Provides: v\ny amd64 1 ii", "x amd64 2 ii\ny amd64 2 ii Provides: w, v", nil},
		"no version in Provides":    {"u amd64 1 ii Depends: v (>= 1)\nx amd64 1 ii Provides: v (= 1)", "x amd64 2 ii Provides: v", []string{"u 1 Depends v (>= 1)"}},
		"a version in Provides":     {"u amd64 1 ii Depends: v (>= 1)\nx amd64 1 ii Provides: v (= 1)", "x amd64 2 ii Provides: v (= 2)", nil},
		"a range in Provides":       {"u amd64 1 ii Depends: v\nx amd64 1 ii Provides: v (= 1)", "x amd64 2 ii Provides: v (>= 2)", []string{"u 1 Depends v"}},
		"a similar name":            {"u amd64 1 ii Depends: xx (= 1)\nxx amd64 1 ii\nx amd64 1 ii", "x amd64 2 ii", nil},
		"its own new dependency":    {"x amd64 1 ii Depends: y", "x amd64 2 ii Depends: y, z", []string{"x 2 Depends z"}},
		"its own old dependency":    {"x amd64 1 ii Depends: y", "x amd64 2 ii Depends: y", nil},
		"its own, lost":             {"x amd64 1 ii Depends: y (= 1)\ny amd64 1 ii", "x amd64 2 ii Depends: y (= 1)\ny amd64 2 ii", []string{"x 2 Depends y (= 1)"}},
		"it provides for itself":    {"x amd64 1 ii", "x amd64 2 ii Depends: v; Provides: v", nil},
		"a package more":            {"x amd64 1 ii", "y amd64 1 ii Depends: x (= 1), z", []string{"y 1 Depends z"}},

		"Conflicts":                   {"u amd64 1 ii Conflicts: x (>= 2)\nx amd64 1 ii", "x amd64 2 ii", []string{"u 1 Conflicts x (>= 2)"}},
		"Breaks":                      {"u amd64 1 ii Breaks: x (<< 1)\nx amd64 1 ii", "x amd64 0 ii", []string{"u 1 Breaks x (<< 1)"}},
		"its own new Breaks":          {"u amd64 1 ii\nx amd64 1 ii", "x amd64 2 ii Breaks: u (<< 2)", []string{"x 2 Breaks u (<< 2)"}},
		"Conflicts from before":       {"u amd64 1 ii Conflicts: x\nx amd64 1 ii", "x amd64 2 ii", nil},
		"Conflicts with a name":       {"u amd64 1 ii Conflicts: v\nx amd64 1 ii", "x amd64 2 ii Provides: v", []string{"u 1 Conflicts v"}},
		"Conflicts with itself":       {"x amd64 1 ii", "x amd64 2 ii Conflicts: v, x; Provides: v", nil},
		"Conflicts with no version":   {"u amd64 1 ii Conflicts: v (<< 3)\nx amd64 1 ii", "x amd64 2 ii Provides: v", nil},
		"Conflicts with what is gone": {"u amd64 1 rc\nx amd64 1 ii", "x amd64 2 ii Conflicts: u", nil},
		"Conflicts of all archs":      {"u amd64 1 ii Conflicts: x (>= 2)\nx i386 1 ii", "x i386 2 ii", []string{"u 1 Conflicts x (>= 2)"}},
		"Conflicts of one arch":       {"u amd64 1 ii Conflicts: x:amd64 (>= 2)\nx i386 1 ii", "x i386 2 ii", nil},

		"all stands for native":        {"u all 1 ii Depends: x\nx amd64 1 ii", "x all 2 ii", nil},
		"another architecture":         {"u amd64 1 ii Depends: x\nx amd64 1 ii", "x i386 2 ii", []string{"u 1 Depends x"}},
		"foreign":                      {"u amd64 1 ii Depends: x\nx amd64 1 ii", "x i386 2 ii Multi-Arch: foreign", nil},
		"foreign provides":             {"u amd64 1 ii Depends: v (= 1)\nx amd64 1 ii Provides: v (= 1)", "x i386 2 ii Multi-Arch: foreign; Provides: v (= 1)", nil},
		"any of what allows it":        {"u amd64 1 ii Depends: python3:any\npython3 amd64 1 ii Multi-Arch: allowed", "python3 i386 2 ii Multi-Arch: allowed", nil},
		"any of what does not":         {"u amd64 1 ii Depends: python3:any\npython3 amd64 1 ii Multi-Arch: allowed", "python3 amd64 2 ii", []string{"u 1 Depends python3:any"}},
		"allowed needs any":            {"u amd64 1 ii Depends: python3\npython3 amd64 1 ii Multi-Arch: allowed", "python3 i386 2 ii Multi-Arch: allowed", []string{"u 1 Depends python3"}},
		"a named architecture":         {"u amd64 1 ii Depends: x:i386 (= 1)\nx i386 1 ii Multi-Arch: same\nx amd64 1 ii Multi-Arch: same", "x i386 2 ii Multi-Arch: same", []string{"u 1 Depends x:i386 (= 1)"}},
		"same stays for others":        {"u i386 1 ii Depends: x (= 1)\nx i386 1 ii Multi-Arch: same\nx amd64 1 ii Multi-Arch: same", "x amd64 2 ii Multi-Arch: same", nil},
		"same no longer takes all":     {"u i386 1 ii Depends: x (= 1)\nx i386 1 ii Multi-Arch: same\nx amd64 1 ii Multi-Arch: same", "x amd64 1 ii", []string{"u 1 Depends x (= 1)"}},
		"a provided architecture":      {"u i386 1 ii Depends: v\nx i386 1 ii Provides: v", "x amd64 2 ii Provides: v:i386", nil},
		"an odd version stands":        {"u amd64 1 ii Depends: x (= odd)\nx amd64 odd ii", "x amd64 odd ii Provides: y", nil},
		"an odd version fits no other": {"u amd64 1 ii Depends: x (>= 1)\nx amd64 2 ii", "x amd64 odd ii", []string{"u 1 Depends x (>= 1)"}},
	} {
		before := parse(c.before)
		replace := parse(c.replace)[1:]
		got, err := NewlyUnmet(before, replace)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, texts(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, replace := range map[string]string{"Depends": "x amd64 1 ii Depends: (", "Provides": "x amd64 1 ii Provides: a b"} {
		if got, err := NewlyUnmet(parse("x amd64 1 ii"), parse(replace)[1:]); err == nil {
			t.Errorf("damaged %s: %v", name, got)
		}
	}
}

func TestTheInputsStayAsTheyAre(t *testing.T) {
	before := novaLibvirt()
	replace := upgrade(before, true, "qemu-utils")
	wantBefore, wantReplace := slices.Clone(before), slices.Clone(replace)
	if _, err := NewlyUnmet(before, replace); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]Package{wantBefore, wantReplace}, [][]Package{before, replace}); diff != "" {
		t.Error(diff)
	}
}

// TestTheComputationAgreesWithApt asks apt-get check about every exchange of one package of the fixture.
func TestTheComputationAgreesWithApt(t *testing.T) {
	libvirt := novaLibvirt()
	for _, p := range libvirt {
		for _, tied := range []bool{false, true} {
			replace := upgrade(libvirt, tied, p.Name)
			got, err := NewlyUnmet(libvirt, replace)
			if err != nil {
				t.Fatal(err)
			}
			if apt := aptCheck(t, exchanged(libvirt, replace)); apt != (len(got) == 0) {
				t.Errorf("%s, tied %v: apt says %v, we have %v", p.Name, tied, apt, texts(got))
			}
		}
	}
}

// aptCheck runs apt-get check on a status file of these packages alone.
func aptCheck(t *testing.T, packages []Package) bool {
	t.Helper()
	run(t, "apt-get", "--version") // or skip
	var status strings.Builder
	for _, p := range packages {
		fields := []string{"Maintainer: x", "Description: x"}
		for name, value := range map[string]string{"Depends": p.Depends, "Provides": p.Provides, "Multi-Arch": p.MultiArch} {
			if value != "" {
				fields = append(fields, name+": "+value)
			}
		}
		status.WriteString(stanza(p.Name, p.Architecture, p.Version, p.Status.String(), fields...))
	}
	dir := t.TempDir()
	for _, sub := range []string{"/lists/partial", "/cache/archives/partial", "/etc"} {
		if err := os.MkdirAll(dir+sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/status", []byte(status.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`apt-get -o Dir::State=%[1]s -o Dir::State::status=%[1]s/status -o Dir::State::lists=%[1]s/lists -o Dir::Cache=%[1]s/cache -o Dir::Etc=%[1]s/etc `+
		`-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Debug::NoLocking=true check >%[1]s/out 2>&1 && echo fine || { grep -q "unmet dependencies" %[1]s/out && echo unmet || cat %[1]s/out; }`, dir)
	switch out := strings.TrimSpace(run(t, "sh", "-c", script)); out {
	case "fine":
		return true
	case "unmet":
		return false
	default:
		t.Fatalf("apt-get check: %s", out)
		return false
	}
}

func FuzzParseRelations(f *testing.F) {
	f.Add("libc6 (>= 2.36), python3:any | x (<<1:2~3), y")
	f.Add("a (> 1)|b,\n c:i386(= 2)")
	f.Fuzz(func(t *testing.T, text string) {
		clauses, err := parseRelations(text)
		if err != nil {
			return
		}
		var printed []string
		for _, clause := range clauses {
			printed = append(printed, clauseString(clause))
		}
		again, err := parseRelations(strings.Join(printed, ", "))
		if diff := cmp.Diff(clauses, again, cmp.AllowUnexported(relation{})); diff != "" || err != nil {
			t.Errorf("printed as %q: %v %s", printed, err, diff)
		}
	})
}

func BenchmarkNewlyUnmet(b *testing.B) {
	f, err := os.Open("/" + statusFile)
	if err != nil {
		b.Skip(err)
	}
	defer f.Close()
	before, err := ParseStatus(f)
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(before, func(p Package) bool { return p.Name == "libc6" })
	if i < 0 {
		b.Skip("libc6 is not installed")
	}
	older := before[i]
	older.Version = "0"
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if unmet, err := NewlyUnmet(before, []Package{older}); err != nil || len(unmet) < 10 {
				b.Fatal(unmet, err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if unmet, err := NewlyUnmet(before, before); err != nil || len(unmet) > 0 {
				b.Fatal(unmet, err)
			}
		}
	})
}
