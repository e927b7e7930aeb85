package sftpset

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// unsteady answers out of order, and notes what it was asked for.
type unsteady struct {
	data    []byte
	fails   int64 // the offset from which nothing comes; 0: none
	beyond  atomic.Bool
	at      int64 // the end that nobody may ask beyond
	open    atomic.Int64
	highest atomic.Int64
}

func (u *unsteady) ReadAt(b []byte, off int64) (int, error) {
	if n := u.open.Add(1); n > u.highest.Load() {
		u.highest.Store(n)
	}
	defer u.open.Add(-1)
	time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	if off+int64(len(b)) > u.at {
		u.beyond.Store(true)
	}
	if u.fails > 0 && off+int64(len(b)) > u.fails {
		n := copy(b, u.data[min(off, u.fails):u.fails])
		return n, errors.New("cut")
	}
	return bytes.NewReader(u.data).ReadAt(b, off)
}

func TestStreamKeepsTheOrder(t *testing.T) {
	data := noise(20, 40*pieceSize+11)
	for _, from := range []int64{0, 1, pieceSize - 1, pieceSize, 40 * pieceSize, int64(len(data))} {
		u := &unsteady{data: data, at: int64(len(data)) - 5}
		var out bytes.Buffer
		if err := stream(u, min(from, u.at), u.at, &out); err != nil || !bytes.Equal(out.Bytes(), data[min(from, u.at):u.at]) {
			t.Errorf("from %d: %d bytes, %v", from, out.Len(), err)
		}
		if u.beyond.Load() {
			t.Errorf("from %d: bytes beyond the end were asked for", from)
		}
		if n := u.highest.Load(); from == 0 && (n < 4 || n > pieces) {
			t.Errorf("%d reads at once", n)
		}
	}
}

func TestStreamThatEndsEarly(t *testing.T) {
	data := noise(21, 20*pieceSize)
	for _, at := range []int64{1, pieceSize, 7*pieceSize + 5} {
		u := &unsteady{data: data, at: int64(len(data)), fails: at}
		var out bytes.Buffer
		err := stream(u, 0, u.at, &out)
		if err == nil || err.Error() != "cut" || !bytes.Equal(out.Bytes(), data[:at]) {
			t.Errorf("cut at %d: %d bytes, %v", at, out.Len(), err)
		}
		if u.open.Load() > 0 {
			t.Errorf("cut at %d: reads go on", at)
		}
	}
	short := &unsteady{data: data[:pieceSize+1], at: int64(len(data))}
	if err := stream(short, 0, short.at, io.Discard); err == nil || !strings.Contains(err.Error(), "it ends after 261121 of") {
		t.Errorf("%v", err)
	}
	full := &unsteady{data: data, at: int64(len(data))}
	if err := stream(full, 0, full.at, refuses{}); err == nil || err.Error() != "no room" {
		t.Errorf("%v", err)
	}
}

type refuses struct{}

func (refuses) Write([]byte) (int, error) { return 0, errors.New("no room") }

type panics struct{}

func (panics) ReadAt([]byte, int64) (int, error) { panic("length") }

func TestPanicOverAnAnswerIsAnError(t *testing.T) {
	if err := stream(panics{}, 0, 3*pieceSize, io.Discard); err == nil || !strings.Contains(err.Error(), "no SFTP") {
		t.Errorf("%v", err)
	}
}
