package lockfix

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// linksLimit is for a command that takes a tenth of a second, most of it the engine's.
const linksLimit = 10 * time.Second

// plan decides. Whether a container refuses hard links shows only inside, so those that dpkg is to work in are asked; where one does, it is decided again.
func (j *job) plan(ctx context.Context, o Options, set Set, check bool, targets []*target) []ContainerPlan {
	seen := func() (list []Seen) {
		for _, t := range targets {
			list = append(list, t.seen)
		}
		return list
	}
	plans := MakePlan(o, set, seen())
	if j.tryLinks(ctx, check, plans, targets) {
		plans = MakePlan(o, set, seen())
	}
	return plans
}

// tryLinks makes hard links in every container that is to change, all at once and before anything is begun in any of them. In check mode, which makes
// nothing, it asks only those with a seccomp profile of somebody's own, for which a command that cannot succeed is enough.
func (j *job) tryLinks(ctx context.Context, check bool, plans []ContainerPlan, targets []*target) (refused bool) {
	var group errgroup.Group
	for i, t := range targets {
		if !plans[i].callsDpkg() || check && t.Seccomp != "custom" {
			continue
		}
		install, _ := plans[i].step(Install)
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, linksLimit)
			defer cancel()
			command := deb.LinkCheck()
			if !check {
				command = deb.LinkTrial(t.linked(install.Packages))
			}
			// Where this cannot be run nothing is known: dpkg itself will tell.
			if out, err := j.engine.Exec(ctx, t.ID, engine.Command{Args: slices.Concat(environment, command), User: "0"}); err == nil {
				t.seen.Links = deb.ReadLinks(out.Output)
			}
			return nil
		})
	}
	_ = group.Wait()
	return slices.ContainsFunc(targets, func(t *target) bool { return len(t.seen.Links) > 0 })
}

// callsDpkg: a step is dpkg's.
func (p *ContainerPlan) callsDpkg() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Verb == Install || s.Verb == Hold || s.Verb == Unhold })
}

// linked are the files of these packages that a trial takes.
func (t *target) linked(names []string) (files []string) {
	for _, name := range names {
		if file := t.seen.Dpkg.Links[name]; file != "" {
			files = append(files, file)
		}
	}
	return files
}

// removeTrialLinks removes what a trial that was killed has left. It is the name of a file that is there anyway.
func (t *target) removeTrialLinks() (err error) {
	for _, name := range deb.TrialLinks(slices.Collect(maps.Values(t.seen.Dpkg.Links))) {
		name = strings.TrimPrefix(name, "/")
		if info, e := t.root.Lstat(name); e == nil && info.Mode().IsRegular() {
			err = errors.Join(err, t.root.Remove(name))
		}
	}
	return err
}
