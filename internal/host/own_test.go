package host

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyWhatNobodyElseCanHaveWrittenIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string) string // gives the path to read; empty: the usual one
		root  bool                                  // only root can spoil it so
		want  string
	}{
		"as it should be": {},
		"others may write": {
			spoil: func(t *testing.T, dir string) string { return chmod(t, dir, "list", 0o646) }, want: "others than root may write to ",
		},
		"the group may write": {
			spoil: func(t *testing.T, dir string) string { return chmod(t, dir, "list", 0o664) }, want: "list (mode 0664): take that away",
		},
		"others may write to a folder above": {
			spoil: func(t *testing.T, dir string) string { return chmod(t, dir, "..", 0o777) }, want: "(mode 0777): take that away",
		},
		"a sticky folder above": {
			spoil: func(t *testing.T, dir string) string { return chmod(t, dir, "..", 0o777|os.ModeSticky) },
		},
		"somebody else's": {
			spoil: func(t *testing.T, dir string) string { return chown(t, dir, "list") }, root: true, want: "list belongs to user 65534",
		},
		"in somebody else's folder": {
			spoil: func(t *testing.T, dir string) string { return chown(t, dir, ".") }, root: true, want: "belongs to user 65534",
		},
		"a link": {
			spoil: func(t *testing.T, dir string) string {
				return link(t, filepath.Join(dir, "list"), filepath.Join(dir, "link"))
			},
			want: "link is a symbolic link",
		},
		"below a link": {
			spoil: func(t *testing.T, dir string) string {
				return filepath.Join(link(t, dir, filepath.Join(filepath.Dir(dir), "link")), "list")
			},
			want: "link is a symbolic link",
		},
		"a pipe": {
			spoil: func(t *testing.T, dir string) string {
				path := filepath.Join(dir, "pipe")
				if err := syscall.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			},
			want: "it is no regular file",
		},
		"a folder":       {spoil: func(_ *testing.T, dir string) string { return dir }, want: "it is no regular file"},
		"below a file":   {spoil: func(_ *testing.T, dir string) string { return filepath.Join(dir, "list", "x") }, want: "list is no folder"},
		"nothing":        {spoil: func(_ *testing.T, dir string) string { return filepath.Join(dir, "none") }, want: "none: no such file or directory"},
		"relative":       {spoil: func(*testing.T, string) string { return "list" }, want: "it is no absolute path"},
		"dots are taken": {spoil: func(_ *testing.T, dir string) string { return dir + "/../own//list" }},
		"too large": {
			spoil: func(t *testing.T, dir string) string {
				path := filepath.Join(dir, "large")
				if err := os.WriteFile(path, make([]byte, 9), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			},
			want: "it has more than 8 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			dir := filepath.Join(t.TempDir(), "own")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "list")
			if err := os.WriteFile(path, []byte("ann …"), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				if other := c.spoil(t, dir); other != "" {
					path = other
				}
			}
			data, err := ReadOwn(path, 8)
			if c.want == "" && (err != nil || string(data) != "ann …") {
				t.Errorf("%q, %v", data, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func chmod(t *testing.T, dir, name string, mode os.FileMode) string {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
		t.Fatal(err)
	}
	return ""
}

func chown(t *testing.T, dir, name string) string {
	t.Helper()
	if err := os.Chown(filepath.Join(dir, name), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return ""
}

func link(t *testing.T, to, name string) string {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
	return name
}
