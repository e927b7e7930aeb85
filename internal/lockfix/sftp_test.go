package lockfix

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

func TestMain(m *testing.M) { os.Exit(sshdtest.Alone(m).Run()) }

// onServer puts the set's files on a real OpenSSH server, and gives what a run begins with and the proxy in between.
func onServer(t *testing.T, set Set, f *files) (server *sshdtest.Server, begin func() *files, proxy *sshdtest.Proxy) {
	t.Helper()
	server = sshdtest.Start(t, "ed25519")
	for _, p := range set.Packages {
		file, err := f.open(p)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, p.Size)
		if _, err := file.Read(data); err != nil {
			t.Fatal(err)
		}
		file.Close()
		server.Put(t, p.File, data)
	}
	proxy = sshdtest.Through(t, server.Addr(), func(int64, int64) sshdtest.Fate { return sshdtest.Go })
	host, port, _ := net.SplitHostPort(proxy.Addr)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	config := sftpset.Config{
		Address:        sftpset.Address{User: server.User, Host: host, Port: number, Path: server.Folder},
		PrivateKeyFile: server.Key, KnownHostsFile: server.Known(t, proxy.Addr, "", server.HostKey["ed25519"]),
	}
	return server, func() *files { return &files{source: sftpset.New(config)} }, proxy
}

func TestSetOnAServer(t *testing.T) {
	w := twoContainers(t)
	other := qemuUtils(patched)
	other.name = "qemu-block-extra" // in no container
	set, local := folder(t, qemuUtils(patched), other)
	server, begin, proxy := onServer(t, set, local)
	if err := os.Remove(filepath.Join(server.Folder, "qemu-block-extra.deb")); err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch)
	state := filepath.Join(w.dir, "state")

	f := begin()
	check, err := w.run(options(), ansible.Call{CheckMode: true, Diff: true}, set, f)
	if err != nil || statuses(check) != "nova_libvirt patched, cinder_volume patched" || len(check.Diff) != 2 {
		t.Fatalf("check mode: %v, %+v", err, check)
	}
	f.close()
	if left, _ := os.ReadDir(scratch); len(left) > 0 {
		t.Errorf("check mode left %v behind", left)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("check mode made the state folder")
	}
	if n := proxy.Connections.Load(); n != 1 {
		t.Errorf("check mode: %d connections", n)
	}

	f = begin()
	run, err := w.run(options(), ansible.Call{}, set, f)
	if err != nil || !run.Changed || statuses(run) != statuses(check) {
		t.Fatalf("%v, %+v", err, run)
	}
	f.close()
	if n := proxy.Connections.Load(); n != 2 {
		t.Errorf("the run: %d connections", n-1)
	}
	stored, err := patchset.OpenStore(filepath.Join(state, "store"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	file, err := stored.Open(set.Packages[0])
	if err != nil {
		t.Fatal(err)
	}
	file.Close()

	// From here on the server is asked for no package: what is in the store is not fetched again, in neither mode.
	for _, call := range []ansible.Call{{}, {CheckMode: true}} {
		f = begin()
		again, err := w.run(options(), call, set, f)
		if err != nil || again.Changed || statuses(again) != "nova_libvirt unchanged, cinder_volume unchanged" {
			t.Fatalf("again: %v, %+v", err, again)
		}
		f.close()
	}
	if n := proxy.Connections.Load(); n != 2 {
		t.Errorf("the runs without change: %d connections", n-2)
	}

	// A host that needs nothing of it.
	empty := newWorld(t)
	f = begin()
	if r, err := empty.run(options(), ansible.Call{}, set, f); err != nil || r.Changed {
		t.Errorf("%v, %+v", err, r)
	}
	f.close()
	if n := proxy.Connections.Load(); n != 2 {
		t.Errorf("a host without containers: %d connections", n-2)
	}
}

// What cannot be fetched ends the run before anything is changed.
func TestSetThatCannotBeFetchedChangesNothing(t *testing.T) {
	w := twoContainers(t)
	set, local := folder(t, qemuUtils(patched))
	server, begin, _ := onServer(t, set, local)
	server.Put(t, set.Packages[0].File, make([]byte, set.Packages[0].Size))
	before := w.snapshot()
	f := begin()
	defer f.close()
	r, err := w.run(options(), ansible.Call{}, set, f)
	if err == nil || !strings.Contains(err.Error(), "was the patch set replaced meanwhile?") || r.Changed || len(r.Missing) > 0 {
		t.Fatalf("%v, %+v", err, r)
	}
	if len(w.calls) > 0 || len(before) != len(w.snapshot()) {
		t.Errorf("something was begun: %v", w.calls)
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "state", "store")); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

// The signature comes the same way as the manifest, and is judged before a word of it is believed.
func TestSetOnAServerIsSigned(t *testing.T) {
	set, local := folder(t, qemuUtils(patched))
	server, begin, _ := onServer(t, set, local)
	keys := t.TempDir()
	keygen := func(args ...string) {
		t.Helper()
		command := exec.CommandContext(t.Context(), "ssh-keygen", args...)
		command.Dir = keys
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
		}
	}
	keygen("-q", "-t", "ed25519", "-N", "", "-f", "ann")
	public, err := os.ReadFile(filepath.Join(keys, "ann.pub"))
	if err != nil {
		t.Fatal(err)
	}
	const manifest = "schema: 1\nvariant: fallback\nsuffix: +nfslock1\npackages: []\n"
	if err := os.WriteFile(filepath.Join(keys, "manifest.yml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	keygen("-q", "-Y", "sign", "-f", "ann", "-n", patchset.Namespace, "manifest.yml")
	signature, err := os.ReadFile(filepath.Join(keys, "manifest.yml.sig"))
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	signers := "ann@example.com " + string(public)
	o.AllowedSigners = &signers
	read := func(want string) {
		t.Helper()
		f := begin()
		defer f.close()
		_, err := f.readManifest(t.Context(), o)
		if want == "" && (err == nil || strings.Contains(err.Error(), "cannot use patch set")) && f.signer == "ann@example.com" {
			return // whether a set may be empty is not the signature's business
		}
		if want == "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, signer %q, want %q", err, f.signer, want)
		}
	}
	server.Put(t, "manifest.yml", []byte(manifest))
	read("it is not signed")
	server.Put(t, "manifest.yml.sig", signature)
	read("")
	server.Put(t, "manifest.yml", []byte("no manifest: [at all"))
	read("is not good")
}
