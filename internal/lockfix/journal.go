package lockfix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// journal is what a run is doing, for the run after it if this one dies. It is a file of lines: first the containers that are to
// change, as they were before; then each step before it is begun. A line is on the disk before the step is. When every
// container is whole the file is removed, so that a journal that is found is one of a run that died or failed.
//
// A line is the CRC-32C of its JSON text in eight hex digits, a space, the text.
type journal struct {
	dir   string
	mutex sync.Mutex
	file  *os.File // nil while nothing was begun
	size  int64    // bytes, of whole lines
}

const (
	journalName   = "run.log"
	damagedName   = "damaged.log"
	undoName      = "undo"
	journalSchema = 1
	journalLimit  = 16 << 20 // bytes; a run on five containers writes about 4,000, and what there is of the library in them, at most 420,000 each
)

// Before is a container as it was before the first run touched it that has not been brought to an end, and what has been
// begun in it since.
type Before struct {
	Name     string          `json:"name"`
	ID       string          `json:"id"`
	Packages []BeforePackage `json:"packages"`
	// Library is what there was of the preloaded library, its bytes too; nil where it was not to change.
	Library *preloaded.Files `json:"library,omitempty"`
	Restart bool             `json:"restart,omitempty"` // the plan ends with one
	Begun   []Verb           `json:"begun,omitempty"`   // in this order
	Owed    *time.Time       `json:"owed,omitempty"`    // a restart is, while the container still runs since this start of it
}

// BeforePackage is one package of it.
type BeforePackage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Whole    bool   `json:"whole"`    // dpkg had finished with it; else there is nothing to go back to
	Held     bool   `json:"held"`     // apt was told to keep it
	Replaced bool   `json:"replaced"` // it is among those that are installed
}

// journalRun is the first line.
type journalRun struct {
	Schema     int       `json:"schema"`
	Process    int       `json:"process"`
	Began      time.Time `json:"began"`
	State      string    `json:"state"`
	Containers []Before  `json:"containers"`
}

// journalStep is any other line.
type journalStep struct {
	Containers []string   `json:"containers"`
	Verb       Verb       `json:"verb"`
	Done       bool       `json:"done,omitempty"`
	Start      *time.Time `json:"start,omitempty"` // of the container, when the line was written
	At         time.Time  `json:"at"`
}

// The verbs that stand in a journal only.
const (
	Undo   Verb = "undo"   // bring the container back to Before
	Settle Verb = "settle" // it is whole: all new, or all old again
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func journalLine(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text), nil
}

// begin writes the first line, in place of a former journal: what that knows of containers that are still open is in the
// new one.
func (l *journal) begin(containers []Before, state string) error {
	line, err := journalLine(journalRun{journalSchema, os.Getpid(), time.Now().UTC(), state, containers})
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	if err := patchset.MakeFolder(l.dir); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	defer root.Close()
	if err := statedir.WriteWhole(root, journalName, line); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	if l.file, err = root.OpenFile(journalName, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	l.size = int64(len(line))
	faultpoint.Hit("journal")
	return nil
}

// step says that a step is begun. When it returns without an error, that is on the disk.
func (l *journal) step(container string, verb Verb, start time.Time) error {
	err := l.append(journalStep{Containers: []string{container}, Verb: verb, Start: &start, At: time.Now().UTC()})
	if err == nil {
		err = l.sync()
	}
	if err == nil {
		faultpoint.Hit(string(verb) + " " + container)
	}
	return err
}

// done says that a step ended well. It need not be on the disk: the next run looks for itself.
func (l *journal) done(container string, verb Verb, start time.Time) {
	_ = l.append(journalStep{Containers: []string{container}, Verb: verb, Done: true, Start: &start, At: time.Now().UTC()})
	faultpoint.Hit(string(verb) + " " + container + " done")
}

// settle says of all these containers at once that they are whole.
func (l *journal) settle(containers []string) error {
	if len(containers) == 0 {
		return nil
	}
	err := l.append(journalStep{Containers: containers, Verb: Settle, At: time.Now().UTC()})
	if err == nil {
		err = l.sync()
	}
	if err == nil {
		faultpoint.Hit("settled")
	}
	return err
}

func (l *journal) append(s journalStep) error {
	line, err := journalLine(s)
	if err == nil {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		var n int
		if n, err = l.file.Write(line); err == nil {
			l.size += int64(n)
		} else { // a full disk takes a part of it, which would spoil the line after it
			_ = l.file.Truncate(l.size)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}

// sync is outside of the lock: several containers' lines may go to the disk together.
func (l *journal) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}

func (l *journal) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// end removes the journal and with it what was kept for the way back.
func (l *journal) end() error {
	l.close()
	if err := os.Remove(filepath.Join(l.dir, journalName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot end the journal: %w", err)
	}
	faultpoint.Hit("ended")
	return l.sweep()
}

// sweep removes the undo folder, which means nothing without a journal.
func (l *journal) sweep() error {
	if err := os.RemoveAll(filepath.Join(l.dir, undoName)); err != nil {
		return fmt.Errorf("cannot clean up the journal: %w", err)
	}
	return nil
}

// deadRun is what the journal tells of a run that did not come to its end.
type deadRun struct {
	journalRun
	settled []string
}

var errDamagedJournal = errors.New("it is damaged")

// open are the containers in which something was begun and that were not settled.
func (d *deadRun) open() (list []Before) {
	if d == nil {
		return nil
	}
	for _, b := range d.Containers {
		if len(b.Begun) > 0 && !slices.Contains(d.settled, b.Name) {
			list = append(list, b)
		}
	}
	return list
}

// exists tells whether a run may have left something, in whatever container.
func (l *journal) exists() bool {
	_, err := os.Lstat(filepath.Join(l.dir, journalName))
	return !errors.Is(err, fs.ErrNotExist)
}

// read gives nil where there is no journal. The error is errDamagedJournal where one cannot be believed.
func (l *journal) read() (*deadRun, error) {
	root, err := os.OpenRoot(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	defer root.Close()
	file, _, err := foreign.Open(root, journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal in %s: %w", l.dir, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, journalLimit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	dead, err := parseJournal(data)
	if err != nil {
		return nil, fmt.Errorf("cannot use the journal %s: %w", filepath.Join(l.dir, journalName), err)
	}
	return dead, nil
}

// parseJournal leaves out a last line that was not written to its end, as after a power cut: its step was not begun.
func parseJournal(data []byte) (dead *deadRun, err error) {
	if len(data) > journalLimit {
		return nil, fmt.Errorf("%w: it has more than %d bytes", errDamagedJournal, journalLimit)
	}
	for number := 1; len(data) > 0; number++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole || bytes.IndexByte(line, 0) >= 0 && len(rest) == 0 {
			break // some filesystems have zeros where the end was to be
		}
		data = rest
		sum, text, ok := bytes.Cut(line, []byte(" "))
		want, e := strconv.ParseUint(string(sum), 16, 32)
		if !ok || e != nil || crc32.Checksum(text, castagnoli) != uint32(want) {
			return nil, fmt.Errorf("%w: the checksum of line %d is wrong", errDamagedJournal, number)
		}
		if dead == nil {
			if dead, err = firstLine(text); err != nil {
				return nil, err
			}
			continue
		}
		var s journalStep
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errDamagedJournal, number, err)
		}
		if err := dead.add(s); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errDamagedJournal, number, err)
		}
	}
	return dead, nil
}

func firstLine(text []byte) (*deadRun, error) {
	var d deadRun
	var schema struct {
		Schema int `json:"schema"`
	}
	err := json.Unmarshal(text, &schema)
	d.Schema = schema.Schema
	if err == nil && d.Schema == journalSchema {
		err = json.Unmarshal(text, &d.journalRun)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: line 1: %w", errDamagedJournal, err)
	}
	for _, b := range d.Containers {
		if !filepath.IsLocal(b.Name) || filepath.Clean(b.Name) != b.Name || b.Name == "." || strings.ContainsRune(b.Name, 0) {
			return nil, fmt.Errorf("%w: it names a container %q", errDamagedJournal, b.Name) // folders of that name are removed
		}
	}
	if d.Schema != journalSchema {
		return nil, fmt.Errorf("it has schema %d, this program knows %d: a run of another version of this collection did not come to its end here; finish it with that version", d.Schema, journalSchema)
	}
	return &d, nil
}

// programs: those that start afterwards are other ones.
func programs(v Verb) bool { return v == Install || v == Load || v == Unload }

func (d *deadRun) add(s journalStep) error {
	for _, name := range s.Containers {
		i := slices.IndexFunc(d.Containers, func(b Before) bool { return b.Name == name })
		if i < 0 {
			return fmt.Errorf("the journal begins without %q", name)
		}
		b := &d.Containers[i]
		switch {
		case s.Verb == Settle:
			d.settled = append(d.settled, name)
		case s.Verb == Keep: // changes nothing in the container
		case !s.Done:
			b.Begun = append(b.Begun, s.Verb)
			if programs(s.Verb) && b.Restart {
				b.Owed = s.Start
			}
		case programs(s.Verb) && b.Restart:
			b.Owed = s.Start
		case s.Verb == Restart:
			b.Owed = nil
		}
	}
	return nil
}
