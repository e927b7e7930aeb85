package lockfix

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

const (
	restartGrace = 60 * time.Second // kolla-ansible's own units stop with -t 60
	restartLimit = 3 * time.Minute  // for systemd's job: stop, and start after its RestartSec
	startLimit   = 2 * time.Minute  // until it runs and its health test passes again; kolla itself allows 95 s
	startPoll    = 300 * time.Millisecond
	betweenLimit = 3 * time.Second  // between the stop and the start of a restart by the engine
	downLimit    = 25 * time.Second // a container that stays down longer does not come back by itself: kolla's units start it after 11 s
	healthLimit  = 30 * time.Second // kolla's own timeout of a health test
)

// restart restarts the container if its plan says so: through the systemd unit that owns it, where there is one, because that unit
// would stop a container that somebody else restarted. Then it waits until the container runs and, if its health test passed
// before, until it passes again. A test that failed before proves nothing after.
func (j *job) restart(ctx context.Context, w *work) error {
	if _, ok := w.step(Restart); !ok {
		return nil
	}
	if ctx.Err() != nil {
		return fail("restart", "cannot restart %s: %w", w.Name, ended(ctx))
	}
	return j.restartNow(ctx, w)
}

func (j *job) restartNow(ctx context.Context, w *work) error {
	before, err := j.engine.Inspect(ctx, w.ID)
	if err == nil {
		err = j.begin(w, Restart)
	}
	if err != nil {
		return fail("restart", "cannot restart %s: %w", w.Name, err)
	}
	w.restarted = true // also when the call fails: it may have come through
	if err := j.restartOnce(ctx, before, w.Name); err != nil {
		return fail("restart", "cannot restart %s: %w", w.Name, err)
	}
	if err := j.awaitStart(ctx, before, w.healthy); err != nil {
		return fail("restart", "cannot bring %s up again: %w", w.Name, err)
	}
	faultpoint.Hit(string(Restart) + " " + w.Name + " done")
	return nil
}

// findUnits fails a plan with a restart that systemd would refuse: that is asked before anything is begun, and only then,
// because asking costs as much as the rest of a run without change.
func (j *job) findUnits(ctx context.Context, plans []ContainerPlan) {
	for i := range plans {
		p := &plans[i]
		if _, ok := p.step(Restart); !ok || p.Failure != nil || p.Back {
			continue
		}
		if _, err := j.units.runs(ctx, kolla.Unit(p.Seen.Name)); err != nil {
			p.Failure = &Failure{Step: "plan", Message: fmt.Sprintf("cannot restart %s: %v", p.Seen.Name, err), Hint: "with restart: never it is left to you"}
			p.Status, p.Steps, p.Files = Failed, nil, nil
			if p.Seen.Dead != nil {
				p.takeBack()
			}
		}
	}
}

func (j *job) restartOnce(ctx context.Context, c engine.Container, name string) error {
	unit := kolla.Unit(name)
	owned, err := j.units.runs(ctx, unit)
	if err != nil {
		return err
	}
	if owned {
		return j.units.restart(ctx, unit, restartLimit)
	}
	return j.engine.Restart(ctx, c.ID, restartGrace)
}

func (j *job) awaitStart(ctx context.Context, before engine.Container, healthy bool) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	last := errors.New("it was not started")
	for {
		now, err := j.engine.Inspect(ctx, before.ID)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			last = err
		case now.State != "running":
			last = fmt.Errorf("it is %s", now.State)
		case now.SameStart(before):
			last = errors.New("it was not started again")
		case !healthy:
			return nil
		default:
			err := j.health(ctx, now)
			if err == nil {
				return nil
			}
			if ctx.Err() == nil {
				last = err
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(startPoll):
		}
	}
}

// health runs the container's health test once, as its own user. The engine's word for it comes half a minute late.
func (j *job) health(ctx context.Context, c engine.Container) error {
	test := kolla.HealthTest(c.Name, c.Health)
	if len(test) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	out, err := j.engine.Exec(ctx, c.ID, engine.Command{Args: test})
	if err != nil {
		return err
	}
	if out.ExitCode != 0 {
		return fmt.Errorf("its health test %q ended with %d: %s", strings.Join(test, " "), out.ExitCode, ending(out.Output))
	}
	return nil
}
