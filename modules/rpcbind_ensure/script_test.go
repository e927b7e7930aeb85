package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts, and plugins/modules/rpcbind_ensure.yml")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rpcbind_ensure": main})
}

// TestProgram runs the program as Ansible starts it, as far as that needs neither root nor a host to change. The rest is in
// tests/integration/nodes.
func TestProgram(t *testing.T) {
	_, err := os.Lstat("/var/lib/nfslock")
	fresh := errors.Is(err, fs.ErrNotExist)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Condition: func(name string) (bool, error) {
			switch name {
			case "fresh": // no run of the collection has left anything on this machine, and the lab, whose runs leave it, is not up beside this test
				lab, err := filepath.Glob("/tmp/nfslock-lab-run.*")
				return fresh && len(lab) == 0, err
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}
