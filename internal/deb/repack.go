package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Repacked tells what was not as the distribution had shipped it.
type Repacked struct {
	Problems []FileProblem
}

// dropped are the fields that dpkg adds to a control file when it installs it.
var dropped = []string{"status", "config-version", "conffiles", "triggers-awaited", "triggers-pending"}

// Repack writes the installed package, as it stands in the root, as a .deb: control fields from the status file, scripts and lists
// from info/, files with owner, mode, time and links. It is gzip'd, so that every dpkg reads it. The same input gives the
// same bytes. Not kept: extended attributes (no QEMU package has any), and what path-exclude left out.
func (d *Database) Repack(ctx context.Context, p Package, w io.WriteSeeker) (Repacked, error) {
	var r Repacked
	sums, err := d.Md5sums(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if r.Problems, err = d.VerifyFiles(ctx, p, sums); err != nil {
		return r, err
	}
	if _, err := io.WriteString(w, "!<arch>\n"); err != nil {
		return r, err
	}
	if err := writeMember(w, "debian-binary", func(w io.Writer) error {
		_, err := io.WriteString(w, "2.0\n")
		return err
	}); err != nil {
		return r, err
	}
	if err := writeMember(w, "control.tar.gz", zipped(func(t *tar.Writer) error { return d.writeControl(t, p) })); err != nil {
		return r, fmt.Errorf("cannot repack %s: %w", p.Name, err)
	}
	if err := writeMember(w, "data.tar.gz", zipped(func(t *tar.Writer) error { return d.writeData(ctx, t, p) })); err != nil {
		return r, fmt.Errorf("cannot repack %s: %w", p.Name, err)
	}
	return r, nil
}

// writeMember writes a member whose length is known only afterwards.
func writeMember(w io.WriteSeeker, name string, content func(io.Writer) error) error {
	header := func(size int64) error {
		_, err := fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, size)
		return err
	}
	at, err := w.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := header(0); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 256<<10)
	if err := content(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	end, err := w.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	size := end - at - 60
	if _, err := w.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if err := header(size); err != nil {
		return err
	}
	if _, err := w.Seek(end, io.SeekStart); err != nil {
		return err
	}
	if size%2 == 1 {
		_, err = w.Write([]byte{'\n'})
	}
	return err
}

func zipped(content func(*tar.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		t := tar.NewWriter(z)
		return errors.Join(content(t), t.Close(), z.Close())
	}
}

func (d *Database) writeControl(t *tar.Writer, p Package) error {
	fields, err := d.control(p)
	if err != nil {
		return err
	}
	if err := writeFile(t, "./control", 0o644, fields); err != nil {
		return err
	}
	base, err := d.infoBase(p)
	if err != nil {
		return err
	}
	names, err := readDirNames(d.root, infoDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		kind, ok := strings.CutPrefix(name, base+".")
		if !ok || kind == "list" || strings.Contains(kind, ".") {
			continue
		}
		file, info, err := openRegular(d.root, infoDir+"/"+name)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(bounded(file, maxListing, name))
		file.Close()
		if err != nil {
			return err
		}
		if err := writeFile(t, "./"+kind, int64(info.Mode().Perm()), text); err != nil {
			return err
		}
	}
	return nil
}

// writeFile adds a file of the control member. It has no time, so that two repacks are the same.
func writeFile(t *tar.Writer, name string, mode int64, text []byte) error {
	h := tar.Header{Name: name, Mode: mode, Size: int64(len(text)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
	if err := t.WriteHeader(&h); err != nil {
		return err
	}
	_, err := t.Write(text)
	return err
}

// control is the package's stanza without dpkg's own fields.
func (d *Database) control(p Package) (text []byte, err error) {
	err = eachRecord(d.root, func() { text = nil }, func(raw []byte, _ bool) error {
		q, err := parseStatusStanza(raw)
		if err == nil && q.Name == p.Name && q.Architecture == p.Architecture {
			text = append(bytes.TrimSpace(bytes.Clone(raw)), '\n') // the last one counts
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	keep := true
	for line := range bytes.Lines(text) {
		if line[0] != ' ' && line[0] != '\t' {
			key, _, _ := bytes.Cut(line, []byte{':'})
			keep = !slices.Contains(dropped, strings.ToLower(string(key)))
		}
		if keep {
			out.Write(line)
		}
	}
	if out.Len() == 0 {
		return nil, errors.New("it is gone from the dpkg database")
	}
	return out.Bytes(), nil
}

func (d *Database) writeData(ctx context.Context, t *tar.Writer, p Package) error {
	diversions, err := d.diversions()
	if err != nil {
		return err
	}
	base, err := d.infoBase(p)
	if err != nil {
		return err
	}
	file, _, err := openRegular(d.root, infoDir+"/"+base+".list")
	if err != nil {
		return err
	}
	text, err := io.ReadAll(bounded(file, maxListing, base+".list"))
	file.Close()
	if err != nil {
		return err
	}
	paths := strings.Split(strings.TrimSpace(string(text)), "\n")
	parents := map[string]bool{}
	for _, path := range paths {
		if i := strings.LastIndexByte(path, '/'); i > 0 {
			parents[path[:i]] = true
		}
	}
	links := map[[2]uint64]string{}
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.writeEntry(t, path, divert(diversions, strings.TrimPrefix(path, "/"), p.Name), parents[path], links); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// writeEntry adds one path of the package's list. One that is not there is left out. On a system with merged /usr, /lib
// is a link; the package has it as a folder.
func (d *Database) writeEntry(t *tar.Writer, path, at string, parent bool, links map[[2]uint64]string) error {
	name := strings.TrimPrefix(path, "/")
	if at == "" {
		at = "."
	}
	info, err := d.root.Lstat(at)
	if err == nil && parent && info.Mode()&fs.ModeSymlink != 0 {
		info, err = d.root.Stat(at)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	h := &tar.Header{
		Name: "./" + strings.TrimPrefix(name, "."), Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(info.ModTime().Unix(), 0), Format: tar.FormatGNU,
	}
	switch {
	case info.IsDir():
		h.Typeflag = tar.TypeDir
		if !strings.HasSuffix(h.Name, "/") {
			h.Name += "/"
		}
		return t.WriteHeader(h)
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = d.root.Readlink(at); err != nil {
			return err
		}
		return t.WriteHeader(h)
	case !info.Mode().IsRegular():
		return errNotRegular
	}
	if st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return t.WriteHeader(h)
		}
		links[id] = h.Name
	}
	return d.copyFile(t, h, at)
}

func (d *Database) copyFile(t *tar.Writer, h *tar.Header, at string) error {
	file, info, err := openRegular(d.root, at) // what is open now counts, whatever was seen before
	if err != nil {
		return err
	}
	defer file.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(t, file, h.Size)
	return err
}
