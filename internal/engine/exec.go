package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// ErrUnknown says that the connection was lost or the time was up while a command ran. The engine does not end a command with its
// client, so it may run on, have ended, or have been killed with the engine. Look again before acting.
var ErrUnknown = errors.New("its outcome is unknown")

// outputLimit bounds what is kept of a command's output, in bytes: its end, where the reason for a failure stands.
const outputLimit = 64 << 10

// Command is a program to run in a container. It has no input: with live-restore it may outlive the engine, and would then
// wait for input for ever.
type Command struct {
	Args []string
	User string   // "0" is root; empty is the container's own user
	Env  []string // beside the container's own; the language is English unless this has LC_ALL
}

// environment: a command is understood by what it prints. An image may name a language, and LANGUAGE counts in every locale but C.
func (c Command) environment() []string {
	if slices.ContainsFunc(c.Env, func(pair string) bool { return strings.HasPrefix(pair, "LC_ALL=") }) {
		return append(slices.Clone(c.Env), "LANGUAGE=")
	}
	return append(slices.Clone(c.Env), "LC_ALL=C", "LANGUAGE=")
}

// Outcome is how a command ended.
type Outcome struct {
	ExitCode int
	Output   string // the end of standard output and error, in the order they came
}

// Exec runs a command in a running container and waits for its end. A command that cannot be found or started gives an
// exit code (126 or 127), not an error. The error is ErrUnknown once the command may have begun.
func (e *Engine) Exec(ctx context.Context, id string, c Command) (Outcome, error) {
	create, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	made, err := e.api.ExecCreate(create, id, client.ExecCreateOptions{
		Cmd: c.Args, User: c.User, Env: c.environment(),
		AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("cannot run a command: %w", err)
	}
	out := &tail{limit: outputLimit}
	if err := e.stream(ctx, made.ID, out); err != nil {
		return Outcome{Output: out.String()}, fmt.Errorf("lost sight of the command, %w: %w", ErrUnknown, err)
	}
	ask, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ended, err := e.api.ExecInspect(ask, made.ID, client.ExecInspectOptions{})
	if err == nil && ended.Running {
		err = errors.New("the connection ended before the command")
	}
	if err != nil {
		return Outcome{Output: out.String()}, fmt.Errorf("lost sight of the command, %w: %w", ErrUnknown, err)
	}
	if ended.ExitCode == 126 && strings.HasSuffix(strings.TrimSpace(out.String()), ": unavailable") {
		// What the engine's own runtime says when it is going down, gRPC's code 14.
		return Outcome{Output: out.String()}, fmt.Errorf("lost sight of the command, %w: %s", ErrUnknown, strings.TrimSpace(out.String()))
	}
	return Outcome{ExitCode: ended.ExitCode, Output: out.String()}, nil
}

// stream starts the command and copies its output until it ends. The connection knows no deadline of its own, so the
// context closes it.
func (e *Engine) stream(ctx context.Context, exec string, out io.Writer) error {
	conn, err := e.attach(ctx, exec)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()
	_, err = stdcopy.StdCopy(out, out, conn.Reader)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// attach starts the command. The client does not heed the context here (client/hijack.go of moby), and the engine answers only
// when the command was started: never, if the container is paused or restarted at that moment.
func (e *Engine) attach(ctx context.Context, exec string) (client.HijackedResponse, error) {
	type answer struct {
		conn client.HijackedResponse
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		result, err := e.api.ExecAttach(ctx, exec, client.ExecAttachOptions{})
		answered <- answer{result.HijackedResponse, err}
	}()
	select {
	case a := <-answered:
		return a.conn, a.err
	case <-ctx.Done():
		go func() {
			if a := <-answered; a.err == nil {
				a.conn.Close()
			}
		}()
		return client.HijackedResponse{}, ctx.Err()
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	buf   bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - t.limit; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.buf.String() }
