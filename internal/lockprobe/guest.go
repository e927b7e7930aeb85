package lockprobe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
)

// Where a trial has files in the container, besides its image: its description, for the time of the start, and the log that libvirt writes of
// every domain.
const (
	trialFolders = "var/lib"
	trialLogs    = "var/log/libvirt/qemu"
	description  = "domain.xml"
)

// trialGrace is how long after the end of its run a trial may be there: as long as the commands that were begun last may take.
const trialGrace = 10 * time.Second

// clearLimit is far more than it takes to take a trial away, or a proof.
const clearLimit = 20 * time.Second

// logLimit is of a log's end: far more than a guest writes that never runs.
const logLimit = 64 << 10

// startGuests lets libvirt start a guest on each mount that guests can use, from an image of its own, paused at its first instruction.
func (m *machine) startGuests(ctx context.Context, s seen, all []*trial, limit time.Duration, r *Result) {
	v := s.runsGuests()
	if v == nil {
		return
	}
	var proofs []*guestProof
	for _, t := range all {
		for _, sight := range t.sights {
			if sight.view == v && !t.attempt.Image && (!sight.named || !t.attempt.Missing) {
				proofs = append(proofs, &guestProof{virsh: s.virsh, proof: proof{trial: t, sight: sight, Proof: Proof{Container: v.name, Path: sight.path}}})
			}
		}
	}
	if len(proofs) == 0 {
		return
	}
	kind, why := libvirt.Kind(""), ""
	switch {
	case v.libvirt == nil:
		why = fmt.Sprintf("%s has no package %s", v.name, libvirtPackage)
	case !v.has("usr/bin/virsh"):
		why = v.name + " has no virsh"
	case !v.has("usr/bin/timeout"):
		why = "the container has no timeout(1), without which virsh might hang there for ever"
	default:
		kind, why = m.kindOf(ctx, v)
	}
	if n := m.sweepTrials(ctx, s, v); n > 0 {
		r.Findings = append(r.Findings, Finding{Kind: LeftoverRemoved, Message: fmt.Sprintf("removed %d guests, descriptions or logs of earlier runs, which had been killed, from %s", n, v.name)})
	}
	someAtOnce(proofs, proofSlowAfter, func(p *guestProof) {
		if why != "" {
			p.say(Unproved, "", why)
			return
		}
		p.make(ctx, m, kind, limit)
	})
	for _, p := range proofs {
		r.GuestProofs = append(r.GuestProofs, p.Proof)
		r.Warnings = append(r.Warnings, p.left...)
	}
}

// kindOf asks libvirt how it can run guests of the host's architecture; why is set where it cannot.
func (m *machine) kindOf(ctx context.Context, v *view) (kind libvirt.Kind, why string) {
	machine := machineOf(v.architecture)
	if machine != "x86_64" && machine != "aarch64" {
		return "", fmt.Sprintf("no guest of architecture %s is tried", machine)
	}
	for _, kind = range []libvirt.Kind{libvirt.KVM, libvirt.TCG} {
		limit := stepLimit(ctx, healthLimit)
		if limit < proofLeast {
			return "", tooLate
		}
		out, _, err := m.virsh(ctx, v, limit, fmt.Sprintf("domcapabilities --virttype %s --arch %s", kind, machine))
		switch {
		case err != nil:
			return "", "cannot ask libvirt: " + ending(err.Error())
		case out.ExitCode == 0:
			return kind, ""
		case out.ExitCode == killed:
			return "", fmt.Sprintf("libvirt did not say within %v which guests it can run", limit)
		}
		why = "libvirt runs no guests here: " + ending(out.Output)
	}
	return "", why
}

// virsh runs commands of it, with a deadline inside and outside of the container. late tells whether the latter has passed.
func (m *machine) virsh(ctx context.Context, v *view, limit time.Duration, commands string) (out engine.Outcome, late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit+proofGrace)
	defer cancel()
	seconds := strconv.Itoa(max(1, int(limit/time.Second)))
	out, err = m.engine.Exec(ctx, v.ID, engine.Command{Args: []string{"timeout", "-s", "KILL", seconds, "virsh", "-q", "-c", "qemu:///system", commands}, User: "0", Env: []string{"LC_ALL=C"}})
	return out, errors.Is(ctx.Err(), context.DeadlineExceeded), err
}

// guestProof is one guest while it is tried.
type guestProof struct {
	proof
	libvirt.Trial
	virsh string   // how a person calls it
	left  []string // what could not be taken away, and what is to be done about it
}

func (p *guestProof) make(ctx context.Context, m *machine, kind libvirt.Kind, limit time.Duration) {
	defer m.progress.begin("a guest at %s %s", p.Path, in(p.Container))()
	limit, work, made := p.begin(ctx, m, limit, p.imageMode())
	if made.Folder == nil {
		return
	}
	began := time.Now()
	p.start(ctx, m, kind, 2*limit)
	p.MS = milliseconds(time.Since(began))
	defer ansible.Allow(ctx, clearLimit)() // what follows is not to be cut off
	p.clear(ctx, m)
	removed := m.try(context.WithoutCancel(ctx), p.sight.view.folder, p.trial.device, work)
	if problem := cmp.Or(removed.Problem, Evidence{Hangs: removed.Hangs}.hanging()); problem != "" {
		p.left = append(p.left, fmt.Sprintf("cannot clear away %q in %s: %s; a run an hour later tries again", p.folder, p.Container, problem))
	}
}

// imageMode is that of the images of Nova and Cinder, where it matters. Where root may give a file to QEMU's user, it is for him alone. Where the server
// squashes root, libvirt cannot, and whether it takes its lock depends on whether it may open the file: Cinder's volumes, below a folder mnt, are for
// all (RemoteFSDriver._set_rw_permissions, unless nas_secure_file_permissions), the images of Nova's own folder are for their user to write.
func (p *guestProof) imageMode() uint32 {
	switch {
	case p.trial.attempt.As != nil && strings.Contains(p.sight.path+"/", "/mnt/"), p.trial.attempt.As != nil && strings.Contains(p.sight.path, "-mnt/"):
		return 0o666
	case p.trial.attempt.As != nil:
		return 0o644
	case !p.sight.view.libvirt.DynamicOwnership:
		return 0o666 // libvirt does not give it to QEMU's user, whose an image of Nova's would be
	}
	return 0o600
}

// start has libvirt start it, tell its state and end it, all in one connection: were virsh killed in between, libvirt would end the guest.
func (p *guestProof) start(ctx context.Context, m *machine, kind libvirt.Kind, limit time.Duration) {
	v := p.sight.view
	until := time.Now().Add(limit)
	if deadline, ok := ctx.Deadline(); ok {
		until = deadline
	}
	p.Trial = libvirt.NewTrial(until.Add(trialGrace))
	folder := path.Join(trialFolders, p.Name)
	file := path.Join(folder, description)
	xml := p.XML(kind, machineOf(v.architecture), path.Join(p.folder, firstImage))
	_, err := inTime(ctx, func() (struct{}, error) {
		err := v.root.Mkdir(folder, 0o700)
		if err == nil {
			err = v.root.WriteFile(file, xml, 0o600)
		}
		return struct{}{}, err
	})
	if err != nil {
		p.say(Unproved, "", fmt.Sprintf("cannot put a guest's description into %s: %v", v.name, cause(err)))
		return
	}
	out, late, err := m.virsh(ctx, v, limit, fmt.Sprintf("create --paused --autodestroy /%s; domstate %s; destroy %s", file, p.UUID, p.UUID))
	p.Unlocked = p.unlocked(ctx)
	said := startReason(out.Output)
	switch {
	case errors.Is(err, engine.ErrUnknown) && late:
		p.say(Stalls, StepStart, fmt.Sprintf("after %v the engine had not told how it ended%s", limit+proofGrace, inBrackets(said)))
	case errors.Is(err, engine.ErrUnknown):
		p.say(Unproved, "", "the engine was lost while it started; run again: "+ending(err.Error()))
	case err != nil:
		p.say(Unproved, "", "cannot run virsh: "+ending(err.Error()))
	case out.ExitCode == killed:
		p.say(Stalls, StepStart, fmt.Sprintf("it did not start within %v%s", limit, inBrackets(said)))
	case out.ExitCode == 0 && slices.Contains(strings.Fields(said), "paused"):
		p.say(Works, "", "")
	default:
		p.say(Fails, StepStart, cmp.Or(said, fmt.Sprintf("virsh ended with %d and said nothing", out.ExitCode)))
	}
}

// startReason leaves out of virsh's words what it says of the file, and of the guest that then is not there for its next commands.
func startReason(output string) string {
	output, _, _ = strings.Cut(output, "error: failed to get domain")
	var lines []string
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "error: ")); line != "" && !strings.HasPrefix(line, "Failed to create domain from") {
			lines = append(lines, line)
		}
	}
	return ending(strings.Join(lines, "\n"))
}

// unlocked tells from the guest's log whether QEMU warned that it goes on without a lock.
func (p *guestProof) unlocked(ctx context.Context) bool {
	root, log := p.sight.view.root, path.Join(trialLogs, p.Name+".log")
	found, err := inTime(ctx, func() (bool, error) {
		file, info, err := foreign.Open(root, log)
		if err != nil {
			return false, err
		}
		defer file.Close()
		if _, err := file.Seek(max(0, info.Size()-logLimit), io.SeekStart); err != nil {
			return false, err
		}
		return containsText(io.LimitReader(file, logLimit), unlockedWarning)
	})
	return err == nil && found
}

// inTime is for a look at a trial's files, or the removal of them: what hangs in a container is left behind, also at the run's end.
func inTime[T any](ctx context.Context, look func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), removeLimit, fmt.Errorf("there was no answer within %v", removeLimit))
	defer cancel()
	return foreign.Within(ctx, look)
}

// clear takes away what is left of it in the container, and looks whether the guest is gone.
func (p *guestProof) clear(ctx context.Context, m *machine) {
	ctx = context.WithoutCancel(ctx)
	v := p.sight.view
	if m.runs(p.Name) { // the connection was lost, and libvirt has not noticed yet
		_, _, _ = m.virsh(ctx, v, removeLimit, "destroy "+p.UUID)
		if m.runs(p.Name) {
			p.left = append(p.left, fmt.Sprintf("the guest %s, which only tried, is still there; a later run ends it, or: %s destroy %s", p.Name, p.virsh, p.UUID))
		}
	}
	if _, err := inTime(ctx, func() (struct{}, error) { return struct{}{}, removeTrial(v.root, p.Name) }); err != nil {
		p.left = append(p.left, fmt.Sprintf("cannot clear away what is left of %s in %s: %v", p.Name, v.name, err))
	}
}

// runs tells whether there is a guest of that name.
func (m *machine) runs(name string) bool {
	guests, err := host.Guests(m.proc)
	return err == nil && slices.ContainsFunc(guests, func(g host.Guest) bool { return g.Name == name })
}

// removeTrial removes a trial's description and log, and nothing else.
func removeTrial(root *os.Root, name string) error {
	var errs []error
	for _, file := range []string{path.Join(trialFolders, name, description), path.Join(trialFolders, name), path.Join(trialLogs, name+".log")} {
		if err := root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepTrials ends guests, and removes descriptions and logs, of runs that were killed, and says how many.
func (m *machine) sweepTrials(ctx context.Context, s seen, v *view) (n int) {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*removeLimit) // one that libvirt does not end is left to the next run
	defer cancel()
	for _, g := range s.guests {
		if t, left := libvirt.LeftTrial(g.Name, now); left {
			if out, _, err := m.virsh(ctx, v, removeLimit, "destroy "+t.UUID); err == nil && out.ExitCode == 0 {
				n++
			}
		}
	}
	removed, _ := inTime(ctx, func() (int, error) { return sweepFiles(v.root, now), nil })
	return n + removed
}

// sweepFiles removes descriptions and logs of such runs.
func sweepFiles(root *os.Root, now time.Time) (n int) {
	for folder, suffix := range map[string]string{trialFolders: "", trialLogs: ".log"} {
		for _, entry := range names(root, folder) {
			name, ok := strings.CutSuffix(entry, suffix)
			if _, left := libvirt.LeftTrial(name, now); ok && left && removeTrial(root, name) == nil {
				n++
			}
		}
	}
	return n
}

// names are those in a folder of a container, as many as are looked at.
func names(root *os.Root, folder string) []string {
	dir, err := root.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	found, _ := dir.Readdirnames(sweepLimit)
	return found
}
