package lockfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

const (
	lostTries = 4           // of a command whose engine or container goes away under it
	lostPause = time.Second // before it is looked for again
)

// delivery is what dpkg is to install in one call.
type delivery struct {
	packages []patchset.Package
	open     func(patchset.Package) (*os.File, error) // the package's verified file
	excluded map[string][]deb.Excluded                // by package: what a kept one has only placeholders of
}

// install brings the packages into the container and proves that they are there, whole. Where the engine or the container
// went away under it, and both are back, it looks at what is there and tries once more. before is what dpkg had when the
// plan was made.
func (j *job) install(ctx context.Context, w *work, before []deb.Package, d delivery) error {
	for tries := 1; ; tries++ {
		err := j.installOnce(ctx, w, before, d)
		if err == nil || ctx.Err() != nil || tries == lostTries {
			return err
		}
		lost, e := j.lostSight(ctx, w, err)
		if e != nil {
			return errors.Join(err, e)
		}
		if !lost {
			return err
		}
		if e := w.tidy(ctx); e != nil {
			return errors.Join(err, fail("install", "cannot try again in %s: %w", w.Name, e))
		}
		if w.verify(ctx, before, d) == nil {
			return nil // dpkg does not end with its client
		}
	}
}

// lostSight tells whether an error came from losing the engine or the container, and follows the container where it is
// now.
func (j *job) lostSight(ctx context.Context, w *work, err error) (bool, error) {
	was := w.Container
	if errors.Is(err, engine.ErrUnknown) {
		// An engine that is going down still answers for a moment after it has let its commands go.
		select {
		case <-ctx.Done():
		case <-time.After(lostPause):
		}
	}
	if e := j.reopen(ctx, w.target); e != nil {
		return true, fail("install", "cannot tell how dpkg ended in %s: %w", w.Name, e)
	}
	return errors.Is(err, engine.ErrUnknown) || !w.SameStart(was), nil
}

// installOnce is one dpkg call for all packages, and what belongs around it.
func (j *job) installOnce(ctx context.Context, w *work, before []deb.Package, d delivery) (err error) {
	t := w.target
	if err := t.awaitDpkg(ctx); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := j.still(ctx, t); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := t.unmoved(before, d.packages); err != nil {
		return &stepError{"copy", err}
	}
	if err := j.note(w, Install); err != nil {
		return fail("copy", "cannot begin in %s: %w", t.Name, err)
	}
	if err := t.clean(); err != nil {
		return fail("copy", "cannot remove what an earlier run left in %s: %w", t.Name, err)
	}
	defer func() {
		e := j.still(context.WithoutCancel(ctx), t)
		if e == nil {
			e = t.clean()
		}
		if e != nil && err == nil {
			err = fail("clean", "cannot clean up in %s: %w", t.Name, e)
		}
		if err == nil {
			faultpoint.Hit(string(Install) + " " + t.Name + " done")
		}
	}()
	paths, err := t.copyIn(d)
	if err != nil {
		return fail("copy", "cannot copy to %s: %w", t.Name, err)
	}
	if err := t.denyServices(); err != nil {
		return fail("copy", "cannot keep the packages of %s from starting services: %w", t.Name, err)
	}
	faultpoint.Hit("copied " + t.Name)
	w.begun = true
	if err := j.dpkg(ctx, t, d.command(t.seen.Dpkg.Settings.Options, paths), ""); err != nil {
		return &stepError{"install", fmt.Errorf("cannot install %s in %s: %w", list(d.packages), t.Name, err)}
	}
	faultpoint.Hit("unpacked " + t.Name)
	return t.verify(ctx, before, d)
}

// command is dpkg's. The options set aside what its configuration says against it. What was left out of the packages from before is left out again, whatever the container's rules say by now.
func (d delivery) command(options, paths []string) []string {
	args := append([]string{"--force-confdef", "--force-confold"}, options...)
	for _, p := range d.packages {
		for _, e := range d.excluded[p.Name] {
			args = append(args, e.Option())
		}
	}
	return append(append(args, "--install"), paths...)
}

// still proves that the root that is open is that of the container as it runs now. Through the root of one that was
// restarted files can be written and removed all the same, and the container does not see that: two mounts of one overlay
// keep what they know of it apart.
func (j *job) still(ctx context.Context, t *target) error {
	root, err := j.engine.OpenRoot(ctx, t.Container) // fails for one that does not run, or as another process
	if err != nil {
		return err
	}
	return root.Close()
}

// unmoved refuses to go on where somebody else's dpkg has changed these packages since the plan was made. Another try of ours
// may find the version that it installs.
func (t *target) unmoved(before []deb.Package, packages []patchset.Package) error {
	if err := t.readPackages(); err != nil {
		return fmt.Errorf("cannot look at %s: %w", t.Name, err)
	}
	for _, p := range packages {
		now, _ := t.seen.find(p.Name)
		then, _ := (Seen{Packages: before, Architecture: t.seen.Architecture}).find(p.Name)
		if now.Version != then.Version && now.Version != p.Version {
			return fmt.Errorf("cannot change %s: %s was %s when it was looked at and is %s now, so somebody else is at work there", t.Name, p.Name, describe(then), describe(now))
		}
	}
	return nil
}

func list(packages []patchset.Package) string {
	var names []string
	for _, p := range packages {
		names = append(names, p.Name+" "+p.Version)
	}
	return strings.Join(names, " and ")
}
