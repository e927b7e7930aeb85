package sshdtest

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy passes connections on and disturbs them.
type Proxy struct {
	Addr        string
	Connections atomic.Int64 // so many were accepted
	Bytes       atomic.Int64 // so many came from the server, over all connections
	// At is asked with each connection's number, from 1, and the bytes that it brought so far; what it returns happens to that
	// connection.
	at     func(connection, bytes int64) Fate
	listen net.Listener
	open   sync.Map
}

// Fate is what becomes of a connection.
type Fate int

// The fates.
const (
	Go     Fate = iota
	Cut         // both sides are closed
	Silent      // it stays open, and nothing passes any more
)

// Through starts a proxy to addr, which ends with the test.
func Through(t testing.TB, addr string, at func(connection, bytes int64) Fate) *Proxy {
	t.Helper()
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listen.Addr().String(), at: at, listen: listen}
	t.Cleanup(func() {
		listen.Close()
		p.open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			client, err := listen.Accept()
			if err != nil {
				return
			}
			p.open.Store(client, nil)
			go p.pass(client, p.Connections.Add(1), addr)
		}
	}()
	return p
}

func (p *Proxy) pass(client net.Conn, number int64, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	p.open.Store(server, nil)
	go func() {
		_, err := io.Copy(server, client)
		if !errors.Is(err, net.ErrClosed) {
			server.Close()
		}
	}()
	buf := make([]byte, 4096)
	for total := int64(0); ; {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		switch p.at(number, total+int64(n)) {
		case Cut:
			return
		case Silent:
			_, _ = io.Copy(io.Discard, server) // until somebody gives up
			return
		case Go:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
		total += int64(n)
		p.Bytes.Add(int64(n))
	}
}
