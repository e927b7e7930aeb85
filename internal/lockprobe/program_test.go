package lockprobe

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The module as Ansible runs it: whoever reads its output sees the end of it, though a process that it started hangs in the kernel.
func TestTheProgramEndsThoughAMountHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, args := filepath.Join(dir, "nfs_lock_info"), filepath.Join(dir, "args.json")
	build := exec.Command("go", "build", "-o", program, "../../modules/nfs_lock_info")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := newStore(t, func(op string) unix.Errno {
		if op == "posix" {
			return hang
		}
		return 0
	})
	options, err := json.Marshal(map[string]any{"paths": []string{s.dir}, "timeout": 3, "engine_socket": filepath.Join(dir, "absent.sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(args, options, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"first", "next"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, program, args).Output()
		cancel()
		if err != nil {
			t.Fatalf("%s run: %v", run, err)
		}
		var r Result
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		// Other tests' processes hang on this machine, too.
		stuck := slices.DeleteFunc(r.Leftovers, func(p LeftProbe) bool { return p.Device != deviceOf(t, s.dir) })
		if r.Verdict != Hangs || len(r.Mounts) != 1 || len(stuck) != map[string]int{"first": 0, "next": 1}[run] {
			t.Errorf("%s run: %s, %+v", run, r.Msg, stuck)
		}
		if names := s.names(); len(names) > 0 {
			t.Errorf("%s run: left behind: %q", run, names)
		}
		time.Sleep(4*cleanLimit + time.Second) // until the process that hangs is past its own time
	}
}
