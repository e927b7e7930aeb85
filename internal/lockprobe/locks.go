package lockprobe

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// QEMU's bytes (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): one for each permission that is held, one for each
// that is denied to others. create fails at 101, convert and resize at 100, info at 201.
const (
	heldBase   = 100
	deniedBase = 200
	perms      = 5
)

// kind is one of the ways to lock.
type kind struct {
	name  string
	calls []lockCall
	free  func(fd int) error
}

type lockCall struct {
	name string // "F_OFD_SETLK shared, byte 100"
	do   func(fd int) error
}

// kinds are tried in this order, and each gives back what it took: an OFD lock and a POSIX lock keep each other out.
var kinds = []kind{
	fcntlKind("ofd", "F_OFD_SETLK", unix.F_OFD_SETLK, "F_OFD_GETLK", unix.F_OFD_GETLK),
	fcntlKind("posix", "F_SETLK", unix.F_SETLK, "F_GETLK", unix.F_GETLK),
	{
		"flock",
		[]lockCall{
			{"LOCK_SH", func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) }},
			{"LOCK_EX", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }},
		},
		func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) },
	},
}

func fcntlKind(name, set string, setlk int, get string, getlk int) kind {
	lock := func(cmd int, mode int16, start int64) func(int) error {
		return func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: mode, Start: start, Len: 1})
		}
	}
	return kind{
		name,
		[]lockCall{
			{fmt.Sprintf("%s shared, byte %d", set, heldBase), lock(setlk, unix.F_RDLCK, heldBase)},
			{fmt.Sprintf("%s shared, byte %d", set, deniedBase), lock(setlk, unix.F_RDLCK, deniedBase)},
			{fmt.Sprintf("%s, byte %d", get, deniedBase+1), lock(getlk, unix.F_WRLCK, deniedBase+1)},
			{fmt.Sprintf("%s exclusive, byte %d", set, heldBase+1), lock(setlk, unix.F_WRLCK, heldBase+1)},
			{fmt.Sprintf("%s exclusive, byte %d", set, deniedBase+1), lock(setlk, unix.F_WRLCK, deniedBase+1)},
		},
		func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), setlk, &unix.Flock_t{Type: unix.F_UNLCK, Start: heldBase, Len: deniedBase + perms - heldBase})
		},
	}
}

// try makes the calls until one does not succeed, and gives back what was taken.
func (k kind) try(fd int) Probe {
	began := time.Now()
	p := Probe{Result: Granted}
	for _, c := range append(k.calls[:len(k.calls):len(k.calls)], lockCall{"giving it back", k.free}) {
		if err := again(func() error { return c.do(fd) }); err != nil {
			p = failed(c.name, err)
			_ = k.free(fd)
			break
		}
	}
	p.MS = milliseconds(time.Since(began))
	return p
}

// askOFD asks whether somebody's locks would keep a writer out, and takes none: a lock taken here, for however short a time, could
// make the start of a guest fail.
func askOFD(fd int) Probe {
	began := time.Now()
	l := unix.Flock_t{Type: unix.F_WRLCK} // of length 0: the whole file
	err := again(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l) })
	p := Probe{Result: Granted, Detail: "F_OFD_GETLK: nobody is known to hold a lock"}
	switch {
	case err != nil:
		p = failed("F_OFD_GETLK", err)
	case l.Type != unix.F_UNLCK:
		mode := "a shared"
		if l.Type == unix.F_WRLCK {
			mode = "an exclusive"
		}
		bytes := fmt.Sprintf("from byte %d on", l.Start)
		if l.Len > 0 {
			bytes = fmt.Sprintf("on bytes %d to %d", l.Start, l.Start+l.Len-1)
		}
		p = Probe{Result: HeldBy, Detail: fmt.Sprintf("somebody has %s lock %s", mode, bytes)}
	}
	p.MS = milliseconds(time.Since(began))
	return p
}

func failed(call string, err error) Probe {
	p := Probe{Result: Refused, Detail: call}
	var no unix.Errno
	if errors.As(err, &no) {
		p.Errno = errnoName(no)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) { // fcntl(2) has both for it
		p.Result = HeldBy
	}
	return p
}

// errnoName is what people search for: of the two names that Linux has for one number, the one in fcntl(2).
func errnoName(no unix.Errno) string {
	if no == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(no)
}

// again repeats what a signal has interrupted: Go's runtime sends itself some.
func again(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
