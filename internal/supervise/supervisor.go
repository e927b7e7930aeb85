package supervise

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/nfslock/ansible-collection-kolla/internal/shown"
)

const (
	endLimit = 2 * time.Second // for a worker that has answered, or is at its end, to be gone
	look     = time.Second     // how often it is looked whether the worker is at its end
	crashMax = 64 << 10        // bytes of what the runtime says of its end
	leftMax  = 32              // parts of what it has written that are passed on after its end; a pipe holds one
)

// supervisor is the first process. It waits by poll(2), in one thread: goroutines, and the threads that they want, would take half of the time that
// a second process costs.
type supervisor struct {
	pid     int // the worker's
	process int // a file that is ready when it can be waited for; -1 on kernels before 5.3
	answer  int // files; -1 once there is nothing more to come
	side    int
	chatter int // what it writes to its standard files

	said  []byte // not yet a whole text
	told  *text  // the answer
	known []byte
	crash []byte
	locks []int
}

// text is one thing that the worker says.
type text struct {
	kind byte
	text []byte
}

// end is how the worker ended.
type end struct {
	how  string
	code int // -1 if it has none
}

func start() (*supervisor, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var answer, chatter, side [2]int
	if err := syscall.Pipe2(answer[:], syscall.O_CLOEXEC); err != nil {
		return nil, err
	}
	if err := syscall.Pipe2(chatter[:], syscall.O_CLOEXEC); err != nil {
		closeAll(answer[:])
		return nil, err
	}
	side, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		closeAll(append(answer[:], chatter[:]...))
		return nil, err
	}
	s := &supervisor{process: -1, answer: answer[0], side: side[0], chatter: chatter[0]}
	// From here on a signal is the worker's.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	runtime.LockOSThread() // for Pdeathsig, which goes by the thread; this one lives as long as the process
	s.pid, err = syscall.ForkExec(program, append(append([]string{}, os.Args...), workerArgument), &syscall.ProcAttr{
		Env: os.Environ(),
		// Not this process's standard error: a worker that is left behind would keep whoever reads that to its end.
		Files: []uintptr{0, uintptr(chatter[1]), uintptr(chatter[1]), uintptr(answer[1]), uintptr(side[1])},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &s.process},
	})
	closeAll([]int{answer[1], side[1], chatter[1]})
	if err != nil {
		signal.Stop(signals)
		closeAll([]int{answer[0], side[0], chatter[0]})
		return nil, err
	}
	go func() {
		for got := range signals {
			if number, ok := got.(syscall.Signal); ok && number != syscall.SIGPIPE {
				_ = syscall.Kill(s.pid, number)
			}
		}
	}()
	return s, nil
}

func closeAll(files []int) {
	for _, file := range files {
		syscall.Close(file)
	}
}

// watch waits for the answer and for the worker's end, prints the one object, and returns the exit code.
func (s *supervisor) watch() int {
	for {
		s.listen(look)
		e, ended := s.wait()
		if !ended && (s.told != nil || s.answer < 0 || ending(s.pid)) {
			e, ended = s.await(), true
		}
		if ended {
			return s.conclude(e)
		}
	}
}

// listen takes up what the worker says, until it has said or ended something, limit at the longest. It tells whether it has.
func (s *supervisor) listen(limit time.Duration) bool {
	type pollFD struct {
		file           int32
		events, result int16
	}
	const pollIn = 1
	// poll(2) passes over negative ones
	files := [...]pollFD{{int32(s.answer), pollIn, 0}, {int32(s.side), pollIn, 0}, {int32(s.chatter), pollIn, 0}, {int32(s.process), pollIn, 0}}
	wait := syscall.NsecToTimespec(limit.Nanoseconds())
	n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&files[0])), uintptr(len(files)), uintptr(unsafe.Pointer(&wait)), 0, 0, 0)
	if int(n) <= 0 { // the time is up, or a signal came
		return false
	}
	if files[0].result != 0 {
		s.hearAnswer()
	}
	if files[1].result != 0 {
		s.hearSide()
	}
	if files[2].result != 0 {
		s.hearChatter()
	}
	return true
}

// hearChatter passes on what the worker writes to its standard files. Once nobody reads it any more the worker learns of that, too.
func (s *supervisor) hearChatter() {
	part := make([]byte, 64<<10)
	n, err := syscall.Read(s.chatter, part)
	if errors.Is(err, syscall.EINTR) {
		return
	}
	if err == nil && n > 0 {
		_, err = os.Stderr.Write(part[:n])
	}
	if err != nil || n == 0 {
		syscall.Close(s.chatter)
		s.chatter = -1
	}
}

func (s *supervisor) hearAnswer() {
	part := make([]byte, 64<<10)
	n, err := syscall.Read(s.answer, part)
	if errors.Is(err, syscall.EINTR) {
		return
	}
	if err != nil || n == 0 {
		s.answer = -1
		return
	}
	s.said = append(s.said, part[:n]...)
	for len(s.said) >= head {
		size := int(s.said[1])<<24 | int(s.said[2])<<16 | int(s.said[3])<<8 | int(s.said[4])
		if len(s.said) < head+size {
			return
		}
		t := text{s.said[0], s.said[head : head+size]}
		s.said = s.said[head+size:]
		switch {
		case t.kind == known:
			s.known = t.text
		case s.told == nil:
			s.told = &t
		}
	}
}

// hearSide takes up what the runtime says of its end, and locks.
func (s *supervisor) hearSide() {
	part, rights := make([]byte, 16<<10), make([]byte, syscall.CmsgSpace(4))
	n, m, _, _, err := syscall.Recvmsg(s.side, part, rights, syscall.MSG_CMSG_CLOEXEC)
	if errors.Is(err, syscall.EINTR) {
		return
	}
	if err != nil || n == 0 {
		s.side = -1
		return
	}
	messages, _ := syscall.ParseSocketControlMessage(rights[:m])
	for _, message := range messages {
		locks, _ := syscall.ParseUnixRights(&message)
		s.locks = append(s.locks, locks...)
	}
	if len(messages) == 0 && len(s.crash) < crashMax {
		s.crash = append(s.crash, part[:n]...)
	}
}

// wait tells how the worker ended, if it has.
func (s *supervisor) wait() (end, bool) {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(s.pid, &status, syscall.WNOHANG, nil)
	switch {
	case errors.Is(err, syscall.EINTR), err == nil && pid == 0:
		return end{}, false
	case err != nil:
		return end{err.Error(), -1}, true
	case status.Signaled():
		return end{"signal: " + status.Signal().String(), -1}, true
	}
	return end{"exit status " + strconv.Itoa(status.ExitStatus()), status.ExitStatus()}, true
}

// await gives a worker that has answered, or is at its end, the time to be gone. One that does not go is left behind, without its lock.
func (s *supervisor) await() end {
	for began := time.Now(); time.Since(began) < endLimit; {
		if e, ended := s.wait(); ended {
			return e
		}
		if s.process >= 0 {
			s.listen(look)
		} else {
			s.listen(time.Millisecond)
		}
	}
	_ = syscall.Kill(s.pid, syscall.SIGKILL) // it changes nothing more, whenever its threads come back
	for _, lock := range s.locks {
		_ = syscall.Flock(lock, syscall.LOCK_UN)
	}
	return end{"a thread of it waits for a filesystem that does not answer", -1}
}

// conclude prints the answer of a worker that has ended, of which a part may still be on its way, or what is to be said in its stead. A thread that
// is left has the worker's files open, so that there may be no end of what it says.
func (s *supervisor) conclude(e end) int {
	s.process = -1
	for began := time.Now(); s.told == nil && (s.answer >= 0 || s.side >= 0) && time.Since(began) < endLimit; {
		s.listen(100 * time.Millisecond)
	}
	s.answer, s.side = -1, -1
	for more := leftMax; more > 0 && s.chatter >= 0 && s.listen(0); more-- {
	}
	if s.told != nil {
		return s.print(*s.told, e)
	}
	return s.print(s.failure(e.how), end{e.how, 1})
}

// failure is the answer in the worker's stead.
func (s *supervisor) failure(how string) text {
	msg, crash := "the program ended without a result: "+how, bytes.TrimSpace(s.crash)
	rest := `,"changed":false}`
	if len(s.known) > len("{}") {
		rest = "," + string(s.known[1:])
	}
	if len(crash) > 0 {
		first, _, _ := bytes.Cut(crash, []byte("\n"))
		if bytes.HasPrefix(first, []byte("goroutine ")) { // of a fatal error, the runtime says no more here
			first = []byte("the program was ended by its runtime: " + how)
		}
		msg = "internal error, please report it: " + string(bytes.TrimPrefix(first, []byte("panic: ")))
		rest = `,"exception":` + quote(string(crash)) + rest
	}
	return text{failed, []byte(`{"failed":true,"msg":` + quote(msg) + rest + "\n")}
}

// quote makes a text one of JSON. encoding/json would have half of the program initialized before this package.
func quote(text string) string {
	out := []byte{'"'}
	for _, r := range shown.Text(text) {
		switch r {
		case '"', '\\':
			out = append(out, '\\', byte(r))
		case '\n':
			out = append(out, `\n`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return string(append(out, '"'))
}

func (s *supervisor) print(a text, e end) int {
	if _, err := os.Stdout.Write(a.text); err != nil {
		_, _ = os.Stderr.WriteString("cannot print the result: " + err.Error() + "\n")
		return 1
	}
	switch {
	case e.code >= 0:
		return e.code
	case a.kind == well:
		return 0
	}
	return 1
}

// ending tells whether a process is at its end, though nobody can wait for it yet: its main thread has ended, or is to be killed, as every thread
// is when one ends the process. It stays so while a thread cannot be killed: proc(5).
func ending(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "State":
			if len(value) > 0 && (value[0] == 'Z' || value[0] == 'X') {
				return true
			}
		case "SigPnd":
			signals, err := strconv.ParseUint(string(value), 16, 64)
			return err == nil && signals&(1<<(syscall.SIGKILL-1)) != 0
		}
	}
	return false
}
