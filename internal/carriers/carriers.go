// Package carriers decides which containers are looked at and worked in: those of kolla's that have QEMU. It knows by what both are seen, and
// nothing of locks or patches.
package carriers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
)

// Engine is what is asked of an engine.
type Engine interface {
	List(ctx context.Context) ([]engine.Listed, error)
	Inspect(ctx context.Context, id string) (engine.Container, error)
	OpenRoot(ctx context.Context, c engine.Container) (*os.Root, error)
}

// Choice is which containers are to be looked at.
type Choice struct {
	Names []string          // in the order of kolla.Sort
	IDs   map[string]string // of all containers that exist, by name
	Gone  []string          // containers of which this host keeps packages, and which do not exist; not looked for where the user named some
	Notes []string          // sentences: of which container it could not be told
}

// Limits of looking into containers that may have QEMU or not: an engine, or a filesystem, that does not answer is not to keep the others waiting.
const (
	insideLimit = 10 * time.Second
	atOnce      = 4 // questions to the engine: more of them took longer, measured on two cores
)

// Choose finds the containers: those that the user named, which must exist, or else each of kolla's that has QEMU inside. dir is the folder in which this host
// keeps what it replaced, empty where there is none to go by. An error is of the engine's list, or of a name that is not in it.
func Choose(ctx context.Context, e Engine, dir string, asked []string) (Choice, error) {
	list, err := e.List(ctx)
	if err != nil {
		return Choice{}, err
	}
	c := Choice{IDs: map[string]string{}}
	for _, l := range list {
		if l.Name != "" { // one that is being removed may have none
			c.IDs[l.Name] = l.ID
		}
	}
	if len(asked) > 0 {
		c.Names = slices.Clone(asked)
		kolla.Sort(c.Names)
		c.Names = slices.Compact(c.Names)
		return c, c.missing()
	}
	var kept, recorded []string
	if dir != "" {
		kept, recorded = keptOf(dir), recordedOf(dir)
	}
	c.search(ctx, e, list, slices.Concat(kept, recorded))
	kolla.Sort(c.Names)
	for _, name := range kept {
		if _, there := c.IDs[name]; !there {
			c.Gone = append(c.Gone, name)
		}
	}
	return c, nil
}

func (c Choice) missing() error {
	var absent []string
	for _, name := range c.Names {
		if _, ok := c.IDs[name]; !ok {
			absent = append(absent, fmt.Sprintf("%q", name))
		}
	}
	switch len(absent) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("cannot find container %s on this host", absent[0])
	}
	return fmt.Errorf("cannot find containers %s on this host", strings.Join(absent, ", "))
}

// keptOf names the containers of which this host keeps packages. What is wrong with that folder is for those to say who read what is in it.
func keptOf(dir string) []string {
	entries, _ := os.ReadDir(filepath.Join(dir, "baseline"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// recordedOf names the containers into which this host has put the library. What is wrong with that record is likewise for others to say.
func recordedOf(dir string) []string {
	record, _ := preloaded.ReadRecord(dir)
	return slices.Collect(maps.Keys(record.Containers))
}

// answer is what is known of one container.
type answer struct {
	carries bool
	err     error
}

func (c *Choice) search(ctx context.Context, e Engine, list []engine.Listed, kept []string) {
	ctx, cancel := context.WithTimeoutCause(ctx, insideLimit, fmt.Errorf("there was no answer within %v", insideLimit))
	defer cancel()
	answers := make([]answer, len(list))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, l := range list {
		known := kolla.Carries(l.Name) || slices.Contains(kept, l.Name)
		switch {
		case l.Name == "" || kolla.Ours(l.Labels):
		case known && kolla.Labelled(l.Labels):
			answers[i].carries = true
		case known || l.State == "running" || l.State == "paused":
			group.Go(func() error {
				answers[i] = look(ctx, e, l, known)
				return nil
			})
		}
	}
	_ = group.Wait()
	for i, a := range answers {
		switch {
		case a.carries:
			c.Names = append(c.Names, list[i].Name)
		case a.err != nil && !errors.Is(a.err, engine.ErrNotFound): // else it was removed just now
			c.Notes = append(c.Notes, fmt.Sprintf("cannot tell whether %s has QEMU, so it was left out: %v", list[i].Name, a.err))
		}
	}
	slices.Sort(c.Notes)
}

// look asks the engine once, and then only the container's own files. One that ends meanwhile is nobody's carrier.
func look(ctx context.Context, e Engine, l engine.Listed, known bool) answer {
	seen, err := e.Inspect(ctx, l.Name)
	if err != nil {
		return answer{err: err}
	}
	if !kolla.Labelled(l.Labels) && !kolla.Deployed(seen.Env) {
		return answer{}
	}
	if known {
		return answer{carries: true}
	}
	if seen.PID == 0 {
		return answer{}
	}
	carries, err := foreign.Within(ctx, func() (bool, error) { return inside(ctx, e, seen) })
	return answer{carries, err}
}

func inside(ctx context.Context, e Engine, c engine.Container) (carries bool, err error) {
	root, err := e.OpenRoot(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it ended
	}
	if err != nil {
		return false, err
	}
	defer root.Close()
	return hasQEMU(root)
}
