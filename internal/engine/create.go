package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Spec is a container to be made. It uses the host's network and runs as root, outside of SELinux's confinement, as kolla's containers do:
// the host's /run is closed to a confined one. Its image's entry point is not used.
type Spec struct {
	Name    string
	Image   string
	Command []string
	Binds   []string // as docker run -v takes them: "/run:/run:shared", "volume:/folder"
	Labels  map[string]string
	Restart string            // the engine's restart policy: "no", "unless-stopped"
	Files   map[string]string // written into it before it is started: path to text; the folders must exist
	Volumes []string          // named volumes among the binds: where they are not there yet they are made with the container's labels
}

// createTimeout is for an engine that has to unpack the image's layers first, as containerd's store may when other images of them are gone.
const createTimeout = 5 * time.Minute

// Create makes the container and does not start it. A volume that does not exist yet, or is empty, gets what the image has in
// the folder. A container that could not get its files is removed again.
func (e *Engine) Create(ctx context.Context, s Spec) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	for _, name := range s.Volumes {
		// One that is there stays as it is, without our labels.
		if _, err := e.api.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: s.Labels}); err != nil {
			return "", fmt.Errorf("cannot make volume %s: %w", name, err)
		}
	}
	made, err := e.api.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:   s.Name,
		Config: &container.Config{Image: s.Image, Entrypoint: s.Command, User: "0", Labels: s.Labels},
		HostConfig: &container.HostConfig{
			NetworkMode: "host", Binds: s.Binds, RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart)},
			SecurityOpt: []string{"label=disable"},
		},
	})
	if err != nil {
		return "", fmt.Errorf("cannot make container %s from %s: %w", s.Name, s.Image, err)
	}
	if err := e.put(ctx, made.ID, s.Files); err != nil {
		return "", errors.Join(fmt.Errorf("cannot make container %s: %w", s.Name, err), e.Remove(context.WithoutCancel(ctx), made.ID))
	}
	return made.ID, nil
}

// Lacks tells which of the programs an image has not got in its usual folders. It makes a container for that, which is not started,
// and removes it.
func (e *Engine) Lacks(ctx context.Context, image string, programs []string) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	made, err := e.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: image, Entrypoint: programs[:1]}})
	if err != nil {
		return nil, fmt.Errorf("cannot look into image %s: %w", image, err)
	}
	defer func() { err = errors.Join(err, e.Remove(context.WithoutCancel(ctx), made.ID)) }()
	for _, program := range programs {
		found := false
		for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			_, err := e.api.ContainerStatPath(ctx, made.ID, client.ContainerStatPathOptions{Path: folder + "/" + program})
			if err != nil && !cerrdefs.IsNotFound(err) {
				return nil, fmt.Errorf("cannot look into image %s: %w", image, err)
			}
			if found = err == nil; found {
				break
			}
		}
		if !found {
			missing = append(missing, program)
		}
	}
	return missing, nil
}

// put writes files into a container, running or not.
func (e *Engine) put(ctx context.Context, id string, files map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		err := w.WriteHeader(&tar.Header{Name: path.Base(name), Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write([]byte(files[name]))
		}
		if err = errors.Join(err, w.Close()); err == nil {
			_, err = e.api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: path.Dir(name), Content: &archive})
		}
		if err != nil {
			return fmt.Errorf("cannot write %s there: %w", name, err)
		}
	}
	return nil
}

// Start starts a container that does not run; one that runs is left alone.
func (e *Engine) Start(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := e.api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("cannot start %s: %w", id, err)
	}
	return nil
}

// Stop stops a container, giving it grace to end by itself.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	seconds := int(grace.Seconds())
	if _, err := e.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return fmt.Errorf("cannot stop %s: %w", id, err)
	}
	return nil
}

// Remove removes a container, running or not, and leaves its named volumes. One that is gone already is no failure.
func (e *Engine) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := e.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}); err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("cannot remove %s: %w", id, err)
	}
	return nil
}

// ImageID finds the image that a reference names, on this host only. The error is ErrNotFound where there is none.
func (e *Engine) ImageID(ctx context.Context, reference string) (string, error) {
	seen, err := e.inspectImage(ctx, reference)
	return seen.ID, err
}

// VolumeFolder is where a volume of the local driver lies on this host. The error is ErrNotFound where there is none.
func (e *Engine) VolumeFolder(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := e.api.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
		err = ErrNotFound
	case err == nil && seen.Volume.Mountpoint == "":
		err = errors.New("it has no folder on this host")
	}
	if err != nil {
		return "", fmt.Errorf("cannot find volume %s: %w", name, err)
	}
	return seen.Volume.Mountpoint, nil
}

// RemoveVolume removes a volume that has the label; one without it is somebody else's, and stays. One that is gone already is no failure.
func (e *Engine) RemoveVolume(ctx context.Context, name, label string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := e.api.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	if err == nil && seen.Volume.Labels[label] != "" {
		_, err = e.api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("cannot remove volume %s: %w", name, err)
	}
	return nil
}

// Unpause lets a container go on that docker pause has frozen.
func (e *Engine) Unpause(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := e.api.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{}); err != nil {
		return fmt.Errorf("cannot unpause %s: %w", id, err)
	}
	return nil
}
