package deb

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRecordsThatDpkgHasNotReadInAreSeenAndWhetherTheySayAnythingNew(t *testing.T) {
	const stanza = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n"
	half := "Package: a\nStatus: install reinstreq half-installed\nArchitecture: amd64\nVersion: 1\n"
	for name, test := range map[string]struct {
		updates       map[string]string
		records, news bool
	}{
		"none":                              {},
		"only the one that is being made":   {map[string]string{"tmp.i": ""}, false, false},
		"back to what the status file says": {map[string]string{"0000": half, "0001": stanza, "tmp.i": ""}, true, false},
		"something new":                     {map[string]string{"0000": half}, true, true},
		"another package":                   {map[string]string{"0000": "Package: b\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 1\n"}, true, true},
		"nonsense":                          {map[string]string{"0000": "Package\n"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				t.Helper()
				path := filepath.Join(dir, "var/lib/dpkg", name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("status", stanza+"\nPackage: c\nStatus: hold ok installed\nArchitecture: all\nVersion: 2\n")
			for name, text := range test.updates {
				write("updates/"+name, text)
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			records, news, err := Unread(root)
			if records != test.records || news != test.news || (err != nil) != (name == "nonsense") {
				t.Errorf("records %v, news %v, %v", records, news, err)
			}
		})
	}
}
