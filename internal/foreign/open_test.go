package foreign

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// plant makes a root with what a hostile container may hold, beside a secret.
func plant(t *testing.T) *os.Root {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600))
	in := func(name string) string { return filepath.Join(dir, "root", name) }
	must(os.MkdirAll(in("etc/folder"), 0o755))
	must(os.WriteFile(in("etc/file"), []byte("inside"), 0o600))
	must(syscall.Mkfifo(in("etc/pipe"), 0o600))
	for name, target := range map[string]string{
		"relative": "file", "absolute": "/etc/file", "chain": "absolute", "out": "../../secret", "far": "/../secret",
		"gone": "nowhere", "loop": "loop", "topipe": "pipe", "todevice": "/dev/null",
	} {
		must(os.Symlink(target, in("etc/"+name)))
	}
	must(os.Symlink("../..", in("above")))
	must(os.Symlink(dir, in("host")))
	must(os.Mkdir(in("dev"), 0o755))
	if err := syscall.Mknod(in("dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil && os.Geteuid() == 0 {
		t.Logf("no device in this test: %v", err)
	}
	root, err := os.OpenRoot(in("."))
	must(err)
	t.Cleanup(func() { root.Close() })
	return root
}

func TestOnlyRegularFilesBelowTheRootAreOpenedAndNothingIsWaitedFor(t *testing.T) {
	root := plant(t)
	const plain, linked = 1, 2
	for name, opens := range map[string]int{
		"etc/file": plain | linked, "etc/relative": linked, "etc/absolute": linked, "etc/chain": linked, "etc/out": 0, "etc/far": 0, "etc/gone": 0,
		"etc/loop": 0, "etc/topipe": 0, "etc/todevice": 0, "etc/pipe": 0, "etc/folder": 0, "dev/null": 0, "above/secret": 0, "host/secret": 0,
		"../secret": 0, "etc/file/x": 0, "absent": 0,
	} {
		for bit, open := range map[int]func(*os.Root, string) (*os.File, fs.FileInfo, error){plain: Open, linked: OpenLinked} {
			begin := time.Now()
			f, info, err := open(root, name)
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			if (err == nil) != (opens&bit != 0) {
				t.Errorf("%s, %d: %v", name, bit, err)
			}
			if err != nil {
				continue
			}
			text, err := io.ReadAll(f)
			f.Close()
			if string(text) != "inside" || err != nil || info.Size() != 6 {
				t.Errorf("%s: %q, %v", name, text, err)
			}
		}
	}
	for _, name := range []string{"etc/pipe", "etc/folder", "etc/out"} {
		if _, _, err := Open(root, name); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"absent", "etc/gone"} {
		if _, _, err := OpenLinked(root, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
