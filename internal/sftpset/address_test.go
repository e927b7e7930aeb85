package sftpset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseAddress(t *testing.T) {
	for _, test := range []struct {
		text    string
		want    Address
		wantErr string
	}{
		{"sftp://patches@depot/srv/set", Address{"patches", "depot", 22, "/srv/set"}, ""},
		{"SFTP://patches@Depot.Example:2222/", Address{"patches", "depot.example", 2222, "/"}, ""},
		{"sftp://p@192.0.2.7:22/a/", Address{"p", "192.0.2.7", 22, "/a/"}, ""},
		{"sftp://p@[2001:DB8::7]:2222/a", Address{"p", "2001:db8::7", 2222, "/a"}, ""},
		{"sftp://p@[fe80::1%25eth0]/a", Address{"p", "fe80::1%eth0", 22, "/a"}, ""},
		{"sftp://p@h/a%20b%25c%0Ad%c3%a9%40é +&;", Address{"p", "h", 22, "/a b%c\ndé@é +&;"}, ""},
		{"sftp://p%40realm@h/a", Address{"p@realm", "h", 22, "/a"}, ""},
		{"sftp://p@h//a/../b", Address{"p", "h", 22, "//a/../b"}, ""},

		{"sftp:/p@h/a", Address{}, "does not begin with sftp://"},
		{"sftp://p@h", Address{}, "it has no path"},
		{"sftp://h/a", Address{}, "it names no user"},
		{"sftp://@h/a", Address{}, "it names no user"},
		{"sftp://p@/a", Address{}, "its host must be"},
		{"sftp://p@-oProxyCommand=x/a", Address{}, "its host must be"},
		{"sftp://p@*/a", Address{}, "its host must be"},
		{"sftp://p@h,other/a", Address{}, "its host must be"},
		{"sftp://p@h:/a", Address{}, "its port must be"},
		{"sftp://p@h:0/a", Address{}, "its port must be"},
		{"sftp://p@h:022/a", Address{}, "its port must be"},
		{"sftp://p@h:65536/a", Address{}, "its port must be"},
		{"sftp://p@2001:db8::7/a", Address{}, "its port must be"},
		{"sftp://p@[192.0.2.7]/a", Address{}, "an IPv6 address"},
		{"sftp://p@[::1]x/a", Address{}, "its port must be"},
		{"sftp://p@h/a?b", Address{}, "written %3F"},
		{"sftp://p@h/a#b", Address{}, "written %23"},
		{"sftp://p@h/a%zz", Address{}, "two hexadecimal digits"},
		{"sftp://p@h/a%00", Address{}, "NUL"},
		{"sftp://p@h/a@b", Address{}, "written %40"},
		{"sftp://p%0a@h/a", Address{}, "not printable"},
	} {
		got, err := ParseAddress(test.text)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
		if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s: error %v, want %q", test.text, err, test.wantErr)
		}
	}
}

func TestPasswordIsRefusedAndNotQuoted(t *testing.T) {
	for _, text := range []string{
		"sftp://patches:hunter2@depot/srv/set",
		"SFTP://patches:hunter2@depot:22/srv/set",
		" sftp://patches:hunter2@depot/srv/set",
		"sftp:patches:hunter2@depot/srv/set",
		"sftp:/patches:hunter2@depot/srv/set",
		"sftp://patches:hunter2/@depot/srv/set",
		"sftp://patches:hunter2?x@depot",
		"sftp://patches:hunter2#x@depot/a",
		"sftp://:hunter2@depot/a",
		"sftp://patches:hun@ter2@depot/a",
		"https://patches:hunter2@depot/a",
		"sftp://patches%3ahunter2@depot/a",
		"sftp://patches%3Ahunter2%40depot/a",
		"sftp://patches:hunter2%40depot/a",
		"sftp://patches%253ahunter2@depot/a",
		"sftp:patches%3ahunter2@depot/a",
		"sftp://patches%3ahunter2%zz@depot/a",
	} {
		if !HoldsPassword(text) {
			t.Errorf("%s: not seen as one with a password", text)
		}
		if _, err := ParseAddress(text); err == nil || !strings.Contains(err.Error(), "no password belongs there") || strings.Contains(err.Error(), "hun") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"sftp://p@h:22/a", "sftp://p@[::1]:22/a", "/srv/set", "/srv/a:b@c", "set", "sftp://p@h/a:b", "sftp://p@h:22/a%40b", "sftp://p%40q@h:22/a", "sftp://p@[fe80::1%25e0]:22/a%3Ab%40c"} {
		if HoldsPassword(text) {
			t.Errorf("%s: taken for one with a password", text)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"sftp://p@h/a", "sftp://p@[fe80::1%25e0]:1/%00", "sftp://p:q@h/a", "sftp://p%40q@H:022/a%2Fb?c#d", "sftp:", "sftp://p@h/\xff%ff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			if HoldsPassword(text) && err.Error() != parseError("sftp://a:b@c/") {
				t.Errorf("what is said of a password depends on it: %v", err)
			}
			return
		}
		if !IsAddress(text) || HoldsPassword(text) || !strings.HasPrefix(a.Path, "/") || a.User == "" || a.Host == "" || a.Port < 1 || a.Port > 65535 {
			t.Errorf("%q is %+v", text, a)
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %+v, printed %q and read again %+v, %v", text, a, a.String(), again, err)
		}
	})
}

func parseError(text string) string {
	_, err := ParseAddress(text)
	return err.Error()
}
