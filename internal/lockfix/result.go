package lockfix

import "github.com/nfslock/ansible-collection-kolla/internal/ansible"

// Result is what a run reports.
type Result struct {
	ansible.Result
	PatchSet   *PatchSetRow `json:"patch_set,omitempty"` // nil until its manifest was read and believed
	Engine     *EngineRow   `json:"engine,omitempty"`
	Containers []Row        `json:"containers"`
	// KeptBytes is what this host keeps in all: the store, the packages from before, and a journal if a run left one.
	KeptBytes int64 `json:"kept_bytes,omitempty"`
	// Missing names, by sha256, the files that the plan needs and the host's store lacks. Nothing was changed; the action
	// plugin uploads them and calls again.
	Missing []string `json:"_missing,omitempty"`
}

// PatchSetRow is what was to be installed, and on whose word.
type PatchSetRow struct {
	Variant string `json:"variant"`
	SHA256  string `json:"sha256"`           // of the manifest
	Signer  string `json:"signer,omitempty"` // the principal in allowed_signers
}

// EngineRow is the engine that was spoken to.
type EngineRow struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Row is one container's part of the result.
type Row struct {
	Name         string   `json:"name"`
	ID           string   `json:"id"`
	Image        string   `json:"image"`
	Distribution string   `json:"distribution"` // "debian bookworm"
	Architecture string   `json:"architecture"` // dpkg's word: "amd64"
	Status       Status   `json:"status"`
	Reason       string   `json:"reason,omitempty"` // why it was passed over
	Packages     []Change `json:"packages"`
	// Library is nil where it could not be seen, as in a container that does not run.
	Library   *LibraryRow `json:"library,omitempty"`
	Restarted bool        `json:"restarted"`
	StaleQEMU []Stale     `json:"stale_qemu"`
	Error     *Failure    `json:"error,omitempty"`
}

// Status is how a container fared; in check mode, how it would.
type Status string

// The states of a row.
const (
	Patched    Status = "patched"
	Unchanged  Status = "unchanged"
	Restored   Status = "restored"
	Skipped    Status = "skipped" // it has none of the packages, or does not run and nobody named it
	RolledBack Status = "rolled_back"
	Failed     Status = "failed"
)

// Change is one package of a container.
type Change struct {
	Name   string `json:"name"`
	Before string `json:"before"` // the version; with dpkg's short state in front where that is not "installed": "iF 1:7.2-7"
	After  string `json:"after"`
	Wanted string `json:"wanted"`
}

// Stale is a running guest whose program is not the one in its container.
type Stale struct {
	PID   int    `json:"pid"`
	Guest string `json:"guest"`
}

// Failure is what went wrong in one container, and the way out.
type Failure struct {
	Step    string `json:"step"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (f *Failure) Error() string { return f.Message }
