package sftpset

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// silentError is the cause when the server took part in the connection and sent nothing for so long.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("the server is silent: nothing has come for %v", e.limit)
}

// wire is the TCP connection and when it last brought something. SSH has no deadline of its own: whoever waits for an
// answer does so under watch.
type wire struct {
	net.Conn
	heard atomic.Int64 // nanoseconds since began
	began time.Time
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, began: time.Now()} }

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.began)))
	}
	return n, err
}

// watch runs f and closes the connection under it, which ends f, as soon as ctx ends or nothing has come for idle.
func (w *wire) watch(ctx context.Context, idle time.Duration, f func() error) error {
	done := make(chan struct{})
	cut := make(chan error, 1)
	w.heard.Store(int64(time.Since(w.began))) // before this nobody asked the server for anything
	go func() {
		defer close(cut)
		timer := time.NewTimer(idle)
		defer timer.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				cut <- context.Cause(ctx)
				w.Close()
				return
			case <-timer.C:
				left := idle - (time.Since(w.began) - time.Duration(w.heard.Load()))
				if left <= 0 {
					cut <- &silentError{idle}
					w.Close()
					return
				}
				timer.Reset(left)
			}
		}
	}()
	err := f()
	close(done)
	if why := <-cut; why != nil && err != nil {
		return why
	}
	return err
}
