package preloaded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// Record is which containers of this host have the library in their own layer: one that is recreated loses it, and the diagnosis is to notice.
// It is written after it was put there, and what is taken back is forgotten.
type Record struct {
	Schema     int            `json:"schema"`     // 1
	Containers map[string]Put `json:"containers"` // by name
}

// Put is what was put into one container.
type Put struct {
	ID     string `json:"id"`     // of the container
	SHA256 string `json:"sha256"` // of the library
}

const (
	recordName   = "library.json"
	recordSchema = 1
	recordLimit  = 1 << 20 // bytes; each container has about 200
)

// ReadRecord reads what the modules' folder on the host has of it. Without one, or without the folder, it is empty.
func ReadRecord(dir string) (Record, error) {
	r := Record{Schema: recordSchema, Containers: map[string]Put{}}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("cannot read which containers have the library: %w", err)
	}
	defer root.Close()
	file, _, err := foreign.Open(root, recordName)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	var data []byte
	if err == nil {
		defer file.Close()
		data, err = foreign.ReadAtMost(file, recordLimit)
	}
	found := Record{}
	if err == nil {
		err = json.Unmarshal(data, &found)
	}
	if err == nil && found.Schema != recordSchema {
		err = fmt.Errorf("it has schema %d, this program knows %d: update the collection", found.Schema, recordSchema)
	}
	if err != nil {
		return r, fmt.Errorf("cannot read which containers have the library, %s: %w", filepath.Join(dir, recordName), err)
	}
	for name, put := range found.Containers {
		r.Containers[name] = put
	}
	return r, nil
}

// WriteRecord replaces the record, so that after a power cut the former one is there or this one. One without containers is removed. The
// folder has to be there, and only root's to write to.
func WriteRecord(dir string, r Record) error {
	if err := writeRecord(dir, r); err != nil {
		return fmt.Errorf("cannot write down which containers have the library: %w", err)
	}
	return nil
}

func writeRecord(dir string, r Record) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if len(r.Containers) == 0 {
		return statedir.Remove(root, recordName)
	}
	r.Schema = recordSchema
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= recordLimit {
		return fmt.Errorf("it would have %d bytes", len(data))
	}
	return statedir.WriteWhole(root, recordName, append(data, '\n'))
}
