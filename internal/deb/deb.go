// Package deb knows .deb files and the dpkg database below a root folder: what is installed there, whether its files are
// as they were delivered, what a .deb holds, which dependencies an exchange of packages would break, and for what dpkg would refuse it. It never runs
// dpkg; which folder is the root of which container, and what happens to a package, others decide.
//
// Everything read here was written by somebody else: each input has a limit, and no symbolic link leads out of the root.
package deb

import (
	"fmt"
	"io"
)

// Most that is read of one input, in bytes where nothing else is said.
const (
	maxStanza   = 1 << 20  // the longest in Debian, a Provides of the librust packages, has some 100 KiB
	maxStatus   = 32 << 20 // 500 packages have 0.7 MiB
	maxPackages = 100_000  // in a status file, removed ones too; Debian has 65,000
	maxUpdates  = 1000     // pending records; dpkg merges them at 250: lib/dpkg/dbmodify.c, MAXUPDATES
	maxListing  = 8 << 20  // .list, .md5sums, diversions; linux-headers has 1.5 MiB
	maxConfig   = 1 << 20  // one dpkg configuration file
	maxRefusals = 100      // of one such file: a whole one of nonsense has a million
	maxControl  = 16 << 20 // control.tar, packed or not
	maxData     = 4 << 30  // data.tar, unpacked
)

// boundedReader fails where io.LimitReader would end, so that nothing cut off passes for the whole.
type boundedReader struct {
	r    io.Reader
	left int64
	err  error
}

func bounded(r io.Reader, limit int64, what string) *boundedReader {
	return &boundedReader{r, limit, fmt.Errorf("%s has more than %d bytes", what, limit)}
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, b.err
	}
	return n, err
}
