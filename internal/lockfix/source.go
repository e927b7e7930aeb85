package lockfix

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset"
)

// source is where a patch set comes from: a folder of this host, the controller, or an SFTP server. Its files it either opens
// (opener) or brings into a store (fetcher).
type source interface {
	// Manifest is the text of manifest.yml.
	Manifest(ctx context.Context) ([]byte, error)
	// Signature is what manifest.yml.sig holds. The cause is fs.ErrNotExist where the set has none.
	Signature(ctx context.Context) ([]byte, error)
	Close() error
}

// opener is a source whose files are on this host. Their sizes are right, their checksums are for the caller.
type opener interface {
	Open(p patchset.Package) (*os.File, error)
}

// fetcher is a source whose files go through a store, verified. errUpload says that the controller has to send the file first.
type fetcher interface {
	Fetch(ctx context.Context, p patchset.Package, store *patchset.Store) error
}

var errUpload = errors.New("the controller has not sent it")

// openSource connects to nothing yet.
func openSource(o Options) (source, error) {
	switch {
	case sftpset.IsAddress(o.PatchSet):
		address, err := sftpset.ParseAddress(o.PatchSet)
		if err != nil {
			return nil, err
		}
		return sftpset.New(sftpset.Config{
			Address: address, PrivateKeyFile: o.SFTPPrivateKeyFile, KnownHostsFile: o.SFTPKnownHostsFile, AgentSocket: os.Getenv("SSH_AUTH_SOCK"),
		}), nil
	case o.RemoteSrc:
		folder, err := patchset.OpenFolder(o.PatchSet)
		if err != nil {
			return nil, err
		}
		return hostFolder{folder}, nil
	}
	return controller{o.Manifest, o.Signature, o.Uploads}, nil
}

// hostFolder is a folder of this host.
type hostFolder struct{ folder *patchset.Folder }

func (h hostFolder) Manifest(context.Context) ([]byte, error) { return h.folder.Manifest() }

func (h hostFolder) Signature(context.Context) ([]byte, error) { return h.folder.Signature() }
func (h hostFolder) Open(p patchset.Package) (*os.File, error) { return h.folder.Open(p) }
func (h hostFolder) Close() error                              { return h.folder.Close() }

// controller is a folder there: the action plugin sends its manifest, with a signature if one is asked for, and then the files that this host asks for.
type controller struct {
	manifest  string
	signature string
	uploads   map[string]string // sha256 to a file on this host
}

func (c controller) Manifest(context.Context) ([]byte, error) { return []byte(c.manifest), nil }

func (c controller) Signature(context.Context) ([]byte, error) {
	if c.signature == "" {
		return nil, fs.ErrNotExist
	}
	return []byte(c.signature), nil
}

func (c controller) Fetch(ctx context.Context, p patchset.Package, store *patchset.Store) error {
	upload, ok := c.uploads[p.SHA256]
	if !ok {
		return errUpload
	}
	return store.Add(ctx, p, upload)
}

func (c controller) Close() error { return nil }
