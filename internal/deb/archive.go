package deb

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Archive is a .deb.
type Archive struct {
	Package Package
	Md5sums map[string]string // path without leading slash → checksum in hex, as VerifyFiles takes it
	// Missing are the paths of Md5sums that the .deb does not hold, sorted: a repacked package has only placeholders of what
	// path-exclude had left out. Only CheckArchive knows them.
	Missing []string
}

// ReadArchive reads the control part of a .deb, and no further.
func ReadArchive(r io.Reader) (Archive, error) {
	a, _, err := readControlMember(r)
	if err != nil {
		return Archive{}, fmt.Errorf("cannot read the package: %w", err)
	}
	return a, nil
}

// CheckArchive reads all of a .deb. An error means that it is damaged, or that it holds what no package should: a device,
// a path that leaves the tree, a file that differs from its checksum. It streams; what it holds is the window of the
// compression, 8 MiB for the usual xz, some KiB for gzip.
func CheckArchive(r io.Reader) (Archive, error) {
	a, members, err := readControlMember(r)
	if err == nil {
		a.Missing, err = checkDataMember(members, a.Md5sums)
	}
	if err != nil {
		return Archive{}, fmt.Errorf("cannot read the package: %w", err)
	}
	return a, nil
}

// readControlMember demands the order that dpkg demands, see deb(5) and extracthalf in src/deb/extract.c.
func readControlMember(r io.Reader) (Archive, *arReader, error) {
	members, err := newArReader(r)
	if err != nil {
		return Archive{}, nil, err
	}
	if err := members.next(); err != nil {
		return Archive{}, nil, unexpected(err)
	}
	if members.name != "debian-binary" || members.size > 64 {
		return Archive{}, nil, errors.New("it does not begin with debian-binary")
	}
	version, err := io.ReadAll(members)
	if err != nil {
		return Archive{}, nil, err
	}
	if !bytes.HasPrefix(version, []byte("2.")) || !bytes.Contains(version, []byte("\n")) {
		return Archive{}, nil, fmt.Errorf("its format %.10q is not 2.0", version)
	}
	if err := members.nextKnown("control.tar"); err != nil {
		return Archive{}, nil, err
	}
	if members.size > maxControl {
		return Archive{}, nil, fmt.Errorf("%s has more than %d bytes", members.name, maxControl)
	}
	var a Archive
	seen := map[string]bool{}
	err = eachTarEntry(members, maxControl, func(name string, h *tar.Header, content io.Reader) (err error) {
		// dpkg takes the last of two, and follows a link wherever it leads.
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir || seen[name] {
			return fmt.Errorf("%q is there twice, or no file", name)
		}
		seen[name] = true
		switch name {
		case "control":
			a.Package, err = parseControl(content)
		case "md5sums":
			a.Md5sums, err = parseMd5sums(content)
		}
		return err
	})
	if err != nil {
		return Archive{}, nil, fmt.Errorf("%s: %w", members.name, err)
	}
	if a.Package.Name == "" {
		return Archive{}, nil, fmt.Errorf("%s: it holds no control file", members.name)
	}
	return a, members, nil
}

// parseControl reads a control file. Its name, version and architecture are safe in a path, and as Debian's policy (5.6)
// demands them, unlike those of a status file.
func parseControl(r io.Reader) (Package, error) {
	var p Package
	count := 0
	err := eachStanza(r, func(raw []byte) (err error) {
		count++
		p, err = parseStanza(raw)
		return err
	})
	if err != nil {
		return Package{}, fmt.Errorf("control: %w", err)
	}
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	switch {
	case count != 1:
		return Package{}, fmt.Errorf("control: %d stanzas, not one", count)
	case len(p.Name) < 2 || !safeName(p.Name) || strings.Trim(p.Name, letters+"-+.") != "":
		return Package{}, fmt.Errorf("control: invalid package name %.80q", p.Name)
	case p.Architecture == "" || strings.Trim(p.Architecture, letters+"-") != "":
		return Package{}, fmt.Errorf("control: invalid architecture %.80q", p.Architecture)
	case p.Status != Status{}:
		return Package{}, errors.New("control: it has the field Status")
	}
	if err := checkVersion(p.Version); err != nil {
		return Package{}, fmt.Errorf("control: invalid version %.80q: %w", p.Version, err)
	}
	return p, nil
}

func checkDataMember(members *arReader, sums map[string]string) (missing []string, err error) {
	if err := members.nextKnown("data.tar"); err != nil {
		return nil, err
	}
	unseen := maps.Clone(sums)
	var placeholders []string
	sum := md5.New()
	err = eachTarEntry(members, maxData, func(name string, h *tar.Header, content io.Reader) error {
		want, listed := sums[name]
		delete(unseen, name)
		switch h.Typeflag {
		case tar.TypeReg:
			if !listed {
				return nil
			}
			sum.Reset()
			if _, err := copyBuffer(sum, content); err != nil {
				return err
			}
			if hex.EncodeToString(sum.Sum(nil)) != want {
				return fmt.Errorf("%q differs from its checksum", name)
			}
		case tar.TypeLink:
			target, err := cleanName(h.Linkname)
			if err != nil {
				return err
			}
			if target == name {
				if listed {
					placeholders = append(placeholders, name)
				}
				return nil
			}
			if _, later := unseen[target]; listed && (later || sums[target] != want) {
				return fmt.Errorf("%q is a link to %q, which has another checksum or comes later", name, target)
			}
		case tar.TypeDir, tar.TypeSymlink:
			if listed {
				return fmt.Errorf("%q has a checksum and is no file", name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", members.name, err)
	}
	for { // what follows may be anything, but it has to be whole
		if err := members.next(); errors.Is(err, io.EOF) {
			missing = slices.AppendSeq(placeholders, maps.Keys(unseen))
			slices.Sort(missing)
			return missing, nil
		} else if err != nil {
			return nil, err
		}
	}
}

// eachTarEntry unpacks the current member and hands over its entries, their names cleaned. It takes the kinds of entries
// that dpkg knows (lib/dpkg/tarfn.c), except devices and pipes, and reads on to the end, where the checksums are.
func eachTarEntry(member *arReader, limit int64, handle func(name string, h *tar.Header, content io.Reader) error) error {
	_, suffix, _ := strings.Cut(member.name, ".tar")
	plain, done, err := decompress(suffix, member)
	if err != nil {
		return err
	}
	defer done()
	plain = bounded(plain, limit, "the archive in it")
	entries := tar.NewReader(plain)
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		default:
			return fmt.Errorf("%q is no file, folder or link (tar's type %q)", name, h.Typeflag)
		}
		if h.Format == tar.FormatPAX {
			return fmt.Errorf("%q is in the PAX format, which dpkg does not know", name)
		}
		if err := handle(name, h, entries); err != nil {
			return err
		}
	}
	_, err = copyBuffer(io.Discard, plain)
	return err
}

// arReader reads one member after the other, see ar(5). Its Read ends with the member; a file that ends before gives
// io.ErrUnexpectedEOF.
type arReader struct {
	r          io.Reader
	name       string // of the current member
	size, left int64  // bytes
}

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("it ends within the first line: %w", unexpected(err))
	}
	if string(magic) != "!<arch>\n" {
		return nil, errors.New("it is no .deb: it does not begin with !<arch>")
	}
	return &arReader{r: r}, nil
}

// next goes to the next member; io.EOF means that there is none.
func (a *arReader) next() error {
	if _, err := copyBuffer(io.Discard, a); err != nil {
		return err
	}
	header := make([]byte, 60)
	if a.size%2 == 1 { // members begin at even offsets
		if _, err := io.ReadFull(a.r, header[:1]); err != nil {
			return unexpected(err)
		}
	}
	if _, err := io.ReadFull(a.r, header); err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("it ends within a header: %w", err)
		}
		return err
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(header[48:58]), " "), 10, 63)
	if err != nil || string(header[58:]) != "`\n" {
		return fmt.Errorf("invalid header of a member: %.60q", header)
	}
	a.name = strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	a.size, a.left = int64(size), int64(size)
	return nil
}

// nextKnown goes to the member that has to come next; dpkg skips those with an underscore.
func (a *arReader) nextKnown(prefix string) error {
	for {
		if err := a.next(); err != nil {
			return fmt.Errorf("%s is missing: %w", prefix, unexpected(err))
		}
		if strings.HasPrefix(a.name, prefix) {
			return nil
		}
		if !strings.HasPrefix(a.name, "_") {
			return fmt.Errorf("member %q comes before %s", a.name, prefix)
		}
	}
}

func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if a.left > 0 {
		err = unexpected(err)
	}
	return n, err
}

// unexpected turns an end into a premature one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
