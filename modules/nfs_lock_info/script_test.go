package main

import (
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/lockprobe"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts, and plugins/modules/nfs_lock_info.yml")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nfs_lock_info": main, lockprobe.ProbeName: main})
}

// TestProgram runs the program as Ansible starts it, as far as that needs no containers. The rest is in tests/integration.
func TestProgram(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}
