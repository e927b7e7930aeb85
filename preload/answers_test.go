package preload

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var noLocks = []syscall.Errno{syscall.ENOLCK, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOSYS}

// Errors that say something else, and pass.
var others = []syscall.Errno{
	syscall.EAGAIN, syscall.EACCES, syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EBADF, syscall.EDEADLK, syscall.EROFS,
	syscall.EPERM, syscall.EINTR, syscall.ENOMEM, syscall.EFAULT, syscall.EOVERFLOW, syscall.EREMOTEIO,
}

var kinds = []int{syscall.F_RDLCK, syscall.F_WRLCK, syscall.F_UNLCK}

// where the calls of a script that come to one answer each are made: on a file of its own, so that no answer follows from another.
type single struct {
	script, answer []string
}

func (s *single) add(errno syscall.Errno, l lock, answer string) {
	fd := 100 + len(s.answer)
	l.fd = fd
	s.script = append(s.script, open(fd, fmt.Sprint("f", fd), readWriteCreate), refuse(fd, fd, errno, l.cmd), l.String())
	s.answer = append(s.answer, answer)
}

func TestRefusalsThatMeanNoLocksAreGrantsAndOthersPass(t *testing.T) {
	c := newCaller(t)
	for _, errno := range slices.Concat(noLocks, others) {
		var s single
		for _, cmd := range lockCommands {
			for _, kind := range kinds {
				for _, name := range []string{"lock", "lock64"} {
					question := cmd == getlk || cmd == ofdGetlk
					want := fmt.Sprintf("-1 %s %d 0 10 20 same", unix.ErrnoName(errno), kind)
					// An unlock of what was never refused is told as it is.
					if slices.Contains(noLocks, errno) && kind != syscall.F_UNLCK {
						want = fmt.Sprintf("0 %d 0 10 20 same", kind)
						if question {
							want = fmt.Sprintf("0 %d 0 10 20 same", syscall.F_UNLCK)
						}
					}
					s.add(errno, lock{cmd: cmd, kind: kind, start: 10, len: 20, name: name}, want)
				}
			}
		}
		got, _ := c.answers("qemu-img", s.script...)
		if diff := cmp.Diff(s.answer, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", unix.ErrnoName(errno), diff)
		}
	}
}

func TestWorksInTheProgramsThatLockImagesAndIsInertInOthers(t *testing.T) {
	for name, want := range map[string]bool{
		"qemu-img": true, "qemu-io": true, "qemu-nbd": true, "qemu-storage-daemon": true, "qemu-system-x86_64": true,
		"qemu-system-aarch64": true, "qemu-kvm": true, "libvirtd": true, "virtqemud": true,
		"qemu-imgs": false, "qemu-im": false, "qemu-system": false, "qemu-x86_64": false, "qemu-ga": false, "qemu-bridge-helper": false,
		"qemu-pr-helper": false, "virtlockd": false, "virtlogd": false, "libvirtd-tls": false, "virsh": false, "kvm": false, "dpkg": false,
		"python3.13": false, "my-qemu-img": false, "a": false,
	} {
		c := newCaller(t)
		got, said := c.answers(name, open(100, "f", readWriteCreate), refuse(100, 100, syscall.ENOLCK, ofdSetlk), lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String())
		if granted := strings.HasPrefix(got[0], "0 "); granted != want || (said != "") != want {
			t.Errorf("%s: granted %v, said %q", name, granted, said)
		}
	}
}

// EINVAL also says that a call is wrong, on any filesystem.
func TestEINVALForAWrongCallPasses(t *testing.T) {
	wrong := []lock{
		{kind: 3},
		{kind: 77},
		{kind: -1},
		{whence: 3},
		{whence: -1},
		{start: -1},
		{len: -1},
		{start: 5, len: -10},
		{whence: 1},
		{whence: 2}, // QEMU and libvirt count from the start; others are told what the kernel says
	}
	c := newCaller(t)
	var s single
	for _, l := range wrong {
		for _, l.cmd = range lockCommands {
			s.add(syscall.EINVAL, l, fmt.Sprintf("-1 EINVAL %d %d %d %d same", l.kind, l.whence, l.start, l.len))
		}
	}
	for _, cmd := range []int{ofdGetlk, ofdSetlk, ofdSetlkw} {
		s.add(syscall.EINVAL, lock{cmd: cmd, pid: 7}, "-1 EINVAL 0 0 0 0 same")
	}
	got, said := c.answers("qemu-img", s.script...)
	if diff := cmp.Diff(s.answer, got); diff != "" || said != "" {
		t.Errorf("said %q; (-want +got):\n%s", said, diff)
	}
	// Nobody can ask who keeps a lock from being given back, not even of a file whose locks were refused.
	got, _ = c.answers("qemu-img", open(100, "f", readWriteCreate), refuse(100, 100, syscall.EINVAL, lockCommands...),
		lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String(), lock{fd: 100, cmd: ofdGetlk, kind: syscall.F_UNLCK}.String())
	if want := []string{"0 1 0 0 0 same", "-1 EINVAL 2 0 0 0 same"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// QEMU asks /dev/null for a lock to learn whether the kernel has OFD locks, and goes on without them where it has not.
func TestADeviceIsToldWhatTheKernelSays(t *testing.T) {
	c := newCaller(t)
	got, said := c.answers("qemu-img", open(100, "/dev/null", syscall.O_RDWR), refuse(100, 100, syscall.ENOLCK, lockCommands...),
		lock{fd: 100, cmd: ofdGetlk, kind: syscall.F_WRLCK}.String(), lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String())
	if want := []string{"-1 ENOLCK 1 0 0 0 same", "-1 ENOLCK 1 0 0 0 same"}; !slices.Equal(got, want) || said != "" {
		t.Errorf("%q, said %q", got, said)
	}
}

// Through descriptors from 100 on the kernel refuses, through those below it does not: so one file's locks stop and start.
func TestLocksThatStopAndStartInMidLife(t *testing.T) {
	set := func(fd, kind int) string { return lock{fd: fd, cmd: ofdSetlk, kind: kind, start: 100, len: 1}.String() }
	ask := func(fd int) string {
		return lock{fd: fd, cmd: ofdGetlk, kind: syscall.F_WRLCK, start: 100, len: 1}.String()
	}
	c := newCaller(t)
	got, said := c.answers("qemu-img",
		open(10, "f", readWriteCreate), "dup 10 100", "open 11 f 2", "dup 11 101", refuse(100, 199, syscall.ENOLCK, lockCommands...),
		set(10, syscall.F_WRLCK),  // held
		set(100, syscall.F_UNLCK), // they stop: what is held cannot be given back, and nothing was refused yet
		set(100, syscall.F_WRLCK), // refused
		set(100, syscall.F_UNLCK), // now it is known
		set(11, syscall.F_WRLCK),  // they start: the lock from before is still there, and is respected
		ask(11),
		ask(101), // refused: nobody can tell
		set(10, syscall.F_UNLCK),
		set(11, syscall.F_WRLCK), // and can be had again
		set(10, syscall.F_WRLCK),
	)
	want := []string{
		"0 1 0 100 1 same", "-1 ENOLCK 2 0 100 1 same", "0 1 0 100 1 same", "0 2 0 100 1 same", "-1 EAGAIN 1 0 100 1 same",
		"0 1 0 100 1 -1", "0 2 0 100 1 same", "0 2 0 100 1 same", "0 1 0 100 1 same", "-1 EAGAIN 1 0 100 1 same",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Count(said, "\n") != 1 {
		t.Errorf("said %q", said)
	}
}

func TestALockOfAnotherProcessIsRespected(t *testing.T) {
	c := newCaller(t)
	got, said := c.answers("qemu-img", open(10, "f", readWriteCreate), "hold f 100 1",
		lock{fd: 10, cmd: ofdSetlk, kind: syscall.F_WRLCK, start: 100, len: 1}.String(),
		lock{fd: 10, cmd: setlk, kind: syscall.F_WRLCK, start: 100, len: 1}.String(),
		lock{fd: 10, cmd: ofdSetlkw, kind: syscall.F_WRLCK, start: 100, len: 1}.String(),
		lock{fd: 10, cmd: ofdGetlk, kind: syscall.F_WRLCK, start: 100, len: 1}.String())
	want := []string{"-1 EAGAIN 1 0 100 1 same", "-1 EAGAIN 1 0 100 1 same", "-1 EINTR 1 0 100 1 same", "0 1 0 100 1 -1"}
	if diff := cmp.Diff(want, got); diff != "" || said != "" {
		t.Errorf("said %q; (-want +got):\n%s", said, diff)
	}
}

func TestForksVforksAndThreads(t *testing.T) {
	set := lock{fd: 100, cmd: ofdSetlk, kind: syscall.F_WRLCK}.String()
	c := newCaller(t)
	got, said := c.answers("libvirtd", open(100, "f", readWriteCreate), open(101, "g", readWriteCreate), refuse(100, 199, syscall.ENOLCK, lockCommands...),
		set, "fork", set, lock{fd: 101, cmd: setlkw, kind: syscall.F_WRLCK}.String(), "/", "vfork 101", "threads 16 100", "threads 16 101", set)
	want := []string{"0 1 0 0 0 same", "0 1 0 0 0 same", "0 1 0 0 0 same", "0", "16000 granted", "16000 granted", "0 1 0 0 0 same"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// f once. g in the child, whose memory ends with it, and in the child of vfork, whose memory is the parent's.
	if strings.Count(said, "/f: ") != 1 || strings.Count(said, "/g: ") != 2 {
		t.Errorf("said %q", said)
	}
}

// The C library's own function is called, so a thread that waits in it can be cancelled, as without the library.
func TestAThreadThatWaitsForALockCanBeCancelled(t *testing.T) {
	for _, name := range []string{"qemu-img", "cat"} {
		c := newCaller(t)
		if got, _ := c.answers(name, open(10, "f", readWriteCreate), "hold f 0 1", "cancel 10"); !slices.Equal(got, []string{"cancelled"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
