package rpcbind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// How long a step may take.
const (
	jobLimit  = 3 * time.Minute  // a job of systemd's; network-online.target, which statd waits for, may take two minutes (systemd-networkd-wait-online)
	grace     = 10 * time.Second // for a container or a process to end by itself
	silentFor = 0o600            // the mode that sm-notify gives its own file
)

// do carries out one step. Each can be done again: a run that was cut off is finished by the next one.
func (m *machine) do(ctx context.Context, step Step) error {
	name := ""
	if len(step.Names) > 0 {
		name = step.Names[0]
	}
	switch step.Verb {
	case Silence:
		return silence(name)
	case Fetch:
		return m.packages(ctx, "download packages for this host", step.Names, host.PackageTool.Fetch)
	case Install:
		return m.packages(ctx, "install packages on this host", step.Names, host.PackageTool.Install)
	case Uninstall:
		return m.uninstall(ctx, step.Names)
	case Inherit:
		return m.inherit(ctx, step)
	case Write:
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("cannot write %s: %w", name, err)
		}
		return writeFile(name, step.Text, 0o644)
	case Link:
		return link(name, step.Text)
	case Delete:
		return remove(name)
	case Hold:
		return host.MaskForBoot(ctx, jobLimit, step.Names...)
	case Release:
		return host.UnmaskForBoot(ctx, jobLimit, step.Names...)
	case Unmask, Mask, Enable, Disable, Start, Stop, Restart, Reload:
		return systemctl(ctx, step)
	case TakeOver:
		return m.takeOver(ctx, step)
	case Carry:
		return m.carry(ctx, step.To)
	}
	return m.doContainer(ctx, step, name)
}

func (m *machine) doContainer(ctx context.Context, step Step, name string) error {
	switch step.Verb {
	case TryImage:
		missing, err := m.engine.Lacks(ctx, step.Text, step.Names)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("cannot use image %s: it lacks %s; name another one with image", step.Text, strings.Join(missing, " and "))
		}
		return err
	case MakeImage:
		if m.noImage = m.engine.BareImage(ctx, step.Image.Reference, name, map[string]string{baseLabel: step.Image.ID}); ctx.Err() != nil {
			return m.noImage
		}
	case Create:
		if m.noImage != nil { // better one with labels of kolla's than none
			step.Spec = step.Plain
		}
		_, err := m.engine.Create(ctx, step.Spec)
		return err
	case RemoveImage:
		return m.engine.RemoveImage(ctx, name)
	case Unpause:
		return m.engine.Unpause(ctx, name)
	case StartBox:
		return m.engine.Start(ctx, name)
	case RestartBox:
		return m.engine.Restart(ctx, name, grace)
	case Remove:
		// rpcbind writes down who is registered when it is told to end, and not when it is killed.
		if err := m.engine.Stop(ctx, name, grace); err != nil {
			return err
		}
		return m.engine.Remove(ctx, name)
	case RemoveVolume:
		return m.engine.RemoveVolume(ctx, name, kolla.RPCBindLabel)
	default:
		return fmt.Errorf("internal error: nothing does %q", step.Verb)
	}
	return nil
}

// silence makes sm-notify's mark, without its number: no process is named by it.
func silence(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, silentFor)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot forbid the reboot notification: %w", err)
	}
	return file.Close()
}

func link(path, target string) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.Symlink(target, path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot have %s started: %w", filepath.Base(path), err)
	}
	return nil
}

// remove removes a file and the folder that it was alone in, as systemctl revert does.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir := filepath.Dir(path); dir+"/" != unitFolder {
		_ = os.Remove(dir) // not empty: somebody else's file is there
	}
	return nil
}

func systemctl(ctx context.Context, step Step) error {
	if step.Verb == Stop || step.Verb == Restart {
		// A process that is stopped does not heed SIGTERM, and systemd wakes it up in some kill modes only, not in rpcbind's: it would
		// wait 90 s and then kill it, and rpcbind would forget its table.
		host.Wake(ctx, step.Names...)
	}
	if step.Verb == Start || step.Verb == Restart {
		// A unit that failed too often in a short time is started by nobody before that is forgotten; one that did not fail is no
		// failure here.
		_ = host.Systemctl(ctx, jobLimit, "reset-failed", step.Names...)
	}
	if step.Verb == Unmask {
		return host.Unmask(ctx, jobLimit, step.Names...)
	}
	return host.Systemctl(ctx, jobLimit, string(step.Verb), step.Names...)
}

// packageLimit is for apt or dnf alone: killed, they leave packages half installed, so the run's own time does not end them.
const packageLimit = 10 * time.Minute

func (m *machine) packages(ctx context.Context, what string, names []string, how func(host.PackageTool, context.Context, []string) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), packageLimit)
	defer cancel()
	s := Seen{}
	err := m.tool(&s)
	if err == nil {
		err = how(s.Tool, ctx, names)
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

// uninstall removes one package after the other: dpkg goes on with those behind one that it refuses.
func (m *machine) uninstall(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := m.packages(ctx, "remove the packages that this module installed", []string{name}, host.PackageTool.Remove); err != nil {
			return err
		}
	}
	return nil
}

// takeOver ends a statd and carries its state over. Its files are reached through the process, so they are opened before it ends.
func (m *machine) takeOver(ctx context.Context, step Step) error {
	looking, cancel := context.WithTimeoutCause(ctx, insideLimit, errNotInTime)
	defer cancel()
	from, err := foreign.Within(looking, func() (*os.Root, error) { return openStateOf(m.proc, step.PID) })
	if err != nil {
		return fmt.Errorf("cannot take over from %s: %w", step.Names[0], err)
	}
	if from != nil {
		defer from.Close()
	}
	to, err := m.openHome(ctx, step.To)
	if err != nil {
		return err
	}
	if to == nil {
		return fmt.Errorf("cannot take over from %s: there is no folder %s/sm for whom it watches", step.Names[0], stateFolder)
	}
	defer to.Close()
	if err := host.EndProcess(ctx, step.PID, statdName, grace); err != nil {
		return fmt.Errorf("cannot take over from %s: %w", step.Names[0], err)
	}
	return moveWithin(ctx, from, to)
}

// moveWithin is move from a container, within the step's time.
func moveWithin(ctx context.Context, from, to *os.Root) error {
	_, err := foreign.Within(ctx, func() (struct{}, error) { return struct{}{}, move(from, to) })
	if errors.Is(err, foreign.ErrNoAnswer) {
		return fmt.Errorf("cannot carry statd's state over: %w", err)
	}
	return err
}

// inherit carries over whom a statd watched that is dead, from a container that is still there.
func (m *machine) inherit(ctx context.Context, step Step) error {
	looking, cancel := context.WithTimeoutCause(ctx, insideLimit, errNotInTime)
	defer cancel()
	from, err := foreign.Within(looking, func() (*os.Root, error) { return m.openLeft(looking, step.Text) })
	if err != nil || from == nil {
		return err
	}
	defer from.Close()
	to, err := m.openHome(ctx, step.To)
	if err != nil {
		return err
	}
	if to != nil {
		defer to.Close()
	}
	return moveWithin(ctx, from, to)
}

// openLeft opens the state folder in a container.
func (m *machine) openLeft(ctx context.Context, id string) (*os.Root, error) {
	c, err := m.engine.Inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	root, err := m.engine.OpenRoot(ctx, c)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return stateBelow(root)
}

// used looks once more, because minutes may have gone by since the plan was made.
func (m *machine) used(context.Context) (bool, error) {
	s := Seen{}
	err := m.lookAtMounts(&s)
	return s.used(), err
}

// openHome opens the folder of the statd that is to run.
func (m *machine) openHome(ctx context.Context, where Mode) (*os.Root, error) {
	path := m.state
	if where == InContainer {
		var err error
		if path, err = m.engine.VolumeFolder(ctx, volume); err != nil {
			return nil, err
		}
	}
	root, err := openState(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open statd's state: %w", err)
	}
	return root, nil
}

func (m *machine) carry(ctx context.Context, where Mode) error {
	other := map[Mode]Mode{OnHost: InContainer, InContainer: OnHost}[where]
	from, err := m.openHome(ctx, other)
	if err != nil || from == nil {
		return err
	}
	defer from.Close()
	to, err := m.openHome(ctx, where)
	if err != nil {
		return err
	}
	if to != nil {
		defer to.Close()
	}
	if err := carry(from, to); err != nil || where == InContainer {
		return err // the container's first process does the rest
	}
	return ownTable(tableFolder)
}

// tableFolder is where rpcbind keeps its table over a restart. The kernel registers its lock manager only once.
const tableFolder = "/run/rpcbind"

// ownTable gives the table to the user that the host's rpcbind becomes, whose number in the container's image may be another.
func ownTable(folder string) error {
	for _, name := range []string{"_rpc", "rpc"} { // Debian's, EL's
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(account.Uid)
		gid, err2 := strconv.Atoi(account.Gid)
		root, err3 := os.OpenRoot(folder)
		if errors.Is(err3, fs.ErrNotExist) {
			return nil
		}
		if err := errors.Join(err1, err2, err3); err != nil {
			return fmt.Errorf("cannot hand rpcbind's table over: %w", err)
		}
		defer root.Close()
		for _, path := range []string{".", "rpcbind.xdr", "portmap.xdr"} {
			if err := root.Lchown(path, uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot hand rpcbind's table over: %w", err)
			}
		}
		return nil
	}
	return nil
}
