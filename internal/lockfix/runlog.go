package lockfix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The journal of the first version was one file of lines: first the containers that were to change, as they were before; then each step before it was begun.
// A line is the CRC-32C of its JSON text in eight hex digits, a space, the text. A run of that version may have died before this one came: what its journal
// tells becomes records, and is finished or taken back as those are.

const (
	runLogName   = "run.log"
	runLogSchema = 1
	runLogLimit  = 16 << 20 // bytes
)

// runLogFirst is the first line.
type runLogFirst struct {
	Schema     int       `json:"schema"`
	Process    int       `json:"process"`
	Began      time.Time `json:"began"`
	Containers []Before  `json:"containers"`
}

// runLogStep is any other line. That a step was done is of no use: the container's start is the same as when it was begun, and a restart shows in the
// start that there is now.
type runLogStep struct {
	Containers []string   `json:"containers"`
	Verb       Verb       `json:"verb"`
	Done       bool       `json:"done,omitempty"`
	Start      *time.Time `json:"start,omitempty"` // of the container, when the line was written
}

const runLogSettle Verb = "settle" // it was whole: all new, or all old again

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readRunLog gives a record for each container that was not settled; none where there is no such file.
func (l *journal) readRunLog() ([]Before, error) {
	root, err := os.OpenRoot(l.dir)
	if err == nil {
		defer root.Close()
		var data []byte
		if data, err = readBounded(root, runLogName, runLogLimit); err == nil {
			var records []Before
			if records, err = parseRunLog(data); err == nil {
				return records, nil
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return nil, fmt.Errorf("cannot use the journal %s: %w", filepath.Join(l.dir, runLogName), err)
}

// parseRunLog leaves out a last line that was not written to its end, as after a power cut: its step was not begun.
func parseRunLog(data []byte) ([]Before, error) {
	if len(data) > runLogLimit {
		return nil, fmt.Errorf("%w: it has more than %d bytes", errDamagedJournal, runLogLimit)
	}
	var first *runLogFirst
	var settled []string
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
		if first == nil {
			var err error
			if first, err = firstLine(text); err != nil {
				return nil, err
			}
			continue
		}
		var s runLogStep
		err := json.Unmarshal(text, &s)
		if err == nil {
			settled, err = first.add(s, settled)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errDamagedJournal, number, err)
		}
	}
	if first == nil {
		return nil, nil
	}
	return slices.DeleteFunc(first.Containers, func(b Before) bool { return slices.Contains(settled, b.Name) }), nil
}

func firstLine(text []byte) (*runLogFirst, error) {
	var first runLogFirst
	var schema struct {
		Schema int `json:"schema"`
	}
	err := json.Unmarshal(text, &schema)
	if err == nil && schema.Schema != runLogSchema {
		return nil, otherSchema(schema.Schema)
	}
	if err == nil {
		err = json.Unmarshal(text, &first)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: line 1: %w", errDamagedJournal, err)
	}
	for i := range first.Containers {
		b := &first.Containers[i]
		if !folderName(b.Name) {
			return nil, fmt.Errorf("%w: it names a container %q", errDamagedJournal, b.Name)
		}
		b.Process, b.Began, b.Dpkg, b.Stuck = first.Process, first.Began, nil, ""
	}
	return &first, nil
}

func (first *runLogFirst) add(s runLogStep, settled []string) ([]string, error) {
	for _, name := range s.Containers {
		i := slices.IndexFunc(first.Containers, func(b Before) bool { return b.Name == name })
		switch {
		case i < 0:
			return settled, fmt.Errorf("the journal begins without %q", name)
		case s.Verb == runLogSettle:
			settled = append(settled, name)
		case s.Verb != Keep && !s.Done: // to keep packages changes nothing in the container
			var start time.Time
			if s.Start != nil {
				start = *s.Start
			}
			first.Containers[i].begin(s.Verb, start)
		}
	}
	return settled, nil
}
