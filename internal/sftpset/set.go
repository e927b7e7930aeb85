// Package sftpset fetches a patch set from an SFTP server, with a key and never a password, from a server whose key this
// host knows. It is the only importer of SSH and SFTP. What is in the files, and whether to trust them, others decide.
package sftpset

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// Config says where a set is and how to get there. The durations are ours where they are zero.
type Config struct {
	Address        Address
	PrivateKeyFile string        // a file on this host; empty: the keys of the agent
	AgentSocket    string        // SSH_AUTH_SOCK
	KnownHostsFile string        // empty: ~/.ssh/known_hosts of the user who runs this, and /etc/ssh/ssh_known_hosts
	Handshake      time.Duration // from dialling to the moment at which files can be asked for; 30 s
	Idle           time.Duration // how long a server may be silent that was asked for something; 30 s
	Pause          time.Duration // before the second try; twice as long before each further one; 1 s
}

// tries is how often something is tried without a byte of progress. One server that is silent to all of them costs two
// minutes.
const tries = 4

// Set is a patch set on a server. It connects when it is first asked for something, and stays connected until Close.
type Set struct {
	config  Config
	session *session // nil: not connected
}

// New does not connect yet. The caller closes the set.
func New(c Config) *Set {
	if c.Handshake == 0 {
		c.Handshake = 30 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = 30 * time.Second
	}
	if c.Pause == 0 {
		c.Pause = time.Second
	}
	return &Set{config: c}
}

// Close ends the connection. The set can still be asked: it connects again.
func (s *Set) Close() error {
	if s.session != nil {
		s.session.close()
		s.session = nil
	}
	return nil
}

// Manifest is the text of manifest.yml, at most patchset.MaxManifestSize.
func (s *Set) Manifest(ctx context.Context) ([]byte, error) {
	return s.text(ctx, patchset.ManifestName, patchset.MaxManifestSize)
}

// Signature is what manifest.yml.sig holds, at most patchset.MaxSignatureSize. The cause is fs.ErrNotExist where the set has
// none.
func (s *Set) Signature(ctx context.Context) ([]byte, error) {
	return s.text(ctx, patchset.SignatureName, patchset.MaxSignatureSize)
}

func (s *Set) text(ctx context.Context, name string, most int) (data []byte, err error) {
	path := s.config.Address.file(name)
	err = s.retry(ctx, "read "+path, func(c *session) (progress bool, err error) {
		data, err = c.text(ctx, path, most)
		return false, err
	})
	return data, err
}

// Fetch brings the package's file into the store, verified. It goes on where an earlier try, or an earlier run, was cut.
// When a file that came in several pieces turns out wrong it is fetched once more from its beginning: the server may have got
// another file in between.
func (s *Set) Fetch(ctx context.Context, p patchset.Package, store *patchset.Store) (err error) {
	part, err := store.Part(ctx, p)
	if err != nil {
		return err
	}
	defer part.Close()
	pieced := part.Size() > 0
	path := s.config.Address.file(p.File)
	for {
		err = s.retry(ctx, "fetch "+path, func(c *session) (progress bool, err error) {
			from := part.Size()
			err = c.copy(ctx, path, from, p.Size, part)
			pieced = pieced || err != nil && part.Size() > 0
			return part.Size() > from, err
		})
		if err != nil {
			return err
		}
		err = part.Commit()
		if !errors.Is(err, patchset.ErrOtherContent) {
			return err
		}
		if !pieced {
			_ = part.Discard() // the first error matters
			return fmt.Errorf("cannot use %s of %s: %w: was the patch set replaced meanwhile? Upload it again, the manifest last, and run again", path, s.where(), err)
		}
		pieced = false
		if err := part.Restart(); err != nil {
			return err
		}
	}
}

func (s *Set) where() string { return s.config.Address.User + "@" + s.config.Address.hostPort() }

// retry runs f with a connection. After a failure that may pass it connects anew, with longer and longer pauses; whatever
// f got done in between makes it patient again.
func (s *Set) retry(ctx context.Context, what string, f func(*session) (progress bool, err error)) error {
	pause, tried := s.config.Pause, 0
	for {
		progress, err := s.once(ctx, f)
		if err == nil {
			return nil
		}
		if progress {
			pause, tried = s.config.Pause, 0
		}
		tried++
		if ctx.Err() == nil && isPassing(err) && tried < tries {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				pause *= 2
				continue
			case <-ctx.Done():
				timer.Stop()
				err = fmt.Errorf("%w, after: %w", context.Cause(ctx), err)
			}
		}
		var again string
		if isPassing(err) && tried > 1 {
			again = fmt.Sprintf(" (%d times)", tried)
		}
		return fmt.Errorf("cannot %s from %s%s: %w", what, s.where(), again, err)
	}
}

func (s *Set) once(ctx context.Context, f func(*session) (bool, error)) (progress bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, context.Cause(ctx)
	}
	if s.session == nil {
		if s.session, err = connect(ctx, s.config); err != nil {
			return false, err
		}
	}
	progress, err = f(s.session)
	if err != nil && isPassing(err) {
		_ = s.Close()
	}
	return progress, err
}
