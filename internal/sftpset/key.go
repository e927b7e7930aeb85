package sftpset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const maxKeyFile = 64 << 10 // bytes; an RSA key of 16384 bits has 13 KB

// signers are what the server is shown: the key in the file or, where none is named, those of the agent. The agent signs
// for as long as release is not called.
func (c Config) signers(ctx context.Context) (keys []ssh.Signer, release func(), err error) {
	if c.PrivateKeyFile != "" {
		key, err := readKey(c.PrivateKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot use the key %s: %w", c.PrivateKeyFile, err)
		}
		return []ssh.Signer{key}, func() {}, nil
	}
	if c.AgentSocket == "" {
		return nil, nil, errors.New("cannot log in: no sftp_private_key_file is given, and SSH_AUTH_SOCK names no agent; " +
			"name the file of a key on this host, or give the task the agent's socket in its environment")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.AgentSocket)
	if err != nil {
		// Its own words only: a refused connection here is nothing that passes.
		return nil, nil, fmt.Errorf("cannot speak to the agent at SSH_AUTH_SOCK: %v; start one, or name a key with sftp_private_key_file", err) //nolint:errorlint // see above
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	release = func() { stop(); conn.Close() }
	keys, err = agent.NewClient(conn).Signers()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("cannot speak to the agent at %s: it is silent", c.AgentSocket)
	case err != nil:
		err = fmt.Errorf("cannot speak to the agent at %s: %v", c.AgentSocket, err) //nolint:errorlint // see above
	case len(keys) == 0:
		err = fmt.Errorf("the agent at %s holds no key: ssh-add one", c.AgentSocket)
	default:
		return keys, release, nil
	}
	release()
	return nil, nil, err
}

func readKey(name string) (ssh.Signer, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is refused rather than waited for
	if err != nil {
		return nil, cause(err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others than its owner may read or change it (mode %04o): chmod 600 it, and if it lay open for long, replace it", info.Mode().Perm())
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("it has more than %d bytes: that is no key", maxKeyFile)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, cause(err)
	}
	key, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, errors.New("a passphrase protects it, and nobody is there to type it: ssh-add it to an agent, give the task that agent's SSH_AUTH_SOCK, " +
			"and leave sftp_private_key_file out; or make a key of its own without a passphrase")
	}
	if err != nil {
		return nil, errors.New("it holds no private key that can be read, in OpenSSH's or PEM form") // never quote what is in it
	}
	return key, nil
}

// cause drops the operation and path of a file error, for messages that name the file themselves.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
