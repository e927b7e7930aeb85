package lockprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// store is a real filesystem, of FUSE, whose locks do what a test wants: a folder, files that hold nothing, and folders of those. Its requests that
// hang do so in the kernel: the process that made one cannot be killed before the store is gone.
// This process serves it, so it may touch it by bare system calls only: an os.File asks for polling (epoll_ctl(2)) while no other
// goroutine may run, the server neither.
type store struct {
	t      *testing.T
	dir    string
	fd     int
	mu     sync.Mutex
	rule   func(op string) unix.Errno // of "open", "create", "mkdir", "unlink", "rmdir", "posix" (OFD locks too), "flock"; hang is no answer
	files  map[string]uint64
	modes  map[uint64]uint32
	uid    uint32 // owner of the folder
	last   uint64
	sizes  map[uint64]uint64
	owners map[string]bool // uids that created files
}

// hang is what a rule says of a request that is never answered.
const hang = unix.Errno(0xfff)

// The requests that are known: <linux/fuse.h>, protocol 7.31.
const (
	opLookup, opForget, opGetattr, opSetattr, opUnlink, opOpen = 1, 2, 3, 4, 10, 14
	opMkdir, opRmdir                                           = 9, 11
	opStatfs, opRelease, opFlush, opInit, opOpendir, opReaddir = 17, 18, 25, 26, 27, 28
	opReleasedir, opGetlk, opSetlk, opSetlkw, opCreate         = 29, 31, 32, 33, 35
	opInterrupt, opDestroy, opBatchForget                      = 36, 38, 42
)

// newStore mounts one until the test ends.
func newStore(t *testing.T, rule func(op string) unix.Errno) *store {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse, and root: %v", err)
	}
	s := &store{t: t, dir: t.TempDir(), fd: fd, rule: rule, files: map[string]uint64{}, modes: map[uint64]uint32{1: unix.S_IFDIR | 0o755}, last: 1, sizes: map[uint64]uint64{}, owners: map[string]bool{}}
	if err := unix.Mount("store:/export", s.dir, "fuse.nfslocktest", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)); err != nil {
		unix.Close(fd)
		t.Skipf("cannot mount FUSE here: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() {
		// By force: whoever waits gets an error, and the server's read too.
		if err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Errorf("cannot unmount: %v", err)
		}
		<-done
		unix.Close(fd)
	})
	return s
}

// names lists the files that there are now, without a request to the store.
func (s *store) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for name := range s.files {
		all = append(all, name)
	}
	return all
}

// put makes a file of a byte in a folder of the store.
func (s *store) put(folder, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.files[fmt.Sprintf("%d/%s", s.files[folder], name)], s.modes[s.last], s.sizes[s.last] = s.last, unix.S_IFREG|0o600, 1
}

func (s *store) serve() {
	buffer := make([]byte, 1<<20)
	for {
		n, err := unix.Read(s.fd, buffer)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return // ENODEV: unmounted
		}
		word := func(i int) uint32 { return binary.LittleEndian.Uint32(buffer[i:]) }
		s.answer(word(4), binary.LittleEndian.Uint64(buffer[8:]), binary.LittleEndian.Uint64(buffer[16:]), word(24), bytes.Clone(buffer[40:n]))
	}
}

// answer does one request. A rule may take the place of the answer.
func (s *store) answer(op uint32, unique, node uint64, uid uint32, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ask := func(name string) unix.Errno {
		if s.rule == nil {
			return 0
		}
		return s.rule(name)
	}
	reply := func(no unix.Errno, out []byte) {
		if no == hang {
			return
		}
		if no != 0 {
			out = nil
		}
		head := make([]byte, 16, 16+len(out))
		binary.LittleEndian.PutUint32(head, uint32(16+len(out)))
		binary.LittleEndian.PutUint32(head[4:], uint32(-int32(no)))
		binary.LittleEndian.PutUint64(head[8:], unique)
		_, _ = unix.Write(s.fd, append(head, out...))
	}
	name := strings.TrimRight(string(body), "\x00")
	in := func(name string) string {
		if node != 1 {
			return fmt.Sprintf("%d/%s", node, name)
		}
		return name
	}
	switch op {
	case opForget, opBatchForget, opInterrupt:
	case opInit:
		out := make([]byte, 64)
		for i, v := range []uint32{7, 31, 1 << 16, 1<<1 | 1<<10} { // POSIX_LOCKS, FLOCK_LOCKS
			binary.LittleEndian.PutUint32(out[4*i:], v)
		}
		binary.LittleEndian.PutUint32(out[20:], 1<<16)
		reply(0, out)
	case opLookup:
		id, ok := s.files[in(name)]
		if !ok {
			reply(unix.ENOENT, nil)
			return
		}
		reply(0, s.entry(id))
	case opGetattr, opSetattr:
		reply(0, append(make([]byte, 16), s.attr(node)...))
	case opOpen, opOpendir:
		reply(ask("open"), make([]byte, 16))
	case opMkdir:
		no := ask("mkdir")
		if s.uid != 0 && uid != s.uid {
			no = unix.EACCES
		}
		if no == 0 {
			s.last++
			s.files[in(strings.TrimRight(string(body[8:]), "\x00"))], s.modes[s.last] = s.last, unix.S_IFDIR|0o700
		}
		reply(no, s.entry(s.last))
	case opCreate:
		no := ask("create")
		if s.uid != 0 && uid != s.uid {
			no = unix.EACCES // it squashes root
		}
		if no == 0 {
			s.last++
			name = strings.TrimRight(string(body[16:]), "\x00")
			s.files[in(name)], s.modes[s.last] = s.last, unix.S_IFREG|0o600
			s.owners[fmt.Sprint(uid)] = true
		}
		reply(no, append(s.entry(s.last), make([]byte, 16)...))
	case opUnlink, opRmdir:
		no := ask(map[uint32]string{opUnlink: "unlink", opRmdir: "rmdir"}[op])
		if s.uid != 0 && uid != s.uid {
			no = unix.EACCES
		}
		if no == 0 {
			delete(s.files, in(name))
		}
		reply(no, nil)
	case opGetlk:
		reply(ask("posix"), append(make([]byte, 16), 2, 0, 0, 0, 0, 0, 0, 0)) // F_UNLCK
	case opSetlk, opSetlkw:
		kind := "posix"
		if binary.LittleEndian.Uint32(body[40:])&1 != 0 { // FUSE_LK_FLOCK
			kind = "flock"
		}
		reply(ask(kind), nil)
	case opRelease, opReleasedir, opFlush, opReaddir, opDestroy:
		reply(0, nil)
	case opStatfs:
		reply(0, make([]byte, 80))
	default:
		reply(unix.ENOSYS, nil)
	}
}

func (s *store) entry(id uint64) []byte {
	out := make([]byte, 40)
	binary.LittleEndian.PutUint64(out, id)
	return append(out, s.attr(id)...)
}

func (s *store) attr(id uint64) []byte {
	out := make([]byte, 88)
	binary.LittleEndian.PutUint64(out, id)
	binary.LittleEndian.PutUint64(out[8:], s.sizes[id])
	for i, v := range []uint32{s.modes[id], 1, s.uid, 0, 0, 4096} {
		binary.LittleEndian.PutUint32(out[60+4*i:], v)
	}
	return out
}

func TestStoreIsAFilesystem(t *testing.T) {
	s := newStore(t, nil)
	fd, err := unix.Open(filepath.Join(s.dir, "x"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if got := s.names(); len(got) != 1 || got[0] != "x" {
		t.Errorf("%q", got)
	}
}

// contextThatEnds ends as soon as the store has a file.
func contextThatEnds(t *testing.T, s *store) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(s.names()) == 0 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond) // for the lock to be asked for
		cancel()
	}()
	return ctx, cancel
}
