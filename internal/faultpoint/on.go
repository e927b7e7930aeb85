//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/supervise"
)

// Hit ends the program as a power cut would, without a deferred call or a result, if NFSLOCK_DIE_AT names this moment. With
// NFSLOCK_POINTS it adds the moment's name to that file, so that a test knows them all.
func Hit(name string) {
	if path := os.Getenv("NFSLOCK_POINTS"); path != "" {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(file, name)
			file.Close()
		}
		if err != nil {
			panic(err)
		}
	}
	if os.Getenv("NFSLOCK_DIE_AT") == name {
		if supervise.Supervised() {
			_ = syscall.Kill(os.Getppid(), syscall.SIGKILL) // nothing tells of the end
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal comes; nothing more is to happen before
	}
}
