package lockprobe

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain: the test program is what starts processes that take locks, so it is they; and another NFS server.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == otherServers[0] {
		otherServer()
		return
	}
	if IsProbe(os.Args) {
		ProbeMain(os.Args, os.Stdout)
		return
	}
	os.Exit(m.Run())
}
