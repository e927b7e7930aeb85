package supervise

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
)

// worker is this process's way to the one that supervises it; its files are nil where none does.
var worker struct {
	mutex  sync.Mutex
	answer *os.File
	side   *os.File
}

func work() {
	for _, fd := range []int{answerFile, sideFile} {
		syscall.CloseOnExec(fd)
	}
	worker.answer, worker.side = os.NewFile(answerFile, "answer"), os.NewFile(sideFile, "side")
}

// Supervised tells whether another process waits for the answer.
func Supervised() bool { return worker.answer != nil }

// CrashOutput is for debug.SetCrashOutput, so that the reason of an end is told. It is nil where nobody supervises this process. That package is
// initialized too late to be imported here.
func CrashOutput() *os.File { return worker.side }

// Answer hands the answer over, a JSON object; it is printed when this process has ended. The exit code is this process's.
func Answer(failure bool, text []byte) error {
	if failure {
		return say(failed, text)
	}
	return say(well, text)
}

// Known hands over what a failure has beside its reason if this process ends without an answer: a JSON object without failed, msg and exception.
func Known(text []byte) error { return say(known, text) }

func say(kind byte, text []byte) error {
	worker.mutex.Lock()
	defer worker.mutex.Unlock()
	if worker.answer == nil {
		return errors.New("nobody supervises this process")
	}
	frame := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text)))
	_, err := worker.answer.Write(append(frame, text...))
	return err
}

// Lend has the supervising process drop a lock of flock(2) when this process cannot end: a thread that cannot be killed keeps its files open.
func Lend(lock *os.File) {
	worker.mutex.Lock()
	defer worker.mutex.Unlock()
	if worker.side == nil {
		return
	}
	rights := syscall.UnixRights(int(lock.Fd()))
	_ = syscall.Sendmsg(sideFile, []byte{0}, rights, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}
