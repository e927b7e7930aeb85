package sftpset

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

func TestMain(m *testing.M) { os.Exit(sshdtest.Alone(m).Run()) }

// to is a config for the server at addr, which is the server itself or a proxy in front of it.
func to(t *testing.T, s *sshdtest.Server, addr string) Config {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, k := range s.HostKey {
		keys = append(keys, k)
	}
	return Config{
		Address: Address{s.User, host, n, s.Folder}, PrivateKeyFile: s.Key, KnownHostsFile: s.Known(t, addr, "", keys...),
		Handshake: 20 * time.Second, Idle: 10 * time.Second, Pause: time.Millisecond,
	}
}

func open(t *testing.T, c Config) *Set {
	t.Helper()
	set := New(c)
	t.Cleanup(func() { set.Close() })
	return set
}

func newStore(t *testing.T, dir string) *patchset.Store {
	t.Helper()
	store, err := patchset.OpenStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// pkg is a package with such a content, whatever is on the server.
func pkg(data []byte) patchset.Package {
	return patchset.Package{Name: "qemu-utils", File: "a.deb", Size: int64(len(data)), SHA256: patchset.Digest(data)}
}

// noise is bytes that no two places of a file share.
func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := 0; i+8 <= size; i += 8 {
		v := r.Uint64()
		for k := range 8 {
			data[i+k] = byte(v >> (8 * k))
		}
	}
	return data
}

func mustHave(t *testing.T, store *patchset.Store, p patchset.Package) {
	t.Helper()
	file, err := store.Open(p) // which reads it and compares the checksum
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

// wantError also keeps an eye on the rule that an error names server and path.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not say %q", err, w)
		}
	}
	if len(err.Error()) > 2000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

func TestManifestSignatureAndPackage(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	s.Put(t, "manifest.yml", []byte("schema: 1\n"))
	data := noise(1, 3<<20+17)
	s.Put(t, "a.deb", data)
	set := open(t, to(t, s, s.Addr()))
	if text, err := set.Manifest(t.Context()); err != nil || string(text) != "schema: 1\n" {
		t.Fatalf("%q, %v", text, err)
	}
	if _, err := set.Signature(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a set without a signature: %v", err)
	}
	s.Put(t, "manifest.yml.sig", []byte("-----BEGIN SSH SIGNATURE-----"))
	if text, err := set.Signature(t.Context()); err != nil || string(text) != "-----BEGIN SSH SIGNATURE-----" {
		t.Errorf("%q, %v", text, err)
	}
	store := newStore(t, t.TempDir())
	if err := set.Fetch(t.Context(), pkg(data), store); err != nil {
		t.Fatal(err)
	}
	mustHave(t, store, pkg(data))
	if n := strings.Count(s.Log(), "Accepted publickey"); n != 1 {
		t.Errorf("%d logins for one run", n)
	}
}

func TestEveryKindOfHostKeyThatTheFileHolds(t *testing.T) {
	s := sshdtest.Start(t, "ed25519", "rsa", "ecdsa")
	s.Put(t, "manifest.yml", []byte("x"))
	for kind, key := range s.HostKey {
		for _, form := range []string{"plain", "hashed", "among others", "after a comment"} {
			t.Run(kind+" "+form, func(t *testing.T) {
				c := to(t, s, s.Addr())
				c.KnownHostsFile = s.Known(t, s.Addr(), "", key)
				switch form {
				case "hashed":
					if out, err := exec.Command("ssh-keygen", "-H", "-f", c.KnownHostsFile).CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					if text, err := os.ReadFile(c.KnownHostsFile); err != nil || bytes.Contains(text, []byte(s.Host)) {
						t.Fatalf("not hashed: %s, %v", text, err)
					}
				case "among others":
					other := filepath.Join(t.TempDir(), "other")
					s.Keygen(t, other, "-t", "ed25519")
					join(t, c.KnownHostsFile, s.Known(t, "other.example:22", "", other+".pub"))
				case "after a comment":
					prepend(t, c.KnownHostsFile, "# of the depot\n\n")
				}
				if _, err := open(t, c).Manifest(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func join(t *testing.T, to, from string) {
	t.Helper()
	more, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	prepend(t, to, string(more))
}

func prepend(t *testing.T, name, text string) {
	t.Helper()
	rest, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append([]byte(text), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHostKeyThatIsNotTheKnownOne(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	s.Put(t, "manifest.yml", []byte("x"))
	proxy := sshdtest.Through(t, s.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
	own := s.HostKey["ed25519"]
	print, err := exec.Command("ssh-keygen", "-lf", own).Output()
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := strings.Fields(string(print))[1]
	other := filepath.Join(t.TempDir(), "other")
	s.Keygen(t, other, "-t", "ed25519")
	ecdsa := filepath.Join(t.TempDir(), "ecdsa")
	s.Keygen(t, ecdsa, "-t", "ecdsa")
	both := s.Known(t, proxy.Addr, "", own)
	join(t, both, s.Known(t, proxy.Addr, "@revoked", own))
	port := proxy.Addr[strings.LastIndexByte(proxy.Addr, ':')+1:]
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"unknown":          {s.Known(t, "other.example:22", "", own), []string{"cannot trust the server: it is unknown", fingerprint, "ssh-keyscan -p " + port + " 127.0.0.1"}},
		"without the port": {s.Known(t, "127.0.0.1:22", "", own), []string{"it is unknown", fingerprint}},
		"an empty file":    {s.Known(t, proxy.Addr, ""), []string{"it is unknown", fingerprint}},
		"changed":          {s.Known(t, proxy.Addr, "", other+".pub"), []string{"its host key has changed", fingerprint, "line 1", "ssh-keygen -R '[127.0.0.1]:" + port + "'"}},
		"of another kind":  {s.Known(t, proxy.Addr, "", ecdsa+".pub"), []string{"no host key of a kind", "ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-keyscan"}},
		"revoked":          {s.Known(t, proxy.Addr, "@revoked", own), []string{"is revoked by", fingerprint, "line 1"}},
		"known, revoked":   {both, []string{"is revoked by", fingerprint}},
		"damaged":          {s.Key, []string{"cannot read the known host keys", "key:1"}},
		"a device":         {os.DevNull, []string{"cannot read the known host keys: /dev/null is no regular file"}},
		"not there":        {filepath.Join(t.TempDir(), "none"), []string{"cannot read the known host keys", "no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := proxy.Connections.Load()
			c := to(t, s, proxy.Addr)
			c.KnownHostsFile = test.file
			_, err := open(t, c).Manifest(t.Context())
			wantError(t, err, append(test.want, "cannot read "+s.Folder+"/manifest.yml from "+s.User+"@"+proxy.Addr, test.file)...)
			if n := proxy.Connections.Load() - before; n > 1 {
				t.Errorf("it was tried %d times", n)
			}
		})
	}
	if n := strings.Count(s.Log(), "Accepted publickey"); n > 0 {
		t.Errorf("logged in all the same: %s", s.Log())
	}
}

func TestLogin(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	s.Put(t, "manifest.yml", []byte("x"))
	proxy := sshdtest.Through(t, s.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
	dir := t.TempDir()
	key := func(name string, args ...string) string {
		s.Keygen(t, filepath.Join(dir, name), args...)
		return filepath.Join(dir, name)
	}
	rsa, ecdsa, pem, stranger, locked := key("rsa", "-t", "rsa"), key("ecdsa", "-t", "ecdsa"), key("pem", "-t", "rsa", "-m", "PEM"), key("stranger", "-t", "ed25519"), key("locked", "-t", "ed25519", "-N", "secret")
	s.Authorize(t, s.Key, rsa, ecdsa, pem)
	loose := key("loose", "-t", "ed25519")
	if err := os.Chmod(loose, 0o640); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key  string
		want []string // empty: it is let in
	}{
		"rsa": {rsa, nil}, "ecdsa": {ecdsa, nil}, "rsa in PEM form": {pem, nil},
		"not authorized":  {stranger, []string{"cannot log in: the key " + stranger + " is not accepted for user " + s.User, "authorized_keys"}},
		"open to others":  {loose, []string{"mode 0640", "chmod 600"}},
		"with passphrase": {locked, []string{"a passphrase protects it", "ssh-add", "SSH_AUTH_SOCK"}},
		"no key":          {text, []string{"holds no private key"}},
		"a FIFO":          {fifo, []string{"no regular file"}},
		"a folder":        {dir, []string{"no regular file"}},
		"none there":      {dir + "/none", []string{"cannot use the key " + dir + "/none: no such file or directory"}},
		"the public half": {rsa + ".pub", []string{"mode 0644"}},
		"neither nor":     {"", []string{"no sftp_private_key_file is given", "SSH_AUTH_SOCK"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := proxy.Connections.Load()
			c := to(t, s, proxy.Addr)
			c.PrivateKeyFile = test.key
			_, err := open(t, c).Manifest(t.Context())
			if test.want == nil && err != nil {
				t.Error(err)
			}
			if test.want != nil {
				wantError(t, err, test.want...)
				if strings.Contains(err.Error(), "hunter2") {
					t.Error("the file's content is in the error")
				}
			}
			if n := proxy.Connections.Load() - before; n > 1 {
				t.Errorf("it was tried %d times", n)
			}
		})
	}

	t.Run("agent", func(t *testing.T) {
		socket := filepath.Join(dir, "agent")
		agent := exec.Command("ssh-agent", "-D", "-a", socket)
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
		c := to(t, s, proxy.Addr)
		c.PrivateKeyFile, c.AgentSocket = "", socket
		for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
			// The socket's file is there before somebody listens.
			if conn, err := net.Dial("unix", socket); err == nil {
				conn.Close()
				break
			}
		}
		_, err := open(t, c).Manifest(t.Context())
		wantError(t, err, "holds no key: ssh-add one")
		add := func(key string) {
			cmd := exec.Command("ssh-add", key)
			cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		add(stranger)
		_, err = open(t, c).Manifest(t.Context())
		wantError(t, err, "none of the agent's keys is accepted")
		add(rsa)
		if _, err := open(t, c).Manifest(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("silent agent", func(t *testing.T) {
		socket := filepath.Join(dir, "silent")
		listen, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer listen.Close()
		c := to(t, s, s.Addr())
		c.PrivateKeyFile, c.AgentSocket, c.Handshake = "", socket, 300*time.Millisecond
		began := time.Now()
		_, err = open(t, c).Manifest(t.Context())
		wantError(t, err, "cannot speak to the agent at "+socket+": it is silent")
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestFilesThatCannotBeHad(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	if os.Geteuid() == 0 && s.User == "root" {
		t.Fatal("root may read everything: this test shows nothing")
	}
	proxy := sshdtest.Through(t, s.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
	denied := s.Put(t, "denied/manifest.yml", []byte("x"))
	if err := os.Chmod(denied, 0); err != nil {
		t.Fatal(err)
	}
	s.Put(t, "large/manifest.yml", make([]byte, patchset.MaxManifestSize+1))
	s.Put(t, "large/manifest.yml.sig", make([]byte, patchset.MaxSignatureSize+1))
	s.Put(t, "folder/manifest.yml/x", nil)
	s.Put(t, "fifo/x", nil)
	if err := syscall.Mkfifo(filepath.Join(s.Folder, "fifo/manifest.yml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(s.Folder, "fifo/manifest.yml.sig")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		folder string
		ask    func(*Set, context.Context) ([]byte, error)
		want   string
	}{
		{"denied", (*Set).Manifest, "the server denies it: permission denied"},
		{"none", (*Set).Manifest, "no such file or folder there"},
		{"denied", (*Set).Signature, "no such file or folder there"},
		{"large", (*Set).Manifest, "it has 1048577 bytes, at most 1048576 are allowed"},
		{"large", (*Set).Signature, "it has 65537 bytes, at most 65536 are allowed"},
		{"folder", (*Set).Manifest, "cannot read"},
		{"fifo", (*Set).Signature, "no regular file"},
	} {
		before := proxy.Connections.Load()
		c := to(t, s, proxy.Addr)
		c.Address.Path = s.Folder + "/" + test.folder
		_, err := test.ask(open(t, c), t.Context())
		wantError(t, err, test.want, "cannot read "+c.Address.Path+"/manifest.yml", s.User+"@"+proxy.Addr)
		if n := proxy.Connections.Load() - before; n > 1 {
			t.Errorf("%s: it was tried %d times", test.want, n)
		}
	}
	c := to(t, s, s.Addr())
	c.Address.Path, c.Idle = s.Folder+"/fifo", 200*time.Millisecond
	_, err := open(t, c).Manifest(t.Context())
	wantError(t, err, "the server is silent: nothing has come for 200ms", "(4 times)")
}

func TestOddPaths(t *testing.T) {
	s := sshdtest.Start(t, "ed25519")
	for _, odd := range []string{"a b", "100%", "ü日本", "line\nbreak", "?#@:;&=+$,'\"\\*[]{}~", "\xff\xfe", "-rf", "%41"} {
		s.Put(t, odd+"/manifest.yml", []byte(odd))
		c := to(t, s, s.Addr())
		c.Address.Path = s.Folder + "/" + odd
		again, err := ParseAddress(c.Address.String())
		if err != nil {
			t.Errorf("%q: %v", odd, err)
			continue
		}
		c.Address = again
		if text, err := open(t, c).Manifest(t.Context()); err != nil || string(text) != odd {
			t.Errorf("%q: %q, %v", odd, text, err)
		}
	}
}
