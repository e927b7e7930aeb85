// Package moduledoctest compares documentation with the file that is kept of it.
package moduledoctest

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc"
)

// Module fails the test where plugins/modules/<name>.yml is not what the options and the text in doc.yml come to. It is for a test
// in modules/<name>. With update the file is written first.
func Module(t *testing.T, name string, spec ansible.Spec, update bool) {
	t.Helper()
	data, err := os.ReadFile("doc.yml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := moduledoc.ParseText(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := moduledoc.Documentation(name, spec, text)
	if err != nil {
		t.Fatal(err)
	}
	Golden(t, "../../plugins/modules/"+name+".yml", got, update)
}

// Golden fails the test where the file of that name is not what was written now. With update it is written first.
func Golden(t *testing.T, name string, got []byte, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is another, -update would rewrite it (-is +would be):\n%s", name, diff)
	}
}
