package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Archive is what the control member of a .deb says.
type Archive struct {
	Package Package
	Md5sums map[string]string // by path without a leading slash
}

// windowLimit bounds what a decoder may remember, in bytes: xz's own level 9.
const windowLimit = 64 << 20

// ReadArchive reads a .deb up to the end of its control member.
func ReadArchive(r io.Reader) (Archive, error) {
	a, _, err := readControl(r)
	return a, err
}

// CheckArchive reads the whole of a .deb: each name in its data stays in the tree, and each file that has a checksum has the right one.
func CheckArchive(r io.Reader) (Archive, error) {
	a, in, err := readControl(r)
	if err != nil {
		return Archive{}, err
	}
	name, data, err := in.next()
	if err == nil && !strings.HasPrefix(name, "data.tar") {
		err = fmt.Errorf("its third member is %q, not data.tar", name)
	}
	if err == nil {
		err = checkData(name, data, a.Md5sums)
	}
	if err != nil {
		return Archive{}, fmt.Errorf("damaged .deb: %w", err)
	}
	return a, nil
}

func readControl(r io.Reader) (a Archive, in *arReader, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("damaged .deb: %w", err)
		}
	}()
	if in, err = newArReader(r); err != nil {
		return a, nil, err
	}
	name, member, err := in.next()
	if err != nil {
		return a, nil, err
	}
	format, err := io.ReadAll(io.LimitReader(member, 64))
	if err != nil {
		return a, nil, err
	}
	if name != "debian-binary" || !bytes.HasPrefix(format, []byte("2.")) {
		return a, nil, fmt.Errorf("its first member is %q %.10q, not debian-binary 2.0", name, format)
	}
	if name, member, err = in.next(); err != nil {
		return a, nil, err
	}
	if !strings.HasPrefix(name, "control.tar") {
		return a, nil, fmt.Errorf("its second member is %q, not control.tar", name)
	}
	a, err = parseControl(name, member)
	return a, in, err
}

func parseControl(name string, member io.Reader) (a Archive, err error) {
	plain, done, err := unpack(name, member)
	if err != nil {
		return a, err
	}
	defer done()
	files := tar.NewReader(bounded(plain, maxControl, "control.tar"))
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return a, fmt.Errorf("control.tar: %w", err)
		}
		switch path.Clean(h.Name) {
		case "control":
			err = a.readFields(bounded(files, maxStanza, "the control file"))
		case "md5sums":
			a.Md5sums, err = parseMd5sums(files)
		}
		if err != nil {
			return a, fmt.Errorf("control.tar: %w", err)
		}
	}
	if a.Package.Name == "" {
		return a, errors.New("control.tar: it has no control file")
	}
	return a, nil
}

func (a *Archive) readFields(r io.Reader) error {
	list, err := ParseStatus(r)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("the control file has %d stanzas, not one", len(list))
	}
	a.Package = list[0]
	if !safeName(a.Package.Name) || a.Package.Version == "" || a.Package.Architecture == "" {
		return fmt.Errorf("the control file names no package: %q %q %q", a.Package.Name, a.Package.Version, a.Package.Architecture)
	}
	return nil
}

func checkData(name string, member io.Reader, sums map[string]string) error {
	plain, done, err := unpack(name, member)
	if err != nil {
		return err
	}
	defer done()
	files := tar.NewReader(bounded(plain, maxData, "data.tar"))
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("data.tar: %w", err)
		}
		clean := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if strings.Contains("/"+h.Name+"/", "/../") {
			return fmt.Errorf("data.tar: %q leads out of the tree", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			want, ok := sums[clean]
			if !ok {
				continue
			}
			sum := md5.New()
			if _, err := io.Copy(sum, files); err != nil {
				return fmt.Errorf("data.tar: %s: %w", clean, err)
			}
			if hex.EncodeToString(sum.Sum(nil)) != want {
				return fmt.Errorf("data.tar: %s does not have the checksum that md5sums says", clean)
			}
		case tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		default:
			return fmt.Errorf("data.tar: %s is neither file, link nor folder", clean)
		}
	}
	// The compressor's own checksum stands at its end.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return fmt.Errorf("data.tar: %w", err)
	}
	return nil
}

// unpack takes the compression from the member's name, as dpkg does. done frees what the decoder holds.
func unpack(name string, r io.Reader) (plain io.Reader, done func(), err error) {
	nothing := func() {}
	_, kind, _ := strings.Cut(name, ".tar")
	switch kind {
	case "":
		return r, nothing, nil
	case ".gz":
		plain, err = gzip.NewReader(r)
	case ".xz":
		in := bufio.NewReader(r)
		if err := boundedXZ(in); err != nil {
			return nil, nothing, fmt.Errorf("%s: %w", name, err)
		}
		plain, err = xz.NewReader(in)
	case ".zst":
		d, e := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowLimit))
		if e == nil {
			return d, d.Close, nil
		}
		err = e
	default:
		err = errors.New("its compression is not known")
	}
	if err != nil {
		return nil, nothing, fmt.Errorf("%s: %w", name, err)
	}
	return plain, nothing, nil
}

// boundedXZ looks at the first block's dictionary size before the decoder allocates it: at most windowLimit, xz's own
// level 9. The layout is in the .xz file format, sections 3.1 and 5.3.1.
func boundedXZ(in *bufio.Reader) error {
	head, err := in.Peek(12 + 8)
	if err != nil {
		return err
	}
	block := head[12:]
	if block[0] == 0 || block[1]&0xc0 != 0 || block[1]&0x03 != 0 || block[2] != 0x21 || block[3] != 1 {
		return nil // no block, or sizes or filters that dpkg-deb does not write: the decoder's own affair
	}
	bits := block[4]
	if bits > 40 || uint64(2|bits&1)<<(bits/2+11) > windowLimit {
		return errors.New("it needs more memory than is sensible")
	}
	return nil
}

// arReader reads the members of an ar archive one after the other: deb(5), ar(5).
type arReader struct {
	in   io.Reader
	rest io.LimitedReader // of the current member
	pad  bool
}

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("it is no ar archive")
	}
	return &arReader{in: r}, nil
}

// next skips the rest of the current member. dpkg passes over members whose name begins with an underscore.
func (a *arReader) next() (name string, member io.Reader, err error) {
	for {
		if _, err := io.Copy(io.Discard, &a.rest); err != nil {
			return "", nil, err
		}
		if a.rest.N > 0 {
			return "", nil, io.ErrUnexpectedEOF
		}
		if a.pad {
			if _, err := io.CopyN(io.Discard, a.in, 1); err != nil {
				return "", nil, io.ErrUnexpectedEOF
			}
		}
		var head [60]byte
		if _, err := io.ReadFull(a.in, head[:]); err != nil {
			return "", nil, fmt.Errorf("it ends before a member: %w", io.ErrUnexpectedEOF)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 || string(head[58:]) != "`\n" {
			return "", nil, errors.New("a member's header is damaged")
		}
		name = strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		a.rest, a.pad = io.LimitedReader{R: a.in, N: size}, size%2 == 1
		if !strings.HasPrefix(name, "_") {
			return name, &exact{&a.rest}, nil
		}
	}
}

// exact turns the end of the file within a member into an error.
type exact struct{ r *io.LimitedReader }

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) && e.r.N > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}
