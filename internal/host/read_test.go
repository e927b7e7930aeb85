package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyRegularFilesAreReadAndNoMoreThanIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(in("file"), []byte("text"), 0o600), os.Symlink(in("file"), in("link")), syscall.Mkfifo(in("pipe"), 0o600),
		os.WriteFile(in("large"), nil, 0o600), os.Truncate(in("large"), 30<<30)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"file": "", "link": "", "pipe": "it is no regular file", ".": "it is no regular file", "large": "it has more than 4 bytes"} {
		text, err := ReadFile(in(name), 4)
		if want == "" && (err != nil || string(text) != "text") || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: %.10q, %v", name, text, err)
		}
	}
	if _, err := ReadFile(in("none"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
