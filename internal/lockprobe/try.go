package lockprobe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// How many mounts are tried at once. One that is silent for slowAfter gives its place to the next, so that a server that is down does
// not keep others from being tried; slowLimit bounds how many processes may wait then.
const (
	atOnce    = 8
	slowAfter = time.Second
	slowLimit = 64
)

// trial is a spot and those who see it.
type trial struct {
	spot
	sights  []sight
	stuck   int // process of an earlier run that hangs there
	attempt attempt
	outside *attempt // where it was tried inside: how it fared outside
}

// trials puts together the sights that are the same spot, in the order in which they come.
func trials(s seen, paths []string) []*trial {
	var all []*trial
	index := map[spot]*trial{}
	for _, v := range s.views {
		for _, sight := range sights(v, paths) {
			at := sight.spot()
			t := index[at]
			if t == nil {
				t = &trial{spot: at}
				t.stuck = hangsIn(s.stuck, sight)
				index[at] = t
				all = append(all, t)
			}
			t.sights = append(t.sights, sight)
		}
	}
	return all
}

func hangsIn(stuck []stuckProbe, s sight) int {
	for _, p := range stuck {
		if p.device == s.mount.Device && (p.container == "" || p.container == s.view.ID) {
			return p.pid
		}
	}
	return 0
}

// tryAll tries them all, some at once.
func (m *machine) tryAll(ctx context.Context, all []*trial, limit time.Duration) {
	programs := &insidePrograms{in: map[*view]func() (*guest, error){}}
	defer programs.remove(ctx)
	someAtOnce(all, slowAfter, func(t *trial) {
		if t.stuck == 0 {
			m.tryOne(ctx, t, limit, programs)
		}
	})
}

// someAtOnce does something with each of all.
func someAtOnce[T any](all []T, slowAfter time.Duration, do func(T)) {
	places := make(chan struct{}, atOnce)
	processes := make(chan struct{}, slowLimit)
	var wait sync.WaitGroup
	for _, each := range all {
		wait.Go(func() {
			processes <- struct{}{}
			defer func() { <-processes }()
			places <- struct{}{}
			var once sync.Once
			give := func() { once.Do(func() { <-places }) }
			defer give()
			slow := time.AfterFunc(slowAfter, give)
			defer slow.Stop()
			do(each)
		})
	}
	wait.Wait()
}

func (m *machine) tryOne(ctx context.Context, t *trial, limit time.Duration, programs *insidePrograms) {
	first := t.sights[0]
	task := task{Path: []byte(first.path), MountID: first.mount.ID, ReadOnly: t.readOnly, LimitMS: limit.Milliseconds()}
	for _, s := range t.sights {
		if u := (user{s.view.uid, s.view.gid}); u.UID != 0 && !slices.Contains(task.Users, u) {
			task.Users = append(task.Users, u)
		}
	}
	defer m.progress.begin("locks at %s %s", first.path, in(first.view.name))()
	outside := m.tryOutside(ctx, first.view, t.device, task)
	if t.inside == nil {
		t.attempt = outside
		return
	}
	t.outside = &outside
	if outside.Hangs != "" || outside.Missing || outside.Image || outside.Problem != "" {
		t.attempt = outside // what hangs outside hangs inside, and there it would be harder to end
		return
	}
	g, err := programs.get(ctx, t.inside)
	if err != nil {
		t.attempt = attempt{Problem: err.Error()}
		return
	}
	t.attempt = m.tryInside(ctx, t.inside, g, t.device, task)
}

func (m *machine) tryOutside(ctx context.Context, v *view, device string, t task) attempt {
	a := m.try(ctx, v.folder, device, t)
	if a.file == "" {
		return a
	}
	// It was killed before it could take its file away: another process does, and may hang as well.
	t.Remove, t.LimitMS = a.file, cleanLimit.Milliseconds()
	if a.As != nil {
		t.Users = []user{*a.As}
	} else {
		t.Users = nil
	}
	m.try(context.WithoutCancel(ctx), v.folder, device, t)
	return a
}

// insidePrograms are the copies of this program in containers: one for each, made when it is first needed.
type insidePrograms struct {
	mu sync.Mutex
	in map[*view]func() (*guest, error)
}

func (p *insidePrograms) get(ctx context.Context, v *view) (*guest, error) {
	p.mu.Lock()
	if p.in[v] == nil {
		p.in[v] = sync.OnceValues(func() (*guest, error) {
			if v.root == nil {
				return nil, errors.New("cannot put a program into the container: its files do not answer")
			}
			ctx, cancel := context.WithTimeoutCause(ctx, putLimit, errNotPut)
			defer cancel()
			return foreign.Within(ctx, func() (*guest, error) { return putIn(v.root) })
		})
	}
	get := p.in[v]
	p.mu.Unlock()
	return get()
}

// putLimit is for a program of some megabytes. It is also for its removal: what that leaves a run an hour later removes.
const putLimit = 5 * time.Second

var errNotPut = fmt.Errorf("a program was not put there within %v", putLimit)

func (p *insidePrograms) remove(ctx context.Context) {
	for _, get := range p.in {
		if g, err := get(); err == nil {
			ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), putLimit, errNotPut)
			_, _ = foreign.Within(ctx, func() (struct{}, error) { return struct{}{}, g.Close() })
			cancel()
		}
	}
}

// fails tells whether a lock of the spot does not work as it should.
func (t *trial) fails() bool {
	return t.attempt.Hangs != "" || t.attempt.Probes.OFD.Result == Refused || t.attempt.Probes.POSIX.Result == Refused
}

// serverOf is the address of an NFS mount's server.
func serverOf(m host.MountPoint) string { return m.Value("addr") }
