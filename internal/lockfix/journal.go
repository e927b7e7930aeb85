package lockfix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/faultpoint"
	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// journal is what is under way on this host, for the run after one that dies: a record for each container, NAME.json. It is replaced whole, and is on the
// disk before the step is begun that it tells of. When the container is whole its record is removed, so that one that is found is of a run that died or failed.
type journal struct{ dir string }

const (
	recordSuffix  = ".json"
	damagedSuffix = ".damaged"
	undoName      = "undo"
	journalSchema = 2       // 1 was one file for all containers, see runlog.go
	recordLimit   = 4 << 20 // bytes; a real one has about 1,000, and what there is of the library in it, at most 420,000
)

// Before is a container's record: how it was before the first run touched it that has not been brought to an end, and what has been begun in it since.
type Before struct {
	Schema   int             `json:"schema"`
	Name     string          `json:"name"`
	ID       string          `json:"id"`
	Process  int             `json:"process"` // of the run that wrote it last
	Began    time.Time       `json:"began"`   // likewise; by this host's clock, so it is shown and never compared
	Packages []BeforePackage `json:"packages"`
	Dpkg     *BeforeDpkg     `json:"dpkg,omitempty"` // nil where no package was to change, and in records of the first version
	// Library is what there was of the preloaded library, its bytes too; nil where it was not to change.
	Library *preloaded.Files `json:"library,omitempty"`
	Restart bool             `json:"restart,omitempty"` // the plan ends with one
	Begun   []Verb           `json:"begun,omitempty"`   // in this order
	Owed    *time.Time       `json:"owed,omitempty"`    // a restart is, while the container still runs since this start of it
	Stuck   string           `json:"stuck,omitempty"`   // why it could be brought neither on nor back; no other container waits for it
}

// BeforePackage is one package of it.
type BeforePackage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	State    string `json:"state,omitempty"` // in dpkg's words; none in records of the first version
	Whole    bool   `json:"whole"`           // dpkg had finished with it; else there is nothing to go back to
	Held     bool   `json:"held"`            // apt was told to keep it
	Replaced bool   `json:"replaced"`        // it is among those that are installed
}

// BeforeDpkg is what dpkg had left undone.
type BeforeDpkg struct {
	Unfinished map[string]string `json:"unfinished,omitempty"` // packages with which it had not finished, and their states
	Triggers   bool              `json:"triggers,omitempty"`   // some were noted and not yet given to packages
}

// Undo stands in a record only: bring the container back to how it was.
const Undo Verb = "undo"

// programs: those that start afterwards are other ones.
func programs(v Verb) bool { return v == Install || v == Load || v == Unload }

// begin notes that a step is begun, while the container runs since start.
func (b *Before) begin(verb Verb, start time.Time) {
	b.Begun = append(b.Begun, verb)
	if programs(verb) && b.Restart || verb == Undo && slices.Contains(b.Begun, Restart) {
		b.Owed = &start
	}
}

// write replaces the record of a container. When it returns without an error, that is on the disk.
func (l *journal) write(b Before) error {
	b.Schema = journalSchema
	text, err := json.Marshal(b)
	if err == nil && len(text) > recordLimit {
		err = fmt.Errorf("that of %s would have %d bytes", b.Name, len(text))
	}
	if err == nil {
		err = statedir.MakeFolder(l.dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	defer root.Close()
	if err := statedir.WriteWhole(root, b.Name+recordSuffix, text); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}

// end removes a container's record, and then what was kept for the way back.
func (l *journal) end(name string) error {
	if err := l.remove(name + recordSuffix); err != nil {
		return err
	}
	faultpoint.Hit("ended " + name)
	if err := os.RemoveAll(filepath.Join(l.dir, undoName, name)); err != nil {
		return fmt.Errorf("cannot clean up the journal: %w", err)
	}
	_ = os.Remove(filepath.Join(l.dir, undoName)) // where it is empty
	return nil
}

// remove makes sure that a file is gone, also after a power cut.
func (l *journal) remove(name string) error {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return fmt.Errorf("cannot end the journal: %w", err)
	}
	defer root.Close()
	if err := statedir.Remove(root, name); err != nil {
		return fmt.Errorf("cannot end the journal: %w", err)
	}
	return nil
}

// sweep removes what was kept for the way back of containers without a record, and a record that was not written to its end.
func (l *journal) sweep(records []Before) (all error) {
	has := func(name string) bool {
		return slices.ContainsFunc(records, func(b Before) bool { return b.Name == name })
	}
	for _, e := range l.entries(undoName) {
		if !has(e.Name()) {
			all = errors.Join(all, os.RemoveAll(filepath.Join(l.dir, undoName, e.Name())))
		}
	}
	for _, e := range l.entries(".") {
		if strings.HasSuffix(e.Name(), recordSuffix+statedir.PartSuffix) {
			all = errors.Join(all, os.Remove(filepath.Join(l.dir, e.Name())))
		}
	}
	_ = os.Remove(filepath.Join(l.dir, undoName)) // where it is empty
	if all != nil {
		return fmt.Errorf("cannot clean up the journal: %w", all)
	}
	return nil
}

// tidy removes what was put aside.
func (l *journal) tidy() (all error) {
	for _, e := range l.entries(".") {
		if strings.HasSuffix(e.Name(), damagedSuffix) {
			all = errors.Join(all, os.Remove(filepath.Join(l.dir, e.Name())))
		}
	}
	return all
}

// entries of a folder that may not be there.
func (l *journal) entries(name string) []fs.DirEntry {
	list, _ := os.ReadDir(filepath.Join(l.dir, name))
	return list
}

// exists tells whether a run may have left something, in whatever container.
func (l *journal) exists() bool {
	return slices.ContainsFunc(l.entries("."), func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), recordSuffix) || e.Name() == runLogName })
}

var errDamagedJournal = errors.New("it is damaged")

// read gives all records, in the order of their names. The names of files that cannot be believed are returned as damaged, with the reason.
func (l *journal) read() (records []Before, damaged map[string]error, err error) {
	root, err := os.OpenRoot(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	defer root.Close()
	damaged = map[string]error{}
	for _, e := range l.entries(".") {
		name, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		b, err := readRecord(root, name)
		switch {
		case errors.Is(err, errDamagedJournal):
			damaged[e.Name()] = err
		case err != nil:
			return nil, nil, fmt.Errorf("cannot use the journal %s: %w", filepath.Join(l.dir, e.Name()), err)
		default:
			records = append(records, b)
		}
	}
	return records, damaged, nil
}

func readRecord(root *os.Root, name string) (b Before, err error) {
	data, err := readBounded(root, name+recordSuffix, recordLimit)
	if err != nil {
		return b, err
	}
	return parseRecord(name, data)
}

func readBounded(root *os.Root, name string, limit int64) ([]byte, error) {
	file, _, err := foreign.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := foreign.ReadAtMost(file, limit)
	var large *foreign.TooLargeError
	if errors.As(err, &large) {
		err = fmt.Errorf("%w: %w", errDamagedJournal, err)
	}
	return data, err
}

// parseRecord reads the record of the container of that name.
func parseRecord(name string, data []byte) (b Before, err error) {
	var schema struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		return b, fmt.Errorf("%w: %w", errDamagedJournal, err)
	}
	if schema.Schema > journalSchema {
		return b, otherSchema(schema.Schema)
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return Before{}, fmt.Errorf("%w: %w", errDamagedJournal, err)
	}
	if schema.Schema != journalSchema || b.Name != name || !folderName(name) {
		return Before{}, fmt.Errorf("%w: it names a container %q, with schema %d", errDamagedJournal, b.Name, schema.Schema)
	}
	return b, nil
}

func otherSchema(n int) error {
	return fmt.Errorf("it has schema %d, this program knows %d: a run of another version of this collection did not come to its end here; finish it with that version",
		n, journalSchema)
}

// folderName tells whether it can be a container's name: folders of that name are removed.
func folderName(name string) bool {
	return filepath.IsLocal(name) && filepath.Clean(name) == name && name != "." && !strings.ContainsAny(name, "/\x00")
}
