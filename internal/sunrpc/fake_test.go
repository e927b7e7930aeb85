package sunrpc

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// rpcCall is a call as a server sees it.
type rpcCall struct{ xid, program, version, procedure uint32 }

func parseCall(t *testing.T, b []byte) rpcCall {
	if len(b) != 40 {
		t.Errorf("a call has %d bytes, not 40", len(b))
		return rpcCall{}
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	if word(1) != 0 || word(2) != 2 || word(6) != 0 || word(7) != 0 || word(8) != 0 || word(9) != 0 {
		t.Errorf("this is no call of RPC 2 without arguments and credentials: % x", b)
	}
	return rpcCall{word(0), word(3), word(4), word(5)}
}

// serve answers each call with what answer gives, on a new socket of its own, until the test ends. No answer is silence.
func serve(t *testing.T, network string, answer func(rpcCall) []byte) Target {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			buffer := make([]byte, 1500)
			for {
				n, from, err := conn.ReadFrom(buffer)
				if err != nil {
					return
				}
				if reply := answer(parseCall(t, buffer[:n])); reply != nil {
					_, _ = conn.WriteTo(reply, from)
				}
			}
		}()
		return Target{"udp", conn.LocalAddr().String()}
	}
	return serveStream(t, network, func(conn net.Conn) {
		for {
			message, err := readRecord(conn)
			if err != nil {
				return
			}
			reply := answer(parseCall(t, message))
			if reply == nil {
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			_, _ = conn.Write(record(reply))
		}
	})
}

// serveStream hands each connection to talk.
func serveStream(t *testing.T, network string, talk func(net.Conn)) Target {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range open {
			conn.Close()
		}
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			go func() {
				defer conn.Close()
				talk(conn)
			}()
		}
	}()
	return Target{network, listener.Addr().String()}
}

func words(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// accept is a reply that accepts the call.
func accept(xid uint32, results ...byte) []byte {
	return append(words(xid, 1, 0, 0, 0, 0), results...)
}

func xdrString(s string) []byte {
	b := append(words(uint32(len(s))), s...)
	return append(b, make([]byte, (4-len(s)%4)%4)...)
}

// encodeDump is the inverse of parseDump for the versions 3 and 4.
func encodeDump(rows []Registration) (b []byte) {
	for _, r := range rows {
		b = append(b, words(1, r.Program, r.Version)...)
		for _, s := range []string{r.NetID, r.Address, r.Owner} {
			b = append(b, xdrString(s)...)
		}
	}
	return append(b, words(0)...)
}

// rpcbind answers as rpcbind does that has the versions down from newest.
func rpcbind(newest uint32, rows []Registration) func(rpcCall) []byte {
	return func(c rpcCall) []byte {
		switch {
		case c.program != Portmapper:
			return words(c.xid, 1, 0, 0, 0, 1)
		case c.version < 2 || c.version > newest:
			return words(c.xid, 1, 0, 0, 0, 2, 2, newest)
		case c.procedure == procNull:
			return accept(c.xid)
		case c.procedure != procDump:
			return words(c.xid, 1, 0, 0, 0, 3)
		case c.version > 2:
			return accept(c.xid, encodeDump(rows)...)
		}
		var b []byte
		for _, r := range rows {
			protocol, ok := map[string]uint32{"tcp": 6, "udp": 17}[r.NetID]
			if port, _ := r.Port(); ok {
				b = append(b, words(1, r.Program, r.Version, protocol, uint32(port))...)
			}
		}
		return accept(c.xid, append(b, words(0)...)...)
	}
}
