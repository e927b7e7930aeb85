// Package lockprobe finds out what a lock does on each mount that a host and its kolla containers see, why, and what the smallest
// cure is. It takes real locks, on files of its own, in processes that may hang without harm, and changes nothing else.
package lockprobe

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// Options are the user's words, of the right type already. The documentation of each is in modules/nfs_lock_info.
type Options struct {
	Containers   []string    `json:"containers"`
	Paths        []string    `json:"paths"`
	ConfigDir    string      `json:"config_dir"`
	Engine       engine.Kind `json:"engine"`
	EngineSocket string      `json:"engine_socket"`
	Timeout      int         `json:"timeout"` // seconds
	Prove        bool        `json:"prove"`
}

// lockLimit is how long the locks of one mount may take. Over NFS they take milliseconds; a client whose statd is not registered hangs
// for more than 40 s.
const lockLimit = 10 * time.Second

func (o Options) limit() time.Duration { return time.Duration(o.Timeout) * time.Second }

// perMount is the time of one mount's locks.
func (o Options) perMount() time.Duration { return min(lockLimit, o.limit()/3) }

// lookLimit is how long it may take to look into one container. That takes milliseconds, unless a filesystem there does not answer.
const lookLimit = 5 * time.Second

// looking is a run's context for one such look.
func (o Options) looking(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := min(lookLimit, o.limit()/4)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("there was no answer within %v", limit))
}

// timeIsUp is the cause of a run's end.
func (o Options) timeIsUp() error { return fmt.Errorf("the run's time, %v, is up", o.limit()) }

// check finds what no single option's type can tell, and puts the paths into one form.
func (o *Options) check() error {
	if o.Timeout <= 0 {
		return fmt.Errorf("cannot use timeout %d: it is the seconds that the whole run may take", o.Timeout)
	}
	var paths []string
	for _, p := range o.Paths {
		if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
			return fmt.Errorf("cannot look at %q: paths takes absolute paths", p)
		}
		paths = append(paths, path.Clean(p))
	}
	slices.Sort(paths)
	o.Paths = slices.Compact(paths)
	return nil
}
