package enginetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Store is how an engine keeps images.
type Store int

// The stores. Each takes an image whose layers it has already, and are not in the archive, in its own form only.
const (
	ByContent  Store = iota // Docker's own: layers by what is in them
	ByManifest              // containerd's
	Complete                // one that wants every layer, as Podman's
)

// config is an image's configuration.
type config struct {
	Architecture string         `json:"architecture"`
	Config       map[string]any `json:"config"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

type pointer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	MediaType string    `json:"mediaType"`
	Config    pointer   `json:"config"`
	Layers    []pointer `json:"layers"`
}

func digest(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

func (s *Server) loadImage(w http.ResponseWriter, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := map[string][]byte{}
	for archive := tar.NewReader(bytes.NewReader(body)); ; {
		h, err := archive.Next()
		if err != nil {
			break
		}
		files[h.Name], _ = io.ReadAll(archive)
	}
	reference, err := s.load(files)
	if err != nil { // the answer has begun by then
		answer(w, http.StatusOK, map[string]any{"errorDetail": map[string]string{"message": err.Error()}, "error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]string{"stream": "Loaded image: " + reference + "\n"})
}

func (s *Server) load(files map[string][]byte) (reference string, err error) {
	var text []byte
	switch s.engine.Store {
	case ByContent:
		var list []struct {
			Config           string
			RepoTags, Layers []string
		}
		if err := json.Unmarshal(files["manifest.json"], &list); err != nil || len(list) != 1 || len(list[0].RepoTags) != 1 {
			return "", fmt.Errorf("open manifest.json: no such file or directory")
		}
		text, reference = files[list[0].Config], list[0].RepoTags[0]
	case ByManifest:
		var index struct{ Manifests []pointer }
		if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
			return "", fmt.Errorf("failed to resolve layers: layer \"0/layer.tar\" not found")
		}
		var m manifest
		if err := json.Unmarshal(files["blobs/"+strings.Replace(index.Manifests[0].Digest, ":", "/", 1)], &m); err != nil {
			return "", err
		}
		for _, l := range m.Layers {
			if !slices.ContainsFunc(slices.Collect(maps.Values(s.engine.Layers)), func(known []string) bool { return slices.Contains(known, packed(l.Digest)) }) {
				return "", fmt.Errorf("content digest %s: not found", l.Digest)
			}
		}
		text = files["blobs/"+strings.Replace(m.Config.Digest, ":", "/", 1)]
		reference = strings.TrimPrefix(index.Manifests[0].Annotations["io.containerd.image.name"], "docker.io/")
	default:
		return "", fmt.Errorf("layer 0 is not in the archive")
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return "", err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.engine.Layers)), func(known []string) bool { return slices.Equal(known, c.RootFS.DiffIDs) }) {
		return "", fmt.Errorf("open 0/layer.tar: no such file or directory")
	}
	id, labels := digest(text), map[string]string{}
	if given, ok := c.Config["Labels"].(map[string]any); ok {
		for name, value := range given {
			labels[name] = value.(string)
		}
	}
	s.engine.Images, s.engine.Layers = maps.Clone(s.engine.Images), maps.Clone(s.engine.Layers)
	s.engine.Images[reference], s.engine.Layers[id] = id, c.RootFS.DiffIDs
	if s.engine.ImageLabels == nil {
		s.engine.ImageLabels = map[string]map[string]string{}
	}
	s.engine.ImageLabels[id] = labels
	return reference, nil
}

// packed: the store of this test keeps a layer under its own checksum turned round.
func packed(sum string) string {
	letters := []byte(strings.TrimPrefix(sum, "sha256:"))
	slices.Reverse(letters)
	return "sha256:" + string(letters)
}

// saveImage gives the image by manifests: layers first, and one of another platform beside it.
func (s *Server) saveImage(w http.ResponseWriter, reference string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.engine.Images[reference]
	if id == "" {
		fail(w, http.StatusNotFound, "No such image: %s", reference)
		return
	}
	var out bytes.Buffer
	files := tar.NewWriter(&out)
	put := func(name string, text []byte) {
		_ = files.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
		_, _ = files.Write(text)
	}
	for _, layers := range [][]string{{"sha256:other"}, s.engine.Layers[id]} {
		c := config{Architecture: "amd64"}
		c.RootFS.DiffIDs = layers
		text, _ := json.Marshal(c)
		m := manifest{MediaType: "application/vnd.oci.image.manifest.v1+json", Config: pointer{"application/vnd.oci.image.config.v1+json", digest(text), len(text), nil}}
		for _, l := range layers {
			m.Layers = append(m.Layers, pointer{"application/vnd.oci.image.layer.v1.tar+gzip", packed(l), 1, nil})
			put("blobs/sha256/"+strings.TrimPrefix(packed(l), "sha256:"), []byte("a layer"))
		}
		put("blobs/"+strings.Replace(digest(text), ":", "/", 1), text)
		if text, _ = json.Marshal(m); s.engine.Store == ByManifest {
			put("blobs/"+strings.Replace(digest(text), ":", "/", 1), text)
		}
	}
	_ = files.Close()
	w.Header().Set("Content-Type", "application/x-tar")
	_, _ = w.Write(out.Bytes())
}

func (s *Server) listImages(w http.ResponseWriter, filters string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var want struct {
		Label map[string]bool `json:"label"`
	}
	_ = json.Unmarshal([]byte(filters), &want)
	list := []map[string]any{}
	for reference, id := range s.engine.Images {
		for label := range want.Label {
			if _, has := s.engine.ImageLabels[id][label]; has {
				list = append(list, map[string]any{"Id": id, "RepoTags": []string{reference}, "Labels": s.engine.ImageLabels[id]})
			}
		}
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) removeImage(w http.ResponseWriter, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for reference, id := range s.engine.Images {
		switch {
		case key != reference && key != id:
		case slices.ContainsFunc(s.engine.Containers, func(c Container) bool { return c.ImageID == id }):
			fail(w, http.StatusConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container", key)
			return
		default:
			delete(s.engine.Images, reference)
			answer(w, http.StatusOK, []map[string]string{{"Deleted": id}})
			return
		}
	}
	fail(w, http.StatusNotFound, "No such image: %s", key)
}
