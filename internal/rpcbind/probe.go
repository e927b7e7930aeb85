package rpcbind

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

	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// socketPath is where programs of this host reach rpcbind, and those of containers that bind /run.
const socketPath = "/run/rpcbind.sock"

// loopback is how the kernel reaches both (fs/lockd/mon.c), and a container without /run.
const loopback = "127.0.0.1"

// client makes the calls; tests put a fake in its place.
type client interface {
	Null(ctx context.Context, t sunrpc.Target, program, version uint32) (time.Duration, error)
	Dump(ctx context.Context, t sunrpc.Target) ([]sunrpc.Registration, uint32, error)
}

// ask asks rpcbind over its three ways at once, then statd at the ports that rpcbind names. Neither a process nor the state of a
// unit proves anything: see the package comment of sunrpc.
func ask(ctx context.Context, c client, statd bool) Answers {
	at := net.JoinHostPort(loopback, strconv.Itoa(sunrpc.Port))
	targets := []sunrpc.Target{{Network: "unix", Address: socketPath}, {Network: "tcp", Address: at}, {Network: "udp", Address: at}}
	errs := make([]error, len(targets))
	took := make([]time.Duration, len(targets))
	var tables [2][]sunrpc.Registration
	var wait sync.WaitGroup
	for i, target := range targets {
		wait.Go(func() {
			began := time.Now()
			if target.Network == "udp" { // whose datagrams a large table would not fit
				_, errs[i] = c.Null(ctx, target, sunrpc.Portmapper, 2)
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
		if errors.Is(err, sunrpc.ErrHangs) {
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

func (a *Answers) askStatd(ctx context.Context, c client) {
	if a.Programs == nil {
		a.Statd, a.StatdInfo = NotThere, "rpcbind names no port"
		return
	}
	var targets []sunrpc.Target
	for _, r := range a.Programs {
		if port, ok := r.Port(); ok && r.Program == sunrpc.Status && r.Version == 1 && (r.NetID == "tcp" || r.NetID == "udp") {
			targets = append(targets, sunrpc.Target{Network: r.NetID, Address: net.JoinHostPort(loopback, strconv.Itoa(int(port)))})
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
		wait.Go(func() { took[i], errs[i] = c.Null(ctx, target, sunrpc.Status, 1) })
	}
	wait.Wait()
	a.Statd = Answering
	for i, err := range errs {
		a.StatdMS = max(a.StatdMS, milliseconds(took[i]))
		if err == nil {
			continue
		}
		a.StatdInfo = strings.TrimPrefix(a.StatdInfo+"; "+fmt.Sprintf("%s: %s", targets[i], cause(err)), "; ")
		if a.Statd = Dead; errors.Is(err, sunrpc.ErrHangs) {
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
	case errors.Is(err, sunrpc.ErrHangs):
		return sunrpc.ErrHangs.Error()
	}
	return err.Error()
}

// milliseconds has one digit behind the point.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }
