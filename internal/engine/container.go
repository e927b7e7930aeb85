package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

// ErrNotFound says that the engine has no such container, or no longer.
var ErrNotFound = errors.New("no such container")

// Container is one container as the engine describes it.
type Container struct {
	ID        string // 64 hex digits
	Name      string // without the slash that the API puts in front
	Image     string // the reference it was created from
	State     string // created, running, paused, restarting, removing, exited or dead
	PID       int    // of its first process, on the host; 0 unless it runs
	Start     uint64 // of that process, in clock ticks since the host's boot, whatever clock is set meanwhile; 0 unless it runs
	StartedAt time.Time
	EndedAt   time.Time // of the run before, or of the last one
	ReadOnly  bool      // its root filesystem is mounted read-only
	Seccomp   string    // "" for the engine's own profile, "unconfined", or "custom"
	Health    []string  // the command of its health check, to run in it as its own user; empty if it has none
	Env       []string  // of its first process, "NAME=value": its image's, and what it was made with
}

// Listed is a container as the engine lists it.
type Listed struct {
	ID          string
	Name        string
	State       string
	Image       string // the reference it was made from; its id once that names another image
	ImageID     string
	Labels      map[string]string
	HostNetwork bool
	Mounts      []string // folders in the container where something of the host's, or a volume, is mounted
}

// List describes every container that exists, running or not, in one call.
func (e *Engine) List(ctx context.Context) ([]Listed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := e.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("cannot list containers: %w", err)
	}
	all := make([]Listed, 0, len(list.Items))
	for _, c := range list.Items {
		l := Listed{
			ID: c.ID, State: string(c.State), Image: c.Image, ImageID: c.ImageID, Labels: c.Labels,
			HostNetwork: c.HostConfig.NetworkMode == "host",
		}
		for _, name := range c.Names {
			// A legacy link adds names with a second slash: "/other/alias".
			if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") {
				l.Name = name
			}
		}
		for _, m := range c.Mounts {
			l.Mounts = append(l.Mounts, path.Clean(m.Destination))
		}
		all = append(all, l)
	}
	return all, nil
}

// Inspect describes the container with that name or id. The error is ErrNotFound where there is none.
func (e *Engine) Inspect(ctx context.Context, id string) (Container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return Container{}, fmt.Errorf("cannot inspect %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Container{}, fmt.Errorf("cannot inspect %s: %w", id, err)
	}
	in := seen.Container
	if in.State == nil || in.Config == nil || in.HostConfig == nil {
		return Container{}, fmt.Errorf("cannot inspect %s: the engine's answer lacks its state or its settings", id)
	}
	c := Container{
		ID:       in.ID,
		Name:     strings.TrimPrefix(in.Name, "/"),
		Image:    in.Config.Image,
		State:    string(in.State.Status),
		PID:      in.State.Pid,
		ReadOnly: in.HostConfig.ReadonlyRootfs,
		Seccomp:  seccomp(in.HostConfig.SecurityOpt),
		Env:      in.Config.Env,
	}
	c.StartedAt, _ = time.Parse(time.RFC3339Nano, in.State.StartedAt) // zero for one that never ran
	c.EndedAt, _ = time.Parse(time.RFC3339Nano, in.State.FinishedAt)
	if c.PID > 0 {
		c.Start, _ = host.StartOf("/proc", c.PID) // 0 if it ended just now
	}
	if in.Config.Healthcheck != nil {
		c.Health = healthCommand(in.Config.Healthcheck.Test)
	}
	return c, nil
}

// seccomp finds the profile among the security options that a container was made with: "seccomp=unconfined", or a whole profile in
// JSON. Older engines wrote a colon.
func seccomp(options []string) string {
	for _, o := range options {
		value, ok := strings.CutPrefix(o, "seccomp=")
		if !ok {
			value, ok = strings.CutPrefix(o, "seccomp:")
		}
		switch {
		case !ok:
		case value == "unconfined":
			return value
		case value != "builtin" && value != "default":
			return "custom"
		}
	}
	return ""
}

// healthCommand turns a health check as the engine stores it into a command. CMD-SHELL holds one string for /bin/sh,
// as the Dockerfile reference says of HEALTHCHECK.
func healthCommand(test []string) []string {
	if len(test) < 2 {
		return nil
	}
	switch test[0] {
	case "CMD":
		return test[1:]
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", test[1]}
	}
	return nil
}

// Restart stops the container, giving it grace to end by itself, and starts it again. It returns when the engine has
// started it; whether it stays up is for the caller to watch.
func (e *Engine) Restart(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	seconds := int(grace.Seconds())
	if _, err := e.api.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: &seconds}); err != nil {
		return fmt.Errorf("cannot restart %s: %w", id, err)
	}
	return nil
}

// SameStart tells whether both are the same start of the same container. The engine's times are compared for difference only: its clock may have been
// set between the two, forward or back.
func (c Container) SameStart(other Container) bool {
	return c.ID == other.ID && c.PID == other.PID && c.Start == other.Start && c.StartedAt.Equal(other.StartedAt)
}

// Settle inspects a container until it is not between two starts. One that is restarting is waited for, down at the longest. So is, for between, one that has
// ended less than that ago: whoever restarts it may be about to start it. An end far in the future, because a clock was set back, was
// long ago. What is waited is measured by a clock that nobody sets.
func Settle(ctx context.Context, inspect func(context.Context) (Container, error), between, down, poll time.Duration) (Container, error) {
	for began := time.Now(); ; {
		c, err := inspect(ctx)
		if err != nil {
			return c, err
		}
		waited := time.Since(began)
		ended := time.Since(c.EndedAt)
		restarting := c.State == "restarting" && waited < down
		justEnded := c.State == "exited" && ended.Abs() < between && waited < between
		if !restarting && !justEnded {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return c, context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// OpenRoot opens the container's files as its own processes see them, mounts and tmpfs included. Nothing below it can
// lead out: os.Root resolves each link inside. The caller closes it.
//
// A PID may be reused between the moment the engine named it and the moment its root is opened. So afterwards the process has to be one of
// the container's, by its control group. Where those do not tell, as for a container inside another one, the engine is asked again: if
// the same start of the same process is still running, the root is that of this container.
func (e *Engine) OpenRoot(ctx context.Context, c Container) (*os.Root, error) {
	if c.PID <= 0 {
		return nil, fmt.Errorf("cannot open the files of %s: it is %s", c.Name, c.State)
	}
	// Its root may be a filesystem that never answers.
	opening, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("there was no answer within %v", openTimeout))
	defer cancel()
	root, err := foreign.Within(opening, func() (*os.Root, error) { return os.OpenRoot(fmt.Sprintf("/proc/%d/root", c.PID)) })
	if err != nil {
		return nil, fmt.Errorf("cannot open the files of %s: %w", c.Name, err)
	}
	if host.ContainerOf("/proc", c.PID) == c.ID {
		return root, nil
	}
	now, err := e.Inspect(ctx, c.ID)
	if err == nil && !now.SameStart(c) {
		err = errors.New("it was restarted meanwhile")
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("cannot open the files of %s: %w", c.Name, err)
	}
	return root, nil
}
