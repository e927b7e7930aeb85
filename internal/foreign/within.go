package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
)

// ErrNoAnswer says that a filesystem did not answer in time.
var ErrNoAnswer = errors.New("a filesystem there does not answer")

// Within gives what look finds, or ErrNoAnswer when ctx ends before: a container may have mounted a filesystem that never answers over its
// files, and no signal ends a thread that waits for one. Such a look is left behind, with its thread, until the process ends (internal/supervise). So
// look shares nothing that it writes with anybody, but returns it. What it returns too late is closed, if it is an io.Closer. A panic in it
// is an error.
func Within[T any](ctx context.Context, look func() (T, error)) (T, error) {
	type sight struct {
		found T
		err   error
	}
	var nothing T
	if ctx.Err() != nil {
		return nothing, context.Cause(ctx)
	}
	seen := make(chan sight, 1)
	var mutex sync.Mutex
	left := false
	go func() {
		var s sight
		s.err = NoPanic(func() (err error) {
			s.found, err = look()
			return err
		})
		mutex.Lock()
		defer mutex.Unlock()
		if !left {
			seen <- s
		} else if late, ok := any(s.found).(io.Closer); ok && s.err == nil {
			_ = NoPanic(late.Close) // it may be a nil one
		}
	}()
	select {
	case s := <-seen:
		return s.found, s.err
	case <-ctx.Done():
	}
	mutex.Lock()
	defer mutex.Unlock()
	select {
	case s := <-seen: // at the last moment
		return s.found, s.err
	default:
		left = true
		return nothing, fmt.Errorf("%w (%w)", ErrNoAnswer, context.Cause(ctx))
	}
}

// NoPanic turns a panic into an error: in a goroutine it would end the program.
func NoPanic(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("internal error, please report it: %v\n%s", cause, debug.Stack())
		}
	}()
	return f()
}
