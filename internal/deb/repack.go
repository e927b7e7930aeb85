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
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// RepackReport tells how far the files of a package were not as it had delivered them. An altered file is repacked as it
// is, a missing one is not there.
type RepackReport struct {
	Problems []FileProblem
	Excluded []Excluded // what it holds a placeholder of
	Unlisted int        // how many paths that path-exclude left out have none, because they are too many
}

// Repack writes a .deb of an installed package as it stands in the root: its fields from the status file, its scripts and
// lists from info/, its files with owner, mode, time, hard and symbolic links. The same input gives the same bytes. Of files
// that path-exclude left out it has placeholders, see Excluded. Its md5sums differ from the installed ones only where files do,
// so that CheckArchive and VerifyFiles can be asked about the package as it is.
//
// Extended attributes are left out, as dpkg has no place for them (capabilities are set by maintainer scripts). Owners
// are as seen here: a root inside a user namespace would give the ids from outside. A configuration file is packed with
// the user's changes, and dpkg will then hold these for the package's own.
func (d *Database) Repack(ctx context.Context, p Package, w io.WriteSeeker) (RepackReport, error) {
	report, err := d.repack(ctx, p, w)
	if err != nil {
		return RepackReport{}, fmt.Errorf("cannot repack %s %s: %w", p.Name, p.Version, err)
	}
	return report, nil
}

func (d *Database) repack(ctx context.Context, p Package, w io.WriteSeeker) (RepackReport, error) {
	base, err := d.infoBase(p)
	if err != nil {
		return RepackReport{}, err
	}
	sums, err := d.Md5sums(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a package of links only has none
		return RepackReport{}, err
	}
	files, err := d.compareFiles(ctx, p, sums)
	if err != nil {
		return RepackReport{}, err
	}
	fields, err := d.controlFields(p)
	if err != nil {
		return RepackReport{}, err
	}
	problems := onlyProblems(files)
	if i := slices.IndexFunc(problems, func(f FileProblem) bool { return f.Kind == "unreadable" }); i >= 0 {
		return RepackReport{}, errors.New(problems[i].String())
	}
	if _, err := io.WriteString(w, "!<arch>\n"); err != nil {
		return RepackReport{}, err
	}
	err = writeMember(w, "debian-binary", func(w io.Writer) error {
		_, err := io.WriteString(w, "2.0\n")
		return err
	})
	if err != nil {
		return RepackReport{}, err
	}
	err = writeTarMember(w, "control.tar.gz", func(t *tar.Writer) error { return d.packControl(t, base, fields, files) })
	if err != nil {
		return RepackReport{}, err
	}
	list, err := d.readList(p, base)
	if err != nil {
		return RepackReport{}, err
	}
	report := RepackReport{Problems: problems}
	if err := d.findExcluded(list, sums, &report); err != nil {
		return RepackReport{}, err
	}
	err = writeTarMember(w, "data.tar.gz", func(t *tar.Writer) error { return d.packData(ctx, t, list) })
	if err != nil {
		return RepackReport{}, err
	}
	return report, nil
}

// writeMember writes a member of an ar archive, whose size is known only afterwards.
func writeMember(w io.WriteSeeker, name string, content func(io.Writer) error) error {
	start, err := w.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	header := func(size int64) error {
		_, err := fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, size)
		return err
	}
	if err := header(0); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(w, 64<<10)
	if err := content(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	end, err := w.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	size := end - start - 60
	if size%2 == 1 {
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		end++
	}
	if _, err := w.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if err := header(size); err != nil {
		return err
	}
	_, err = w.Seek(end, io.SeekStart)
	return err
}

// writeTarMember compresses fast, and so that every dpkg can read it.
func writeTarMember(w io.WriteSeeker, name string, pack func(*tar.Writer) error) error {
	return writeMember(w, name, func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		t := tar.NewWriter(z)
		if err := pack(t); err != nil {
			return err
		}
		if err := t.Close(); err != nil {
			return err
		}
		return z.Close()
	})
}

// controlFields makes a control file of the package's stanza: it leaves out what dpkg adds on installing.
func (d *Database) controlFields(p Package) ([]byte, error) {
	var stanza []byte
	begin := func() { stanza = nil }
	err := eachRecord(d.root, begin, func(raw []byte, _ bool) error {
		if !bytes.Contains(raw, []byte(p.Name)) {
			return nil
		}
		q, err := parseStatusStanza(raw)
		if err == nil && q.Name == p.Name && q.Architecture == p.Architecture {
			stanza = nil
			if q.Version == p.Version {
				stanza = bytes.Clone(raw)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if stanza == nil {
		return nil, errors.New("the dpkg database has it no longer")
	}
	var fields []byte
	err = eachField(stanza, func(name, field []byte) error {
		switch strings.ToLower(string(name)) {
		case "status", "conffiles", "config-version", "triggers-pending", "triggers-awaited":
		default:
			fields = append(fields, field...)
		}
		return nil
	})
	return fields, err
}

func (d *Database) packControl(t *tar.Writer, base string, fields []byte, files []comparison) error {
	err := writeEntry(t, &tar.Header{Name: "./control", Mode: 0o644, Size: int64(len(fields))}, bytes.NewReader(fields))
	if err != nil {
		return err
	}
	names, err := readDirNames(d.root, infoDir)
	if err != nil {
		return err
	}
	var total int64
	for _, name := range names {
		kind, found := strings.CutPrefix(name, base+".")
		if !found || strings.Contains(kind, ".") || kind == "list" || kind == "control" {
			continue
		}
		f, info, err := foreign.Open(d.root, path.Join(infoDir, name))
		if err != nil {
			return err
		}
		if total += info.Size(); info.Size() > maxControl || total > maxControl {
			f.Close()
			return fmt.Errorf("%s/%s: the control files have more than %d bytes", infoDir, name, maxControl)
		}
		h := &tar.Header{Name: "./" + kind, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
		var content io.Reader = f
		if kind == "md5sums" {
			var text []byte
			text, err = updatedMd5sums(f, files)
			h.Size, content = int64(len(text)), bytes.NewReader(text)
		}
		if err == nil {
			err = writeEntry(t, h, content)
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("%s/%s: %w", infoDir, name, err)
		}
	}
	return nil
}

// updatedMd5sums gives altered files the sum that they have and drops those that are missing or no longer files.
func updatedMd5sums(r io.Reader, files []comparison) ([]byte, error) {
	var text []byte
	err := eachLine(r, func(line string) error {
		name, _, err := parseMd5sum(line)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(files, "/"+name, func(c comparison, path string) int { return strings.Compare(c.Path, path) })
		if found && files[i].Kind != "" {
			if files[i].sum == "" {
				return nil
			}
			line = files[i].sum + line[32:]
		}
		text = append(append(text, line...), '\n')
		return nil
	})
	return text, err
}

// fileList is what a package's list names, in its order.
type fileList struct {
	base   string // of the package's files in info/
	files  []listed
	folder map[string]bool // what has something below it
}

type listed struct {
	name        string // below the root
	place       string // where it lies: elsewhere, if it is diverted
	placeholder byte   // tar's type of it; 0 where there is none
}

func (d *Database) readList(p Package, base string) (*fileList, error) {
	diversions, err := d.diversions()
	if err != nil {
		return nil, err
	}
	names, err := d.listed(base)
	if err != nil {
		return nil, err
	}
	list := &fileList{base: base, folder: map[string]bool{}}
	for _, name := range names {
		list.files = append(list.files, listed{name: name, place: divert(diversions, name, p.Name)})
		for dir := path.Dir(name); !list.folder[dir]; dir = path.Dir(dir) {
			list.folder[dir] = true
		}
	}
	return list, nil
}

func (d *Database) packData(ctx context.Context, t *tar.Writer, list *fileList) error {
	sofar := &packed{links: map[inode]string{}}
	for _, f := range list.files {
		err := writePlaceholder(t, f)
		if f.placeholder == 0 {
			err = d.packFile(ctx, t, f.name, f.place, list.folder[f.name], sofar)
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", f.name, err)
		}
	}
	return nil
}

type inode struct{ device, number uint64 }

// packed is what is in the archive so far.
type packed struct {
	links map[inode]string // files with several names, by the first of these
	bytes int64
}

// packFile packs one file, of whatever kind, that lies at place. A package's folder that is a link in the root, such as
// /lib since /usr was merged, is packed as the folder that the link leads to.
func (d *Database) packFile(ctx context.Context, t *tar.Writer, name, place string, folder bool, sofar *packed) error {
	info, err := d.stat(place, folder)
	if err != nil || info == nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return writeEntry(t, fileHeader(name, info), nil)
	case fs.ModeSymlink:
		h := fileHeader(name, info)
		if h.Linkname, err = d.root.Readlink(place); err != nil {
			return err
		}
		return writeEntry(t, h, nil)
	case 0:
	default:
		return foreign.ErrNotRegular
	}
	f, info, err := foreign.Open(d.root, place)
	if err != nil {
		return err
	}
	defer f.Close()
	h := fileHeader(name, info)
	if s := info.Sys().(*syscall.Stat_t); s.Nlink > 1 {
		id := inode{s.Dev, s.Ino}
		if first, found := sofar.links[id]; found {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return writeEntry(t, h, nil)
		}
		sofar.links[id] = h.Name
	}
	if sofar.bytes += h.Size; h.Size > maxData || sofar.bytes > maxData { // more would not be read back
		return errTooLarge
	}
	return writeEntry(t, h, contextReader{ctx, f})
}

// stat gives nil for what is not there. It follows the link in the place of a folder.
func (d *Database) stat(place string, folder bool) (fs.FileInfo, error) {
	stat := d.root.Lstat
	if folder {
		stat = d.root.Stat
	}
	info, err := stat(place)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return info, err
}

func fileHeader(name string, info fs.FileInfo) *tar.Header {
	s := info.Sys().(*syscall.Stat_t)
	h := &tar.Header{
		Name:    "./" + name,
		Mode:    int64(s.Mode & 0o7777),
		Uid:     int(s.Uid),
		Gid:     int(s.Gid),
		ModTime: info.ModTime(),
	}
	if name == "." {
		h.Name = "./"
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
	default:
		h.Size = info.Size()
	}
	return h
}

// writeEntry uses GNU's format: dpkg knows no other for long names and large ids.
func writeEntry(t *tar.Writer, h *tar.Header, content io.Reader) error {
	h.Format = tar.FormatGNU
	h.ModTime = time.Unix(h.ModTime.Unix(), 0)
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if h.Size == 0 {
		return nil
	}
	n, err := copyBuffer(t, io.LimitReader(content, h.Size))
	if err == nil && n < h.Size {
		err = errors.New("it became shorter while it was read")
	}
	return err
}
