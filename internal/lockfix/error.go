package lockfix

import (
	"context"
	"fmt"
)

// stepError says in which step of the work on a container an error arose.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// ended says in the user's words why ctx ended: its cause. It still is what ctx.Err() is.
func ended(ctx context.Context) error { return &endedError{ctx.Err(), context.Cause(ctx)} }

type endedError struct{ err, cause error }

func (e *endedError) Error() string   { return e.cause.Error() }
func (e *endedError) Unwrap() []error { return []error{e.err, e.cause} }

func fail(step, format string, args ...any) error {
	return &stepError{step, fmt.Errorf(format, args...)}
}
