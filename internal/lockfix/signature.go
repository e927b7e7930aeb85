package lockfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sshsig"
)

// checkSignature says who signed the manifest, and refuses one that none of the allowed signers did. It comes before anything
// in the manifest is believed. Where no signers are given nothing is read, and nobody is named.
func checkSignature(ctx context.Context, o Options, manifest []byte, from source) (signer string, err error) {
	if o.AllowedSigners == nil {
		return "", nil
	}
	allowed, err := readSigners(*o.AllowedSigners)
	if err != nil {
		return "", err
	}
	data, err := from.Signature(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	signer, err = patchset.VerifyManifest(manifest, data, allowed, time.Now())
	if err != nil {
		return "", fmt.Errorf("cannot trust the manifest of %s: %w", o.PatchSet, err)
	}
	return signer, nil
}

// readSigners takes the option for a file of this host where it begins with a slash, which no list does. An empty one is
// an error: it comes of a variable that was meant to hold something, and must not mean that anybody may sign.
func readSigners(option string) (sshsig.Signers, error) {
	text, where := option, "allowed_signers"
	if strings.HasPrefix(option, "/") {
		where = option
		data, err := host.ReadOwn(option, sshsig.MaxSigners)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w on this host; a list on the controller is sent with \"{{ lookup('file', …) }}\"", err)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use the allowed signers: %w", err)
		}
		text = string(data)
	}
	allowed, err := sshsig.ParseSigners(text, time.Local)
	if err != nil {
		err = fmt.Errorf("cannot use %s: %w", where, err)
		if where != option && !strings.Contains(text, " ") {
			err = fmt.Errorf("%w; the option holds the lines of such a list, or the absolute path of one on the target", err)
		}
		return nil, err
	}
	return allowed, nil
}
