package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

// TestProgramWithAServer runs the program with a patch set on a real OpenSSH server, on a host without a container of kolla's.
func TestProgramWithAServer(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	other := filepath.Join(t.TempDir(), "other")
	s.Keygen(t, other, "-t", "ed25519")
	s.Put(t, "a b/manifest.yml", []byte(manifestText))
	known, wrong := s.Known(t, s.Addr(), "", s.HostKey["ed25519"]), s.Known(t, s.Addr(), "", other+".pub")
	address := "sftp://" + s.User + "@" + s.Addr() + s.Folder + "/a%20b"
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/sftp",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			server, err := enginetest.Listen(filepath.Join(env.WorkDir, "empty.sock"), enginetest.Engine{
				Version: "20.10.24", API: "1.41", Containers: []enginetest.Container{{ID: "0a", Name: "registry", PID: 1}},
			})
			if err != nil {
				return err
			}
			env.Defer(func() { server.Close() })
			for name, args := range map[string]map[string]any{
				"check.json":    {"sftp_known_hosts_file": known, "sftp_private_key_file": s.Key},
				"pinned.json":   {"sftp_known_hosts_file": known, "sftp_private_key_file": s.Key, "manifest_sha256": "0123"},
				"stranger.json": {"sftp_known_hosts_file": known, "sftp_private_key_file": other},
				"changed.json":  {"sftp_known_hosts_file": wrong, "sftp_private_key_file": s.Key},
			} {
				// Check mode: this machine may be somebody's, with a journal of its own.
				args["patch_set"], args["engine_socket"], args["_ansible_check_mode"] = address, "empty.sock", true
				data, err := json.Marshal(args)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

const manifestText = `schema: 1
variant: fallback
suffix: +nfslock1
packages:
  - name: qemu-utils
    version: 1:7.2-7+nfslock1
    built_from: 1:7.2-7
    distribution: debian
    release: bookworm
    architecture: amd64
    file: qemu-utils.deb
    size: 1
    sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
`
