// Package supervise has a program work in a second process of its own, and sees to it that there is an answer, and an end, whatever becomes of
// that one: one that panics, that is killed, or of which a thread waits for a filesystem that never answers. Such a thread cannot be
// killed (fuse_dev.c: "Either request is already in userspace, or it was forced. Wait it out."), and nobody who waits for its process
// gets past that. The first process does nothing but wait, so it is never in that state. It knows nothing of what the program does.
//
// It imports few packages, and none (as strings) that would be initialized after most others: the first process needs none of those. See
// docs/decisions/0019-watchdog.md.
package supervise

import (
	"os"
	"syscall"
)

// workerArgument is what the second process has behind the arguments of the first.
const workerArgument = "worker"

// The second process's files, beside the standard ones. What it writes to those goes to the first one's standard error.
const (
	answerFile = 3 // a pipe: what is known, and the answer
	sideFile   = 4 // a socket: what the runtime says of its end, and locks
)

// Start makes a second process of this one, and ends with it. It returns in that second one. It also returns where the program was not
// called with the one argument that a module has, and where no second process can be had, as with too few open files: work is then done unsupervised.
func Start() {
	switch {
	case len(os.Args) == 3 && os.Args[2] == workerArgument && is(answerFile, syscall.S_IFIFO) && is(sideFile, syscall.S_IFSOCK):
		os.Args = os.Args[:2]
		work()
	case len(os.Args) == 2 && os.Args[1] != "" && os.Args[1][0] != '-':
		if s, err := start(); err == nil {
			os.Exit(s.watch())
		}
	}
}

func is(fd int, kind uint32) bool {
	var info syscall.Stat_t
	return syscall.Fstat(fd, &info) == nil && info.Mode&syscall.S_IFMT == kind
}

// Kinds of what the worker says. A text has a head: a byte for its kind, and its length in four.
const (
	known  = 'k' // what is in the result if the worker ends now
	well   = 'w' // the answer
	failed = 'f' // the answer, of a failure

	head = 5
)
