package host

import (
	"os"
	"path/filepath"
	"testing"
)

func plant(t *testing.T, files map[string]string) string {
	proc := t.TempDir()
	for path, text := range files {
		path = filepath.Join(proc, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if filepath.Base(path) == "mnt" && err == nil {
			err = os.Symlink(text, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

// TestOnePathOfTwoVersionsIsTwoMounts: the share of one container is v4.2 and that of another, at the same path, v3.
func TestOnePathOfTwoVersionsIsTwoMounts(t *testing.T) {
	const line = "9 1 0:9 / /var/lib/cinder/mnt/abc rw - "
	proc := plant(t, map[string]string{
		"100/ns/mnt": "mnt:[1]", "100/mountinfo": line + "nfs4 filer:/vol rw,vers=4.2\n",
		"200/ns/mnt": "mnt:[2]", "200/mountinfo": line + "nfs filer:/vol rw,vers=3,local_lock=none\n",
		"300/ns/mnt": "mnt:[3]", "300/mountinfo": line + "nfs filer:/vol rw,vers=3,local_lock=none\n",
	})
	all, err := NFSMounts(proc)
	if err != nil || len(all) != 2 || all[0].NeedsStatd() || !all[1].NeedsStatd() || all[1].PID != 200 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestServerThreads(t *testing.T) {
	for _, test := range []struct {
		files map[string]string
		want  int
		fails bool
	}{
		{nil, 0, false},
		{map[string]string{"fs/nfsd/threads": "8\n"}, 8, false},
		{map[string]string{"fs/nfsd/threads": "0\n"}, 0, false},
		{map[string]string{"1/net/rpc/nfsd": "rc 0 0 0\nfh 0 0 0 0 0\nth 4 0 0.000 0.000\n"}, 4, false}, // its filesystem is not mounted
		{map[string]string{"1/net/rpc/nfsd": "rc 0 0 0\nth 0 0 0.000\n"}, 0, false},
		{map[string]string{"fs/nfsd/threads": "many\n"}, 0, true},
	} {
		if got, err := ServerThreads(plant(t, test.files)); got != test.want || (err != nil) != test.fails {
			t.Errorf("%v: %d, %v", test.files, got, err)
		}
	}
}
