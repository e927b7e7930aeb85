package shown

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestWhatCannotBeSeenIsWrittenOut(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"plain é 漢 🙂":            "plain é 漢 🙂",
		"two\nlines\tand a tab":  "two\nlines\tand a tab",
		"\x1b[2J\x1b]0;title\a":  `\u001b[2J\u001b]0;title\u0007`,
		"a\rb":                   `a\rb`,
		"\u009b31m":              `\u009b31m`,
		"a\u202egpj.exe":         `a\u202egpj.exe`,
		"zero\u200bwidth\ufeff":  `zero\u200bwidth\ufeff`,
		"tag \U000e0041":         `tag \ue0041`,
		"line\u2028separator":    `line\u2028separator`,
		"not UTF-8 \xff\x1b\xc3": "not UTF-8 \ufffd\\u001b\ufffd",
		"DEL \x7f NUL \x00":      `DEL \u007f NUL \u0000`,
	} {
		if got := Text(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestAllTextsAreKeysToo(t *testing.T) {
	got := All(map[string]any{"a\x1b": []any{"\x1b", map[string]any{"k": "\x07"}, 1, nil, true}, "b": "c"})
	want := map[string]any{`a\u001b`: []any{`\u001b`, map[string]any{"k": `\u0007`}, 1, nil, true}, "b": "c"}
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTheReportHasTheSameList: what is escaped here and there is one list.
func TestTheReportHasTheSameList(t *testing.T) {
	text, err := os.ReadFile("../../plugins/plugin_utils/lock_report_text.py")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`HIDDEN = re\.compile\(r"(.*)"\)`).FindSubmatch(text)
	if match == nil {
		t.Fatal("no HIDDEN there")
	}
	python := regexp.MustCompile(`\\u([0-9a-f]{4})|\\U000([0-9a-f]{5})`).ReplaceAllString(string(match[1]), `\x{$1$2}`)
	hidden := regexp.MustCompile("^(?:" + python + ")$")
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if utf8.ValidRune(r) && hidden.MatchString(string(r)) != Hidden(r) {
			t.Errorf("%U: here %v", r, Hidden(r))
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[0m\u202e\xff\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := Text(text)
		if strings.ContainsFunc(got, escaped) || !utf8.ValidString(got) || Text(got) != got {
			t.Errorf("%q: %q", text, got)
		}
	})
}
