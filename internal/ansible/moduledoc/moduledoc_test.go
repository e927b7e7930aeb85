package moduledoc_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc"
	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc/moduledoctest"
)

var update = flag.Bool("update", false, "rewrite the golden file")

var spec = ansible.Spec{
	"state":      {Default: "present", Choices: []string{"present", "absent"}, Description: []string{"C(present): the greeting is there.", "C(absent): it is not."}},
	"name":       {Required: true, Description: []string{"Who is greeted: anybody."}},
	"names":      {Type: ansible.List, Default: []string{"yes", "1:20"}, Description: []string{"More of them."}},
	"numbers":    {Type: ansible.List, Elements: ansible.Int, Description: []string{"How often."}},
	"loud":       {Type: ansible.Bool, Default: false, Description: []string{"In capitals."}},
	"timeout":    {Type: ansible.Int, Default: 0, Description: []string{"Seconds."}},
	"_manifest":  {Internal: true},
	"_uploads":   {Type: ansible.Dict, Internal: true},
	"extra":      {Type: ansible.Dict, Description: []string{"# no comment"}},
	"socket":     {Type: ansible.Path, Default: "~/socket", Description: []string{"A folder."}},
	"passphrase": {NoLog: true, Description: []string{"Secret."}},
}

func text() moduledoc.DocText {
	return moduledoc.DocText{
		ShortDescription: "Greets people",
		Description:      []string{"Greets people on the target.", "It does: nothing else."},
		VersionAdded:     "1.0",
		Author:           []string{"Ada (@ada)"},
		Requirements:     []string{"a mouth"},
		Notes:            []string{"Works anywhere."},
		Attributes: map[string]moduledoc.Attribute{
			"diff_mode":  {Description: "Shows what changes.", Support: "none"},
			"check_mode": {Description: "Changes nothing.", Support: "partial", Details: "It still breathes."},
		},
		Examples: "\n- name: Greet Ada  # aloud\n  nfslock.kolla.greet:\n    name: Ada\n    loud: true\n",
		Return: []moduledoc.Value{
			{Name: "greeted", Description: []string{"Who was greeted."}, Returned: "always", Type: "list", Elements: "dict", Sample: []any{map[string]any{"name": "Ada", "at": 3}}, Contains: []moduledoc.Value{
				{Name: "name", Description: []string{"The name."}, Type: "str"},
				{Name: "at", Description: []string{"When."}, Type: "int"},
			}},
			{Name: "answered", Description: []string{"Whether anybody answered."}, Returned: "when loud", Type: "bool", Sample: false},
		},
	}
}

func TestDocumentationIsTheGoldenFile(t *testing.T) {
	const golden = "testdata/greet.yml"
	got, err := moduledoc.Documentation("greet", spec, text())
	if err != nil {
		t.Fatal(err)
	}
	moduledoctest.Golden(t, golden, got, *update)
	for range 20 {
		again, err := moduledoc.Documentation("greet", spec, text())
		if err != nil || string(again) != string(got) {
			t.Fatalf("another order: %v\n%s", err, again)
		}
	}
}

func TestHolesAreNamed(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(ansible.Spec, *moduledoc.DocText)
		want  string
	}{
		{"short description", func(_ ansible.Spec, d *moduledoc.DocText) { d.ShortDescription = "" }, "short_description is missing"},
		{"full stop", func(_ ansible.Spec, d *moduledoc.DocText) { d.ShortDescription += "." }, "short_description ends with a full stop"},
		{"description", func(_ ansible.Spec, d *moduledoc.DocText) { d.Description = []string{""} }, "description is missing"},
		{"markup in the description", func(_ ansible.Spec, d *moduledoc.DocText) { d.Description = []string{"See O(name)."} }, "description or notes: E(), O(), P(), RV() and V() need ansible-core 2.15"},
		{"markup in the notes", func(_ ansible.Spec, d *moduledoc.DocText) { d.Notes = []string{"See RV(greeted)."} }, "description or notes: E(), O(), P(), RV() and V() need"},
		{"markup in an option", func(s ansible.Spec, _ *moduledoc.DocText) {
			s["x"] = ansible.Option{Description: []string{"X.", "V(a) is A."}}
		}, "option x: E(), O(), P(), RV() and V() need"},
		{"markup in a return value", func(_ ansible.Spec, d *moduledoc.DocText) { d.Return[0].Contains[1].Description = []string{"V(3)."} }, `return value "greeted.at": E(), O(),`},
		{"author", func(_ ansible.Spec, d *moduledoc.DocText) { d.Author = nil }, "author is missing"},
		{"option", func(s ansible.Spec, _ *moduledoc.DocText) { s["x"] = ansible.Option{} }, "option x: description is missing"},
		{"default", func(s ansible.Spec, _ *moduledoc.DocText) {
			s["x"] = ansible.Option{Default: "c", Choices: []string{"a", "b"}, Description: []string{"X."}}
		}, `option x: default "c" is no choice`},
		{"required default", func(s ansible.Spec, _ *moduledoc.DocText) {
			s["x"] = ansible.Option{Default: "c", Required: true, Description: []string{"X."}}
		}, "option x: required, and has a default"},
		{"support", func(_ ansible.Spec, d *moduledoc.DocText) {
			d.Attributes["diff_mode"] = moduledoc.Attribute{Description: "X.", Support: "some"}
		}, `attribute diff_mode: support is "some"`},
		{"attribute", func(_ ansible.Spec, d *moduledoc.DocText) {
			d.Attributes["diff_mode"] = moduledoc.Attribute{Support: "full"}
		}, "attribute diff_mode: description is missing"},
		{"examples", func(_ ansible.Spec, d *moduledoc.DocText) { d.Examples = "name: x" }, "examples: not a list of tasks"},
		{"return type", func(_ ansible.Spec, d *moduledoc.DocText) { d.Return[0].Contains[1].Type = "" }, `return value "greeted.at": type is ""`},
		{"return description", func(_ ansible.Spec, d *moduledoc.DocText) { d.Return[0].Contains[1].Description = nil }, `return value "greeted.at": name or description is missing`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, d := ansible.Spec{}, text()
			test.spoil(s, &d)
			_, err := moduledoc.Documentation("greet", s, d)
			if err == nil || !strings.Contains(err.Error(), "cannot document module greet: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
