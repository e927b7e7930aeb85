package lockprobe

import (
	"os"
	"testing"
)

// TestMain: the test program is what starts processes that take locks, so it is they.
func TestMain(m *testing.M) {
	if IsProbe(os.Args) {
		ProbeMain(os.Args, os.Stdout)
		return
	}
	os.Exit(m.Run())
}
