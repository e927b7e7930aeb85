package sunrpc

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
)

// ServerAnswers is what an NFS server says of what NFSv3 locks need there.
type ServerAnswers struct {
	Address string    // its address
	RPCBind Condition // answers, hangs or absent
	NLM     Condition // its lock manager: answers, hangs, dead or, if it is not registered, absent
	Statd   Condition // its status monitor, likewise
	Detail  string    // why one of them does not answer
}

// AskServer asks a server's rpcbind for its lock manager and its status monitor, and these whether they answer: over TCP, or over UDP
// where they are registered for that alone.
func AskServer(ctx context.Context, c Caller, address string) ServerAnswers {
	a := ServerAnswers{Address: address, RPCBind: Answering}
	rows, _, err := c.Dump(ctx, Target{Network: "tcp", Address: net.JoinHostPort(address, strconv.Itoa(Port))})
	if err != nil {
		a.RPCBind, a.Detail = condition(err, NotThere), cause(err)
		return a
	}
	var why []string
	a.NLM = a.ask(ctx, c, rows, NLM, 4, &why) // version 4 is that of NFSv3
	a.Statd = a.ask(ctx, c, rows, Status, 1, &why)
	a.Detail = strings.Join(why, "; ")
	return a
}

func (a ServerAnswers) ask(ctx context.Context, c Caller, rows []Registration, program, version uint32, why *[]string) Condition {
	for _, network := range []string{"tcp", "udp"} {
		for _, r := range rows {
			port, ok := r.Port()
			if !ok || r.Program != program || r.Version != version || r.NetID != network && r.NetID != network+"6" {
				continue
			}
			t := Target{Network: network, Address: net.JoinHostPort(a.Address, strconv.Itoa(int(port)))}
			if _, err := c.Null(ctx, t, program, version); err != nil {
				*why = append(*why, t.String()+": "+cause(err))
				return condition(err, Dead)
			}
			return Answering
		}
	}
	return NotThere
}

// condition is how a call failed: silence, or else.
func condition(err error, or Condition) Condition {
	if errors.Is(err, ErrHangs) {
		return Hanging
	}
	return or
}
