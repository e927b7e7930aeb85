package sftpset

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/pkg/sftp"
)

// isPassing says whether the next try may do better: what the network did, never what the server or this host decided.
func isPassing(err error) bool {
	var silent *silentError
	var name *net.DNSError
	var timeout net.Error
	if errors.As(err, &name) {
		return name.IsTimeout || name.IsTemporary
	}
	if errors.As(err, &silent) || errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	for _, passing := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, sftp.ErrSSHFxConnectionLost,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}
