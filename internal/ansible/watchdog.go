package ansible

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/supervise"
)

// grace is how long a run that is told to stop, or whose time is up, has for its result. A system call that never returns may keep it from that.
var grace = 10 * time.Second

// watchdog ends a run that has no result in time, with what is known of it. One that has said nothing of its time (WithTimeout, Allow, Known) is
// not cut off: it may be in the midst of something.
type watchdog struct {
	end func(report map[string]any) // prints it, and ends the program; once

	mutex   sync.Mutex
	rest    time.Time            // not before
	allowed map[*int]time.Time   // the ends of what is allowed
	known   map[string]any       // the last of Known
	told    bool                 // the run has said something of its time
	over    bool                 // the run has its result
	finish  func(map[string]any) // masks and escapes
}

type watchdogKey struct{}

func watching(ctx context.Context) *watchdog {
	dog, _ := ctx.Value(watchdogKey{}).(*watchdog)
	if dog != nil {
		dog.mutex.Lock()
		dog.told = true
		dog.mutex.Unlock()
	}
	return dog
}

// guard has the watchdog watch a run with that context, from the context's end on, until free is called.
func (d *watchdog) guard(ctx context.Context) (guarded context.Context, free func()) {
	stop := context.AfterFunc(ctx, func() { d.bark(ctx) })
	return context.WithValue(ctx, watchdogKey{}, d), func() {
		stop()
		d.mutex.Lock()
		defer d.mutex.Unlock()
		d.over = true
	}
}

// WithTimeout is context.WithTimeoutCause for a run's own time: when it is up, the result has to come within moments, whatever hangs.
func WithTimeout(ctx context.Context, limit time.Duration, cause error) (context.Context, context.CancelFunc) {
	timed, cancel := context.WithTimeoutCause(ctx, limit, cause)
	dog := watching(ctx)
	if dog == nil {
		return timed, cancel
	}
	free := context.AfterFunc(timed, func() {
		if errors.Is(timed.Err(), context.DeadlineExceeded) {
			dog.bark(timed)
		}
	})
	return timed, func() {
		free()
		cancel()
	}
}

// Allow lets what must not be cut off, such as a way back, go on for that time though the run is to end. The caller calls done.
func Allow(ctx context.Context, limit time.Duration) (done func()) {
	dog := watching(ctx)
	if dog == nil {
		return func() {}
	}
	token := new(int)
	dog.mutex.Lock()
	dog.allowed[token] = time.Now().Add(limit)
	dog.mutex.Unlock()
	return func() {
		dog.mutex.Lock()
		defer dog.mutex.Unlock()
		delete(dog.allowed, token)
		dog.rest = time.Now().Add(grace)
	}
}

// Known says what the result would be if nothing more were done, for a run that comes to no result by itself. It is copied.
func Known(ctx context.Context, result any) {
	dog := watching(ctx)
	if dog == nil {
		return
	}
	report := combine(result, nil)
	report["failed"] = true
	dog.finish(report)
	dog.mutex.Lock()
	dog.known = report
	dog.mutex.Unlock()
	if !supervise.Supervised() {
		return
	}
	rest := maps.Clone(report)
	for _, key := range []string{"failed", "msg", "exception"} {
		delete(rest, key)
	}
	if text, err := json.Marshal(rest); err == nil {
		_ = supervise.Known(text)
	}
}

// bark waits until nothing is allowed any more, and ends the program. A run that has its result by then has ended it.
func (d *watchdog) bark(ctx context.Context) {
	d.mutex.Lock()
	d.rest = time.Now().Add(grace)
	d.mutex.Unlock()
	for {
		left := time.Until(d.last())
		if left <= 0 {
			break
		}
		time.Sleep(left)
	}
	d.mutex.Lock()
	report, over := d.known, d.over || !d.told
	d.mutex.Unlock()
	if over {
		return
	}
	if report == nil {
		report = map[string]any{"changed": false}
		d.finish(report)
	}
	report["failed"] = true
	report["msg"] = message(fmt.Errorf("cannot come to an end: %w, and %v later something still hangs, such as a filesystem that does not answer; what is not reported is not known",
		context.Cause(ctx), grace))
	d.end(report)
}

func (d *watchdog) last() time.Time {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	last := d.rest
	for _, end := range d.allowed {
		if end.After(last) {
			last = end
		}
	}
	return last
}
