package ansible_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/supervise"
)

type options struct {
	Name   string `json:"name"`
	Do     string `json:"do"`
	Signal int    `json:"signal"`
	Token  string `json:"token"`
}

var spec = ansible.Spec{
	"name":   {Required: true},
	"do":     {Default: "greet", Choices: []string{"greet", "print", "child", "signal", "chatter", "panic", "panic-aside", "hang", "hang-in-time", "take-back", "late"}},
	"signal": {Type: ansible.Int}, // number
	"token":  {NoLog: true},
}

func greet(ctx context.Context, o options, call ansible.Call) (ansible.Result, error) {
	r := ansible.Result{Changed: !call.CheckMode, Msg: "hello " + o.Name}
	switch o.Do {
	case "print":
		fmt.Println(`{"changed": "a stray object"}`)
	case "child":
		cmd := exec.Command("echo", "a child's line")
		cmd.Stdout = os.Stdout
		return r, cmd.Run()
	case "signal":
		if err := syscall.Kill(os.Getpid(), syscall.Signal(o.Signal)); err != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("cannot greet %s: %w", o.Name, ctx.Err())
		case <-time.After(time.Minute):
		}
	case "chatter": // until nobody listens
		for {
			if _, err := fmt.Fprintln(os.Stderr, "hello"); err != nil {
				return r, nil
			}
		}
	case "panic":
		panic("no such greeting")
	case "panic-aside":
		ansible.Known(ctx, ansible.Result{Changed: true, Warnings: []string{"greeted " + o.Token + "\x1b[2J\nok: [forged]"}})
		go func() { panic("no such greeting") }()
		time.Sleep(time.Minute)
	case "hang": // told to stop
		ansible.Known(ctx, ansible.Result{Changed: true, Warnings: []string{"half a greeting, with " + o.Token}})
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		hang()
	case "hang-in-time":
		ctx, cancel := ansible.WithTimeout(ctx, 50*time.Millisecond, errors.New("it did not come to an end within 50ms"))
		defer cancel()
		_ = ctx
		hang()
	case "take-back": // takes longer than the watchdog lets others
		ctx, cancel := ansible.WithTimeout(ctx, 50*time.Millisecond, errors.New("it did not come to an end within 50ms"))
		defer cancel()
		<-ctx.Done()
		done := ansible.Allow(context.WithoutCancel(ctx), time.Minute)
		time.Sleep(3 * ansible.Grace())
		done()
		return r, fmt.Errorf("taken back: %w", context.Cause(ctx))
	case "late": // at the same moment as the watchdog
		ctx, cancel := ansible.WithTimeout(ctx, 50*time.Millisecond, errors.New("it did not come to an end within 50ms"))
		defer cancel()
		<-ctx.Done()
		time.Sleep(ansible.Grace())
	}
	return r, nil
}

// hang makes a system call that never returns.
func hang() {
	var ends [2]int
	_ = syscall.Pipe(ends[:])
	_, _ = syscall.Read(ends[0], make([]byte, 1))
}

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "greet" {
		supervise.Start()
		ansible.SetGrace(300 * time.Millisecond)
	}
	testscript.Main(m, map[string]func(){
		"greet": func() { ansible.Main(spec, greet) },
	})
}

func TestProgram(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
