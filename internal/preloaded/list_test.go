package preloaded

import (
	"bytes"
	"slices"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

func TestOursComesAndGoesAndOthersAreKeptToTheByte(t *testing.T) {
	const ours = preload.Library
	for _, test := range []struct {
		name       string
		list, with []byte // list is also what Without makes of with
	}{
		{"none", nil, []byte(ours + "\n")},
		{"an empty one", []byte{}, []byte("\n" + ours)},
		{"a line's end", []byte("\n"), []byte("\n" + ours + "\n")},
		{"another", []byte("/a.so\n"), []byte("/a.so\n" + ours + "\n")},
		{"another without a line's end", []byte("/a.so"), []byte("/a.so\n" + ours)},
		{"odd blanks", []byte("  /a.so:\t/b.so  \n\n# c\n"), []byte("  /a.so:\t/b.so  \n\n# c\n" + ours + "\n")},
		{"a comment at the end", []byte("# " + ours), []byte("# " + ours + "\n" + ours)},
		{"no text", []byte{0, 1, 255, '\n'}, append([]byte{0, 1, 255, '\n'}, ours+"\n"...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			with := With(test.list)
			if !bytes.Equal(with, test.with) {
				t.Errorf("with it: %q, want %q", with, test.with)
			}
			if again := With(with); !bytes.Equal(again, with) {
				t.Errorf("twice: %q", again)
			}
			if back := Without(with); !bytes.Equal(back, test.list) || (back == nil) != (test.list == nil) {
				t.Errorf("without it: %q, want %q", back, test.list)
			}
		})
	}
}

func TestWithoutTakesOursFromWhereverItStands(t *testing.T) {
	const ours = preload.Library
	for list, want := range map[string]string{
		ours:                            "",
		ours + "\n" + ours + "\n":       "",
		ours + "\n/a.so\n":              "/a.so\n",
		"/a.so:" + ours + ":/b.so\n":    "/a.so:/b.so\n",
		ours + " /b.so\n":               " /b.so\n",
		"/a.so " + ours + "\n":          "/a.so\n",
		"/a.so " + ours:                 "/a.so",
		ours + " # why\n/a.so\n":        " # why\n/a.so\n",
		"/a.so\n  " + ours + "  \n/b\n": "/a.so\n/b\n",
		"/a.so" + ours + "\n":           "/a.so" + ours + "\n", // another one's name
		"/a.so # " + ours + "\n":        "/a.so # " + ours + "\n",
	} {
		if got := Without([]byte(list)); string(got) != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

func FuzzList(f *testing.F) {
	for _, seed := range []string{"", "\n", "/a.so", "/a.so:" + preload.Library + " #" + preload.Library, " " + preload.Library + "\t\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		with, without := With(list), Without(list)
		others := func(list []byte) []string {
			return slices.DeleteFunc(Entries(list), func(e string) bool { return e == preload.Library })
		}
		if !slices.Contains(Entries(with), preload.Library) || !slices.Equal(others(with), others(list)) {
			t.Errorf("with it: %q", with)
		}
		if slices.Contains(Entries(without), preload.Library) || !slices.Equal(others(without), others(list)) {
			t.Errorf("without it: %q", without)
		}
		if !slices.Contains(Entries(list), preload.Library) && (!bytes.Equal(without, list) || !bytes.Equal(Without(with), list)) {
			t.Errorf("there and back: %q", Without(with))
		}
	})
}
