package sunrpc

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// filer is a server that answers by target.
type filer struct {
	errs  map[string]error // by "tcp 192.0.2.7:111"
	table []Registration
}

func (f filer) Null(_ context.Context, t Target, _, _ uint32) (time.Duration, error) {
	return time.Millisecond, f.errs[t.String()]
}

func (f filer) Dump(_ context.Context, t Target) ([]Registration, uint32, error) {
	return f.table, 4, f.errs[t.String()]
}

func TestAskServer(t *testing.T) {
	const address = "192.0.2.7"
	refused := fmt.Errorf("cannot call it: %w", syscall.ECONNREFUSED)
	hangs := fmt.Errorf("cannot call it: %w", ErrHangs)
	row := func(program, version uint32, netid string, port int) Registration {
		return Registration{Program: program, Version: version, NetID: netid, Address: fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&0xff)}
	}
	both := []Registration{row(NLM, 1, "tcp", 1), row(NLM, 4, "udp", 4000), row(NLM, 4, "tcp", 4001), row(Status, 1, "tcp", 4002)}
	for _, test := range []struct {
		name  string
		errs  map[string]error
		table []Registration
		want  ServerAnswers
	}{
		{"well", nil, both, ServerAnswers{RPCBind: Answering, NLM: Answering, Statd: Answering}},
		{"no rpcbind", map[string]error{"tcp 192.0.2.7:111": refused}, nil, ServerAnswers{RPCBind: NotThere, Detail: "connection refused"}},
		{"a wall between", map[string]error{"tcp 192.0.2.7:111": hangs}, nil, ServerAnswers{RPCBind: Hanging, Detail: "it does not answer"}},
		{"no lock manager", nil, both[3:], ServerAnswers{RPCBind: Answering, NLM: NotThere, Statd: Answering}},
		{"an old lock manager", nil, both[:1], ServerAnswers{RPCBind: Answering, NLM: NotThere, Statd: NotThere}},
		{"over UDP alone", map[string]error{"udp 192.0.2.7:4000": hangs}, both[1:2], ServerAnswers{RPCBind: Answering, NLM: Hanging, Statd: NotThere, Detail: "udp 192.0.2.7:4000: it does not answer"}},
		{"statd dead", map[string]error{"tcp 192.0.2.7:4002": refused}, both, ServerAnswers{RPCBind: Answering, NLM: Answering, Statd: Dead, Detail: "tcp 192.0.2.7:4002: connection refused"}},
	} {
		test.want.Address = address
		if got := AskServer(t.Context(), filer{test.errs, test.table}, address); got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
