package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

// soon is how long a call may take that ought to return at once: far more than a busy machine needs, far less than
// callTimeout.
const soon = 10 * time.Second

// with connects to an engine with one container, "c", that has one program, "run".
func with(t *testing.T, program func(*enginetest.Process) int) (*Engine, *enginetest.Server) {
	t.Helper()
	return reach(t, enginetest.Container{ID: "c", Name: "nova_compute", Programs: map[string]func(*enginetest.Process) int{"run": program}})
}

func TestExecReportsOutputOfBothStreamsAndTheExitCode(t *testing.T) {
	e, _ := with(t, func(p *enginetest.Process) int {
		fmt.Fprint(p.Stdout, "one\n")
		fmt.Fprint(p.Stderr, "two\n")
		fmt.Fprint(p.Stdout, "three\n")
		return 7
	})
	got, err := e.Exec(t.Context(), "c", Command{Args: []string{"run"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Outcome{ExitCode: 7, Output: "one\ntwo\nthree\n"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestExecPassesArgumentsUserAndEnvironment(t *testing.T) {
	e, _ := with(t, func(p *enginetest.Process) int {
		fmt.Fprintf(p.Stdout, "%q %q %q", p.Args, p.User, p.Env)
		return 0
	})
	got, err := e.Exec(t.Context(), "c", Command{Args: []string{"run", "a b"}, User: "0", Env: []string{"X=1"}})
	if want := `["run" "a b"] "0" ["X=1" "LC_ALL=C" "LANGUAGE="]`; err != nil || got.Output != want {
		t.Errorf("got %q, %v; want %q", got.Output, err, want)
	}
}

func TestExecKeepsTheEndOfLongOutput(t *testing.T) {
	e, _ := with(t, func(p *enginetest.Process) int {
		for range 300 {
			fmt.Fprint(p.Stdout, strings.Repeat("x", 1023)+"\n")
		}
		fmt.Fprint(p.Stderr, "dpkg: the reason\n")
		return 1
	})
	got, err := e.Exec(t.Context(), "c", Command{Args: []string{"run"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Output) != 64<<10 || !strings.HasSuffix(got.Output, "\ndpkg: the reason\n") {
		t.Errorf("%d bytes that end with %q", len(got.Output), got.Output[max(0, len(got.Output)-30):])
	}
}

func TestExecOfAnAbsentProgramIsAnExitCode(t *testing.T) {
	e, _ := with(t, nil)
	got, err := e.Exec(t.Context(), "c", Command{Args: []string{"absent"}})
	if err != nil || got.ExitCode != 126 || !strings.Contains(got.Output, "not found") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestExecThatCannotBeginIsNoUnknownOutcome(t *testing.T) {
	e, server := with(t, nil)
	server.Edit("c", func(c *enginetest.Container) { c.State = "paused" })
	for id, want := range map[string]string{"c": "paused", "gone": "No such container"} {
		_, err := e.Exec(t.Context(), id, Command{Args: []string{"run"}})
		if err == nil || errors.Is(err, ErrUnknown) || !strings.HasPrefix(err.Error(), "cannot run a command: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestExecWhoseOutcomeCannotBeKnown(t *testing.T) {
	wait := func(p *enginetest.Process) int {
		<-p.Done
		return 0
	}
	for _, test := range []struct {
		name    string
		program func(*enginetest.Process) int
		limit   time.Duration
		output  string
		cause   error
	}{
		{
			name: "connection cut in the middle",
			program: func(p *enginetest.Process) int {
				p.HangUp()
				return wait(p)
			},
			limit: soon,
		},
		{
			name: "still running after the end of its output",
			program: func(p *enginetest.Process) int {
				p.EndStreams()
				return wait(p)
			},
			limit: soon,
		},
		{name: "deadline while it is silent", program: wait, limit: 200 * time.Millisecond, cause: context.DeadlineExceeded},
		{
			name: "deadline after some output",
			program: func(p *enginetest.Process) int {
				fmt.Fprint(p.Stdout, "begun\n")
				return wait(p)
			},
			limit: 200 * time.Millisecond, cause: context.DeadlineExceeded,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, _ := with(t, test.program)
			ctx, cancel := context.WithTimeout(t.Context(), test.limit)
			defer cancel()
			begin := time.Now()
			_, err := e.Exec(ctx, "c", Command{Args: []string{"run"}})
			if took := time.Since(begin); took > soon {
				t.Errorf("it took %v", took)
			}
			if !errors.Is(err, ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("got %v, want the cause %v", err, test.cause)
			}
		})
	}
}

// As Docker 20.10 does with a container that is paused while runc starts the command in it.
func TestExecThatTheEngineNeverStartsHasADeadline(t *testing.T) {
	e, _ := reach(t, enginetest.Container{ID: "c", Name: "nova_compute", Stuck: true})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := e.Exec(ctx, "c", Command{Args: []string{"run"}})
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > soon {
		t.Errorf("it took %v", took)
	}
}

func TestExecWhoseEngineGoesAwayIsUnknown(t *testing.T) {
	begun := make(chan struct{})
	e, server := with(t, func(p *enginetest.Process) int {
		close(begun)
		<-p.Done
		p.EndStreams()
		return 0
	})
	go func() {
		<-begun
		server.Close()
	}()
	if _, err := e.Exec(t.Context(), "c", Command{Args: []string{"run"}}); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}
