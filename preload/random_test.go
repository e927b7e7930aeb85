package preload

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A call is a line of a random sequence. Those that answer nothing have no lock and are not judged.
type call struct {
	line string
	lock *lock
	file string // of the descriptor
}

// sequence makes calls of every kind, right ones and wrong ones, on a few files, a device, a folder and a descriptor that is not open. Another
// process holds locks on a part of one file. Where refusing, the kernel refuses what goes through some descriptors.
func sequence(r *rand.Rand, refusing bool) (calls []call) {
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	files := map[int]string{}
	say := func(line string) { calls = append(calls, call{line: line}) }
	opened := func(fd int, path string, flags int) {
		files[fd] = path
		say(open(fd, path, flags))
	}
	for i := range 3 {
		opened(10+i, fmt.Sprint("f", i), readWriteCreate)
	}
	opened(13, "f0", syscall.O_RDONLY)
	opened(14, "f1", syscall.O_WRONLY)
	opened(15, "f2", syscall.O_RDWR)
	opened(16, ".", syscall.O_RDONLY)
	opened(17, "/dev/null", syscall.O_RDWR)
	opened(18, "f0", unix.O_PATH)
	say("hold f0 50 20")
	if refusing {
		for i, errno := range slices.Concat(noLocks, []syscall.Errno{syscall.EIO, syscall.EAGAIN}) {
			fd := 100 + 10*i
			opened(fd, fmt.Sprint("f", i%3), syscall.O_RDWR)
			opened(fd+1, pickText(r, "f0", "f1", "f2", "/dev/null"), syscall.O_RDWR)
			for _, cmd := range lockCommands {
				if r.IntN(4) > 0 {
					say(refuse(fd, fd+9, errno, cmd))
				}
			}
		}
		// More files than are remembered.
		for i := range 80 {
			opened(300+i, fmt.Sprint("g", i), readWriteCreate)
		}
		say(refuse(300, 399, syscall.ENOLCK, lockCommands...))
	}
	var fds []int
	for fd := range files {
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	fds = append(fds, 99, -1) // not open
	for range 200 {
		fd := fds[r.IntN(len(fds))]
		if r.IntN(5) > 0 {
			// Mostly sound.
			l := lock{fd: fd, cmd: lockCommands[r.IntN(len(lockCommands))], kind: r.IntN(3), start: int64(r.IntN(100)), len: int64(r.IntN(30)), name: pickText(r, "lock", "lock64")}
			if r.IntN(4) == 0 {
				l.kind = pick(0, 1, 2, 3, -1, 77)
				l.whence = pick(0, 1, 2, 3, -1)
				l.start = [...]int64{0, -1, 1 << 62, 1<<63 - 1, -1 << 63, 100}[r.IntN(6)]
				l.len = [...]int64{0, -1, 1 << 62, 1<<63 - 1, -1 << 63, -100}[r.IntN(6)]
				l.pid = pick(0, 0, 1, -1)
			}
			calls = append(calls, call{line: l.String(), lock: &l, file: files[fd]})
			continue
		}
		switch r.IntN(5) {
		case 0: // a second descriptor of the same opened file
			if files[fd] != "" {
				to := 200 + r.IntN(20)
				files[to] = files[fd]
				say(fmt.Sprintf("dup %d %d", fd, to))
				fds = append(fds, to)
			}
		case 1: // closing lets go of POSIX locks
			if fd > 0 && fd < 100 && fd != 99 {
				say(fmt.Sprint("close ", fd))
				opened(fd, files[fd], [...]int{syscall.O_RDWR, syscall.O_RDONLY}[b(files[fd] == ".")])
			}
		case 2:
			// Not those that send signals (owners are set on purpose), and no locks: the next case has them.
			cmd := pick(syscall.F_GETFD, syscall.F_GETFL, syscall.F_GETOWN, unix.F_GETSIG, unix.F_GETLEASE, unix.F_GET_SEALS, unix.F_GETPIPE_SZ, unix.F_GET_RW_HINT, 4, 9, 99, 12345, -1, 1<<31-1, -1<<31)
			number := pick(0, 1, -1, 3, 1<<20)
			switch r.IntN(4) {
			case 0:
				cmd, number = syscall.F_SETFD, pick(0, 1)
			case 1:
				cmd, number = syscall.F_SETFL, pick(0, syscall.O_APPEND, syscall.O_NONBLOCK)
			}
			if cmd == syscall.F_SETFL || cmd == 4 {
				cmd, number = syscall.F_SETFL, number&^syscall.O_ASYNC
			}
			say(fmt.Sprintf("int %d %d %d", fd, cmd, number))
		case 3:
			if !refusing { // the kernel looks at what it is given before a filesystem refuses; seccomp does not
				say(fmt.Sprintf("%s %d %d", pickText(r, "null", "bad"), fd, lockCommands[r.IntN(len(lockCommands))]))
			}
		case 4:
			say(fmt.Sprintf("int %d %d 0", fd, syscall.F_GETOWN))
		}
	}
	return calls
}

func b(is bool) int {
	if is {
		return 1
	}
	return 0
}

func pickText(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// lines of the calls, and those calls that print an answer.
func script(calls []call) (lines []string, answering []call) {
	for _, c := range calls {
		lines = append(lines, c.line)
		if word, _, _ := strings.Cut(c.line, " "); c.lock != nil || slices.Contains([]string{"int", "null", "bad"}, word) {
			answering = append(answering, c)
		}
	}
	return lines, answering
}

func randomly(t *testing.T, check func(t *testing.T, r *rand.Rand)) {
	sequences := 15
	if text := os.Getenv("NFSLOCK_RANDOM_SEQUENCES"); text != "" {
		sequences, _ = strconv.Atoi(text)
	}
	first := rand.Uint64()
	if text := os.Getenv("NFSLOCK_RANDOM_SEED"); text != "" {
		first, _ = strconv.ParseUint(text, 10, 64)
	}
	for seed := first; seed < first+uint64(sequences); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			check(t, rand.New(rand.NewPCG(seed, 0)))
			if t.Failed() {
				t.Logf("NFSLOCK_RANDOM_SEED=%d NFSLOCK_RANDOM_SEQUENCES=1 repeats it", seed)
			}
		})
	}
}

// Where locks work nobody sees the library: each call answers the same, `errno` is the same, nothing is said.
func TestRandomCallsAreAnsweredAsWithoutTheLibrary(t *testing.T) {
	randomly(t, func(t *testing.T, r *rand.Rand) {
		lines, answering := script(sequence(r, false))
		stock, with := newCaller(t), newCaller(t)
		stock.library = ""
		want, _ := stock.answers("qemu-img", lines...)
		got, said := with.answers("qemu-img", lines...)
		if diff := cmp.Diff(want, got); diff != "" || said != "" || len(got) != len(answering) {
			t.Errorf("%d calls, %d answers, said %q; (-without +with):\n%s", len(answering), len(got), said, diff)
		}
	})
}

// Where locks are refused, an answer is what the kernel says, or what a few rules make of it. They are written here once more, without
// the code; the kernel is the one of a run without the library.
func TestRandomRefusalsAreAnsweredByTheRules(t *testing.T) {
	randomly(t, func(t *testing.T, r *rand.Rand) {
		lines, answering := script(sequence(r, true))
		stock, with := newCaller(t), newCaller(t)
		stock.library = ""
		kernel, _ := stock.answers("qemu-img", lines...)
		if len(kernel) != len(answering) {
			t.Fatalf("%d calls, %d answers", len(answering), len(kernel))
		}
		var remembered []string
		var want []string
		warnings := 0
		for i, c := range answering {
			answer := kernel[i]
			if c.lock == nil || !means(answer, *c.lock) || c.file == "/dev/null" {
				want = append(want, answer)
				continue
			}
			known := slices.Contains(remembered, c.file)
			if c.lock.kind == syscall.F_UNLCK && !known {
				want = append(want, answer)
				continue
			}
			if !known {
				remembered = append(remembered, c.file)
				remembered = remembered[max(0, len(remembered)-64):]
				warnings++
			}
			kind := c.lock.kind
			if c.lock.cmd == getlk || c.lock.cmd == ofdGetlk {
				kind = syscall.F_UNLCK
			}
			want = append(want, fmt.Sprintf("0 %d %d %d %d same", int16(kind), int16(c.lock.whence), c.lock.start, c.lock.len))
		}
		got, said := with.answers("qemu-img", lines...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := strings.Count(said, "\n"); n != warnings {
			t.Errorf("%d warnings, %d were wanted: %s", n, warnings, said)
		}
	})
}

// means tells whether the kernel's answer means that there are no locks.
func means(answer string, l lock) bool {
	words := strings.Fields(answer)
	if words[0] != "-1" {
		return false
	}
	switch words[1] {
	case "ENOLCK", "ENOTSUP", "ENOSYS":
		return true
	case "EINVAL":
		question := l.cmd == getlk || l.cmd == ofdGetlk
		right := l.kind == syscall.F_RDLCK || l.kind == syscall.F_WRLCK || l.kind == syscall.F_UNLCK && !question
		return right && l.whence == 0 && l.start >= 0 && l.len >= 0 && (l.pid == 0 || l.cmd < ofdGetlk)
	}
	return false
}
