package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts, and plugins/modules/nfs_lock_fix.yml")

func TestMain(m *testing.M) {
	testscript.Main(sshdtest.Alone(m), map[string]func(){"nfs_lock_fix": main})
}

// TestProgram runs the program as Ansible starts it. Nothing here needs root or an engine: two small ones listen in each
// script's folder, empty.sock without a container of kolla's, kolla.sock with one that is stopped.
func TestProgram(t *testing.T) {
	_, err := os.Lstat("/var/lib/nfslock")
	fresh := errors.Is(err, fs.ErrNotExist)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			other := enginetest.Container{ID: "0a", Name: "registry", PID: 1}
			for name, containers := range map[string][]enginetest.Container{
				"empty.sock": {other},
				"kolla.sock": {other, {ID: "0b", Name: "cinder_volume", Image: "kolla/cinder-volume:2024.1", State: "exited", Labels: map[string]string{"kolla_version": "18.0.0"}}},
			} {
				server, err := enginetest.Listen(filepath.Join(env.WorkDir, name), enginetest.Engine{Version: "20.10.24", API: "1.41", Containers: containers})
				if err != nil {
					return err
				}
				env.Defer(func() { server.Close() })
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "fresh" { // no run of the module has left anything on this machine, and the lab, whose runs leave it, is not up beside this test
				lab, err := filepath.Glob("/tmp/nfslock-lab-run.*")
				return fresh && len(lab) == 0, err
			}
			return false, errors.New("unknown condition")
		},
	})
}
