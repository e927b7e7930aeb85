package sunrpc

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// fakeClient answers by target: an error, or the table.
type fakeClient struct {
	errs  map[string]error // by "unix", "tcp", "udp" for rpcbind, "tcp:40000" for a port
	table []Registration
}

func (c fakeClient) Null(_ context.Context, t Target, program, _ uint32) (time.Duration, error) {
	if program == Portmapper {
		return time.Millisecond, c.errs[t.Network]
	}
	return time.Millisecond, c.errs[t.Network+t.Address[len(loopback):]]
}

func (c fakeClient) Dump(_ context.Context, t Target) ([]Registration, uint32, error) {
	if err := c.errs[t.Network]; err != nil {
		return nil, 4, err
	}
	return c.table, 4, nil
}

func TestAskLocal(t *testing.T) {
	refused := fmt.Errorf("cannot call it: %w", syscall.ECONNREFUSED)
	hangs := fmt.Errorf("cannot call it: %w", ErrHangs)
	own := Registration{Program: Portmapper, Version: 4, NetID: "tcp", Address: "0.0.0.0.0.111"}
	statd := []Registration{
		own,
		{Program: Status, Version: 1, NetID: "udp", Address: "0.0.0.0.156.64"}, // 40000
		{Program: Status, Version: 1, NetID: "tcp", Address: "0.0.0.0.156.65"},
		{Program: Status, Version: 1, NetID: "tcp6", Address: "::.1.1"},
	}
	tests := []struct {
		name    string
		errs    map[string]error
		table   []Registration
		rpcbind Condition
		statd   Condition
		info    string
	}{
		{"well", nil, statd, Answering, Answering, ""},
		{"nobody", map[string]error{"unix": syscall.ENOENT, "tcp": refused, "udp": refused}, nil, NotThere, NotThere, "rpcbind names no port"},
		{"stopped", map[string]error{"unix": hangs, "tcp": hangs, "udp": hangs}, nil, Hanging, NotThere, "rpcbind names no port"},
		{"one way hangs", map[string]error{"udp": hangs}, statd, Hanging, Answering, ""},
		{"no socket", map[string]error{"unix": syscall.ENOENT}, statd, Partial, Answering, ""},
		{"no port", map[string]error{"tcp": refused, "udp": refused}, statd, Partial, Answering, ""},
		{"malformed", map[string]error{"tcp": ErrMalformed}, statd, Partial, Answering, ""},
		{"no statd", nil, []Registration{own}, Answering, NotThere, "it is not registered"},
		{"statd dead", map[string]error{"udp:40000": refused, "tcp:40001": refused}, statd, Answering, Dead, "udp 127.0.0.1:40000: connection refused; tcp 127.0.0.1:40001: connection refused"},
		{"statd stopped", map[string]error{"udp:40000": hangs, "tcp:40001": hangs}, statd, Answering, Hanging, "udp 127.0.0.1:40000: it does not answer; tcp 127.0.0.1:40001: it does not answer"},
		{"another at statd's port", map[string]error{"tcp:40001": &RefusedError{Reason: "it has no such program"}}, statd, Answering, Dead, "tcp 127.0.0.1:40001: it refuses the call: it has no such program"},
	}
	for _, test := range tests {
		a := AskLocal(t.Context(), fakeClient{test.errs, test.table}, true)
		if a.RPCBind != test.rpcbind || a.Statd != test.statd || a.StatdInfo != test.info {
			t.Errorf("%s: rpcbind %s (%s), statd %s (%s)", test.name, a.RPCBind, a.RPCDetail, a.Statd, a.StatdInfo)
		}
		if (a.RPCDetail == "") != (len(test.errs) == 0 || test.rpcbind == Answering) {
			t.Errorf("%s: detail %q", test.name, a.RPCDetail)
		}
	}
	if a := AskLocal(t.Context(), fakeClient{map[string]error{"udp:40000": errors.New("it was asked")}, statd}, false); a.Statd != "" {
		t.Errorf("statd is not wanted: %+v", a)
	}
}
