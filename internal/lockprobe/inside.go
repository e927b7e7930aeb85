package lockprobe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// insideFolders are where this program is put in a container, the first that will do: none is the host's in any of kolla's containers.
var insideFolders = []string{"var/lib", "var/tmp", "tmp", "opt", "root"}

// guest is this program in a container.
type guest struct {
	root   *os.Root
	folder string // below it
	file   string
}

// Close removes it, and all in its folder.
func (g *guest) Close() error { return g.root.RemoveAll(g.folder) }

// putIn copies this program into a container, through its root: what stands there is what the container's processes see.
func putIn(root *os.Root) (*guest, error) {
	var errs []string
	for _, folder := range insideFolders {
		if err := runsPrograms(root, folder); err != nil {
			errs = append(errs, fmt.Sprintf("/%s: %v", folder, cause(err)))
			continue
		}
		sweepPrograms(root, folder)
		random := make([]byte, 8)
		_, _ = rand.Read(random)
		g := &guest{root: root, folder: path.Join(folder, ProbeName+"-"+hex.EncodeToString(random))}
		g.file = path.Join(g.folder, ProbeName)
		err := root.Mkdir(g.folder, 0o755)
		if err == nil {
			if err = copyProgram(root, g.file); err == nil {
				return g, nil
			}
			_ = g.Close()
		}
		errs = append(errs, fmt.Sprintf("/%s: %v", folder, cause(err)))
	}
	return nil, fmt.Errorf("cannot put a program into the container: %s", strings.Join(errs, "; "))
}

// cause leaves out the path that is named beside it.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// runsPrograms refuses a filesystem that is read-only or runs no programs, such as /tmp in careful containers.
func runsPrograms(root *os.Root, folder string) error {
	dir, err := root.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return errors.New("it is read-only")
	case st.Flags&unix.ST_NOEXEC != 0:
		return errors.New("no program may run there")
	}
	return nil
}

func copyProgram(root *os.Root, name string) error {
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer own.Close()
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, own)
	return errors.Join(err, file.Close())
}

// sweepPrograms removes what a run that was killed has left there an hour ago, or before.
func sweepPrograms(root *os.Root, folder string) {
	dir, err := root.Open(folder)
	if err != nil {
		return
	}
	defer dir.Close()
	entries, _ := dir.ReadDir(sweepLimit)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ProbeName+"-") || !e.IsDir() {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > sweepAge*time.Second {
			_ = root.RemoveAll(path.Join(folder, e.Name()))
		}
	}
}

// tryInside runs that program in the container, which needs no shell.
func (m *machine) tryInside(ctx context.Context, v *view, g *guest, device string, t task) attempt {
	t.Inside = true
	text, err := json.Marshal(t)
	if err != nil {
		return attempt{Problem: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, t.limit()+insideGrace)
	defer cancel()
	// As root: where root may not create a file, the program goes on as the container's user.
	out, err := m.engine.Exec(ctx, v.ID, engine.Command{Args: arguments("/"+g.file, device, t, text), User: "0", Env: []string{"GOMAXPROCS=2"}})
	a := parseOutput(out.Output)
	switch {
	case a.ended || a.Hangs != "" || a.Problem != "":
	case err != nil:
		a.Problem = fmt.Sprintf("cannot try locks inside %s: %v", v.name, err)
	default:
		a.Problem = fmt.Sprintf("cannot try locks inside %s: the program ended with %d: %s", v.name, out.ExitCode, short(strings.TrimSpace(out.Output)))
	}
	return a
}

// insideGrace is what an engine may take to start a program and to tell how it ended.
const insideGrace = 5 * time.Second
