package lockprobe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// healthLimit is kolla's own timeout of a health test.
const healthLimit = 30 * time.Second

// runsGuests is the view of the container that does, nil if it does not run or was not to be looked at.
func (s seen) runsGuests() *view {
	i := slices.IndexFunc(s.views, func(v *view) bool { return kolla.RunsGuests(v.name) && v.root != nil })
	if i < 0 {
		return nil
	}
	return s.views[i]
}

// libvirt runs the health test of the container that runs guests once, as its own user. The engine's word for it comes half a minute late.
func (m *machine) libvirt(ctx context.Context, s seen) Libvirt {
	v := s.runsGuests()
	if v == nil {
		return Libvirt{}
	}
	defer m.progress.begin("the health of %s", v.name)()
	found := Libvirt{Container: v.name}
	limit := healthLimit
	if deadline, ok := ctx.Deadline(); ok { // a test that hangs is not to take all of the run's time
		limit = min(limit, time.Until(deadline)-proofReserve)
	}
	if limit < proofLeast {
		found.Detail = "too little of the run's time is left for its health test; give it a longer timeout"
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	test := kolla.HealthTest(v.name, v.Health)
	out, err := m.engine.Exec(ctx, v.ID, engine.Command{Args: test})
	text := ending(strings.Join(test, " "))
	switch {
	case err == nil && out.ExitCode == 0:
		found.Healthy = true
	case err == nil:
		found.Detail = fmt.Sprintf("its health test %q ended with %d%s", text, out.ExitCode, inBrackets(ending(out.Output)))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		found.Detail = fmt.Sprintf("its health test %q did not end within %v%s", text, limit.Round(time.Second), inBrackets(ending(out.Output)))
	default:
		found.Detail = fmt.Sprintf("cannot run its health test %q: %s", text, ending(err.Error()))
	}
	return found
}
