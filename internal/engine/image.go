package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

const (
	saveTimeout = 5 * time.Minute // a large image, read once from a disk that is busy
	maxSmall    = 4 << 20         // bytes of a file in a saved image that is no layer; a manifest has some thousand
	maxSmalls   = 64 << 20        // bytes of all of them
)

// BareImage makes an image, called reference, with the layers of source and nothing else of it: no labels but these, no environment, no
// command, no health test. What a container inherits from its image it cannot be rid of.
//
// Nothing is copied: the archive that the engine loads names layers that it has, and holds none. Docker's own store knows them by the
// checksums of what is in them. That of containerd, which newer engines use, knows them by the image's manifest, which no call gives but the
// one for the whole image: that is read through, in seconds. (Tried with 20.10 and 26.1, both stores.)
func (e *Engine) BareImage(ctx context.Context, source, reference string, labels map[string]string) error {
	seen, err := e.inspectImage(ctx, source)
	if err != nil {
		return err
	}
	config, err := bareConfig(seen, labels)
	if err == nil {
		err = e.loadBare(ctx, source, seen, config, reference)
	}
	if err == nil {
		err = e.isBare(ctx, seen, reference, labels)
	}
	if err != nil {
		return fmt.Errorf("cannot make image %s of %s: %w", reference, source, err)
	}
	return nil
}

func (e *Engine) loadBare(ctx context.Context, source string, seen client.ImageInspectResult, config []byte, reference string) error {
	err := e.load(ctx, layersByContent(config, len(seen.RootFS.Layers), reference))
	if err == nil || ctx.Err() != nil {
		return err
	}
	manifest, err2 := e.manifestOf(ctx, source, seen.RootFS.Layers)
	if err2 == nil {
		err2 = e.load(ctx, layersByManifest(manifest, config, reference))
	}
	if err2 != nil {
		return fmt.Errorf("%w; and by its manifest: %w", err, err2)
	}
	return nil
}

// isBare trusts no engine's word that it has loaded something.
func (e *Engine) isBare(ctx context.Context, seen client.ImageInspectResult, reference string, labels map[string]string) error {
	made, err := e.inspectImage(ctx, reference)
	if err != nil {
		return err
	}
	if !slices.Equal(made.RootFS.Layers, seen.RootFS.Layers) {
		return errors.New("it got other layers")
	}
	if made.Config == nil || !maps.Equal(made.Config.Labels, labels) {
		return errors.New("it got other labels")
	}
	return nil
}

func (e *Engine) inspectImage(ctx context.Context, reference string) (client.ImageInspectResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := e.api.ImageInspect(ctx, reference)
	if cerrdefs.IsNotFound(err) {
		return seen, fmt.Errorf("cannot find image %s on this host: %w", reference, ErrNotFound)
	}
	if err != nil {
		return seen, fmt.Errorf("cannot inspect image %s: %w", reference, err)
	}
	return seen, nil
}

// bareConfig is the image's configuration as OCI's image specification has it. The same image gives the same one.
func bareConfig(seen client.ImageInspectResult, labels map[string]string) ([]byte, error) {
	if len(seen.RootFS.Layers) == 0 {
		return nil, errors.New("the engine does not tell its layers")
	}
	config := map[string]any{
		"architecture": seen.Architecture, "os": seen.Os, "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{
			"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "Labels": labels,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": seen.RootFS.Layers},
	}
	if seen.Variant != "" {
		config["variant"] = seen.Variant
	}
	return json.Marshal(config)
}

// smallFile is one of an archive.
type smallFile struct {
	name string
	text []byte
}

func archive(files ...smallFile) *bytes.Buffer {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files { // writing to memory does not fail
		_ = w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg})
		_, _ = w.Write(f.text)
	}
	_ = w.Close()
	return &out
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// layersByContent is what docker save writes, without the layers that its manifest.json names: one that the store knows by the checksums in
// the configuration is not looked for in the archive (image/tarexport/load.go).
func layersByContent(config []byte, layers int, reference string) *bytes.Buffer {
	name := digest(config) + ".json"
	paths := make([]string, layers)
	for i := range paths {
		paths[i] = fmt.Sprintf("%d/layer.tar", i)
	}
	return archive(smallFile{name, config}, smallFile{"manifest.json", marshal([]map[string]any{{"Config": name, "RepoTags": []string{reference}, "Layers": paths}})})
}

// descriptor is OCI's.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// imageManifest is OCI's, as far as it is needed.
type imageManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []json.RawMessage `json:"layers"`
}

// layersByManifest is OCI's image layout without the layers, which the store has (containerd's WithSkipMissing).
func layersByManifest(m imageManifest, config []byte, reference string) *bytes.Buffer {
	m.Config.Digest, m.Config.Size = "sha256:"+digest(config), int64(len(config))
	manifest := marshal(m)
	index := marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []descriptor{{m.MediaType, "sha256:" + digest(manifest), int64(len(manifest)), map[string]string{"io.containerd.image.name": "docker.io/" + reference}}},
	})
	return archive(smallFile{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, smallFile{"index.json", index},
		smallFile{"blobs/sha256/" + digest(manifest), manifest}, smallFile{"blobs/sha256/" + digest(config), config})
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return text
}

// manifestOf finds an image's manifest in what the engine saves of it. There may be several, of other platforms: it is the one whose configuration names
// these layers.
func (e *Engine) manifestOf(ctx context.Context, reference string, layers []string) (imageManifest, error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	saved, err := e.api.ImageSave(ctx, []string{reference})
	if err != nil {
		return imageManifest{}, fmt.Errorf("cannot read image %s: %w", reference, err)
	}
	defer saved.Close()
	blobs, err := smallBlobs(saved)
	if err != nil {
		return imageManifest{}, fmt.Errorf("cannot read image %s: %w", reference, err)
	}
	for _, text := range blobs {
		var m imageManifest
		var config struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if json.Unmarshal(text, &m) != nil || m.Config.Digest == "" || json.Unmarshal(blobs[m.Config.Digest], &config) != nil {
			continue
		}
		if slices.Equal(config.RootFS.DiffIDs, layers) && len(m.Layers) == len(layers) {
			return m, nil
		}
	}
	return imageManifest{}, fmt.Errorf("cannot find the manifest of image %s in it", reference)
}

// smallBlobs are the files of OCI's image layout that may be manifests or configurations, by digest.
func smallBlobs(r io.Reader) (map[string][]byte, error) {
	blobs := map[string][]byte{}
	size := int64(0)
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return blobs, nil
		}
		if err != nil {
			return nil, err
		}
		sum, found := strings.CutPrefix(h.Name, "blobs/sha256/")
		if !found || h.Typeflag != tar.TypeReg || h.Size > maxSmall || size+h.Size > maxSmalls {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return nil, err
		}
		size += h.Size
		blobs["sha256:"+sum] = text
	}
}

// load has the engine load an archive. It answers before it has read it, and its end is in the last line of its answer.
func (e *Engine) load(ctx context.Context, files io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := e.api.ImageLoad(ctx, files, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("the engine does not load it: %w", err)
	}
	defer answer.Close()
	lines := json.NewDecoder(io.LimitReader(answer, maxSmall))
	for {
		var line struct {
			Error string `json:"error"`
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the engine does not say whether it has loaded it: %w", err)
		}
		if line.Error != "" {
			return fmt.Errorf("the engine does not load it: %s", line.Error)
		}
	}
}

// Image is an image on this host.
type Image struct {
	ID         string
	References []string // none once another image has its name
	Labels     map[string]string
}

// Images lists those that have the label.
func (e *Engine) Images(ctx context.Context, label string) ([]Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := e.api.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("label", label)})
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	var all []Image
	for _, i := range list.Items {
		all = append(all, Image{ID: i.ID, References: references(i), Labels: i.Labels})
	}
	return all, nil
}

// references leaves out "<none>:<none>", which older engines give an image without a name.
func references(i image.Summary) []string {
	return slices.DeleteFunc(slices.Clone(i.RepoTags), func(name string) bool { return strings.HasPrefix(name, "<none>") })
}

// RemoveImage removes an image by its id, with all its names. One that is gone already, or that a container uses, is no failure: it stays.
func (e *Engine) RemoveImage(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := e.api.ImageRemove(ctx, id, client.ImageRemoveOptions{PruneChildren: true})
	if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
		return fmt.Errorf("cannot remove image %s: %w", id, err)
	}
	return nil
}
