package sunrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var table = []Registration{
	{Portmapper, 4, "tcp6", "::.0.111", "superuser"},
	{Portmapper, 4, "local", "/run/rpcbind.sock", "superuser"},
	{Portmapper, 2, "udp", "0.0.0.0.0.111", "superuser"},
	{Status, 1, "udp", "0.0.0.0.165.7", "106"},
	{Status, 1, "tcp", "0.0.0.0.200.255", "106"},
}

var networks = []string{"unix", "tcp", "udp"}

func TestDumpGivesTheTableInTheNewestVersionThatBothHave(t *testing.T) {
	mapped := []Registration{
		{Portmapper, 2, "udp", "0.0.0.0.0.111", ""},
		{Status, 1, "udp", "0.0.0.0.165.7", ""},
		{Status, 1, "tcp", "0.0.0.0.200.255", ""},
	}
	for _, network := range networks {
		for newest, want := range map[uint32][]Registration{4: table, 3: table, 2: mapped} {
			target := serve(t, network, rpcbind(newest, table))
			got, version, err := Client{}.Dump(t.Context(), target)
			if err != nil || version != newest {
				t.Errorf("%s, version %d: version %d, %v", network, newest, version, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, version %d (-want +got):\n%s", network, newest, diff)
			}
		}
	}
}

func TestNullIsAnswered(t *testing.T) {
	for _, network := range networks {
		target := serve(t, network, rpcbind(4, nil))
		if took, err := (Client{}).Null(t.Context(), target, Portmapper, 2); err != nil || took <= 0 {
			t.Errorf("%s: %v, %v", network, took, err)
		}
	}
}

func TestARefusalIsNoSilence(t *testing.T) {
	tests := map[string]struct {
		reply []byte
		want  RefusedError
	}{
		"program":      {words(0, 1, 0, 0, 0, 1), RefusedError{Reason: "it has no such program"}},
		"version":      {words(0, 1, 0, 0, 0, 2, 2, 3), RefusedError{"it has versions 2 to 3 only", 2, 3}},
		"procedure":    {words(0, 1, 0, 0, 0, 3), RefusedError{Reason: "it has no such procedure"}},
		"arguments":    {words(0, 1, 0, 0, 0, 4), RefusedError{Reason: "it cannot read the arguments"}},
		"system":       {words(0, 1, 0, 0, 0, 5), RefusedError{Reason: "system error"}},
		"RPC":          {words(0, 1, 1, 0, 1, 1), RefusedError{Reason: "it speaks RPC versions 1 to 1 only"}},
		"credentials":  {words(0, 1, 1, 1, 5), RefusedError{Reason: "authentication, status 5"}},
		"a verifier":   {append(words(0, 1, 0, 1, 4, 0xffffffff), words(1)...), RefusedError{Reason: "it has no such program"}},
		"odd verifier": {append(words(0, 1, 0, 1, 5, 0xffffffff, 0xff000000), words(1)...), RefusedError{Reason: "it has no such program"}},
	}
	for name, test := range tests {
		for _, network := range networks {
			target := serve(t, network, func(c rpcCall) []byte {
				return append(words(c.xid), test.reply[4:]...)
			})
			_, err := Client{}.Null(t.Context(), target, Status, 1)
			var got *RefusedError
			if !errors.As(err, &got) || *got != test.want {
				t.Errorf("%s over %s: %v", name, network, err)
			}
		}
	}
}

func TestAbsentIsNotHanging(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
	for target, want := range map[Target]error{
		{"tcp", address}: syscall.ECONNREFUSED,
		{"udp", address}: syscall.ECONNREFUSED,
		{"unix", filepath.Join(t.TempDir(), "none")}: os.ErrNotExist,
	} {
		if _, err := (Client{}).Null(t.Context(), target, Portmapper, 4); !errors.Is(err, want) || errors.Is(err, ErrHangs) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestSilenceHangs is rpcbind after SIGSTOP: connections are accepted, by the kernel, and nobody answers.
func TestSilenceHangs(t *testing.T) {
	for _, network := range networks {
		target := serve(t, network, func(rpcCall) []byte { return nil })
		began := time.Now()
		_, _, err := Client{Timeout: 50 * time.Millisecond}.Dump(t.Context(), target)
		if !errors.Is(err, ErrHangs) {
			t.Errorf("%s: %v", network, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: it took %v", network, took)
		}
	}
}

// TestAFullQueueHangs: the queue of a Unix socket that nobody accepts from any more refuses with EAGAIN.
func TestAFullQueueHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // fill it
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	if _, err := (Client{Timeout: time.Second}).Null(t.Context(), Target{"unix", path}, Portmapper, 4); !errors.Is(err, ErrHangs) {
		t.Errorf("%v", err)
	}
}

func TestACancelledRunIsNotHanging(t *testing.T) {
	target := serve(t, "tcp", func(rpcCall) []byte { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	_, err := Client{Timeout: time.Minute}.Null(ctx, target, Portmapper, 4)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrHangs) {
		t.Error(err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestHostileStreams: each talk reads the call and then misbehaves. Time and memory stay bounded.
func TestHostileStreams(t *testing.T) {
	forever := func(conn net.Conn, pause time.Duration, b ...byte) {
		for {
			if _, err := conn.Write(b); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}
	row := encodeDump(table[:1])
	row = row[:len(row)-4]
	tests := map[string]struct {
		talk func(net.Conn, uint32)
		want error
	}{
		"a fragment of 2 GiB announced": {func(c net.Conn, _ uint32) { _, _ = c.Write(words(0x7fffffff)); forever(c, 0, make([]byte, 4096)...) }, ErrMalformed},
		"a record cut off":              {func(c net.Conn, xid uint32) { _, _ = c.Write(append(words(lastFragment|100), accept(xid)...)) }, ErrMalformed},
		"a mark cut off":                {func(c net.Conn, _ uint32) { _, _ = c.Write([]byte{0x80, 0}) }, ErrMalformed},
		"no reply at all":               {func(net.Conn, uint32) {}, ErrMalformed},
		"bytes that trickle": {func(c net.Conn, _ uint32) {
			_, _ = c.Write(words(lastFragment | 1000))
			forever(c, 10*time.Millisecond, 0)
		}, ErrHangs},
		"empty fragments without end": {func(c net.Conn, _ uint32) { forever(c, 0, words(0)...) }, ErrMalformed},
		"small fragments without end": {func(c net.Conn, _ uint32) { forever(c, 0, append(words(1), 7)...) }, ErrMalformed},
		"another xid":                 {func(c net.Conn, xid uint32) { _, _ = c.Write(record(accept(xid + 1))) }, ErrMalformed},
		"a call for a reply":          {func(c net.Conn, xid uint32) { _, _ = c.Write(record(callMessage(xid, 1, 1, 1))) }, ErrMalformed},
		"an unknown status":           {func(c net.Conn, xid uint32) { _, _ = c.Write(record(words(xid, 1, 7))) }, ErrMalformed},
		"a verifier of 4 GiB":         {func(c net.Conn, xid uint32) { _, _ = c.Write(record(words(xid, 1, 0, 0, 0xffffffff, 0))) }, ErrMalformed},
		"a string of 4 GiB":           {func(c net.Conn, xid uint32) { _, _ = c.Write(record(accept(xid, words(1, 1, 1, 0xffffffff)...))) }, ErrMalformed},
		"a string longer than any": {func(c net.Conn, xid uint32) {
			_, _ = c.Write(record(accept(xid, append(words(1, 1, 1), xdrString(string(make([]byte, 300)))...)...)))
		}, ErrMalformed},
		"a boolean of 2":            {func(c net.Conn, xid uint32) { _, _ = c.Write(record(accept(xid, words(2)...))) }, ErrMalformed},
		"a list without its end":    {func(c net.Conn, xid uint32) { _, _ = c.Write(record(accept(xid, row...))) }, ErrMalformed},
		"something behind the list": {func(c net.Conn, xid uint32) { _, _ = c.Write(record(accept(xid, words(0, 0)...))) }, ErrMalformed},
		"more rows than any": {func(c net.Conn, xid uint32) {
			_, _ = c.Write(record(accept(xid, slices.Repeat(words(1, 1, 1, 0, 0, 0), maxRows+1)...)))
		}, ErrMalformed},
		"a table without end": {func(c net.Conn, xid uint32) { hose(c, accept(xid), row) }, ErrMalformed},
		"text instead of RPC": {func(c net.Conn, _ uint32) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n") }, ErrMalformed},
	}
	for name, test := range tests {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(name+" over "+network, func(t *testing.T) {
				target := serveStream(t, network, func(conn net.Conn) {
					if message, err := readRecord(conn); err == nil {
						test.talk(conn, parseCall(t, message).xid)
					}
				})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				_, err := Client{Timeout: 300 * time.Millisecond}.DumpVersion(t.Context(), target, 4)
				took := time.Since(began)
				runtime.ReadMemStats(&after)
				if !errors.Is(err, test.want) {
					t.Errorf("%v", err)
				}
				if took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				// All that was allocated on the way, by the fake too, which writes at most what is read and a socket's buffer more.
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
					t.Errorf("it allocated %d bytes", grown)
				}
			})
		}
	}
}

// hose sends fragments that are never the last.
func hose(conn net.Conn, head, row []byte) {
	_, err := conn.Write(append(words(uint32(len(head))), head...))
	for err == nil {
		_, err = conn.Write(append(words(uint32(len(row))), row...))
	}
}

func TestHostileDatagrams(t *testing.T) {
	tests := map[string]struct {
		answer func(rpcCall) []byte
		want   error
	}{
		"another xid":        {func(c rpcCall) []byte { return accept(c.xid + 1) }, ErrHangs},
		"cut off":            {func(c rpcCall) []byte { return accept(c.xid)[:21] }, ErrMalformed},
		"empty":              {func(rpcCall) []byte { return []byte{} }, ErrMalformed},
		"a list cut off":     {func(c rpcCall) []byte { return accept(c.xid, words(1, 1, 1)...) }, ErrMalformed},
		"text instead of it": {func(rpcCall) []byte { return []byte("hello") }, ErrHangs},
	}
	for name, test := range tests {
		target := serve(t, "udp", test.answer)
		if _, err := (Client{Timeout: 100 * time.Millisecond}).DumpVersion(t.Context(), target, 4); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStrayDatagramsArePassedOver: the reply to somebody else's call, and then our own; but not strays without end.
func TestStrayDatagramsArePassedOver(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			c := parseCall(t, buffer[:n])
			for range c.version { // the test's way to say how many
				_, _ = conn.WriteTo(accept(c.xid+1), from)
			}
			_, _ = conn.WriteTo(accept(c.xid), from)
		}
	}()
	target := Target{"udp", conn.LocalAddr().String()}
	if _, err := (Client{}).Null(t.Context(), target, Status, 1); err != nil {
		t.Error(err)
	}
	if _, err := (Client{}).Null(t.Context(), target, Status, 40); !errors.Is(err, ErrMalformed) {
		t.Errorf("after 40 strays: %v", err)
	}
}

func TestPort(t *testing.T) {
	tests := map[string]uint16{
		"0.0.0.0.0.111": 111, "::.0.111": 111, "::1.200.255": 51455, "fe80::1%eth0.1.2": 258, "127.0.0.1.255.255": 65535,
		"/run/rpcbind.sock": 0, "": 0, "0.0.0.0.256.1": 0, "0.0.0.0.-1.1": 0, "1.2": 0, "/run/a.1.2": 0,
	}
	for address, want := range tests {
		got, ok := Registration{Address: address}.Port()
		if got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", address, got, ok)
		}
	}
}
