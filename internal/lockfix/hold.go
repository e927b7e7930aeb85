package lockfix

import (
	"context"
	"fmt"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
)

// hold sets or removes dpkg's hold, which apt obeys: dpkg(1), --set-selections.
func (j *job) hold(ctx context.Context, w *work, names []string, verb Verb) error {
	t, selection := w.target, "install"
	if verb == Hold {
		selection = "hold"
	}
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintf(&lines, "%s %s\n", name, selection)
	}
	err := j.begin(w, verb)
	if err == nil {
		err = j.dpkg(ctx, t, []string{"--set-selections"}, lines.String())
		for tries := 1; err != nil && ctx.Err() == nil && tries < lostTries; tries++ {
			lost, e := j.lostSight(ctx, w, err)
			if e != nil || !lost {
				break
			}
			err = j.dpkg(ctx, t, []string{"--set-selections"}, lines.String()) // setting it twice does no harm
		}
	}
	if err == nil {
		err = j.reopen(ctx, t)
	}
	if err != nil {
		return fail("hold", "cannot set %s of %s in %s: %w", selection, strings.Join(names, ", "), t.Name, err)
	}
	for _, name := range names {
		if p, ok := t.seen.find(name); ok && p.Status.Want != selection {
			return fail("hold", "cannot set %s of %s in %s: dpkg succeeded, yet it says %s", selection, name, t.Name, p.Status.Want)
		}
	}
	faultpoint.Hit(string(verb) + " " + t.Name + " done")
	return nil
}
