// Package silenttest mounts a filesystem that takes every request and never answers one, for tests. Who waits for it cannot be killed.
package silenttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts one of FUSE over a folder until the test ends, and skips the test where that cannot be.
//
// This process serves it, so it may touch what is below by bare system calls only: an os.File asks for polling (epoll_ctl(2)) while no other
// goroutine may run, the server neither.
func Mount(t testing.TB, folder string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse, and root: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("silent", folder, "fuse.silent", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		unix.Close(fd)
		t.Skipf("cannot mount FUSE here: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(fd)
	}()
	t.Cleanup(func() {
		// By force: whoever waits gets an error, and the server's read too.
		if err := unix.Unmount(folder, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Errorf("cannot unmount: %v", err)
		}
		<-done
		unix.Close(fd)
	})
}

// serve answers FUSE_INIT alone: <linux/fuse.h>, protocol 7.31.
func serve(fd int) {
	const opInit = 26
	request := make([]byte, 1<<20)
	for {
		_, err := unix.Read(fd, request)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return // ENODEV: unmounted
		}
		if binary.LittleEndian.Uint32(request[4:]) != opInit {
			continue
		}
		reply := make([]byte, 16+64)
		binary.LittleEndian.PutUint32(reply, uint32(len(reply)))
		copy(reply[8:16], request[8:16]) // its number
		for i, v := range []uint32{7, 31, 1 << 16, 0} {
			binary.LittleEndian.PutUint32(reply[16+4*i:], v)
		}
		binary.LittleEndian.PutUint32(reply[16+20:], 1<<16)
		if _, err := unix.Write(fd, reply); err != nil {
			return
		}
	}
}
