package deb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxWindow is what a decoder may keep of the text that it has unpacked, in bytes: xz -9. dpkg's own levels need 8 MiB,
// and no more is touched than the text has.
const maxWindow = 64 << 20

// decompress knows the compressions of deb(5) but the two obsolete ones, by the suffix of a member's name. What the reader
// holds is free after done.
func decompress(suffix string, r io.Reader) (plain io.Reader, done func(), err error) {
	done = func() {}
	switch suffix {
	case "":
		return r, done, nil
	case ".gz":
		plain, err = gzip.NewReader(bufio.NewReaderSize(r, 32<<10))
	case ".xz":
		plain, err = newXZReader(r)
	case ".zst":
		var decoder *zstd.Decoder
		decoder, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			plain, done = decoder, decoder.Close
		}
	default:
		err = fmt.Errorf("unknown compression %q", suffix)
	}
	if err != nil {
		return nil, nil, unexpected(err)
	}
	return plain, done, nil
}

// newXZReader reads one .xz stream. The decoder allocates at once the window that a stream asks for: dpkg-deb's control
// members, of some KiB, ask for 8 MiB. What is small is therefore looked through first, to know what it really needs.
func newXZReader(r io.Reader) (io.Reader, error) {
	start, err := io.ReadAll(io.LimitReader(r, 256<<10))
	if err != nil {
		return nil, err
	}
	window := int64(maxWindow)
	if len(start) < 256<<10 {
		whole := &xzGuard{r: bufio.NewReader(bytes.NewReader(start)), window: maxWindow}
		if _, err := copyBuffer(io.Discard, whole); err != nil {
			return nil, err
		}
		window = whole.plain
	}
	guard := &xzGuard{r: bufio.NewReaderSize(io.MultiReader(bytes.NewReader(start), r), 32<<10), window: window}
	// The decoder raises MinDictCap to what the stream asks for.
	return xz.ReaderConfig{SingleStream: true, DictCap: lzma.MinDictCap}.NewReader(guard)
}

// xzGuard passes on one .xz stream, and refuses one whose blocks ask for more than maxWindow, as a single byte can make
// the decoder allocate 4 GiB. Those that ask for more than window it lets ask for that. It follows the structure of blocks
// and LZMA2 chunks (xz-file-format.txt 3 and 5.3.1) and leaves everything else, checksums too, to the decoder.
type xzGuard struct {
	r      *bufio.Reader
	window int64                // bytes
	plain  int64                // bytes that the chunks so far unpack to
	next   func(*xzGuard) error // looks at what comes next, sets left
	left   int64                // bytes that may pass
	check  int64                // bytes of the checksum of a block
	block  int64                // bytes of the current block so far
}

func (x *xzGuard) Read(p []byte) (int, error) {
	if x.left == 0 {
		if x.next == nil {
			x.next = (*xzGuard).streamHeader
		}
		if err := x.next(x); err != nil {
			return 0, err
		}
	}
	n, err := x.r.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	return n, err
}

func (x *xzGuard) streamHeader() error {
	header, err := x.r.Peek(xz.HeaderLen)
	if err != nil {
		return unexpected(err)
	}
	x.check = map[byte]int64{0: 0, 1: 4, 4: 8, 10: 32}[header[7]&0xf] // none, CRC32, CRC64, SHA-256
	x.left, x.next = xz.HeaderLen, (*xzGuard).blockHeader
	return nil
}

func (x *xzGuard) blockHeader() error {
	size, err := x.r.Peek(1)
	if err != nil {
		return unexpected(err)
	}
	if size[0] == 0 { // the index: no block after it
		x.left = math.MaxInt64
		return nil
	}
	header, err := x.r.Peek(4 * (int(size[0]) + 1))
	if err != nil {
		return unexpected(err)
	}
	filters := header[2:]
	for _, flag := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if header[1]&flag == 0 {
			continue
		}
		_, n := binary.Uvarint(filters)
		if n <= 0 {
			return errors.New("xz: invalid size of a block")
		}
		filters = filters[n:]
	}
	if header[1]&0x3 != 0 || len(filters) < 3 || filters[0] != 0x21 || filters[1] != 1 {
		return errors.New("xz: a filter other than LZMA2")
	}
	window, err := lzma.DecodeDictCap(filters[2])
	if err != nil {
		return err
	}
	if window > maxWindow {
		return fmt.Errorf("xz: it needs %d MiB of memory; %d are allowed", window>>20, maxWindow>>20)
	}
	sum := len(header) - crc32.Size
	if window > x.window && binary.LittleEndian.Uint32(header[sum:]) == crc32.ChecksumIEEE(header[:sum]) {
		filters[2] = lzma.EncodeDictCap(x.window)
		binary.LittleEndian.PutUint32(header[sum:], crc32.ChecksumIEEE(header[:sum]))
	}
	x.left, x.block, x.next = int64(len(header)), 0, (*xzGuard).chunk
	return nil
}

func (x *xzGuard) chunk() error {
	control, err := x.r.Peek(1)
	if err != nil {
		return unexpected(err)
	}
	switch c := control[0]; {
	case c == 0:
		x.block++
		x.left = 1 + (4-x.block%4)%4 + x.check
		x.next = (*xzGuard).blockHeader
		return nil
	case c <= 2: // stored
		header, err := x.r.Peek(3)
		if err != nil {
			return unexpected(err)
		}
		size := 1 + int64(binary.BigEndian.Uint16(header[1:]))
		x.left = 3 + size
		x.plain += size
	case c < 0x80:
		return errors.New("xz: invalid LZMA2 chunk")
	default:
		header, err := x.r.Peek(5)
		if err != nil {
			return unexpected(err)
		}
		x.left = 5 + 1 + int64(binary.BigEndian.Uint16(header[3:]))
		x.plain += 1 + int64(c&0x1f)<<16 + int64(binary.BigEndian.Uint16(header[1:]))
		if c >= 0xc0 {
			x.left++ // new properties
		}
	}
	x.block += x.left
	return nil
}
