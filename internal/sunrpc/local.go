package sunrpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// socketPath is where programs of this host reach rpcbind, and those of containers that bind /run.
const socketPath = "/run/rpcbind.sock"

// loopback is how the kernel reaches both (fs/lockd/mon.c), and a container without /run.
const loopback = "127.0.0.1"

// Caller makes the calls: a Client, or what a test puts in its place.
type Caller interface {
	Null(ctx context.Context, t Target, program, version uint32) (time.Duration, error)
	Dump(ctx context.Context, t Target) ([]Registration, uint32, error)
}

// Condition is how a service fares when it is asked.
type Condition string

// Conditions of a service. Only answering is well.
const (
	Answering    Condition = "answers"
	Hanging      Condition = "hangs"        // it accepts connections, or drops packets, and is silent
	NotThere     Condition = "absent"       // nobody is there
	Unregistered Condition = "unregistered" // statd: a process, but rpcbind does not know it
	Dead         Condition = "dead"         // statd: registered, and nobody at its port
	Partial      Condition = "partial"      // rpcbind: over some of its three ways only
)

// Answers is what asking came to.
type Answers struct {
	RPCBind   Condition
	RPCBindMS float64 // the slowest of its ways
	RPCDetail string  // why it does not answer
	Statd     Condition
	StatdMS   float64
	StatdInfo string // why it does not answer
	Programs  []Registration
}

// AskLocal asks rpcbind of this host over its three ways at once, then statd, if that is wanted, at the ports that rpcbind names.
// Neither a process nor the state of a unit proves anything.
func AskLocal(ctx context.Context, c Caller, statd bool) Answers {
	at := net.JoinHostPort(loopback, strconv.Itoa(Port))
	targets := []Target{{Network: "unix", Address: socketPath}, {Network: "tcp", Address: at}, {Network: "udp", Address: at}}
	errs := make([]error, len(targets))
	took := make([]time.Duration, len(targets))
	var tables [2][]Registration
	var wait sync.WaitGroup
	for i, target := range targets {
		wait.Go(func() {
			began := time.Now()
			if target.Network == "udp" { // whose datagrams a large table would not fit
				_, errs[i] = c.Null(ctx, target, Portmapper, 2)
			} else {
				tables[i], _, errs[i] = c.Dump(ctx, target)
			}
			took[i] = time.Since(began)
		})
	}
	wait.Wait()
	a := Answers{RPCBind: Answering}
	failed := 0
	for i, err := range errs {
		a.RPCBindMS = max(a.RPCBindMS, milliseconds(took[i]))
		if err == nil {
			continue
		}
		failed++
		a.RPCDetail = strings.TrimPrefix(a.RPCDetail+"; "+fmt.Sprintf("%s: %s", targets[i], cause(err)), "; ")
		if errors.Is(err, ErrHangs) {
			a.RPCBind = Hanging
		}
	}
	switch {
	case failed == 0:
	case a.RPCBind == Hanging:
	case failed == len(targets):
		a.RPCBind = NotThere
	default:
		a.RPCBind = Partial
	}
	if a.Programs = tables[0]; a.Programs == nil {
		a.Programs = tables[1]
	}
	if statd {
		a.askStatd(ctx, c)
	}
	return a
}

func (a *Answers) askStatd(ctx context.Context, c Caller) {
	if a.Programs == nil {
		a.Statd, a.StatdInfo = NotThere, "rpcbind names no port"
		return
	}
	var targets []Target
	for _, r := range a.Programs {
		if port, ok := r.Port(); ok && r.Program == Status && r.Version == 1 && (r.NetID == "tcp" || r.NetID == "udp") {
			targets = append(targets, Target{Network: r.NetID, Address: net.JoinHostPort(loopback, strconv.Itoa(int(port)))})
		}
	}
	if len(targets) == 0 {
		a.Statd, a.StatdInfo = NotThere, "it is not registered"
		return
	}
	errs := make([]error, len(targets))
	took := make([]time.Duration, len(targets))
	var wait sync.WaitGroup
	for i, target := range targets {
		wait.Go(func() { took[i], errs[i] = c.Null(ctx, target, Status, 1) })
	}
	wait.Wait()
	a.Statd = Answering
	for i, err := range errs {
		a.StatdMS = max(a.StatdMS, milliseconds(took[i]))
		if err == nil {
			continue
		}
		a.StatdInfo = strings.TrimPrefix(a.StatdInfo+"; "+fmt.Sprintf("%s: %s", targets[i], cause(err)), "; ")
		if a.Statd = Dead; errors.Is(err, ErrHangs) {
			a.Statd = Hanging
		}
	}
}

// cause is the end of a chain of errors: the target is named beside it.
func cause(err error) string {
	var no syscall.Errno
	switch {
	case errors.As(err, &no):
		return no.Error()
	case errors.Is(err, ErrHangs):
		return ErrHangs.Error()
	}
	return err.Error()
}

// milliseconds has one digit behind the point.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }
