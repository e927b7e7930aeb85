// Package lockfix is the main job: it brings the preloaded library or the patched QEMU packages into a host's kolla containers, or
// what was there before back. Observe, plan, apply, verify, report: only apply changes anything.
package lockfix

import (
	"errors"
	"fmt"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset"
)

// Options are the user's words, of the right type already. The documentation of each is in modules/nfs_lock_fix.
type Options struct {
	State              string            `json:"state"`
	Method             string            `json:"method"` // empty: see packages and library
	PatchSet           string            `json:"patch_set"`
	RemoteSrc          bool              `json:"remote_src"`
	ManifestSHA256     string            `json:"manifest_sha256"`
	AllowedSigners     *string           `json:"allowed_signers"` // nil: a signature is not asked for
	SFTPPrivateKeyFile string            `json:"sftp_private_key_file"`
	SFTPKnownHostsFile string            `json:"sftp_known_hosts_file"`
	Containers         []string          `json:"containers"`
	Engine             engine.Kind       `json:"engine"`
	EngineSocket       string            `json:"engine_socket"`
	Restart            string            `json:"restart"`
	Hold               bool              `json:"hold"`
	OnError            string            `json:"on_error"`
	AllowVersionChange bool              `json:"allow_version_change"`
	Timeout            int               `json:"timeout"`    // seconds
	Manifest           string            `json:"_manifest"`  // its text, from the action plugin
	Signature          string            `json:"_signature"` // the text of manifest.yml.sig, likewise; empty: there is none
	Uploads            map[string]string `json:"_uploads"`   // sha256 to a file on this host, from the action plugin
}

// The values of the options that are a choice.
const (
	Present         = "present"
	Absent          = "absent"
	MethodLibrary   = "library"
	MethodPackages  = "packages"
	RestartAuto     = "auto"
	RestartAlways   = "always"
	RestartNever    = "never"
	OnErrorRollback = "rollback"
	OnErrorKeep     = "keep"
)

func (o Options) absent() bool { return o.State == Absent }

// packages tells whether the packages are to come or go: where no method is named, they come with a patch set and go in any case.
func (o Options) packages() bool {
	return o.Method == MethodPackages || o.Method == "" && (o.absent() || o.PatchSet != "")
}

// library tells the same of the preloaded library.
func (o Options) library() bool {
	return o.Method == MethodLibrary || o.Method == "" && (o.absent() || o.PatchSet == "")
}

// patches: a patch set is to be read.
func (o Options) patches() bool { return !o.absent() && o.packages() }

func (o Options) limit() time.Duration { return time.Duration(o.Timeout) * time.Second }

func (o Options) timeIsUp() error { return fmt.Errorf("the run's time, %v, is up", o.limit()) }

// check finds what no single option's type can tell.
func (o Options) check() error {
	if o.Timeout <= 0 {
		return fmt.Errorf("cannot use timeout %d: it is the seconds that the whole run may take", o.Timeout)
	}
	if o.absent() {
		return nil
	}
	switch {
	case o.Method == MethodLibrary && o.PatchSet != "":
		return errors.New("cannot use a patch set with method: library, which needs none: leave out one of them")
	case o.library():
		return nil
	case o.PatchSet == "":
		return errors.New("cannot patch without a patch set: name its folder with patch_set, or use method: library, which needs none")
	case sftpset.IsAddress(o.PatchSet) && o.RemoteSrc:
		return errors.New("cannot use remote_src with an address: it is for a patch_set that is a folder of this host")
	case sftpset.IsAddress(o.PatchSet): // openSource reads it
	case !o.RemoteSrc && o.Manifest == "":
		return fmt.Errorf("cannot read the controller's folder %s: the collection's action plugin, which sends it, was not loaded. "+
			"Call the module by its full name nfslock.kolla.nfs_lock_fix, or run from the checkout so that its ansible.cfg applies; "+
			"or copy the folder to the host and set remote_src: true", o.PatchSet)
	}
	return nil
}
