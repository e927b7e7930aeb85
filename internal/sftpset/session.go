package sftpset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// What a server is asked for at a time: OpenSSH answers a read with up to 255 KiB (limits@openssh.com), a server with a
// lower limit with less, and the rest is asked for then. 16 of them are the two megabytes of SSH's window, and once more
// as many, so that the window is never empty.
const (
	pieceSize = 255 << 10 // bytes
	pieces    = 16
)

// session is one connection that is logged in and speaks SFTP.
type session struct {
	wire *wire
	ssh  *ssh.Client
	sftp *sftp.Client
	idle time.Duration
}

// connect dials, checks the server's key, logs in and starts SFTP, in one handshake's time.
func connect(ctx context.Context, c Config) (s *session, err error) {
	known, err := c.knownHosts()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Handshake, &silentError{c.Handshake})
	defer cancel()
	keys, release, err := c.signers(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	dialer := net.Dialer{Timeout: c.Handshake}
	conn, err := dialer.DialContext(ctx, "tcp", known.addr)
	if err != nil {
		return nil, fmt.Errorf("cannot connect: %w", dialCause(ctx, err))
	}
	s = &session{wire: newWire(conn), idle: c.Idle}
	err = s.wire.watch(ctx, c.Idle, func() error { return s.start(c, known, keys) })
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// dialCause drops what net says twice: the address is in the message already.
func dialCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (s *session) start(c Config, known *hostKeys, keys []ssh.Signer) (err error) {
	defer broken(&err)
	conn, channels, requests, err := ssh.NewClientConn(s.wire, known.addr, &ssh.ClientConfig{
		User:              c.Address.User,
		HostKeyCallback:   known.check,
		HostKeyAlgorithms: known.algorithms(),
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys...)},
	})
	if err != nil {
		return refusal(c, known, err)
	}
	s.ssh = ssh.NewClient(conn, channels, requests)
	s.sftp, err = sftp.NewClient(s.ssh, sftp.MaxPacketUnchecked(pieceSize), sftp.UseFstat(true))
	if err != nil {
		return fmt.Errorf("cannot start SFTP: %w; the server needs a line `Subsystem sftp internal-sftp` in its sshd_config", brief(err))
	}
	return nil
}

// refusal says what ended the handshake.
func refusal(c Config, known *hostKeys, err error) error {
	var kinds *ssh.AlgorithmNegotiationError
	switch {
	case known.failed != nil:
		return fmt.Errorf("cannot trust the server: %w", known.failed)
	case errors.As(err, &kinds) && kinds.What == "host key":
		return fmt.Errorf("cannot trust the server: %w", known.noCommonKind(kinds))
	case !known.passed || isPassing(err):
		return fmt.Errorf("cannot begin SSH: %w", brief(err))
	}
	key := "none of the agent's keys is"
	if c.PrivateKeyFile != "" {
		key = "the key " + c.PrivateKeyFile + " is not"
	}
	return fmt.Errorf("cannot log in: %s accepted for user %s: %w; its public half belongs into that user's authorized_keys there, and the reason is in the server's log",
		key, c.Address.User, brief(err))
}

// close ends the connection at once. SSH's own goodbye would wait for a server that may be silent.
func (s *session) close() { s.wire.Close() }

// open opens a file there, which must be a regular one.
func (s *session) open(name string) (file *sftp.File, size int64, err error) {
	defer broken(&err)
	if file, err = s.sftp.Open(name); err != nil {
		return nil, 0, answer(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		s.done(file)
		return nil, 0, answer(err)
	}
	return file, info.Size(), nil
}

// done gives the handle back. Whether the server does so is its own matter: what was read is read.
func (s *session) done(file *sftp.File) { _ = file.Close() }

// text reads a whole small file.
func (s *session) text(ctx context.Context, name string, most int) (data []byte, err error) {
	err = s.wire.watch(ctx, s.idle, func() (err error) {
		defer broken(&err)
		file, size, err := s.open(name)
		if err != nil {
			return err
		}
		defer s.done(file)
		if size > int64(most) {
			return fmt.Errorf("it has %d bytes, at most %d are allowed", size, most)
		}
		data = make([]byte, size)
		n, err := file.ReadAt(data, 0)
		if n < len(data) {
			if err == nil || errors.Is(err, io.EOF) {
				err = fmt.Errorf("it ends after %d of %d bytes: it was changed while it was read; run again", n, size)
			}
			return answer(err)
		}
		return nil
	})
	return data, err
}

// copy appends bytes from to size of the file to w, and never asks for a byte beyond.
func (s *session) copy(ctx context.Context, name string, from, size int64, w io.Writer) error {
	return s.wire.watch(ctx, s.idle, func() error {
		file, has, err := s.open(name)
		if err != nil {
			return err
		}
		defer s.done(file)
		if has != size {
			return fmt.Errorf("it has %d bytes, the manifest says %d: upload the patch set again, the manifest last", has, size)
		}
		return answer(stream(file, from, size, w))
	})
}

type piece struct {
	data []byte
	err  error
}

// stream keeps several reads in flight and writes what they bring in order: while one piece is written, and goes into a
// checksum, others travel.
func stream(file io.ReaderAt, from, to int64, w io.Writer) error {
	free := make(chan []byte, pieces)
	for range pieces {
		free <- nil
	}
	coming := make(chan chan piece, pieces)
	stop := make(chan struct{})
	go func() {
		defer close(coming)
		for at := from; at < to; at += pieceSize {
			var buf []byte
			select {
			case buf = <-free:
			case <-stop:
				return
			}
			if buf == nil {
				buf = make([]byte, pieceSize)
			}
			one := make(chan piece, 1)
			coming <- one // never waits: there are as many places as buffers
			go read(file, buf[:min(pieceSize, to-at)], at, one)
		}
	}()
	var err error
	at := from
	for one := range coming {
		p := <-one // also after an error: nobody may read from a file that is closed
		if err == nil {
			if _, err = w.Write(p.data); err == nil {
				at += int64(len(p.data))
				err = p.err
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("it ends after %d of %d bytes: it was changed while it was read", at, to)
			}
			if err != nil {
				close(stop)
			}
		}
		free <- p.data[:cap(p.data)]
	}
	return err
}

func read(file io.ReaderAt, buf []byte, at int64, to chan<- piece) {
	var n int
	var err error
	defer func() { to <- piece{buf[:n], err} }()
	defer broken(&err)
	n, err = file.ReadAt(buf, at)
	if n == len(buf) {
		err = nil
	}
}

// broken turns a panic of the SFTP library over a server's answer into an error: some of its readers trust lengths.
func broken(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("the server's answer is no SFTP: %.100v", cause)
	}
}

// answer puts what a server says into our words. Its own are bounded: they may be 256 KiB of anything.
func answer(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &said{"no such file or folder there", err}
	case errors.Is(err, fs.ErrPermission):
		return &said{"the server denies it: permission denied", err}
	case errors.Is(err, sftp.ErrSSHFxConnectionLost):
		return &said{"the connection was cut", err}
	}
	return brief(err)
}

// said is an error with other words for it.
type said struct {
	text string
	error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.error }

// brief bounds words that come from the server, and keeps control characters out of the log.
func brief(err error) error {
	const most = 300
	text := []rune(err.Error())
	clean := len(text) <= most
	for i, r := range text {
		if r < ' ' || r == 0x7f {
			text[i], clean = ' ', false
		}
	}
	if clean {
		return err
	}
	if len(text) > most {
		text = append(text[:most], '…')
	}
	return &said{string(text), err}
}
