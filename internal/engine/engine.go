// Package engine is the only place that speaks to a container engine. It knows containers by name and id, runs commands
// in them and restarts them; what is inside a container is read by others through Container.OpenRoot.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// Kind is the engine the user asks for.
type Kind string

// The kinds of the option engine.
const (
	Auto   Kind = "auto"
	Docker Kind = "docker"
	Podman Kind = "podman"
)

// Where the engines listen when nothing else is said: docker(1), podman-system-service(1).
const (
	dockerSocket = "/var/run/docker.sock"
	podmanSocket = "/run/podman/podman.sock"
)

// callTimeout bounds every call that asks or starts something; what a command in a container may take is its caller's
// affair.
const callTimeout = 30 * time.Second

// openTimeout bounds the opening of a container's files, which takes microseconds.
const openTimeout = 10 * time.Second

// Engine is a connection to one engine of this host.
type Engine struct {
	Name    string // "docker"
	Version string // "20.10.24", as the engine itself says
	api     *client.Client
}

// Connect finds the engine, asks for its version and settles on an API version that both sides know. An engine older
// than the client's own minimum (Docker before 19.03) is spoken to in its own version: the few calls made here have not
// changed since. socket is a path or unix:///path, empty for the usual one; the caller closes the engine.
func Connect(ctx context.Context, kind Kind, socket string) (*Engine, error) {
	path, err := locate(kind, socket, exists)
	if err != nil {
		return nil, err
	}
	e, err := connect(ctx, "unix://"+path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach docker at %s: %w", path, err)
	}
	return e, nil
}

func connect(ctx context.Context, host string) (*Engine, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	api, err := client.New(client.WithHost(host))
	if err != nil {
		return nil, err
	}
	ping, err := api.Ping(ctx, client.PingOptions{})
	if err != nil {
		api.Close()
		return nil, err
	}
	if olderThan(ping.APIVersion, client.MinAPIVersion) {
		api.Close()
		api, err = client.New(client.WithHost(host), client.WithAPIVersion(ping.APIVersion))
		if err != nil {
			return nil, err
		}
	}
	server, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		api.Close()
		return nil, err
	}
	return &Engine{Name: string(Docker), Version: server.Version, api: api}, nil
}

// locate decides which socket to use. Podman has its place here and nowhere else: its socket speaks the same calls.
func locate(kind Kind, socket string, exists func(string) bool) (string, error) {
	path, unix := strings.CutPrefix(socket, "unix://")
	if !unix && strings.Contains(socket, "://") {
		return "", fmt.Errorf("cannot use engine_socket %q: only a unix socket of this host will do, because containers are read through /proc", socket)
	}
	if kind == Podman {
		return "", errors.New("cannot use podman: this version of the collection knows docker only")
	}
	if path != "" {
		return path, nil
	}
	if kind == Auto && !exists(dockerSocket) && exists(podmanSocket) {
		return "", fmt.Errorf("cannot find docker at %s; podman listens at %s, but this version of the collection knows docker only", dockerSocket, podmanSocket)
	}
	return dockerSocket, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// olderThan compares API versions, "1.38" and "1.40". What cannot be read is taken for new: the client then negotiates.
func olderThan(version, minimum string) bool {
	var a, b [2]int
	if _, err := fmt.Sscanf(version, "%d.%d", &a[0], &a[1]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(minimum, "%d.%d", &b[0], &b[1]); err != nil {
		return false
	}
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

// Close ends the connection.
func (e *Engine) Close() error { return e.api.Close() }
