package ansible

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ours are the arguments that are refused here although AnsibleModule takes them, see coerce.
var ours = map[string]bool{
	// Python's text of a list or a dictionary.
	`str []`: true, `str ["a"]`: true, `str ["a","b"]`: true, `str [1,2]`: true, `str ["1",2.0]`: true,
	`str [true,"no"]`: true, `str [1.5]`: true, `str ["~/a","$VAR"]`: true,
	`str {}`: true, `str {"a":1}`: true, `str {"a":{"b":[1,2]}}`: true,
	`path []`: true, `path ["a"]`: true, `path ["a","b"]`: true, `path [1,2]`: true, `path ["1",2.0]`: true,
	`path [true,"no"]`: true, `path [1.5]`: true, `path ["~/a","$VAR"]`: true,
	`path {}`: true, `path {"a":1}`: true, `path {"a":{"b":[1,2]}}`: true,
	// More than 64 bits.
	`int "9223372036854775808"`:         true,
	`list of int "9223372036854775808"`: true,
}

func TestArgumentsAreCoercedAsAnsibleModuleDoes(t *testing.T) {
	t.Setenv("HOME", "/home/tester")
	t.Setenv("VAR", "value")
	t.Setenv("EMPTY", "")
	t.Setenv("DOLLAR", "$VAR")
	types := map[string]Type{"str": String, "path": Path, "int": Int, "bool": Bool, "list": List, "dict": Dict}
	table, err := os.ReadFile("testdata/coercion.txt")
	if err != nil {
		t.Fatal(err)
	}
	unused := map[string]bool{}
	for key := range ours {
		unused[key] = true
	}
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		kind, given, want := fields[0], fields[1], fields[2]
		if key := kind + " " + given; ours[key] {
			delete(unused, key)
			want = "refused"
		}
		name, elements, _ := strings.Cut(kind, " of ")
		o := Option{Type: types[name], Elements: types[elements]}
		got, err := o.coerce("o", decode(t, given))
		if err != nil {
			if want != "refused" {
				t.Errorf("%s %s: got error %q, want %s", kind, given, err, want)
			}
			continue
		}
		if want == "refused" {
			t.Errorf("%s %s: got %v, want an error", kind, given, got)
			continue
		}
		data, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decode(t, want), decode(t, string(data))); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", kind, given, diff)
		}
	}
	for key := range unused {
		t.Errorf("%s is listed as ours and is not in the table", key)
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	object, err := decodeObject([]byte(`{"v":` + text + `}`))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return object["v"]
}

func TestNumbersOfManyDigitsTakeNoMemory(t *testing.T) {
	for _, text := range []string{"1e999999999", "-1e2147483647", "1e-999999999", "1e99999999999999999999", strings.Repeat("9", 1<<20)} {
		if n, err := parseInt(text); err == nil {
			t.Errorf("%.30s: got %d, want an error", text, n)
		}
	}
	for text, want := range map[string]int64{
		"0e999999999":                             0,
		"9223372036854775807":                     1<<63 - 1,
		"-9223372036854775808":                    -1 << 63,
		"-9.223372036854775808e18":                -1 << 63,
		"000" + strings.Repeat("0", 100) + "12":   12,
		"12" + strings.Repeat("0", 100) + "e-100": 12,
	} {
		if got, err := parseInt(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestHomeOfAnotherUserOrOfNobody(t *testing.T) {
	t.Setenv("HOME", "/")
	for path, want := range map[string]string{"~": "/", "~/": "/", "~/x": "/x", "~root": "/root", "~no-such-user": "~no-such-user"} {
		if got := expandHome(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
