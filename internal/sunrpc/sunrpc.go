// Package sunrpc asks ONC RPC services (RFC 5531) two things: whether they answer, with the NULL call, and, of rpcbind
// and the older portmapper (RFC 1833), what is registered there, with DUMP. It trusts nothing that comes back: each call
// has a deadline, and what is kept of a reply is bounded.
package sunrpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// Programs that this project asks, by their numbers in IANA's registry.
const (
	Portmapper uint32 = 100000 // rpcbind, too
	Status     uint32 = 100024 // rpc.statd
	NLM        uint32 = 100021 // the kernel's lock manager, of which NFSv3 has its locks
)

// Port is where rpcbind listens.
const Port = 111

// ErrHangs says that the service can be reached and does not answer in time: a process that is stopped, or stuck. One that
// is absent refuses instead.
var ErrHangs = errors.New("it does not answer")

// ErrMalformed says that a reply is not what the RFC prescribes, or more than any honest service sends.
var ErrMalformed = errors.New("its reply is malformed")

// RefusedError is a reply that refuses the call.
type RefusedError struct {
	Reason    string
	Low, High uint32 // the versions that the service has, where those are the reason
}

func (e *RefusedError) Error() string { return "it refuses the call: " + e.Reason }

// A Target is one service at one address.
type Target struct {
	Network string // "unix", "tcp" or "udp"
	Address string // a path, or host:port
}

func (t Target) String() string {
	if t.Network == "unix" {
		return t.Address
	}
	return t.Network + " " + t.Address
}

// Client makes calls. Its zero value gives each call defaultTimeout.
type Client struct {
	Timeout time.Duration // of one call, connecting included
}

// defaultTimeout is a thousand times what rpcbind and statd need on the same host (0.1 to 0.6 ms, measured), so that
// only one that is stuck exceeds it, and short enough to be waited for.
const defaultTimeout = 3 * time.Second

// Null makes the call that does nothing, procedure 0 of every program, and tells how long the answer took.
func (c Client) Null(ctx context.Context, t Target, program, version uint32) (time.Duration, error) {
	began := time.Now()
	rest, err := c.call(ctx, t, program, version, procNull)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes follow an answer that has none", ErrMalformed, len(rest))
	}
	if err != nil {
		return 0, fmt.Errorf("cannot call program %d version %d at %s: %w", program, version, t, err)
	}
	return time.Since(began), nil
}

// The procedures. DUMP has one number in rpcbind 3 and 4 and in portmapper 2.
const (
	procNull uint32 = 0
	procDump uint32 = 4
)

// call makes one call without arguments and returns what follows the header of a reply that accepts it.
func (c Client) call(ctx context.Context, t Target, program, version, procedure uint32) ([]byte, error) {
	limit := c.Timeout
	if limit == 0 {
		limit = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rest, err := exchange(ctx, t, rand.Uint32(), program, version, procedure)
	var slow net.Error
	switch {
	case err == nil:
		return rest, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	// A Unix socket whose queue of connections is full says EAGAIN at once, where TCP lets the caller wait: connect(2).
	case errors.Is(err, syscall.EAGAIN), ctx.Err() != nil, errors.As(err, &slow) && slow.Timeout():
		return nil, ErrHangs
	}
	return nil, err
}

func exchange(ctx context.Context, t Target, xid, program, version, procedure uint32) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the deadline alone knows nothing of a cancelled run
	defer stop()
	message := callMessage(xid, program, version, procedure)
	if t.Network == "udp" {
		if _, err := conn.Write(message); err != nil {
			return nil, err
		}
		return readDatagram(conn, xid)
	}
	if _, err := conn.Write(record(message)); err != nil {
		return nil, err
	}
	reply, err := readRecord(conn)
	if err != nil {
		return nil, err
	}
	return parseReply(reply, xid)
}

// maxDatagram is the largest payload of UDP over IPv4.
const maxDatagram = 65507

// readDatagram passes over replies to other calls, as late ones of an earlier caller at the same port would be, but not over
// any number of them.
func readDatagram(conn net.Conn, xid uint32) ([]byte, error) {
	buffer := make([]byte, maxDatagram)
	for range 32 {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		rest, err := parseReply(buffer[:n], xid)
		if !errors.Is(err, errOtherCall) {
			return rest, err
		}
	}
	return nil, errOtherCall
}
