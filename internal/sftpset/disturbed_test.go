package sftpset

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

const size = 12<<20 + 345 // more than what is in flight at once

// What a connection costs beside the file: the handshake, and what was on its way when it was cut.
const inFlight = 5 << 20

func TestCutConnectionGoesOnWhereItWas(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	data := noise(2, size)
	s.Put(t, "a.deb", data)
	proxy := sshdtest.Through(t, s.Addr(), func(connection, bytes int64) sshdtest.Fate {
		if connection == 1 && bytes > 7<<20 {
			return sshdtest.Cut
		}
		return sshdtest.Go
	})
	dir := t.TempDir()
	store := newStore(t, dir)
	if err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(data), store); err != nil {
		t.Fatal(err)
	}
	mustHave(t, store, pkg(data))
	if n := proxy.Connections.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if n := proxy.Bytes.Load(); n > size+inFlight {
		t.Errorf("%d bytes for a file of %d: it began anew", n, size)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNextRunGoesOnWhereTheLastOneWasCut(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	data := noise(3, size)
	s.Put(t, "a.deb", data)
	proxy := sshdtest.Through(t, s.Addr(), func(connection, bytes int64) sshdtest.Fate {
		if connection == 1 && bytes > 6<<20 {
			return sshdtest.Silent
		}
		return sshdtest.Go
	})
	dir := t.TempDir()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 4*time.Second, errors.New("the run's time, 4s, is up"))
	defer cancel()
	first, err := patchset.OpenStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	err = open(t, to(t, s, proxy.Addr)).Fetch(ctx, pkg(data), first)
	first.Close()
	wantError(t, err, "cannot fetch "+s.Folder+"/a.deb from", "the run's time, 4s, is up")
	before := proxy.Bytes.Load()
	store := newStore(t, dir)
	if err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(data), store); err != nil {
		t.Fatal(err)
	}
	mustHave(t, store, pkg(data))
	if n := proxy.Bytes.Load() - before; n > size-2<<20 {
		t.Errorf("the second run read %d bytes of %d", n, size)
	}
}

// A cut, and then another file in its place: what is put together is wrong, and is fetched once more from the beginning.
func TestWrongAfterACutBeginsAnewOnce(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	right, wrong := noise(4, size), noise(5, size)
	path := s.Put(t, "a.deb", wrong)
	var once sync.Once
	proxy := sshdtest.Through(t, s.Addr(), func(connection, bytes int64) sshdtest.Fate {
		if connection == 1 && bytes > 6<<20 {
			once.Do(func() { s.Put(t, "new", right); _ = os.Rename(filepath.Join(s.Folder, "new"), path) })
			return sshdtest.Cut
		}
		return sshdtest.Go
	})
	store := newStore(t, t.TempDir())
	if err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(right), store); err != nil {
		t.Fatal(err)
	}
	mustHave(t, store, pkg(right))
}

func TestWrongContentIsRefusedAndNotKept(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	right, wrong := noise(6, size), noise(7, size)
	s.Put(t, "a.deb", wrong)
	for _, test := range []struct {
		name  string
		part  []byte // from an earlier run
		files int64  // how often all of it is read
	}{{"at once", nil, 1}, {"after what an earlier run had got", right[:100], 2}, {"all of it there, and wrong", wrong, 1}} {
		dir := t.TempDir()
		if test.part != nil {
			if err := os.WriteFile(filepath.Join(dir, pkg(right).SHA256+".deb.part"), test.part, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		proxy := sshdtest.Through(t, s.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
		err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(right), newStore(t, dir))
		wantError(t, err, "cannot use "+s.Folder+"/a.deb of "+s.User+"@"+proxy.Addr, "the manifest says "+pkg(right).SHA256, "run again")
		if n := (proxy.Bytes.Load() + size/2) / size; n != test.files || proxy.Connections.Load() != 1 {
			t.Errorf("%s: read %d times in %d connections", test.name, n, proxy.Connections.Load())
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", test.name, left)
		}
	}
}

func TestFileThatIsNotAsTheManifestSays(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	data := noise(8, size)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"truncated": {data[:size-1], "it has 12583256 bytes, the manifest says 12583257"},
		"longer":    {append(bytes.Clone(data), make([]byte, 64<<20)...), "it has 79692121 bytes, the manifest says 12583257"},
		"empty":     {nil, "it has 0 bytes"},
	} {
		s.Put(t, "a.deb", test.data)
		proxy := sshdtest.Through(t, s.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
		err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(data), newStore(t, t.TempDir()))
		wantError(t, err, test.want, "cannot fetch "+s.Folder+"/a.deb from")
		if n := proxy.Bytes.Load(); n > 64<<10 {
			t.Errorf("%s: %d bytes of it were read", name, n)
		}
	}
}

// The file is changed while it is read: cut off, made longer, or written over.
func TestFileThatChangesWhileItIsRead(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	data := noise(9, size)
	for name, test := range map[string]struct {
		change func(path string) error
		want   string // empty: what was read is right
	}{
		"cut off": {func(path string) error { return os.Truncate(path, 11<<20) }, "it ends after"},
		"longer":  {func(path string) error { return os.Truncate(path, 100<<20) }, ""},
		"written over": {func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(make([]byte, 1<<20), 11<<20)
			return err
		}, "was the patch set replaced meanwhile?"},
		"replaced": {func(path string) error { // what is open there stays what it was
			return errors.Join(os.WriteFile(path+".new", []byte("x"), 0o644), os.Rename(path+".new", path))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := s.Put(t, "a.deb", data)
			var once sync.Once
			proxy := sshdtest.Through(t, s.Addr(), func(_, bytes int64) sshdtest.Fate {
				if bytes > 1<<20 {
					once.Do(func() {
						if err := test.change(path); err != nil {
							t.Error(err)
						}
					})
				}
				return sshdtest.Go
			})
			store := newStore(t, t.TempDir())
			err := open(t, to(t, s, proxy.Addr)).Fetch(t.Context(), pkg(data), store)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				mustHave(t, store, pkg(data))
				return
			}
			wantError(t, err, test.want)
			if n := proxy.Bytes.Load(); n > size+inFlight {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}

func TestSilentServer(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	s.Put(t, "manifest.yml", []byte("x"))
	s.Put(t, "a.deb", noise(10, size))
	for name, test := range map[string]struct {
		from int64 // bytes of each connection after which it falls silent
		idle time.Duration
		want string
	}{
		"before the handshake": {0, 300 * time.Millisecond, "cannot read"},
		"in the handshake":     {500, 300 * time.Millisecond, "cannot read"},
		"after it":             {3 << 20, 2 * time.Second, "cannot fetch"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := sshdtest.Through(t, s.Addr(), func(_, bytes int64) sshdtest.Fate {
				if bytes > test.from {
					return sshdtest.Silent
				}
				return sshdtest.Go
			})
			c := to(t, s, proxy.Addr)
			c.Idle = test.idle
			set := open(t, c)
			began := time.Now()
			_, err := set.Manifest(t.Context())
			if err == nil {
				other := pkg(noise(11, size+20<<20))
				s.Put(t, "a.deb", noise(11, size+20<<20))
				// Each try gets three megabytes further, so this one ends with the run.
				ctx, cancel := context.WithTimeoutCause(t.Context(), 4*time.Second, errors.New("the run's time, 4s, is up"))
				defer cancel()
				err = set.Fetch(ctx, other, newStore(t, t.TempDir()))
				wantError(t, err, test.want, "the run's time, 4s, is up")
			} else {
				wantError(t, err, test.want, "the server is silent: nothing has come for 300ms", "(4 times)")
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestRunThatIsToldToStop(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	data := noise(12, size)
	s.Put(t, "a.deb", data)
	for name, from := range map[string]int64{"before the handshake": 0, "in mid-file": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			var once sync.Once
			proxy := sshdtest.Through(t, s.Addr(), func(_, bytes int64) sshdtest.Fate {
				if bytes <= from {
					return sshdtest.Go
				}
				once.Do(func() {
					time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("terminated signal received")) })
				})
				return sshdtest.Silent
			})
			began := time.Now()
			err := open(t, to(t, s, proxy.Addr)).Fetch(ctx, pkg(data), newStore(t, t.TempDir()))
			wantError(t, err, "terminated signal received")
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := proxy.Connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestServerThatIsNotThereYet(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	s.Put(t, "manifest.yml", []byte("x"))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	c := to(t, s, addr)
	began := time.Now()
	c.Pause = 20 * time.Millisecond
	_, err = open(t, c).Manifest(t.Context())
	wantError(t, err, "cannot read "+s.Folder+"/manifest.yml from "+s.User+"@"+addr+" (4 times): cannot connect: ", "connection refused")
	if took := time.Since(began); took < 140*time.Millisecond {
		t.Errorf("four tries took %v: the pauses do not grow", took)
	}
	// One that drops the first connections, as sshd does with too many at once, and then answers.
	proxy := sshdtest.Through(t, s.Addr(), func(connection, _ int64) sshdtest.Fate {
		if connection < 3 {
			return sshdtest.Cut
		}
		return sshdtest.Go
	})
	if _, err := open(t, to(t, s, proxy.Addr)).Manifest(t.Context()); err != nil {
		t.Error(err)
	}
	c.Address.Host = "no-such-host.invalid"
	_, err = open(t, c).Manifest(t.Context())
	wantError(t, err, "cannot connect: ", "no-such-host.invalid")
}

// What a hostile server sends before anybody knows that it is one: bounded in time and in memory.
func TestHostileServer(t *testing.T) {
	real := sshdtest.Start(t, "ed25519")
	for name, write := range map[string]func(net.Conn){
		"a banner without end": func(c net.Conn) {
			for line := bytes.Repeat([]byte("welcome "), 100); ; {
				if _, err := c.Write(append(line, '\n')); err != nil {
					return
				}
			}
		},
		"a line without end": func(c net.Conn) {
			for line := bytes.Repeat([]byte("x"), 4096); ; {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		},
		"a drop at a time": func(c net.Conn) {
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"noise": func(c net.Conn) {
			_, _ = c.Write([]byte("SSH-2.0-x\r\n"))
			_, _ = c.Write(noise(13, 1<<20))
		},
		"a packet of four gigabytes": func(c net.Conn) {
			_, _ = c.Write([]byte("SSH-2.0-x\r\n\xff\xff\xff\xf0\x04"))
			_, _ = c.Write(noise(14, 1<<20))
		},
		"HTTP": func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) {
				go func() { _, _ = io.Copy(io.Discard, c) }()
				write(c)
			})
			c := to(t, real, addr)
			c.Handshake, c.Idle = 700*time.Millisecond, 400*time.Millisecond
			bounded(t, 12*time.Second, func() error { _, err := open(t, c).Manifest(t.Context()); return err })
		})
	}
}

func serve(t *testing.T, each func(net.Conn)) string {
	t.Helper()
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listen.Close() })
	go func() {
		for {
			c, err := listen.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); each(c) }()
		}
	}()
	return listen.Addr().String()
}

// bounded wants an error, soon and for little memory.
func bounded(t *testing.T, most time.Duration, f func() error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	wantError(t, f())
	if took := time.Since(began); took > most {
		t.Errorf("it took %v", took)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// A server with the right host key that answers SFTP with nonsense: an error, no panic.
func TestHostileSFTP(t *testing.T) {
	real := sshdtest.Start(t, "ed25519")
	version := packet(2, []byte{0, 0, 0, 3})
	for name, answer := range map[string]func(request []byte) []byte{
		"nothing but zeros": func([]byte) []byte { return make([]byte, 64) },
		"huge packet":       func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff, 2} },
		"no version":        func([]byte) []byte { return packet(101, make([]byte, 8)) },
		"short answers": func(request []byte) []byte {
			if request[4] == 1 {
				return version
			}
			return packet(102, request[5:9])
		},
		"a status full of words": func(request []byte) []byte {
			if request[4] == 1 {
				return version
			}
			text := bytes.Repeat([]byte("\x1b[31mno\n"), 20000)
			body := append(bytes.Clone(request[5:9]), 0, 0, 0, 4)
			body = binary.BigEndian.AppendUint32(body, uint32(len(text)))
			return packet(101, append(append(body, text...), 0, 0, 0, 0))
		},
		"attributes cut off": func(request []byte) []byte {
			switch request[4] {
			case 1:
				return version
			case 3:
				return packet(102, append(bytes.Clone(request[5:9]), 0, 0, 0, 1, 'h'))
			}
			return packet(105, append(bytes.Clone(request[5:9]), 0xff, 0xff, 0xff, 0xff, 0, 0))
		},
		"another request's number": func(request []byte) []byte {
			if request[4] == 1 {
				return version
			}
			return packet(101, []byte{9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		},
		"data longer than asked for": func(request []byte) []byte {
			switch request[4] {
			case 1:
				return version
			case 3:
				return packet(102, append(bytes.Clone(request[5:9]), 0, 0, 0, 1, 'h'))
			case 8: // fstat: a regular file of eight bytes
				return packet(105, append(bytes.Clone(request[5:9]), 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0x81, 0xa4))
			}
			return packet(103, append(bytes.Clone(request[5:9]), 0xff, 0xff, 0xff, 0xff, 'x'))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := to(t, real, serveSFTP(t, answer))
			c.KnownHostsFile = knownFake(t, c.Address.hostPort())
			c.Idle = time.Second
			bounded(t, 10*time.Second, func() error {
				_, err := open(t, c).Manifest(t.Context())
				if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
					t.Errorf("the server's control characters: %q", err)
				}
				return err
			})
		})
	}
}

func packet(kind byte, body []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+1)), kind), body...)
}

var fakeKey = func() ssh.Signer {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		panic(err)
	}
	return key
}()

func knownFake(t *testing.T, addr string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	name := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(name, append([]byte("["+host+"]:"+port+" "), ssh.MarshalAuthorizedKey(fakeKey.PublicKey())...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// serveSFTP lets everybody in and gives each request of SFTP the answer.
func serveSFTP(t *testing.T, answer func(request []byte) []byte) string {
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(fakeKey)
	return serve(t, func(c net.Conn) {
		_, channels, requests, err := ssh.NewServerConn(c, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for fresh := range channels {
			channel, asked, err := fresh.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range asked {
					_ = r.Reply(true, nil)
				}
			}()
			go func() {
				for {
					head := make([]byte, 4)
					if _, err := io.ReadFull(channel, head); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head))
					if _, err := io.ReadFull(channel, body); err != nil {
						return
					}
					if _, err := channel.Write(answer(append(head, body...))); err != nil {
						return
					}
				}
			}()
		}
	})
}
