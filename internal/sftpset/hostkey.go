package sftpset

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys is what this host knows of the server's keys. There is no way to trust one at first sight.
type hostKeys struct {
	files  []string
	addr   string // host:port
	db     *knownhosts.HostKeyDB
	failed error // what was wrong with the key that the server offered
	passed bool
}

// knownHosts are the files to look into: the one that the user names, else OpenSSH's own, as far as they exist.
func (c Config) knownHosts() (*hostKeys, error) {
	h := &hostKeys{addr: c.Address.hostPort()}
	if c.KnownHostsFile != "" {
		h.files = []string{c.KnownHostsFile}
	} else {
		usual := []string{"/etc/ssh/ssh_known_hosts"}
		if u, err := user.Current(); err == nil && u.HomeDir != "" {
			usual = slices.Insert(usual, 0, filepath.Join(u.HomeDir, ".ssh", "known_hosts"))
		}
		for _, name := range usual {
			if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				h.files = append(h.files, name)
			}
		}
		if len(h.files) == 0 {
			return nil, fmt.Errorf("cannot know the server: there is neither %s: %s", strings.Join(usual, " nor "), h.wayIn(usual[0]))
		}
	}
	for _, name := range h.files {
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("cannot read the known host keys: %s is no regular file", name)
		}
	}
	var err error
	if h.db, err = knownhosts.NewDB(h.files...); err != nil {
		return nil, fmt.Errorf("cannot read the known host keys: %w", err)
	}
	return h, nil
}

// algorithms are for the kinds of keys that the files hold, so that the server does not offer another one. SHA-1 signatures
// are left out, as OpenSSH does. Empty: the host is unknown, and the server's favourite is what the error will name.
func (h *hostKeys) algorithms() []string {
	return slices.DeleteFunc(h.db.HostKeyAlgorithms(h.addr), func(a string) bool {
		return a == ssh.KeyAlgoRSA || a == ssh.CertAlgoRSAv01
	})
}

func (h *hostKeys) check(hostname string, remote net.Addr, key ssh.PublicKey) error {
	err := h.db.HostKeyCallback()(hostname, remote, key)
	offered := key.Type() + " " + ssh.FingerprintSHA256(key)
	var revoked *xknownhosts.RevokedError
	var other *xknownhosts.KeyError
	switch {
	case err == nil:
		h.passed = true
	case errors.As(err, &revoked):
		h.failed = fmt.Errorf("its host key %s is revoked by %s line %d: the server needs a new one (ssh-keygen there), and that its line here",
			offered, revoked.Revoked.Filename, revoked.Revoked.Line)
	case knownhosts.IsHostKeyChanged(err) && errors.As(err, &other):
		var known []string
		for _, k := range other.Want {
			known = append(known, fmt.Sprintf("%s %s in %s line %d", k.Key.Type(), ssh.FingerprintSHA256(k.Key), k.Filename, k.Line))
		}
		h.failed = fmt.Errorf("its host key has changed: it offers %s, known is %s. Either the server was set up anew or somebody else answers in its place: "+
			"ask who runs it; only then remove the old line (ssh-keygen -R '%s' -f %s) and add the new one", offered,
			strings.Join(known, ", "), xknownhosts.Normalize(h.addr), other.Want[0].Filename)
	case knownhosts.IsHostUnknown(err):
		h.failed = fmt.Errorf("it is unknown: it offers the host key %s, and no line of %s is for it: %s", offered, strings.Join(h.files, " or "), h.wayIn(h.files[0]))
	default: // a certificate that has expired or is for another host
		h.failed = fmt.Errorf("its host key %s is not accepted: %w", offered, err)
	}
	return h.failed
}

// noCommonKind is for a server that has no key of any kind that the files hold, which ends before a key is seen.
func (h *hostKeys) noCommonKind(err *ssh.AlgorithmNegotiationError) error {
	return fmt.Errorf("it has no host key of a kind that %s names for it (%s), its own are %.200q: its key has changed, or the line for this kind is missing: %s",
		strings.Join(h.files, " or "), strings.Join(h.algorithms(), ", "), strings.Join(err.RequestedAlgorithms, ", "), h.wayIn(h.files[0]))
}

func (h *hostKeys) wayIn(file string) string {
	host, port, _ := net.SplitHostPort(h.addr)
	return fmt.Sprintf("get its keys with `ssh-keyscan -p %s %s`, compare their fingerprints with those that its administrator reads there "+
		"(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), and add the line to %s", port, host, file)
}
