package deb

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// Excluded is a path of a package that path-exclude left out. dpkg lists it all the same, in the order of the archive. So a repacked
// package has a placeholder of it, which dpkg leaves out again, and lists again.
//
// Where the rules have changed meanwhile, whoever installs the package gives dpkg each Option. Without it dpkg refuses the package rather than
// install a placeholder: a hard link to itself, or a symbolic link to nothing, cannot be made. (That of a folder can, and is an
// empty folder.)
type Excluded struct {
	Path string `json:"path"` // absolute, as the package names it
	Link bool   `json:"link,omitempty"`
}

// What the options may come to. qemu-utils has 15 such paths of 700 bytes, linux-doc some ten thousand.
const (
	maxExcluded      = 1000
	maxExcludedBytes = 64 << 10
)

// Option makes dpkg leave out just this path, whatever its configuration says. For a Link that is not the whole truth: see BroughtBack.
func (e Excluded) Option() string {
	var pattern strings.Builder
	for _, c := range []byte(e.Path) {
		if strings.IndexByte(`*?[\`, c) >= 0 {
			pattern.WriteByte('\\')
		}
		pattern.WriteByte(c)
	}
	return "--path-exclude=" + pattern.String()
}

// BroughtBack finds a link that dpkg would try to install in spite of its Option, and the path-include that makes it. Without one both are
// empty.
func (d *Database) BroughtBack(all []Excluded) (link, pattern string, err error) {
	rules, err := d.rules()
	if err != nil {
		return "", "", err
	}
	for _, e := range all {
		if !e.Link {
			continue
		}
		if pattern, found := rules.bringsBack(e.Path); found {
			return e.Path, pattern, nil
		}
	}
	return "", "", nil
}

// findExcluded marks what is to have a placeholder. Whatever is missing for another reason than the rules has none.
func (d *Database) findExcluded(list *fileList, sums map[string]string, report *RepackReport) error {
	rules, err := d.rules()
	if err != nil {
		return err
	}
	missing, links := map[string]bool{}, map[string]bool{}
	for _, f := range list.files {
		info, err := d.stat(f.place, list.folder[f.name])
		if err != nil {
			return err
		}
		missing[f.name] = info == nil && rules.excludes("/"+f.name) && utf8.ValidString(f.name)
		links[f.name] = info != nil && info.Mode().Type() == fs.ModeSymlink
	}
	shared, err := d.listedElsewhere(list.base, missing)
	if err != nil {
		return err
	}
	kind := func(f listed, behind bool) byte {
		_, file := sums[f.name]
		return placeholder(file, list.folder[f.name], shared[f.name], behind)
	}
	first := len(list.files) // of the links at the end
	for first > 0 {
		f := list.files[first-1]
		link := links[f.name] || missing[f.name] && kind(f, true) == tar.TypeSymlink
		if !link {
			break
		}
		first--
	}
	for i := range list.files {
		f := &list.files[i]
		if !missing[f.name] {
			continue
		}
		f.placeholder = kind(*f, i >= first)
		if f.placeholder == tar.TypeSymlink || f.placeholder == tar.TypeDir {
			if _, back := rules.bringsBack("/" + f.name); back {
				f.placeholder = 0 // dpkg did install it, and somebody removed it
			}
		}
		if f.placeholder != 0 {
			report.Excluded = append(report.Excluded, Excluded{Path: "/" + f.name, Link: f.placeholder == tar.TypeSymlink})
		}
	}
	size := 0
	for _, e := range report.Excluded {
		size += len(e.Path)
	}
	if len(report.Excluded) > maxExcluded || size > maxExcludedBytes {
		report.Excluded, report.Unlisted = nil, len(report.Excluded)
		for i := range list.files {
			list.files[i].placeholder = 0
		}
	}
	return nil
}

// placeholder chooses the type, which is as far as possible that of what was left out: dpkg lets packages share nothing but folders, and
// lists symbolic links behind all else. 0 means none.
func placeholder(file, folder, shared, behind bool) byte {
	switch {
	case file && shared:
		return 0
	case folder, shared: // an empty one, of which other packages have something
		return tar.TypeDir
	case !file && behind:
		return tar.TypeSymlink
	}
	return tar.TypeLink
}

// listedElsewhere tells which of the names other packages list as well.
func (d *Database) listedElsewhere(base string, names map[string]bool) (map[string]bool, error) {
	files, err := readDirNames(d.root, infoDir)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, file := range files {
		if !strings.HasSuffix(file, ".list") || file == base+".list" {
			continue
		}
		f, _, err := foreign.Open(d.root, path.Join(infoDir, file))
		if err != nil {
			return nil, err
		}
		err = eachLine(f, func(line string) error {
			if name := strings.TrimPrefix(line, "/"); names[name] {
				found[name] = true
			}
			return nil
		})
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func writePlaceholder(t *tar.Writer, f listed) error {
	h := &tar.Header{Typeflag: f.placeholder, Name: "./" + f.name, ModTime: time.Unix(0, 0)}
	switch f.placeholder {
	case 0:
		return nil
	case tar.TypeDir:
		h.Name += "/"
		h.Mode = 0o755
	case tar.TypeLink:
		h.Linkname = h.Name
	}
	return writeEntry(t, h, bytes.NewReader(nil))
}
