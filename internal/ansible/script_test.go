package ansible_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

type options struct {
	Name   string `json:"name"`
	Do     string `json:"do"`
	Signal int    `json:"signal"`
}

var spec = ansible.Spec{
	"name":   {Required: true},
	"do":     {Default: "greet", Choices: []string{"greet", "print", "child", "signal", "chatter", "panic"}},
	"signal": {Type: ansible.Int}, // number
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
	}
	return r, nil
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"greet": func() { ansible.Main(spec, greet) },
	})
}

func TestProgram(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
