//go:build lab

package integration

import (
	"fmt"
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
)

var lockStates = []lockState{
	{title: locksWork},
	{title: heldByIt, held: true},
	{title: ofdRefused, refused: ofd, errnos: noLocks},
	{title: allRefused, refused: allKinds, errnos: noLocks},
	{title: "all and the probe refused", refused: append([]int{ofdGetlk}, allKinds...), errnos: noLocks[:1]},
	{title: "EIO", refused: allKinds, errnos: []syscall.Errno{syscall.EIO}},
	{title: "EAGAIN, EACCES", refused: allKinds, errnos: []syscall.Errno{syscall.EAGAIN, syscall.EACCES}},
}

// The builds, and two names for a pair: itself is the build that the table is about, and healthy is the stock build in a container in
// which nothing is refused, as on another host.
const (
	stock      = "stock"
	disableOFD = "disable_ofd"
	fallback   = "fallback"
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
	{"second writer beside stock where locks work", healthy, itself, opens, "", ""},
	{"stock where locks work as second writer beside it", itself, healthy, opens, "", ""},
}

// TestImageLocks takes the column disable_ofd from NFSLOCK_PATCH_SET_DISABLE_OFD; without that it is left out.
func TestImageLocks(t *testing.T) {
	m := newMatrix(t)
	measured := m.measure()
	for _, broken := range m.brokenPromises(measured) {
		t.Error(broken)
	}
	m.comparePage(measured)
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

	// Where locks work, where somebody holds one, and where nobody knows who does: the fallback is stock QEMU to the letter.
	for at, o := range m.outcomes {
		if at.variant != fallback || slices.Contains(noLocks, at.errno) {
			continue
		}
		at.variant = stock
		if s, ok := m.outcomes[at]; ok { // a stock build has no row about itself beside stock
			want(o.code == s.code && o.err == s.err && o.heldLocks() == s.heldLocks(), "%s, %s, %v: fallback ended with %s and said %q, stock with %s and %q",
				at.state, at.row, at.errno, o.code, o.err, s.code, s.err)
		}
	}

	// Where a lock is to be had, no two writers share an image, whoever of the two is patched.
	for _, v := range []string{stock, fallback} {
		for _, p := range pairs {
			if p.holder == disableOFD || p.holder == v { // a build beside itself is the first row
				continue
			}
			want(measured[place{v, p.title, locksWork}] == refused, "%s, %s: %q where locks work", v, p.title, measured[place{v, p.title, locksWork}])
			if p.titleLocks != "" {
				want(measured[place{v, p.titleLocks, locksWork}] == "4 OFD", "%s, %s: %q", v, p.titleLocks, measured[place{v, p.titleLocks, locksWork}])
			}
		}
		for _, o := range operations {
			if o.title != "info -U" { // asks to look without a lock
				want(measured[place{v, o.title, heldByIt}] == refused, "%s, %s: %q on a held image", v, o.title, measured[place{v, o.title, heldByIt}])
			}
		}
	}
	for _, state := range []string{ofdRefused, allRefused} {
		// The kernel can still be asked who holds a lock, so a healthy writer is seen even there.
		beside := place{fallback, "second writer beside stock where locks work", state}
		want(strings.HasPrefix(measured[beside], refused), "%v: %q", beside, measured[beside])
		for _, o := range operations {
			at := place{fallback, o.title, state}
			want(strings.HasPrefix(measured[at], succeeded), "%v: %q", at, measured[at])
			at.variant = stock
			want(o.title == "info -U" || strings.HasPrefix(measured[at], "byte "), "%v: %q, so nothing is refused there", at, measured[at])
		}
	}
	slices.Sort(broken)
	return broken
}
