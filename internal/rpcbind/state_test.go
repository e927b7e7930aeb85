package rpcbind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stateDirOf makes a folder as statd has it: path to text.
func stateDirOf(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for _, folder := range stateFolders {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func filesOf(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func number(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

func carryBetween(t *testing.T, from, to string) error {
	a, err := openState(from)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openState(to)
	if err != nil {
		t.Fatal(err)
	}
	return carry(a, b)
}

func TestCarryAddsWhatIsNotThere(t *testing.T) {
	from := stateDirOf(t, map[string]string{"sm/filer1": "1", "sm/filer2": "old", "sm.bak/filer3": "3", "state": number(9), "xtab": "none of statd's"})
	to := stateDirOf(t, map[string]string{"sm/filer2": "new", "sm/filer4": "4", "state": number(5)})
	if err := carryBetween(t, from, to); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"sm/filer1": "1", "sm/filer2": "new", "sm/filer4": "4", "sm.bak/filer3": "3", "state": number(9)}
	if diff := cmp.Diff(want, filesOf(t, to)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The number never goes down, and an empty file, as the package brings it, is none.
	for _, c := range []struct{ theirs, want string }{{number(3), number(9)}, {"", number(9)}, {number(11), number(11)}} {
		from := stateDirOf(t, map[string]string{"state": c.theirs})
		if err := carryBetween(t, from, to); err != nil || filesOf(t, to)["state"] != c.want {
			t.Errorf("%x: %x, %v", c.theirs, filesOf(t, to)["state"], err)
		}
	}
}

// TestCarryKnowsBothDistributions: EL has the folders in statd.
func TestCarryKnowsBothDistributions(t *testing.T) {
	from := t.TempDir()
	for path, text := range map[string]string{"statd/sm/filer": "1", "statd/sm.bak/none": "2"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := stateDirOf(t, nil)
	if err := carryBetween(t, from, to); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"sm/filer": "1", "sm.bak/none": "2"}, filesOf(t, to)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCarryTakesNoTraps: the folder is that of a container, in which somebody else may be root.
func TestCarryTakesNoTraps(t *testing.T) {
	from := stateDirOf(t, map[string]string{"sm/good": "1"})
	secret := filepath.Join(t.TempDir(), "secret")
	err := os.WriteFile(secret, []byte("secret"), 0o600)
	if err == nil {
		err = os.Symlink(secret, filepath.Join(from, "sm/link"))
	}
	if err == nil {
		err = syscall.Mkfifo(filepath.Join(from, "sm/fifo"), 0o600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(from, "sm/folder"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	to := stateDirOf(t, nil)
	if err := carryBetween(t, from, to); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"sm/good": "1"}, filesOf(t, to)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(from, "sm/huge"), make([]byte, maxSizeFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := carryBetween(t, from, to); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
	many := map[string]string{}
	for i := range maxServers + 1 {
		many[fmt.Sprintf("sm/%d", i)] = ""
	}
	if err := carryBetween(t, stateDirOf(t, many), to); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("many files: %v", err)
	}
}

func TestCarryOfOneFolderIsNothing(t *testing.T) {
	dir := stateDirOf(t, map[string]string{"sm/filer": "1", "state": number(3)})
	if err := carryBetween(t, dir, dir); err != nil {
		t.Error(err)
	}
	if err := carryBetween(t, t.TempDir(), dir); err != nil {
		t.Errorf("from where no statd ever was: %v", err)
	}
	if err := carryBetween(t, dir, t.TempDir()); err == nil {
		t.Error("to where none is: no error")
	}
}

// TestALinkInAContainerLeadsNowhereElse: whose root is that of a process, and who may be root in there.
func TestALinkInAContainerLeadsNowhereElse(t *testing.T) {
	proc, outside := t.TempDir(), stateDirOf(t, map[string]string{"sm/secret": "1"})
	lib := filepath.Join(proc, "7/root/var/lib")
	if err := errors.Join(os.MkdirAll(lib, 0o755), os.Symlink(outside, filepath.Join(lib, "nfs"))); err != nil {
		t.Fatal(err)
	}
	if root, err := openStateOf(proc, 7); err == nil || root != nil {
		t.Errorf("%v, %v", root, err)
	}
	if root, err := openStateOf(proc, 8); root != nil || err != nil {
		t.Errorf("a process that ended: %v, %v", root, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(lib, "nfs")), os.MkdirAll(filepath.Join(lib, "nfs/sm"), 0o755)); err != nil {
		t.Fatal(err)
	}
	root, err := openStateOf(proc, 7)
	if err != nil || root == nil {
		t.Fatalf("%v, %v", root, err)
	}
	root.Close()
}

// TestMoveLeavesNothingForTheNextRun, but for what is none of statd's.
func TestMoveLeavesNothingForTheNextRun(t *testing.T) {
	from := stateDirOf(t, map[string]string{"sm/filer1": "1", "sm.bak/filer2": "2", "sm/filer3": "old", "other": "x"})
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "sm/link")); err != nil {
		t.Fatal(err)
	}
	to := stateDirOf(t, map[string]string{"sm/filer3": "new"})
	a, err1 := openState(from)
	b, err2 := openState(to)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := move(a, b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"other": "x"}, filesOf(t, from)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"sm/filer1": "1", "sm.bak/filer2": "2", "sm/filer3": "new"}, filesOf(t, to)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := move(b, b); err != nil || len(filesOf(t, to)) != 3 {
		t.Errorf("onto itself: %v, %v", err, filesOf(t, to))
	}
}

func TestWatchesNamesServersAsFileAndKernelDo(t *testing.T) {
	dir := stateDirOf(t, map[string]string{
		"sm/filer": "0100007f 000186b5 00000003 00000010 00000000000000000000000000000000 10.0.0.2 node\n", "sm/10.0.0.3": "", "sm.bak/gone": "",
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "sm/link")); err != nil {
		t.Fatal(err)
	}
	root, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := watches(root)
	if diff := cmp.Diff([]string{"10.0.0.2", "10.0.0.3", "filer"}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
