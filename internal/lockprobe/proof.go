package lockprobe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

const (
	proofSlowAfter = 3 * time.Second // a command takes the engine a tenth of a second, and more when it has much to do
	proofGrace     = 2 * time.Second // what the engine may take to start a command and to tell how it ended
	proofReserve   = 5 * time.Second // of the run's time: that grace, and the removal
	proofLeast     = 2 * time.Second // a step that has less may seem to hang on a busy host
	removeLimit    = 2 * time.Second
	imageSize      = "1M"
)

// unlockedWarning is of the patched QEMU's warning, and the library's: see docs/locks.md.
const unlockedWarning = "going on WITHOUT a lock"

// prove lets the containers' own qemu-img make images, and tests the health of nova_libvirt meanwhile.
func (m *machine) prove(ctx context.Context, s seen, all []*trial, limit time.Duration, r *Result) {
	healthy := make(chan Libvirt, 1)
	go func() {
		l := Libvirt{}
		if err := foreign.NoPanic(func() error { l = m.libvirt(ctx, s); return nil }); err != nil {
			l.Detail = err.Error()
		}
		healthy <- l
	}()
	var proofs []*proof
	for _, t := range all {
		for _, sight := range t.sights {
			if !sight.view.has(tool) || t.attempt.Image || sight.named && t.attempt.Missing {
				continue
			}
			proofs = append(proofs, &proof{trial: t, sight: sight, Proof: Proof{Container: sight.view.name, Path: sight.path}})
		}
	}
	slices.SortStableFunc(proofs, func(a, b *proof) int { return s.order(a.Container) - s.order(b.Container) })
	started := make(chan struct{})
	var guests Result
	go func() {
		defer close(started)
		if err := foreign.NoPanic(func() error { m.startGuests(ctx, s, all, limit, &guests); return nil }); err != nil {
			guests.Warnings = append(guests.Warnings, err.Error())
		}
	}()
	someAtOnce(proofs, proofSlowAfter, func(p *proof) { p.make(ctx, m, limit) })
	<-started
	r.GuestProofs = append(r.GuestProofs, guests.GuestProofs...)
	r.Findings = append(r.Findings, guests.Findings...)
	r.Warnings = append(r.Warnings, guests.Warnings...)
	for _, p := range proofs {
		r.Proofs = append(r.Proofs, p.Proof)
		if p.left != "" {
			r.Warnings = append(r.Warnings, fmt.Sprintf("cannot clear away %q in %s: %s; a run an hour later tries again", p.folder, p.Container, p.left))
		}
	}
	r.Libvirt = <-healthy
}

// provers are the programs that proofs run.
var provers = []string{tool, "usr/bin/timeout", "bin/timeout", "usr/bin/virsh"}

// readPrograms finds out which of them are there.
func (v *view) readPrograms() {
	v.programs = slices.DeleteFunc(slices.Clone(provers), func(name string) bool { return !hasFile(v.root, name) })
}

// has tells whether one of those is there.
func (v *view) has(name string) bool { return slices.Contains(v.programs, name) }

// hasFile looks below a container's root.
func hasFile(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

// proof is one while it is made.
type proof struct {
	Proof
	trial  *trial
	sight  sight
	folder string // as the container sees it
	left   string // why it is not gone
}

// say ends it.
func (p *proof) say(result ProofResult, step ProofStep, detail string) {
	p.Result, p.Step, p.Detail = result, step, detail
}

// make makes a folder, lets qemu-img make its images there, and removes it with them.
func (p *proof) make(ctx context.Context, m *machine, limit time.Duration) {
	defer m.progress.begin("qemu-img at %s %s", p.Path, in(p.Container))()
	limit, removal, made := p.begin(ctx, m, limit, 0)
	if made.Folder == nil {
		return
	}
	user := "0"
	if made.As != nil {
		user = fmt.Sprintf("%d:%d", made.As.UID, made.As.GID)
	}
	p.run(ctx, m, user, limit)
	defer ansible.Allow(ctx, clearLimit)() // what follows is not to be cut off
	p.settle(m.try(context.WithoutCancel(ctx), p.sight.view.folder, p.trial.device, removal))
}

// tooLate is why a proof is not begun towards the run's end.
const tooLate = "too little of the run's time is left for it; give it a longer timeout"

// begin makes the folder, as makeFolder does, if nothing is against it and there is time: limit is what there is for each step.
func (p *proof) begin(ctx context.Context, m *machine, most time.Duration, image uint32) (limit time.Duration, removal task, made attempt) {
	if why := p.hindrance(); why != "" {
		p.say(Unproved, "", why)
		return limit, removal, made
	}
	if limit = stepLimit(ctx, most); limit < proofLeast {
		p.say(Unproved, "", tooLate)
		return limit, removal, made
	}
	removal, made = p.makeFolder(ctx, m, limit, image)
	return limit, removal, made
}

// makeFolder makes a folder, with an image of that mode if one is given, and says how it is removed. It says why where it cannot.
func (p *proof) makeFolder(ctx context.Context, m *machine, limit time.Duration, image uint32) (removal task, made attempt) {
	v, device := p.sight.view, p.trial.device
	work := task{Path: []byte(p.sight.path), MountID: p.sight.mount.ID, LimitMS: limit.Milliseconds(), Make: true, ImageMode: image, Users: p.users()}
	made = m.try(ctx, v.folder, device, work)
	work.Make, work.ImageMode, work.Remove, work.Folder, work.Users, work.LimitMS = false, 0, made.folder, made.Folder, nil, removeLimit.Milliseconds()
	if made.As != nil {
		work.Users = append(work.Users, *made.As)
	}
	if made.Folder == nil {
		if work.Remove = made.file; work.Remove != "" { // it was killed before it could take it away
			m.try(context.WithoutCancel(ctx), v.folder, device, work)
		}
		if made.Hangs != "" {
			p.say(Stalls, "", Evidence{Hangs: made.Hangs}.hanging())
			return work, made
		}
		p.say(Unproved, "", cmp.Or(made.Problem, "the process that makes a folder for the image ended without a word"))
		return work, made
	}
	p.folder = path.Join(p.sight.path, made.folder)
	return work, made
}

// hindrance is why it is not to be tried.
func (p *proof) hindrance() string {
	a := p.trial.attempt
	switch {
	case p.trial.stuck != 0:
		return fmt.Sprintf("process %d of an earlier run still waits for this mount", p.trial.stuck)
	case a.Hangs != "":
		return Evidence{Hangs: a.Hangs}.hanging() + ": that did not end in time, so that qemu-img would hang, too"
	case a.Problem != "":
		return a.Problem
	case !utf8.ValidString(p.sight.path):
		return "the path is not valid UTF-8, and the engine takes no other argument"
	case !p.sight.view.has("usr/bin/timeout") && !p.sight.view.has("bin/timeout"):
		return "the container has no timeout(1), without which qemu-img might hang there for ever"
	}
	return ""
}

// stepLimit is the time of each of three steps, the folder among them, so that all of them fit into the run's.
func stepLimit(ctx context.Context, limit time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, (time.Until(deadline)-proofReserve)/3)
	}
	return limit.Truncate(time.Second)
}

// users are those to try as where root may not: whoever could make the file for the locks, outside of the container, and its own.
func (p *proof) users() (all []user) {
	as := p.trial.attempt.As
	if p.trial.outside != nil {
		as = p.trial.outside.As
	}
	if as != nil {
		all = append(all, *as)
	}
	return append(all, user{p.sight.view.uid, p.sight.view.gid})
}

// run lets qemu-img make an image and convert it.
func (p *proof) run(ctx context.Context, m *machine, user string, limit time.Duration) {
	first, second := path.Join(p.folder, firstImage), path.Join(p.folder, secondImage)
	began := time.Now()
	defer func() { p.MS = milliseconds(time.Since(began)) }()
	for _, step := range []struct {
		name ProofStep
		args []string
	}{
		{StepCreate, []string{"create", "-q", "-f", "qcow2", first, imageSize}},
		{StepConvert, []string{"convert", "-f", "qcow2", "-O", "qcow2", first, second}},
	} {
		seconds := strconv.Itoa(int(limit / time.Second))
		// The engine's answer comes through a pipe, into which the library says nothing unasked.
		c := engine.Command{Args: append([]string{"timeout", "-s", "KILL", seconds, "qemu-img"}, step.args...), User: user, Env: []string{preload.WarnVariable + "=1"}}
		began := time.Now()
		stepping, cancel := context.WithTimeout(ctx, limit+proofGrace)
		out, err := m.engine.Exec(stepping, p.sight.view.ID, c)
		late := stepping.Err()
		cancel()
		p.Unlocked = p.Unlocked || strings.Contains(out.Output, unlockedWarning)
		p.judge(step.name, limit, time.Since(began), late, out, err)
		if p.Result != Works {
			return
		}
	}
}

// killed is the exit code of timeout(1) once it has sent SIGKILL, of the engine for a command that was killed, and of a shell.
const killed = 137

func (p *proof) judge(step ProofStep, limit, took time.Duration, late error, out engine.Outcome, err error) {
	said := ending(out.Output)
	switch {
	case err == nil && out.ExitCode == 0:
		p.say(Works, "", said)
	case err == nil && out.ExitCode == killed && took >= limit:
		p.say(Stalls, step, fmt.Sprintf("it did not end within %v and was killed%s", limit, inBrackets(said)))
	case err == nil && out.ExitCode == killed:
		p.say(Fails, step, fmt.Sprintf("it was killed by somebody else, perhaps for lack of memory, or its container was stopped%s", inBrackets(said)))
	case err == nil:
		p.say(Fails, step, cmp.Or(said, fmt.Sprintf("it ended with %d and said nothing", out.ExitCode)))
	case errors.Is(late, context.DeadlineExceeded) && errors.Is(err, engine.ErrUnknown):
		p.say(Stalls, step, fmt.Sprintf("after %v the engine had not told how it ended: it cannot even be killed, or was not begun%s", limit+proofGrace, inBrackets(said)))
	case step == StepCreate && !errors.Is(err, engine.ErrUnknown):
		p.say(Unproved, "", "cannot run qemu-img: "+ending(err.Error()))
	default:
		p.say(Fails, step, fmt.Sprintf("cannot run qemu-img: %s%s", ending(err.Error()), inBrackets(said)))
	}
}

// settle takes what the removal found: it only works if the images were there.
func (p *proof) settle(removed attempt) {
	problem := removed.Problem
	if removed.Hangs != "" {
		problem = Evidence{Hangs: removed.Hangs}.hanging() + ": that did not end in time"
	}
	p.left = problem
	if p.Result != Works {
		return
	}
	switch {
	case removed.has(firstImage) && removed.has(secondImage):
	case removed.Hangs != "":
		p.say(Stalls, "", "qemu-img ended with 0, and to look at what it has made hangs")
	case removed.has(firstImage):
		p.say(Fails, StepConvert, "qemu-img ended with 0, and no second image is there"+inBrackets(problem))
	default:
		p.say(Fails, StepCreate, "qemu-img ended with 0, and no image is there"+inBrackets(problem))
	}
}

// ending bounds what comes out of a container. The reason of a failure stands at the end.
func ending(text string) string {
	const most = 1000
	text = strings.TrimSpace(text)
	return strings.ToValidUTF8(text[max(0, len(text)-most):], "\uFFFD")
}
