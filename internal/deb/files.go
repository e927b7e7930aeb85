package deb

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// FileProblem is a file of a package that is not as the package delivered it.
type FileProblem struct {
	Path  string // absolute, as the package names it
	Kind  string // missing, altered or unreadable
	Cause string // of an unreadable one
}

// comparison is a FileProblem, or none if it has no Kind.
type comparison struct {
	FileProblem
	sum string // MD5 of an altered file in hex, "" if there is something else in its place
}

func (p FileProblem) String() string {
	if p.Cause != "" {
		return p.Path + " is " + p.Kind + ": " + p.Cause
	}
	return p.Path + " is " + p.Kind
}

// VerifyFiles compares files of the package with their checksums, path without leading slash → MD5 in hex, as Md5sums or
// an Archive have them. What the root's own dpkg leaves out by path-exclude is not missing. Configuration files belong to
// the user, and no package lists them there. All processors are used; the problems are sorted by path.
func (d *Database) VerifyFiles(ctx context.Context, p Package, want map[string]string) ([]FileProblem, error) {
	files, err := d.compareFiles(ctx, p, want)
	if err != nil {
		return nil, fmt.Errorf("cannot verify the files of %s: %w", p.Name, err)
	}
	return onlyProblems(files), nil
}

func onlyProblems(files []comparison) []FileProblem {
	var problems []FileProblem
	for _, f := range files {
		if f.Kind != "" {
			problems = append(problems, f.FileProblem)
		}
	}
	return problems
}

// compareFiles compares each file, sorted by path.
func (d *Database) compareFiles(ctx context.Context, p Package, want map[string]string) ([]comparison, error) {
	diversions, err := d.diversions()
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(want))
	files := make([]comparison, len(names))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		wait.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				files[i] = d.compareFile(ctx, divert(diversions, names[i], p.Name), want[names[i]])
				files[i].Path = "/" + names[i]
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i := range files {
		if files[i].Kind != "missing" {
			continue
		}
		rules, err := d.rules()
		if err != nil {
			return nil, err
		}
		if rules.excludes(files[i].Path) {
			files[i].Kind = ""
		}
	}
	return files, nil
}

func (d *Database) compareFile(ctx context.Context, place, want string) (c comparison) {
	sum, err := d.sumFile(ctx, place)
	switch {
	case err == nil && sum == want:
	case err == nil, errors.Is(err, foreign.ErrNotRegular), errors.Is(err, errTooLarge):
		c.Kind, c.sum = "altered", sum
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		c.Kind = "missing"
	default:
		c.Kind, c.Cause = "unreadable", err.Error()
	}
	return c
}

// errTooLarge: no package can have delivered such a file. A sparse one costs nothing to make and hours to read.
var errTooLarge = fmt.Errorf("it has more than %d bytes", int64(maxData))

// sumFile is the MD5 of a file in hex.
func (d *Database) sumFile(ctx context.Context, place string) (string, error) {
	f, info, err := foreign.Open(d.root, place)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info.Size() > maxData {
		return "", errTooLarge
	}
	sum := md5.New()
	if _, err := copyBuffer(sum, contextReader{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyBuffer is io.Copy with a buffer that is used again.
func copyBuffer(w io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// contextReader ends with the context; a file in state D cannot be helped.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// diversion moves a file of every package but one, see dpkg-divert(1).
type diversion struct {
	from, to string // below the root
	by       string // the package whose own file stays; ":" for none
}

func readDiversions(root *os.Root) ([]diversion, error) {
	const name = "var/lib/dpkg/diversions"
	f, _, err := foreign.Open(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read diversions: %w", err)
	}
	defer f.Close()
	diversions, err := parseDiversions(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return diversions, nil
}

// parseDiversions reads three lines for each: from, to, package.
func parseDiversions(r io.Reader) ([]diversion, error) {
	var diversions []diversion
	var entry [3]string
	line := 0
	err := eachLine(r, func(text string) (err error) {
		if entry[line] = text; line < 2 {
			entry[line], err = cleanName(text)
		} else {
			diversions = append(diversions, diversion{entry[0], entry[1], entry[2]})
		}
		line = (line + 1) % 3
		return err
	})
	if err == nil && line != 0 {
		err = io.ErrUnexpectedEOF
	}
	return diversions, err
}

// divert tells where a file of the package lies.
func divert(diversions []diversion, name, pkg string) string {
	for _, d := range diversions {
		if d.from == name && d.by != pkg {
			return d.to
		}
	}
	return name
}
