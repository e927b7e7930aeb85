package baseline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

const (
	source = "1:7.2+dfsg-7+deb12u18"
	stock  = source + "+b2"
)

var whole = deb.Status{Want: "install", Flag: "ok", State: "installed"}

// kind is how a set's packages tell that they are ours.
type kind string

const (
	fields kind = "fields" // as the recipe writes them
	shape  kind = "shape"  // as that of earlier releases did
	bare   kind = "bare"   // made by hand: nothing but the version
)

func distribution(version string) deb.Package {
	return deb.Package{Name: "qemu-utils", Version: version, Architecture: "amd64", Source: "qemu", SourceVersion: deb.WithoutRebuild(version), Status: whole}
}

func ours(k kind, from, suffix string) deb.Package {
	p := distribution(deb.WithoutRebuild(from) + suffix)
	if k == bare {
		return p
	}
	p.SourceVersion, p.Provides = deb.WithoutRebuild(from), "qemu-utils (= "+from+")"
	if k == fields {
		p.Graft = deb.Graft{Variant: "fallback", Suffix: suffix, BuiltFrom: p.SourceVersion, Stock: from}
	}
	return p
}

// sumOf stands for the checksum of a package's files.
func sumOf(p deb.Package) string { return "sum of " + p.Version + p.Provides }

// host is a host with one container, on which the decisions of this package are carried out as they are said.
type host struct {
	id      string
	have    deb.Package
	index   *Index
	earlier bool // the record is written as earlier releases wrote it
}

func (h *host) judge(set ...Installed) Judgement {
	return Known{ID: h.id, Index: h.index, Set: set}.Judge(h.have, sumOf(h.have))
}

// present says what was kept and replaced.
func (h *host) present(p deb.Package) string {
	graft := p.Graft
	if graft == (deb.Graft{}) {
		graft = deb.Graft{Variant: "fallback", Suffix: p.Version[strings.LastIndex(p.Version, "+"):], BuiltFrom: source}
	}
	put := Installed{Name: p.Name, Version: p.Version, Graft: graft, Sum: sumOf(p)}
	judged := h.judge(put)
	keeping := judged.Keeping()
	if keeping == Refuse {
		return "refused"
	}
	x := Known{ID: h.id, Index: h.index}.Record("", put.Graft.Suffix, map[string]Judgement{p.Name: judged})
	h.index = &x
	if keeping == Keep {
		h.index.Packages = []Kept{{Name: p.Name, Version: h.have.Version, Control: h.have}}
	}
	if !h.earlier {
		h.index.Note(put)
	}
	h.have = p
	return string(keeping)
}

// absent says what it did; the record is forgotten only with the way back behind it.
func (h *host) absent() string {
	restore, stuck := Ways([]Judgement{h.judge()})
	if len(stuck) > 0 {
		_, why := stuck[0].Back()
		return "failed: " + why
	}
	defer func() { h.index = nil }()
	if len(restore) > 0 {
		h.have = restore[0].Kept.Control
		return "restored " + h.have.Version
	}
	return "unchanged"
}

func TestSetsWithSuffixesOfTheirOwnOneAfterAnother(t *testing.T) {
	for _, k := range []kind{fields, shape, bare} {
		for _, sets := range [][]string{{"+site1"}, {"+site1", "+ours2"}, {"+site1", "+ours2", "+third"}, {"+site1", "+ours2", "+site1"}, {"+site1", "+nfslock1", "+site2"}} {
			t.Run(fmt.Sprint(k, sets), func(t *testing.T) {
				h := &host{id: "1", have: distribution(stock)}
				for i, suffix := range sets {
					want := "no"
					if i == 0 {
						want = "keep"
					}
					if got := h.present(ours(k, stock, suffix)); got != want {
						t.Errorf("%s: %s, not %s", suffix, got, want)
					}
					if got := h.index.Put("qemu-utils"); got != source+suffix {
						t.Errorf("%s: put %s", suffix, got)
					}
					if h.index.Packages[0].Version != stock {
						t.Fatalf("%s: %s is kept", suffix, h.index.Packages[0].Version)
					}
				}
				if got := h.absent(); got != "restored "+stock {
					t.Error(got)
				}
				if got := h.absent(); got != "unchanged" {
					t.Errorf("again: %s", got)
				}
			})
		}
	}
}

// What an earlier release did to two sets one after another: the record knows the first suffix only.
func TestSetsOfAnEarlierReleaseOneAfterAnother(t *testing.T) {
	for k, want := range map[kind]string{
		fields: "restored " + stock, // a new set, with the record of an old program
		shape:  "restored " + stock,
		bare:   "failed: it is neither " + stock + ", which this host keeps, nor one that it put there",
	} {
		h := &host{id: "1", have: ours(k, stock, "+ours2"), earlier: true}
		h.index = &Index{ID: "1", Suffix: "+site1", Packages: []Kept{{Name: "qemu-utils", Version: stock, Control: distribution(stock)}}}
		if got := h.present(ours(k, stock, "+third")); got != "no" || h.index.Packages[0].Version != stock {
			t.Errorf("%s: a third set: %s, %s is kept", k, got, h.index.Packages[0].Version)
		}
		if got := h.absent(); got != want {
			t.Errorf("%s: got %s, want %s", k, got, want)
		}
	}
}

func TestABaselineThatIsAPatchedOneIsNoWayBack(t *testing.T) {
	for _, k := range []kind{fields, shape} {
		kept := ours(k, stock, "+ours2")
		h := &host{id: "1", index: &Index{ID: "1", Suffix: "+third", Packages: []Kept{{Name: "qemu-utils", Version: kept.Version, Control: kept}}}}
		for _, have := range []deb.Package{ours(k, stock, "+third"), kept} {
			h.have = have
			if got, want := h.absent(), "failed: what this host keeps, "+source+"+ours2, is a patched one itself"; got != want {
				t.Errorf("%s %s: got %s, want %s", k, have.Version, got, want)
			}
		}
	}
}

func TestAPackageOfOursWithoutItsBaselineIsNeverUnchanged(t *testing.T) {
	const gone = "failed: the package from before is not kept on this host"
	for _, test := range []struct {
		k            kind
		suffix, want string
	}{
		{fields, "+acme1", gone},
		{shape, "+acme1", gone},
		{fields, "+nfslock1", gone},
		{shape, "+nfslock1", gone},
		{bare, "+nfslock1", "failed: its version looks like that of a patched one, and nothing else says so"},
	} {
		h := &host{id: "1", have: ours(test.k, stock, test.suffix)}
		if got := h.absent(); got != test.want {
			t.Errorf("%s %s: got %s, want %s", test.k, test.suffix, got, test.want)
		}
		// Put again by this host, it is known, and still nothing is kept of it.
		if got := h.present(ours(test.k, stock, test.suffix)); got != "no" {
			t.Errorf("%s %s: the same again: %s", test.k, test.suffix, got)
		}
		if got := h.absent(); got != gone {
			t.Errorf("%s %s: put again: got %s", test.k, test.suffix, got)
		}
	}
	h := &host{id: "1", have: ours(bare, stock, "+nfslock1")}
	if got := h.present(ours(fields, stock, "+site1")); got != "refused" {
		t.Errorf("over one that is doubtful: %s", got)
	}
}

func TestEachPackageIsJudged(t *testing.T) {
	record := func(change func(*Index)) *Index {
		x := &Index{ID: "1", Suffix: "+site1", Packages: []Kept{{Name: "qemu-utils", Version: stock, Control: distribution(stock)}}}
		x.Note(Installed{"qemu-utils", source + "+site1", deb.Graft{Variant: "disable_ofd", Suffix: "+site1", BuiltFrom: source}, sumOf(ours(bare, stock, "+site1"))})
		if change != nil {
			change(x)
		}
		return x
	}
	earlier := record(func(x *Index) { x.Installed = nil })
	other := record(func(x *Index) { x.ID = "0" })
	otherEarlier := record(func(x *Index) { x.ID, x.Installed = "0", nil })
	with := func(p deb.Package, change func(*deb.Package)) deb.Package { change(&p); return p }
	state := func(want, flag, state string) func(*deb.Package) {
		return func(p *deb.Package) { p.Status = deb.Status{Want: want, Flag: flag, State: state} }
	}
	u19 := "1:7.2+dfsg-7+deb12u19"
	for _, test := range []struct {
		name  string
		index *Index
		have  deb.Package
		want  string // whose, variant; keeping; back
	}{
		{"the distribution's", nil, distribution(stock), "stock; keep; stays"},
		{"kept already", record(nil), distribution(stock), "stock; no; stays"},
		{"half installed, and kept already", record(nil), with(distribution(stock), state("install", "reinstreq", "half-installed")), "stock; no; stays"},
		{"the distribution's update", record(nil), distribution(u19), "stock; keep; stays"},
		{"the distribution's update, with a record of an earlier release", earlier, distribution(u19), "stock; keep; stays"},
		{"another rebuild of the distribution's", record(nil), distribution(source + "+b9"), "stock; keep; stays"},
		{"recreated", other, distribution(stock), "stock; keep; stays"},
		{"somebody else's build", nil, distribution(source + "+cloud1"), "stock; keep; stays"},
		{"somebody else's build of what is kept", record(nil), distribution(source + "+cloud1"), "doubtful; no; stuck: it is neither " + stock + ", which this host keeps, nor one that it put there"},
		{"ours", record(nil), ours(fields, stock, "+site1"), "ours fallback; no; restore"},
		{"ours, held", record(nil), with(ours(fields, stock, "+site1"), state("hold", "ok", "installed")), "ours fallback; no; restore"},
		{"ours, half installed", record(nil), with(ours(fields, stock, "+site1"), state("install", "reinstreq", "half-installed")), "ours fallback; no; restore"},
		{"ours, half configured", record(nil), with(ours(fields, stock, "+site1"), state("install", "ok", "half-configured")), "ours fallback; no; restore"},
		{"ours, whatever its version is", record(nil), with(ours(fields, stock, "+site1"), func(p *deb.Package) { p.Version = "9" }), "ours fallback; no; restore"},
		{"ours, of another variant", record(nil), with(ours(fields, stock, "+site1"), func(p *deb.Package) { p.Graft.Variant = "disable_ofd" }), "ours disable_ofd; no; restore"},
		{"ours, of an earlier release: the record knows the variant", record(func(x *Index) { x.Installed[0].Sum = sumOf(ours(shape, stock, "+site1")) }), ours(shape, stock, "+site1"), "ours disable_ofd; no; restore"},
		{"ours, by the checksum alone", record(nil), ours(bare, stock, "+site1"), "ours disable_ofd; no; restore"},
		{"ours, without files to sum up", record(func(x *Index) { x.Installed[0].Sum = "" }), ours(bare, stock, "+site1"), "ours disable_ofd; no; restore"},
		{"that version with other files", record(func(x *Index) { x.Installed[0].Sum = "other" }), ours(bare, stock, "+site1"), "doubtful; no; stuck: this host put another package of that version there"},
		{"ours, by the record of an earlier release", earlier, ours(bare, stock, "+site1"), "ours; no; restore"},
		{"a suffix that the record does not know", earlier, ours(bare, stock, "+ours2"), "doubtful; no; stuck: it is neither " + stock + ", which this host keeps, nor one that it put there"},
		{"baked in", nil, ours(fields, stock, "+acme1"), "ours fallback; no; stuck: the package from before is not kept on this host"},
		{"baked in, and the predecessor's was of that version", other, ours(fields, stock, "+acme1"), "ours fallback; no; restore"},
		{"baked in, and the predecessor's was another rebuild", other, ours(fields, source+"+b3", "+acme1"), "ours fallback; no; stuck: what this host keeps was built from another version, " + source},
		{"baked in, and known from the predecessor by its checksum", other, ours(bare, stock, "+site1"), "ours disable_ofd; no; restore"},
		{"the predecessor's record of a suffix proves nothing", otherEarlier, ours(bare, stock, "+site1"), "stock; keep; stays"},
		{"ours, from another version", record(nil), ours(fields, u19, "+site1"), "ours fallback; no; stuck: what this host keeps was built from another version, " + source},
		{"ours, from another version, put over it", record(func(x *Index) {
			x.Note(Installed{"qemu-utils", u19 + "+site1", ours(fields, u19, "+site1").Graft, "unread"})
		}), ours(fields, u19, "+site1"), "ours fallback; no; restore"},
		{"the usual suffix, and nothing else", nil, ours(bare, stock, "+nfslock7"), "doubtful; refused; stuck: its version looks like that of a patched one, and nothing else says so"},
		{"the usual suffix within", nil, ours(bare, stock, "+nfslock7.1"), "stock; keep; stays"},
		{
			"kept, and yet it looks like a patched one", record(func(x *Index) { x.Packages[0].Version = source + "+nfslock1" }), ours(bare, stock, "+nfslock1"),
			"doubtful; no; stuck: its version looks like that of a patched one, and nothing else says so",
		},
		{
			"ours without what it provides", nil, with(ours(shape, stock, "+acme1"), func(p *deb.Package) { p.Provides = "" }),
			"doubtful; refused; stuck: it was built from " + source + " and has a longer version, as patched ones have",
		},
		{
			"fields by halves", record(nil), with(ours(fields, stock, "+site1"), func(p *deb.Package) { p.Graft.Stock = "" }),
			"doubtful; no; stuck: its fields that begin with Nfslock are not those that a build writes",
		},
		{
			"a command in a field", nil, with(ours(fields, stock, "+site1"), func(p *deb.Package) { p.Graft.Stock = "1; reboot" }),
			"doubtful; refused; stuck: its fields that begin with Nfslock are not those that a build writes",
		},
		{"another package", record(nil), with(distribution("5.2"), func(p *deb.Package) { p.Name, p.Source = "bash", "bash" }), "stock; keep; stays"},
		{"another package with a longer version", nil, deb.Package{Name: "shim-signed", Version: "1.51+16.1-2", Source: "shim-signed", SourceVersion: "1.51", Status: whole}, "stock; keep; stays"},
	} {
		j := Known{ID: "1", Index: test.index}.Judge(test.have, sumOf(test.have))
		back, why := j.Back()
		got := strings.TrimSpace(fmt.Sprintf("%s %s", j.Whose, j.Graft.Variant)) + "; " + string(j.Keeping()) + "; " + string(back)
		if j.Whose == Doubtful {
			got = string(j.Whose) + "; " + string(j.Keeping()) + "; " + string(back)
		}
		if why != "" {
			got += ": " + why
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if j.Whose != Stock && (j.Keeping() == Keep || back == Stays) {
			t.Errorf("%s: what is not the distribution's is kept, or stays", test.name)
		}
	}
}

// The container is made again from an image that was made of the former one, or of another version.
func TestARecreatedContainerKeepsTheWayBackFromWhatIsInItsImage(t *testing.T) {
	const u19 = "1:7.2+dfsg-7+deb12u19"
	for _, k := range []kind{fields, shape, bare} {
		for _, test := range []struct{ from, again, want string }{
			{stock, "", "restored " + stock},
			{stock, "+ours2", "restored " + stock},
			{u19, "", "failed: what this host keeps was built from another version, " + source},
			{u19, "+ours2", "failed: what this host keeps was built from another version, " + source},
		} {
			if k == bare && test.from == u19 {
				continue // nothing knows it: a package of somebody else's
			}
			h := &host{id: "1", have: distribution(stock)}
			h.present(ours(k, stock, "+site1"))
			h.id, h.have = "2", ours(k, test.from, "+site1")
			if test.again != "" {
				if got := h.present(ours(k, test.from, test.again)); got != "no" {
					t.Errorf("%s %+v: %s", k, test, got)
				}
				if x := h.index; x.ID != "2" || len(x.Packages) != 1 || x.Packages[0].From != "1" || x.Keeps("2", distribution(stock)) {
					t.Errorf("%s %+v: %+v", k, test, x)
				}
			}
			if got := h.absent(); got != test.want {
				t.Errorf("%s %+v: %s", k, test, got)
			}
		}
	}
	h := &host{id: "1", have: distribution(stock)}
	h.present(ours(fields, stock, "+site1"))
	h.id, h.have = "2", distribution(u19)
	if got := h.present(ours(fields, u19, "+site1")); got != "keep" || h.index.Packages[0].Version != u19 || h.index.Packages[0].From != "" {
		t.Errorf("from a stock image: %s, %+v", got, h.index)
	}
	if got := h.absent(); got != "restored "+u19 {
		t.Error(got)
	}
}

func TestAKeptPackageThatIsDamagedIsKeptAgain(t *testing.T) {
	x := &Index{ID: "1", Packages: []Kept{{Name: "qemu-utils", Version: stock, Damage: "cut"}}}
	if got := (Known{ID: "1", Index: x}).Judge(distribution(stock), "").Keeping(); got != Keep || x.Keeps("1", distribution(stock)) {
		t.Error(got)
	}
}

// Two builds of one set have one version and other files.
func TestAnotherPackageOfTheSetsVersionIsNotTheDistributions(t *testing.T) {
	p := ours(bare, stock, "+site1")
	set := []Installed{{p.Name, p.Version, deb.Graft{Variant: "fallback", Suffix: "+site1", BuiltFrom: source}, "other"}}
	if j := (Known{ID: "1", Set: set}).Judge(p, sumOf(p)); j.Whose != Doubtful || j.Keeping() != Refuse || j.Source() != source {
		t.Errorf("%+v", j)
	}
}

// Of all that a real nova_libvirt has, two are of a set of profile host.
func TestAmongAllPackagesOfQEMUOnlyThoseOfTheSetAreOurs(t *testing.T) {
	var got []string
	for _, name := range []string{
		"qemu-block-extra", "qemu-system", "qemu-system-arm", "qemu-system-common", "qemu-system-data", "qemu-system-gui", "qemu-system-mips",
		"qemu-system-misc", "qemu-system-modules-opengl", "qemu-system-modules-spice", "qemu-system-ppc", "qemu-system-sparc", "qemu-system-x86", "qemu-system-xen", "qemu-utils",
	} {
		p := distribution(stock)
		if name == "qemu-system-x86" || name == "qemu-utils" {
			p = ours(fields, stock, "+nfslock1")
			p.Provides = name + " (= " + stock + ")"
		}
		p.Name = name
		if j := (Known{ID: "1"}).Judge(p, ""); j.Whose != Stock {
			got = append(got, string(j.Whose)+" "+name)
		}
	}
	if diff := cmp.Diff([]string{"ours qemu-system-x86", "ours qemu-utils"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheChecksumIsAskedForWhereItDecides(t *testing.T) {
	set := []Installed{{Name: "qemu-utils", Version: source + "+site1", Sum: "x"}}
	for _, test := range []struct {
		known Known
		have  deb.Package
		want  bool
	}{
		{Known{}, ours(bare, stock, "+site1"), false},
		{Known{Set: set}, ours(bare, stock, "+site1"), true},
		{Known{Index: &Index{Installed: set}}, ours(shape, stock, "+site1"), true},
		{Known{Set: set}, ours(fields, stock, "+site1"), false},
		{Known{Set: set}, ours(bare, stock, "+ours2"), false},
		{Known{Set: set}, distribution(stock), false},
	} {
		if got := test.known.NeedsSum(test.have); got != test.want {
			t.Errorf("%+v %s: %t", test.known, test.have.Version, got)
		}
	}
	if a, b := Sum(map[string]string{"a": "1", "b": "2"}), Sum(map[string]string{"b": "1", "a": "2"}); a == b || len(a) != 64 || Sum(nil) != "" {
		t.Errorf("%s %s", a, b)
	}
}

// Earlier releases put the set's suffix behind the kept version, which gives one that never was.
func TestTheVersionThatWasPutThereIsOneThatWas(t *testing.T) {
	x := Index{Suffix: "+nfslock1", Packages: []Kept{{Name: "qemu-utils", Version: stock}, {Name: "a", Version: "1-1", BuiltFrom: "1-0"}}}
	if got := []string{x.Put("qemu-utils"), x.Put("a"), x.Put("b")}; !cmp.Equal(got, []string{source + "+nfslock1", "1-0+nfslock1", ""}) {
		t.Errorf("with a record of an earlier release: %q", got)
	}
	x.Note(Installed{Name: "qemu-utils", Version: source + "+site1"}, Installed{Name: "qemu-utils", Version: source + "+ours2"})
	x.Note(Installed{Name: "qemu-utils", Version: source + "+site1"})
	if got := x.Put("qemu-utils"); got != source+"+site1" || len(x.Installed) != 2 {
		t.Errorf("%s of %+v", got, x.Installed)
	}
	for i := range 20 {
		x.Note(Installed{Name: "b", Version: fmt.Sprint(i)})
	}
	if got := x.Put("b"); got != "19" || len(x.Installed) != 2+mostInstalled || x.Put("qemu-utils") != source+"+site1" {
		t.Errorf("%s of %+v", got, x.Installed)
	}
}

func TestTheWaysOutNameWhatAptIsToInstall(t *testing.T) {
	const begin = "recreate the container from an image without them, or run as root inside it: apt-get update && apt-get install --allow-downgrades --allow-change-held-packages "
	for _, test := range []struct {
		known Known
		have  deb.Package
		want  string
	}{
		{Known{}, ours(fields, stock, "+acme1"), "qemu-utils=" + stock},
		{Known{}, ours(shape, stock, "+acme1"), "qemu-utils=" + stock},
		{
			Known{Set: []Installed{{Name: "qemu-utils", Version: source + "+acme1", Graft: deb.Graft{BuiltFrom: source}}}},
			ours(bare, stock, "+acme1"), "qemu-utils=" + source + " (with +b1, +b2 … behind the version where apt-cache policy shows it)",
		},
		{Known{}, ours(bare, stock, "+nfslock1"), "qemu-utils=VERSION; apt-cache policy qemu-utils shows the distribution's VERSION"},
	} {
		if got := WaysOut([]Judgement{test.known.Judge(test.have, "")}); got != begin+test.want {
			t.Errorf("got %s, want %s", got, begin+test.want)
		}
	}
}
