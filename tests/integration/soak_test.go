//go:build lab

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSoak disturbs runs at random moments: the program is killed or told to stop, containers are restarted, killed, paused,
// recreated, the engine is restarted, a second run or somebody's dpkg is at work at the same time. Whatever came of the
// disturbed run, the next one makes the host whole, and the one after that changes nothing.
//
// NFSLOCK_SOAK_ROUNDS says how many rounds, NFSLOCK_SOAK_SEED repeats a sequence.
func TestSoak(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("NFSLOCK_SOAK_ROUNDS"))
	if rounds == 0 {
		t.Skip("make soak runs this")
	}
	seed, err := strconv.ParseUint(os.Getenv("NFSLOCK_SOAK_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("NFSLOCK_SOAK_SEED=%d", seed)
	s := &soak{faultLab: newFaultLab(t, "nova_libvirt", "cinder_api", "cinder_volume"), random: rand.New(rand.NewPCG(seed, seed)), ends: map[string]int{}}
	began := time.Now()
	for n := 1; n <= rounds; n++ {
		s.round(n)
		if t.Failed() {
			return
		}
		if n%20 == 0 || n == rounds {
			t.Logf("%d of %d rounds after %v: %v", n, rounds, time.Since(began).Round(time.Second), s.ends)
		}
	}
}

type soak struct {
	*faultLab
	random *rand.Rand
	ends   map[string]int // how the disturbed runs ended
	story  []string
}

func (s *soak) tell(format string, args ...any) {
	s.story = append(s.story, fmt.Sprintf(format, args...))
}

// upTo is a random time.
func (s *soak) upTo(limit time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(limit)))
}

func (s *soak) round(n int) {
	s.story = nil
	s.tell("round %d", n)
	defer func() {
		if s.t.Failed() {
			s.t.Logf("this round: %s", strings.Join(s.story, "; "))
		}
	}()
	want, args := "new", s.present
	if s.random.IntN(3) == 0 {
		want, args = "old", s.absent
	}
	one := args()
	if s.random.IntN(5) == 0 {
		one["containers"] = []string{s.any()}
	}
	if s.random.IntN(8) == 0 {
		one["on_error"] = "keep"
	}
	s.tell("%s %v", want, one["containers"])
	cmd, out := s.start(one)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its output
		close(ended)
	}()
	moment := s.upTo(900 * time.Millisecond)
	time.Sleep(moment)
	s.tell("after %v", moment.Round(time.Millisecond))
	restore := s.disturb(cmd)
	select {
	case <-ended:
	case <-time.After(3 * time.Minute):
		s.t.Errorf("the run does not end")
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-ended
		return
	}
	restore()
	end := "failed"
	switch {
	case out.Len() == 0:
		end = "killed"
	case strings.Contains(out.String(), `"failed":false`):
		end = "well"
	}
	s.ends[end]++
	s.tell("%s", end)
	s.awaitContainers()
	if r := s.run(args()); r["failed"] != false {
		s.t.Errorf("the next run failed: %v\nthe disturbed one: %s", r["msg"], out)
		return
	}
	if text, err := s.tryWhole(want); err != nil {
		s.t.Errorf("not whole: %s\nthe disturbed run: %s", text, out)
		return
	}
	if r := s.run(args()); r["failed"] != false || r["changed"] != false {
		s.t.Errorf("the run after that is not unchanged: %v", r)
	}
}

func (s *soak) any() string { return s.containers[s.random.IntN(len(s.containers))] }

// disturb does one bad thing, and gives what ends it when the run has ended.
func (s *soak) disturb(cmd *exec.Cmd) (restore func()) {
	restore = func() {}
	name := s.any()
	act := func(what string) { s.tell("%s", strings.ReplaceAll(what, "NAME", name)) }
	switch p := s.random.IntN(100); {
	case p < 25:
		act("the program is killed")
		_ = cmd.Process.Kill()
	case p < 35:
		act("the program is told to stop")
		_ = cmd.Process.Signal(syscall.SIGTERM)
	case p < 50:
		act("NAME is restarted")
		s.must("docker", "restart", "-t", "1", name)
	case p < 60:
		act("NAME is killed and started")
		s.must("docker", "kill", name)
		time.Sleep(s.upTo(time.Second))
		s.must("docker", "start", name)
	case p < 72:
		act("NAME is paused for a while")
		s.must("docker", "pause", name)
		time.Sleep(s.upTo(2 * time.Second))
		s.unpause(name)
	case p < 74:
		act("NAME is paused until the end")
		s.must("docker", "pause", name)
		restore = func() { s.unpause(name) }
	case p < 82:
		act("NAME is recreated")
		s.must("lab/up.sh", "--recreate", name, "--restart", "unless-stopped")
	case p < 87:
		act("the engine is restarted")
		s.must("lab/engine.sh", "stop")
		s.must("lab/engine.sh", "start")
	case p < 94:
		act("a second run is at work")
		second, _ := s.start(s.present())
		restore = func() { _ = second.Wait() }
	case p < 98:
		act("somebody's dpkg is at work in NAME")
		s.must("docker", "exec", "-u", "root", name, "sh", "-c", "dpkg --configure -a; apt-get check; true")
	default:
		act("nothing")
	}
	return restore
}

// unpause thaws the container's control group where the engine cannot: a pause in the moment in which runc starts a command
// makes Docker 20.10 wait for a process that it has frozen itself.
func (s *soak) unpause(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "unpause", name)
	cmd.Env = s.env
	if cmd.Run() == nil {
		return
	}
	s.tell("thawed by hand")
	id := strings.TrimSpace(s.must("docker", "ps", "-q", "--no-trunc", "--filter", "name=^"+name+"$"))
	for _, state := range [][2]string{{"/sys/fs/cgroup/freezer/docker/" + id + "/freezer.state", "THAWED"}, {"/sys/fs/cgroup/docker/" + id + "/cgroup.freeze", "0"}, {"/sys/fs/cgroup/system.slice/docker-" + id + ".scope/cgroup.freeze", "0"}} {
		_ = os.WriteFile(state[0], []byte(state[1]), 0) // one of them exists
	}
	for range 20 {
		if s.must("docker", "inspect", "-f", "{{.State.Paused}}", name) == "false\n" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.tell("the engine takes it for paused all the same, and restarts it") // runc: "container not paused"
	s.must("docker", "restart", "-t", "1", name)
}

// awaitContainers waits until all run: one with a restart policy takes a moment.
func (s *soak) awaitContainers() {
	for range 200 {
		up := strings.Fields(s.must("docker", "ps", "--filter", "status=running", "--format", "{{.Names}}"))
		if !slices.ContainsFunc(s.containers, func(c string) bool { return !slices.Contains(up, c) }) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatal("the containers do not come up")
}
