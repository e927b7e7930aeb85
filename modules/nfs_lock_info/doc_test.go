package main

import (
	"os"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc"
	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc/moduledoctest"
)

// TestDocumentation keeps plugins/modules/nfs_lock_info.yml what the options in spec.go and the text in doc.yml come to.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("doc.yml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := moduledoc.ParseText(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := moduledoc.Documentation("nfs_lock_info", spec, text)
	if err != nil {
		t.Fatal(err)
	}
	moduledoctest.Golden(t, "../../plugins/modules/nfs_lock_info.yml", got, *update)
}
