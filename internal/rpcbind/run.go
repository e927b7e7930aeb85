package rpcbind

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// world is what a run looks at and changes.
type world interface {
	observe(ctx context.Context, o Options, check bool) (Seen, error)
	do(ctx context.Context, step Step) error
	used(ctx context.Context) (bool, error) // whether NFSv3 is in use by now
	save(r Record) error
}

// Run is the module: it does what the options say and reports. The result is valid also beside an error.
func Run(ctx context.Context, o Options, call ansible.Call) (Result, error) {
	result := emptyResult()
	if err := o.check(); err != nil {
		return result, err
	}
	m := &machine{proc: "/proc", state: stateFolder, client: sunrpc.Client{}}
	m.connect = func(ctx context.Context) (*engine.Engine, string) {
		e, err := engine.Connect(ctx, o.Engine, o.EngineSocket)
		if err != nil {
			return nil, err.Error()
		}
		return e, ""
	}
	defer func() {
		if m.engine != nil {
			m.engine.Close()
		}
	}()
	open := statedir.Make
	if call.CheckMode {
		open = statedir.Open
	}
	var err error
	if m.dir, err = open(statedir.Path); err != nil {
		return result, err
	}
	defer m.dir.Close()
	if !call.CheckMode {
		waiting, cancel := context.WithTimeout(ctx, o.limit())
		unlock, _, err := m.dir.Lock(waiting)
		cancel()
		if err != nil {
			return result, err
		}
		defer unlock()
	}
	// A run that waited long still has all its time for the work.
	ctx, cancel := ansible.WithTimeout(ctx, o.limit(), o.timeIsUp())
	defer cancel()
	return carryOut(ctx, m, o, call)
}

func (m *machine) save(r Record) error { return r.save(m.dir) }

func carryOut(ctx context.Context, w world, o Options, call ansible.Call) (Result, error) {
	result := emptyResult()
	before, err := w.observe(ctx, o, call.CheckMode)
	if err != nil {
		return result, err
	}
	p, err := MakePlan(o, before)
	result.tell(o, before, p)
	if err != nil {
		return result, err
	}
	result.Changed = len(p.Steps) > 0
	if call.Diff {
		result.Diff = p.diff(before)
	}
	if call.CheckMode || !result.Changed {
		if left := before.left(o); left != "" && !call.CheckMode {
			return result, fmt.Errorf("cannot get what was asked for, and know no remedy: %s; see: %s", left, before.logs(o))
		}
		result.Msg = summary(o, before, p, call.CheckMode)
		return result, nil
	}
	// Half way between two homes there is no statd at all: a run that is told to stop goes on to the end, which is seconds away.
	ctx = context.WithoutCancel(ctx)
	ansible.Known(ctx, result)
	done, err := apply(ctx, w, o.limit(), before, p)
	if err != nil {
		result.Changed = done > 0
		return result, fmt.Errorf("%w; %d of %d steps are done, and the next run goes on from there", err, done, len(p.Steps))
	}
	after, err := verify(ctx, w, o)
	result.tell(o, after, p)
	result.Findings = before.findings(o) // what was wrong, not what is
	if o.Statd && !o.absent() && before.Answers.Statd != Answering {
		result.Warnings = append(result.Warnings, after.unwatched(p.Mode)...)
	}
	if err != nil {
		return result, err
	}
	result.Msg = summary(o, before, p, false)
	return result, nil
}

// apply does the steps in their order. What they change is written down first, what is left of it last. Packages take their own time, and
// the limit is for what comes before them and behind.
func apply(ctx context.Context, w world, limit time.Duration, s Seen, p Plan) (done int, err error) {
	if err := w.save(p.Record.join(s.Record)); err != nil {
		return 0, err
	}
	deadline := time.Now().Add(limit)
	silent := s.Notified
	for _, step := range p.Steps {
		if silent, err = takeStep(ctx, w, deadline, step, silent); err != nil {
			return done, err
		}
		done++
		if step.Verb.ofPackages() {
			deadline = time.Now().Add(limit)
		}
	}
	return done, w.save(p.Record)
}

// ofPackages: packages take their own time.
func (v Verb) ofPackages() bool { return v == Fetch || v == Install || v == Uninstall }

// takeStep tells whether the notification is forbidden, or was made, by then.
func takeStep(ctx context.Context, w world, deadline time.Time, step Step, silent bool) (bool, error) {
	limit := time.Until(deadline)
	if step.Verb.ofPackages() {
		limit = packageLimit * time.Duration(len(step.Names)) // one after the other, at the longest
	}
	defer ansible.Allow(ctx, limit)()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if step.notifies() && !silent {
		var err error
		if silent, err = silenceLate(ctx, w); err != nil {
			return false, err
		}
	}
	return silent || step.Verb == Silence, w.do(ctx, step)
}

// silenceLate: guests may have been started since the plan was made.
func silenceLate(ctx context.Context, w world) (bool, error) {
	used, err := w.used(ctx)
	if err != nil || !used {
		return false, err
	}
	return true, w.do(ctx, Step{Verb: Silence, Names: []string{notifiedMark}})
}

// How long the services may take to come up, and how often they are asked meanwhile.
const (
	startLimit = 20 * time.Second
	startPoll  = 200 * time.Millisecond
)

// verify asks until both answer and nothing is left to do.
func verify(ctx context.Context, w world, o Options) (Seen, error) {
	defer ansible.Allow(ctx, startLimit)()
	waiting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		s, err := w.observe(ctx, o, false)
		if err != nil {
			return s, fmt.Errorf("cannot tell how the run ended: %w", err)
		}
		left := s.left(o)
		if left == "" {
			return s, nil
		}
		select {
		case <-waiting.Done():
			return s, fmt.Errorf("cannot get what was asked for: %s after %v; see: %s", left, startLimit, s.logs(o))
		case <-time.After(startPoll):
		}
	}
}

// left is what is not yet as it should be, empty if nothing.
func (s Seen) left(o Options) string {
	if !o.absent() && s.Answers.RPCBind != Answering {
		return fmt.Sprintf("rpcbind %s (%s)", s.Answers.RPCBind, s.Answers.RPCDetail)
	}
	if !o.absent() && o.Statd && s.Answers.Statd != Answering {
		return fmt.Sprintf("rpc.statd %s (%s)", s.Answers.Statd, s.Answers.StatdInfo)
	}
	p, err := MakePlan(o, s)
	if err != nil {
		return err.Error()
	}
	var verbs []string
	for _, step := range p.Steps {
		verbs = append(verbs, strings.TrimSpace(string(step.Verb)+" "+strings.Join(step.Names, " ")))
	}
	return strings.Join(slices.Compact(verbs), ", ")
}

// logs names the way to more.
func (s Seen) logs(o Options) string {
	if s.Ours != nil {
		return s.EngineName + " logs " + s.Ours.Name
	}
	return "journalctl -b -u " + strings.Join(hostUnits(o), " -u ")
}
