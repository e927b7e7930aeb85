package enginetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
)

func (s *Server) make(w http.ResponseWriter, name string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var request struct {
		Image, User string
		Entrypoint  []string
		Labels      map[string]string
		HostConfig  struct {
			NetworkMode   string
			Binds         []string
			RestartPolicy struct{ Name string }
			SecurityOpt   []string
		}
	}
	switch err := json.Unmarshal(body, &request); {
	case err != nil:
		fail(w, http.StatusBadRequest, "invalid character in the request")
	case name != "" && s.find(name) != nil:
		fail(w, http.StatusConflict, "Conflict. The container name %q is already in use", "/"+name)
	case s.engine.Images[request.Image] == "":
		fail(w, http.StatusNotFound, "No such image: %s", request.Image)
	default:
		id := fmt.Sprintf("%064x", len(s.engine.Containers)+1000)
		labels := maps.Clone(s.engine.ImageLabels[s.engine.Images[request.Image]])
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, request.Labels)
		s.engine.Containers = append(s.engine.Containers, Container{
			ID: id, Name: name, Image: request.Image, ImageID: s.engine.Images[request.Image], State: "created", Labels: labels,
			NetworkMode: request.HostConfig.NetworkMode, Binds: request.HostConfig.Binds, RestartMode: request.HostConfig.RestartPolicy.Name,
			Command: request.Entrypoint, Files: map[string]string{}, SecurityOptions: request.HostConfig.SecurityOpt,
		})
		answer(w, http.StatusCreated, map[string]any{"Id": id, "Warnings": []string{}})
	}
}

// extract unpacks into a container that has these folders only.
func (s *Server) extract(w http.ResponseWriter, key, folder string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	if c == nil || !slices.Contains([]string{"/usr/local/lib", "/etc"}, path.Clean(folder)) {
		fail(w, http.StatusNotFound, "Could not find the file %s in container %s", folder, key)
		return
	}
	for archive := tar.NewReader(bytes.NewReader(body)); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		text, err2 := io.ReadAll(archive)
		if err != nil || err2 != nil {
			fail(w, http.StatusBadRequest, "invalid tar header")
			return
		}
		c.Files[path.Join(folder, header.Name)] = string(text)
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) stat(w http.ResponseWriter, key, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(key) == nil || !slices.Contains(s.engine.InImages, file) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("X-Docker-Container-Path-Stat", "eyJuYW1lIjoieCJ9") // {"name":"x"}
}

func (s *Server) turn(w http.ResponseWriter, key, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	switch {
	case c == nil:
		fail(w, http.StatusNotFound, "No such container: %s", key)
	case c.state() == "paused" && state != "unpaused":
		fail(w, http.StatusConflict, "cannot start a paused container, try unpause instead")
	case c.state() == state:
		w.WriteHeader(http.StatusNotModified)
	case state == "unpaused":
		c.State = "running"
		w.WriteHeader(http.StatusNoContent)
	default:
		c.State = state
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) remove(w http.ResponseWriter, key string, force bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	switch {
	case c == nil:
		fail(w, http.StatusNotFound, "No such container: %s", key)
	case c.state() == "running" && !force:
		fail(w, http.StatusConflict, "You cannot remove a running container %s", c.ID)
	default:
		id := c.ID
		s.engine.Containers = slices.DeleteFunc(s.engine.Containers, func(c Container) bool { return c.ID == id })
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) inspectImage(w http.ResponseWriter, reference string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.engine.Images[reference]; id != "" {
		answer(w, http.StatusOK, map[string]any{
			"Id": id, "Architecture": "amd64", "Os": "linux", "Config": map[string]any{"Labels": s.engine.ImageLabels[id]},
			"RootFS": map[string]any{"Type": "layers", "Layers": s.engine.Layers[id]},
		})
		return
	}
	fail(w, http.StatusNotFound, "No such image: %s", reference)
}

func (s *Server) inspectVolume(w http.ResponseWriter, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if folder, ok := s.engine.Volumes[name]; ok {
		answer(w, http.StatusOK, map[string]any{"Name": name, "Mountpoint": folder, "Labels": s.engine.VolumeLabels[name]})
		return
	}
	fail(w, http.StatusNotFound, "get %s: no such volume", name)
}

func (s *Server) makeVolume(w http.ResponseWriter, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var request struct {
		Name   string
		Labels map[string]string
	}
	if err := json.Unmarshal(body, &request); err != nil {
		fail(w, http.StatusBadRequest, "invalid character in the request")
		return
	}
	if _, there := s.engine.Volumes[request.Name]; !there {
		if s.engine.Volumes == nil {
			s.engine.Volumes = map[string]string{}
		}
		if s.engine.VolumeLabels == nil {
			s.engine.VolumeLabels = map[string]map[string]string{}
		}
		s.engine.Volumes[request.Name] = "/var/lib/docker/volumes/" + request.Name + "/_data"
		s.engine.VolumeLabels[request.Name] = request.Labels
	}
	answer(w, http.StatusCreated, map[string]any{"Name": request.Name})
}

func (s *Server) removeVolume(w http.ResponseWriter, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.engine.Volumes[name]; !ok {
		fail(w, http.StatusNotFound, "get %s: no such volume", name)
		return
	}
	delete(s.engine.Volumes, name)
	w.WriteHeader(http.StatusNoContent)
}
