package lockprobe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// attempt is what trying the locks of one mount came to.
type attempt struct {
	Probes  Probes
	Problem string // why no lock was tried, or not all
	Hangs   string // what did not answer in time: "open", "create", "ofd", …; empty if nothing
	As      *user  // whose the file was, nil for root
	Removed int    // files of earlier runs
	Missing bool   // there is no such path
	Image   bool   // it is a file
	Device  uint64 // of an image
	Inode   uint64
	Folder  *inode   // that was made
	Found   []string // images in the folder that was removed

	file   string // while it may still be there
	folder string // the name of Folder
	ended  bool
}

// take adds a line that the process printed.
func (a *attempt) take(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	switch e.At {
	case "":
	case "end":
		a.Hangs, a.file, a.ended = "", "", true
	default:
		a.Hangs = e.At
	}
	if fileName.MatchString(e.File) || folderName.MatchString(e.File) {
		a.file = e.File
	}
	if e.Probe != nil {
		if p := a.Probes.of(e.Kind); p != nil && slices.Contains([]Outcome{Granted, Refused, HeldBy}, e.Probe.Result) {
			*p = *e.Probe
			p.Errno, p.Detail = short(p.Errno), short(p.Detail)
		}
	}
	if e.Problem != "" {
		a.Problem, a.Hangs = short(e.Problem), ""
	}
	if e.As != nil {
		a.As = e.As
	}
	if e.Made != nil {
		a.Folder, a.folder = e.Made, a.file
	}
	if e.Found != nil {
		a.Found = e.Found
	}
	if e.Inode != 0 {
		a.Device, a.Inode, a.Image = e.Device, e.Inode, true
	}
	a.Missing = a.Missing || e.Missing
	a.Removed += e.Removed
}

// short bounds what comes from a process in a container, which the container may have replaced.
func short(text string) string { return text[:min(len(text), 1000)] }

func (p *Probes) of(kind string) *Probe {
	switch kind {
	case "ofd":
		return &p.OFD
	case "posix":
		return &p.POSIX
	case "flock":
		return &p.Flock
	}
	return nil
}

// settle says of each kind that was not tried why.
func (a *attempt) settle() {
	why := a.Problem
	if a.Hangs != "" {
		if p := a.Probes.of(a.Hangs); p != nil {
			*p = Probe{Result: Hung, Detail: p.Detail}
		}
		why = fmt.Sprintf("after %q, which hangs", a.Hangs)
	}
	if a.Image && why == "" {
		why = "locks of an image are asked for as OFD locks only, and none is taken"
	}
	for _, name := range []string{"ofd", "posix", "flock"} {
		if p := a.Probes.of(name); p.Result == "" {
			*p = Probe{Result: NotTried, Detail: why}
		}
	}
}

// readEvents reads until the process ends. Lines of any other kind are passed over; a line is short.
func (a *attempt) readEvents(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		a.take(lines.Bytes())
	}
}

// start runs this program as a process that takes locks, in the mount namespace that root belongs to, and waits for it until the
// task's deadline and a little more. One that survives even SIGKILL is left behind: nobody can end it before the mount answers.
func start(ctx context.Context, root *os.File, device string, t task) attempt {
	var a attempt
	if ctx.Err() != nil {
		a.Problem = "the run's time is up"
		return a
	}
	cmd, err := command(root, device, t)
	if err != nil {
		a.Problem = err.Error()
		return a
	}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		a.Problem = "cannot start a process for the locks: no pipe"
		return a
	}
	if err := cmd.Start(); err != nil {
		a.Problem = fmt.Sprintf("cannot start a process for the locks: %v", err)
		return a
	}
	lines := make(chan []byte)
	gone := make(chan struct{})
	go func() {
		defer close(lines)
		for text := bufio.NewScanner(out); text.Scan(); {
			select {
			case lines <- bytes.Clone(text.Bytes()):
			case <-gone:
				return
			}
		}
	}()
	a.follow(ctx, cmd, in, lines, t.limit())
	close(gone)
	go func() { // which may never return
		_ = cmd.Wait()
		in.Close()
	}()
	return a
}

// follow takes what the process prints until it ends. It ends itself at its deadline; it is told to when ctx ends; it is killed when
// it heeds neither, and left alone when even that does not help.
func (a *attempt) follow(ctx context.Context, cmd *exec.Cmd, in io.Closer, lines <-chan []byte, limit time.Duration) {
	cancelled := ctx.Done()
	timer := time.NewTimer(limit + 2*cleanLimit)
	defer timer.Stop()
	for killed := false; ; {
		select {
		case line, more := <-lines:
			if !more {
				return
			}
			a.take(line)
		case <-cancelled:
			cancelled = nil
			in.Close()
			timer.Reset(2 * cleanLimit)
		case <-timer.C:
			if killed {
				return
			}
			killed = true
			_ = cmd.Process.Kill()
			timer.Reset(cleanLimit)
		}
	}
}

func command(root *os.File, device string, t task) (*exec.Cmd, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("cannot start a process for the locks: %w", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = arguments(ProbeName, device, t, text)
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Dir = "/" // not in a folder that may be on such a mount
	cmd.ExtraFiles = []*os.File{root}
	return cmd, nil
}

func arguments(name, device string, t task, text []byte) []string {
	deadline := time.Now().Add(t.limit() + 4*cleanLimit).Unix()
	return []string{name, device, strconv.FormatInt(deadline, 10), string(text)}
}

// parseOutput reads what a process printed that ran in a container.
func parseOutput(text string) attempt {
	var a attempt
	a.readEvents(bytes.NewReader([]byte(text)))
	return a
}
