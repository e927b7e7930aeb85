package baseline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
)

func tree(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func stanza(name, architecture, version, more string) string {
	return "Package: " + name + "\nStatus: install ok installed\nArchitecture: " + architecture + "\nVersion: " + version + "\n" + more + "\n"
}

const graftFields = "Nfslock-Variant: fallback\nNfslock-Suffix: +site1\nNfslock-Built-From: " + source + "\nNfslock-Stock: " + stock + "\n"

func TestAllThatIsOursIsFoundInADatabase(t *testing.T) {
	const sums = "d41d8cd98f00b204e9800998ecf8427e  usr/bin/x\n"
	root := tree(t, map[string]string{
		"var/lib/dpkg/status": stanza("dpkg", "amd64", "1", "") + stanza("bash", "amd64", "5", "") +
			stanza("qemu-utils", "amd64", stock, "Source: qemu ("+source+")\n") + stanza("qemu-other", "amd64", "7+site1", graftFields) +
			stanza("by-hand", "amd64", "1+site1", "") + stanza("altered", "amd64", "1+site1", "") + stanza("unlisted", "amd64", "1+site1", "") +
			stanza("qemu-utils", "i386", stock+"+site1", graftFields) + stanza("kept", "amd64", "1", "") +
			"Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n" + graftFields + "\n",
		"var/lib/dpkg/info/by-hand.md5sums": sums,
		"var/lib/dpkg/info/altered.md5sums": "e" + sums[1:],
	})
	db, err := deb.OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	x := &Index{ID: "1", Packages: []Kept{{Name: "kept", Version: "1"}}}
	for _, name := range []string{"by-hand", "altered", "unlisted"} {
		x.Note(Installed{Name: name, Version: "1+site1", Sum: Sum(map[string]string{"usr/bin/x": sums[:32]})})
	}
	got := map[string]Whose{}
	for name, j := range (Known{ID: "1", Index: x}).JudgeAll(db) {
		got[name] = j.Whose
	}
	want := map[string]Whose{"qemu-utils": Stock, "kept": Stock, "qemu-other": Ours, "qemu-utils:i386": Ours, "by-hand": Ours, "altered": Doubtful, "unlisted": Doubtful}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is kept is never lost with the index that names it: the files stay, and what could not be read is put aside.
func TestAnIndexThatCannotBeReadIsPutAside(t *testing.T) {
	for _, text := range []string{"{", `{"schema":2}`} {
		folder := tree(t, map[string]string{IndexName: text, "a.deb": "a"})
		x := Index{ID: "1"}
		x.Note(Installed{Name: "a", Version: "1"})
		for range 2 {
			if err := x.Write(folder.Name()); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]string{unreadName: text, "a.deb": "a"} {
			if got, err := folder.ReadFile(name); string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		got, root, err := Open(folder.Name())
		if err != nil || got.ID != "1" || len(got.Installed) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		root.Close()
	}
}

func TestWhatNoIndexNamesIsSwept(t *testing.T) {
	folder := tree(t, map[string]string{IndexName: `{"schema":1}`, "a.deb": "a", "b.deb": "b"})
	if err := (Index{Packages: []Kept{{File: "a.deb"}}}).Sweep(folder); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder.Name())
	if err != nil || len(entries) != 2 || entries[0].Name() != "a.deb" {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestTheRecordsOfAllContainersAreRead(t *testing.T) {
	dir := tree(t, map[string]string{
		"nova_compute/index.json": `{"schema":1,"id":"aa","image":"x","suffix":"+nfslock1","made":"2026-01-01T00:00:00Z","packages":[{"name":"qemu-utils","version":"1","held":false,"file":"f","size":1,"sha256":"s"}]}`,
		"cinder_volume/x.deb":     "",
		"cinder_api/index.json":   `{"schema":2}`,
	}).Name()
	all, err := All(dir)
	if err == nil || !strings.Contains(err.Error(), "in cinder_api: ") || !strings.Contains(err.Error(), "it has schema 2") {
		t.Errorf("%v", err)
	}
	if len(all) != 1 || all["nova_compute"].ID != "aa" || all["nova_compute"].Packages[0].Version != "1" {
		t.Errorf("%+v", all)
	}
	if all, err := All(filepath.Join(dir, "none")); all != nil || err != nil {
		t.Errorf("nothing kept: %v, %v", all, err)
	}
}
