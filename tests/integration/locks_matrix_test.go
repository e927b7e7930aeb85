//go:build lab

package integration

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The matrix of image locks: what each build of QEMU does in each state of the kernel's locks, installed as packages. Its tables are
// in docs/locks.md: the test compares what it measures with that page, and -update rewrites the page. What has to hold whatever the
// page says is in brokenPromises.

// A lockState is a column: what fcntl answers. Refusals come from a seccomp profile, so they are the same on every filesystem. Errnos
// that share a column have to give the same results.
type lockState struct {
	title   string
	refused []int // commands of fcntl(2)
	errnos  []syscall.Errno
	held    bool // the healthy container has the operation's image open for writing
}

// Commands of fcntl(2), from include/uapi/asm-generic/fcntl.h.
const (
	getlk, setlk, setlkw          = 5, 6, 7
	ofdGetlk, ofdSetlk, ofdSetlkw = 36, 37, 38
)

// With F_OFD_GETLK QEMU finds out, on /dev/null, whether the kernel has OFD locks. Where that is refused too it turns its locks off by itself.
var (
	ofd      = []int{ofdSetlk, ofdSetlkw}
	allKinds = []int{getlk, setlk, setlkw, ofdSetlk, ofdSetlkw}
	noLocks  = []syscall.Errno{syscall.ENOLCK, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOSYS}
)

const (
	locksWork  = "locks work"
	heldByIt   = "held by another"
	ofdRefused = "OFD refused"
	allRefused = "all refused"

	probeRefused = "all and the probe refused"
)

var lockStates = []lockState{
	{title: locksWork},
	{title: heldByIt, held: true},
	{title: ofdRefused, refused: ofd, errnos: noLocks},
	{title: allRefused, refused: allKinds, errnos: noLocks},
	{title: probeRefused, refused: append([]int{ofdGetlk}, allKinds...), errnos: noLocks[:1]},
	{title: "EIO", refused: allKinds, errnos: []syscall.Errno{syscall.EIO}},
	{title: "EAGAIN, EACCES", refused: allKinds, errnos: []syscall.Errno{syscall.EAGAIN, syscall.EACCES}},
}

// The builds, and two names for a pair: itself is the build that the table is about, and healthy is the stock build in a container in
// which nothing is refused, as on another host.
const (
	stock      = "stock"
	disableOFD = "disable_ofd"
	fallback   = "fallback"
	library    = "library" // the stock packages, and the preloaded library
	itself     = "itself"
	healthy    = "healthy"
)

// An operation is a row: a command in a folder that holds a.qcow2, overlay.qcow2 on top of it, and p1.raw to p70.raw.
type operation struct {
	title string
	line  string // for bash
	image string // what the other process has open where the image is held
}

var operations = []operation{
	{"create", "qemu-img create -f qcow2 new.qcow2 1M", "new.qcow2"},
	{"convert", "qemu-img convert -f qcow2 -O qcow2 a.qcow2 b.qcow2", "a.qcow2"},
	{"convert 70 images into one", "qemu-img convert -f raw -O raw p{1..70}.raw b.raw", "p70.raw"},
	{"resize", "qemu-img resize a.qcow2 2M", "a.qcow2"},
	{"snapshot -c", "qemu-img snapshot -c s a.qcow2", "a.qcow2"},
	{"commit an overlay", "qemu-img commit overlay.qcow2", "a.qcow2"},
	{"check", "qemu-img check a.qcow2", "a.qcow2"},
	{"info", "qemu-img info a.qcow2", "a.qcow2"},
	{"info -U", "qemu-img info -U a.qcow2", "a.qcow2"},
	{"write", writes, "a.qcow2"},
}

const (
	writes = `qemu-io -c "write 0 4k" a.qcow2`
	opens  = "qemu-io a.qcow2" // and keeps it open, as a guest does
	// libvirt's way: QEMU opens the file read-only, and again under another descriptor when somebody wants to write.
	opensTwice = "qemu-io --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2,file.auto-read-only=on"
)

// A pair is a row: what happens to a second writer while another process has the image open. Where it is the holder's build too, what
// the holder itself says and the locks it holds are rows of their own.
type pair struct {
	title, holder, second, opens string
	titleOpen, titleLocks        string
}

var pairs = []pair{
	{"second writer beside one of the same build", itself, itself, opens, "open for writing", "locks held then"},
	{"second writer beside that", itself, itself, opensTwice, "open with `auto-read-only=on`", "locks held then, after the change of descriptor"},
	{"second writer beside stock", stock, itself, opens, "", ""},
	{"second writer beside `disable_ofd`", disableOFD, itself, opens, "", ""},
	{"second writer beside `fallback`", fallback, itself, opens, "", ""},
	{"second writer beside `library`", library, itself, opens, "", ""},
	{"second writer beside stock where locks work", healthy, itself, opens, "", ""},
	{"stock where locks work as second writer beside it", itself, healthy, opens, "", ""},
}

// TestImageLocks takes the column disable_ofd from NFSLOCK_PATCH_SET_DISABLE_OFD; without that it is left out.
func TestImageLocks(t *testing.T) {
	set := os.Getenv("NFSLOCK_PATCH_SET")
	if set == "" {
		t.Fatal("no patch set: start this through tests/integration/run.sh or make matrix")
	}
	m := newMatrix(t, "bookworm")
	if set := os.Getenv("NFSLOCK_PATCH_SET_DISABLE_OFD"); set != "" {
		m.install(disableOFD, set)
	} else {
		t.Log("disable_ofd is left out: NFSLOCK_PATCH_SET_DISABLE_OFD names no patch set; make matrix builds one")
	}
	m.install(fallback, set)
	m.preload()
	measured := m.measure()
	for _, broken := range m.brokenPromises(measured) {
		t.Error(broken)
	}
	m.comparePage(measured)
}

// elsewhere has what stock QEMU of a release does otherwise than Debian 12's, and the library with it.
var elsewhere = map[string]table{
	// QEMU 5.2: qemu-io lets others read a raw image that it has open, and writes through an overlay, or after a change of the descriptor, lock although
	// the probe was refused.
	"bullseye": {
		{stock, "convert 70 images into one", heldByIt}:                          succeeded,
		{library, "convert 70 images into one", heldByIt}:                        succeeded,
		{stock, "commit an overlay", probeRefused}:                               "byte 100",
		{library, "commit an overlay", probeRefused}:                             succeeded + ", 1 warning",
		{stock, "open with `auto-read-only=on`", probeRefused}:                   "byte 100",
		{library, "open with `auto-read-only=on`", probeRefused}:                 succeeded + ", 1 warning",
		{stock, "locks held then, after the change of descriptor", probeRefused}: noHolder,
		{stock, "second writer beside that", probeRefused}:                       noHolder,
	},
}

// TestImageLocksElsewhere compares what other releases' stock QEMU does, with the library and without, with the page of Debian 12. The releases
// are NFSLOCK_MATRIX_RELEASES, with blanks between: their images are made by lab/image.sh.
func TestImageLocksElsewhere(t *testing.T) {
	releases := strings.Fields(os.Getenv("NFSLOCK_MATRIX_RELEASES"))
	if len(releases) == 0 {
		t.Skip("NFSLOCK_MATRIX_RELEASES names no release; make matrix does")
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			m := newMatrix(t, release)
			m.preload()
			measured := m.measure()
			for _, broken := range m.brokenPromises(measured) {
				t.Error(broken)
			}
			want := m.page()
			maps.Copy(want, elsewhere[release])
			for at, result := range measured {
				if want[at] != result {
					t.Errorf("%v: %q, want %q as on Debian 12", at, result, want[at])
				}
			}
		})
	}
}

// brokenPromises returns what does not hold of what the patch promises.
func (m *matrix) brokenPromises(measured table) (broken []string) {
	want := func(ok bool, format string, args ...any) {
		if !ok {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	for at, result := range measured {
		want(!strings.Contains(result, hangs), "%v: a command did not end within %v", at, limit)
		want(!strings.Contains(result, strange), "%v: %s", at, result)
	}

	// equals wants a build to be another one to the letter.
	equals := func(at trial, other string) {
		o := m.outcomes[at]
		variant := at.variant
		at.variant = other
		if s, ok := m.outcomes[at]; ok { // a build has no row about itself beside itself by name
			said := strings.ReplaceAll(o.err, "/"+variant+"-", "/"+other+"-") // the folder of the trial
			want(o.code == s.code && said == s.err && o.heldLocks() == s.heldLocks(), "%s, %s, %v: %s ended with %s and said %q, %s with %s and %q",
				at.state, at.row, at.errno, variant, o.code, o.err, other, s.code, s.err)
		}
	}
	for at := range m.outcomes {
		// Where locks work, where somebody holds one, and where nobody knows who does: stock QEMU.
		if (at.variant == fallback || at.variant == library) && !slices.Contains(noLocks, at.errno) {
			equals(at, stock)
		}
		if at.variant == library {
			equals(at, fallback)
		}
	}

	// Where a lock is to be had, no two writers share an image, whoever of the two is patched.
	cures := slices.DeleteFunc(slices.Clone(m.variants), func(v string) bool { return v == disableOFD || v == stock })
	for _, v := range append([]string{stock}, cures...) {
		for _, p := range pairs {
			if p.holder == disableOFD || p.holder == v || !m.has(p.holder) { // a build beside itself is the first row
				continue
			}
			want(measured[place{v, p.title, locksWork}] == refused, "%s, %s: %q where locks work", v, p.title, measured[place{v, p.title, locksWork}])
			if p.titleLocks != "" {
				want(measured[place{v, p.titleLocks, locksWork}] == "4 OFD", "%s, %s: %q", v, p.titleLocks, measured[place{v, p.titleLocks, locksWork}])
			}
		}
		for _, o := range operations {
			at := place{v, o.title, heldByIt}
			if o.title != "info -U" && elsewhere[m.release][at] == "" { // info -U asks to look without a lock
				want(measured[at] == refused, "%v: %q", at, measured[at])
			}
		}
	}
	for _, state := range []string{ofdRefused, allRefused} {
		for _, cure := range cures {
			// The kernel can still be asked who holds a lock, so a healthy writer is seen even there.
			beside := place{cure, "second writer beside stock where locks work", state}
			want(strings.HasPrefix(measured[beside], refused), "%v: %q", beside, measured[beside])
			for _, o := range operations {
				at := place{cure, o.title, state}
				want(strings.HasPrefix(measured[at], succeeded), "%v: %q", at, measured[at])
			}
		}
		for _, o := range operations {
			at := place{stock, o.title, state}
			want(o.title == "info -U" || strings.HasPrefix(measured[at], "byte "), "%v: %q, so nothing is refused there", at, measured[at])
		}
	}
	slices.Sort(broken)
	return broken
}
