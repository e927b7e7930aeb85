package lockprobe

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// progress is what is reported of a run that comes to no end by itself: what it has found so far, and what it is looking at.
type progress struct {
	mutex sync.Mutex
	found *Result
	at    []string
	told  bool // since then nothing has changed
}

// mostAt is how many of those are named.
const mostAt = 20

// begin notes what is looked at, until done is called.
func (p *progress) begin(format string, args ...any) (done func()) {
	what := fmt.Sprintf(format, args...)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.at, p.told = append(p.at, what), false
	return func() {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if i := slices.Index(p.at, what); i >= 0 {
			p.at = slices.Delete(p.at, i, i+1)
		}
		p.told = false
	}
}

// find adds to what was found, and tells it.
func (p *progress) find(ctx context.Context, add func(*Result)) {
	p.mutex.Lock()
	if p.found == nil {
		r := emptyResult()
		r.Reason = "the run did not come to its end"
		p.found = &r
	}
	add(p.found)
	p.told = false
	p.mutex.Unlock()
	p.tell(ctx)
}

func (p *progress) tell(ctx context.Context) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.told || p.found == nil {
		return
	}
	r := *p.found
	if len(p.at) > 0 {
		at := strings.Join(p.at[:min(len(p.at), mostAt)], "; ")
		at += andMore(len(p.at) - mostAt)
		r.Warnings = append(slices.Clone(r.Warnings), "when it ended, the run was looking at: "+at)
	}
	ansible.Known(ctx, r)
	p.told = true
}

// tellEvery is more than most runs take: to tell costs some tenths of a millisecond.
const tellEvery = 250 * time.Millisecond

// keepTelling tells it now and then, until stop is called.
func (p *progress) keepTelling(ctx context.Context) (stop func()) {
	ended := make(chan struct{})
	go func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				p.tell(ctx)
			}
		}
	}()
	return func() { close(ended) }
}
