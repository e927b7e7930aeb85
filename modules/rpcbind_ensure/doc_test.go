package main

import (
	"bytes"
	"os"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc"
	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc/moduledoctest"
)

// docText is moduledoc.DocText as doc.yml spells it.
type docText struct {
	ShortDescription string `yaml:"short_description"`
	Description      []string
	VersionAdded     string `yaml:"version_added"`
	Author           []string
	Requirements     []string
	Notes            []string
	Attributes       map[string]moduledoc.Attribute
	Examples         string
	Return           []moduledoc.Value
}

// TestDocumentation keeps plugins/modules/rpcbind_ensure.yml what the options in spec.go and the text in doc.yml come to.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("doc.yml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var text docText
	if err := dec.Decode(&text); err != nil {
		t.Fatal(err)
	}
	got, err := moduledoc.Documentation("rpcbind_ensure", spec, moduledoc.DocText(text))
	if err != nil {
		t.Fatal(err)
	}
	moduledoctest.Golden(t, "../../plugins/modules/rpcbind_ensure.yml", got, *update)
}
