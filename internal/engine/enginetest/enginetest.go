// Package enginetest is a small container engine for tests. It answers the calls that package engine makes, on a Unix
// socket and by Docker's rules, and imports nothing of Docker's: what both sides get wrong alike would not be found.
package enginetest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Engine is the world that a Server begins with.
type Engine struct {
	Version    string // "20.10.24"
	API        string // the newest that it speaks, "1.41"
	MinAPI     string // the oldest; empty: any
	Containers []Container
	Images     map[string]string // reference to id
	// Layers and ImageLabels are those of images, by id.
	Layers      map[string][]string
	ImageLabels map[string]map[string]string
	Store       Store
	InImages    []string          // files that every one of them has
	Volumes     map[string]string // name to folder on the host
	// VolumeLabels are those of volumes that a call made.
	VolumeLabels map[string]map[string]string
}

// Container is one of the engine's containers.
type Container struct {
	ID          string
	Name        string
	Image       string
	State       string // "running" if empty
	PID         int
	StartedAt   time.Time
	ReadOnly    bool
	Health      []string
	Aliases     []string // of legacy links, "/other/alias"
	ImageID     string
	Labels      map[string]string
	Env         []string
	NetworkMode string
	Binds       []string // "/run:/run:shared"
	RestartMode string
	// SecurityOptions as docker run's --security-opt takes them.
	SecurityOptions []string
	Command         []string
	Files           map[string]string // what was copied into it: path to text
	// Programs are what can be run in it, by the first word of the command.
	Programs map[string]func(*Process) (exitCode int)
	// Stuck: a command is never started, and the request for it never answered.
	Stuck bool
	// Restart is what a restart does to it beyond a new StartedAt.
	Restart func(c *Container, seconds string)
}

// Process is one program while it runs. It has ended when its function returns.
type Process struct {
	Args, Env []string
	User      string
	Stdout    io.Writer
	Stderr    io.Writer
	Done      <-chan struct{} // the server was closed: a program that waits ends here
	conn      net.Conn
}

// HangUp cuts the connection to the client in the middle of a frame of output.
func (p *Process) HangUp() {
	_, _ = p.conn.Write([]byte{1, 0, 0, 0, 0, 0, 0, 9, 'h', 'a', 'l', 'f'})
	p.conn.Close()
}

// EndStreams closes the output, which is all that the client sees of a program's end.
func (p *Process) EndStreams() { p.conn.Close() }

// Server is an engine that listens.
type Server struct {
	http   http.Server
	engine Engine
	done   chan struct{}
	end    sync.Once

	mu    sync.Mutex
	execs map[string]*exec
	paths []string
}

type exec struct {
	container *Container
	request   struct {
		User     string
		Env, Cmd []string
	}
	started, running bool
	exitCode         *int
}

// Listen starts the engine on a new socket; the caller closes it.
func Listen(socket string, e Engine) (*Server, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: e, done: make(chan struct{}), execs: map[string]*exec{}}
	s.engine.Containers = slices.Clone(e.Containers)
	s.http.Handler = http.HandlerFunc(s.serve)
	go func() { _ = s.http.Serve(listener) }() // until Close
	return s, nil
}

// Close ends the server, its connections and the programs that heed Process.Done. It may be called twice.
func (s *Server) Close() error {
	s.end.Do(func() { close(s.done) })
	return s.http.Close()
}

// Paths are the paths of all requests so far, without their query.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.paths)
}

// Edit changes the container while the engine is used.
func (s *Server) Edit(name string, change func(*Container)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.find(name))
}

func (s *Server) find(key string) *Container {
	i := slices.IndexFunc(s.engine.Containers, func(c Container) bool { return c.ID == key || c.Name == key })
	if i < 0 {
		return nil
	}
	return &s.engine.Containers[i]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // a hijacked connection must have no body left
	if err != nil {
		return
	}
	s.mu.Lock()
	s.paths = append(s.paths, r.URL.Path)
	s.mu.Unlock()

	w.Header().Set("Api-Version", s.engine.API)
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/_ping" {
		if r.Method == http.MethodHead && newer("1.40", s.engine.API) {
			fail(w, http.StatusNotFound, "page not found") // HEAD came with API 1.40
		}
		return
	}
	version, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
	switch {
	case newer(version, s.engine.API):
		fail(w, http.StatusBadRequest, "client version %s is too new. Maximum supported API version is %s", version, s.engine.API)
		return
	case newer(s.engine.MinAPI, version):
		fail(w, http.StatusBadRequest, "client version %s is too old. Minimum supported API version is %s", version, s.engine.MinAPI)
		return
	}
	parts := append(strings.Split(path, "/"), "", "")
	switch call := r.Method + " " + parts[0]; {
	case call == "GET version":
		answer(w, http.StatusOK, map[string]any{"Version": s.engine.Version, "ApiVersion": s.engine.API, "MinAPIVersion": s.engine.MinAPI})
	case call == "GET containers" && parts[1] == "json":
		s.list(w, r.URL.Query().Get("all") == "1")
	case call == "GET containers" && parts[2] == "json":
		s.inspect(w, parts[1])
	case call == "POST containers" && parts[2] == "exec":
		s.create(w, parts[1], body)
	case call == "POST containers" && parts[2] == "restart":
		s.restart(w, parts[1], r.URL.Query().Get("t"))
	case call == "POST containers" && parts[1] == "create":
		s.make(w, r.URL.Query().Get("name"), body)
	case call == "HEAD containers" && parts[2] == "archive":
		s.stat(w, parts[1], r.URL.Query().Get("path"))
	case call == "PUT containers" && parts[2] == "archive":
		s.extract(w, parts[1], r.URL.Query().Get("path"), body)
	case call == "POST containers" && parts[2] == "start":
		s.turn(w, parts[1], "running")
	case call == "POST containers" && parts[2] == "stop":
		s.turn(w, parts[1], "exited")
	case call == "DELETE containers":
		s.remove(w, parts[1], r.URL.Query().Get("force") == "1")
	case call == "GET images" && parts[1] == "json":
		s.listImages(w, r.URL.Query().Get("filters"))
	case call == "GET images" && parts[1] == "get":
		s.saveImage(w, r.URL.Query().Get("names"))
	case call == "POST images" && parts[1] == "load":
		s.loadImage(w, body)
	case call == "DELETE images":
		s.removeImage(w, strings.Join(parts[1:len(parts)-2], "/"))
	case call == "GET images" && parts[len(parts)-3] == "json":
		s.inspectImage(w, strings.Join(parts[1:len(parts)-3], "/"))
	case call == "POST containers" && parts[2] == "unpause":
		s.turn(w, parts[1], "unpaused")
	case call == "POST volumes" && parts[1] == "create":
		s.makeVolume(w, body)
	case call == "GET volumes":
		s.inspectVolume(w, parts[1])
	case call == "DELETE volumes":
		s.removeVolume(w, parts[1])
	case call == "POST exec" && parts[2] == "start":
		s.start(w, parts[1])
	case call == "GET exec" && parts[2] == "json":
		s.inspectExec(w, parts[1])
	default:
		fail(w, http.StatusNotFound, "page not found")
	}
}

func newer(a, b string) bool {
	var x, y [2]int
	_, _ = fmt.Sscanf(a, "%d.%d", &x[0], &x[1])
	_, _ = fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	return slices.Compare(x[:], y[:]) > 0
}

func answer(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]string{"message": fmt.Sprintf(format, args...)})
}

func (c *Container) state() string {
	if c.State == "" {
		return "running"
	}
	return c.State
}

func (s *Server) list(w http.ResponseWriter, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []map[string]any{}
	for _, c := range s.engine.Containers {
		if all || c.state() == "running" {
			mounts := []map[string]any{}
			for _, bind := range c.Binds {
				parts := strings.Split(bind, ":")
				mounts = append(mounts, map[string]any{"Source": parts[0], "Destination": parts[1]})
			}
			list = append(list, map[string]any{
				"Id": c.ID, "Names": append([]string{"/" + c.Name}, c.Aliases...), "State": c.state(), "Image": c.Image, "ImageID": c.ImageID,
				"Labels": c.Labels, "HostConfig": map[string]any{"NetworkMode": c.NetworkMode}, "Mounts": mounts,
			})
		}
	}
	answer(w, http.StatusOK, list)
}

// on does something with the container of that name or identifier, or says that there is none. Nothing else happens meanwhile.
func (s *Server) on(w http.ResponseWriter, key string, do func(*Container)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	if c == nil {
		fail(w, http.StatusNotFound, "No such container: %s", key)
		return
	}
	do(c)
}

func (s *Server) inspect(w http.ResponseWriter, key string) {
	s.on(w, key, func(c *Container) {
		config := map[string]any{"Image": c.Image, "Env": c.Env}
		if c.Health != nil {
			config["Healthcheck"] = map[string]any{"Test": c.Health}
		}
		answer(w, http.StatusOK, map[string]any{
			"Id": c.ID, "Name": "/" + c.Name, "Config": config, "HostConfig": map[string]any{"ReadonlyRootfs": c.ReadOnly},
			"State": map[string]any{"Status": c.state(), "Pid": c.PID, "StartedAt": c.StartedAt.Format(time.RFC3339Nano)},
		})
	})
}

func (s *Server) restart(w http.ResponseWriter, key, seconds string) {
	s.on(w, key, func(c *Container) {
		c.StartedAt = c.StartedAt.Add(time.Second)
		if c.Restart != nil {
			c.Restart(c, seconds)
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (s *Server) create(w http.ResponseWriter, key string, body []byte) {
	s.on(w, key, func(c *Container) {
		e := &exec{container: c}
		switch err := json.Unmarshal(body, &e.request); {
		case c.state() != "running":
			fail(w, http.StatusConflict, "Container %s is %s", key, c.state())
		case err != nil || len(e.request.Cmd) == 0:
			fail(w, http.StatusBadRequest, "No exec command specified")
		default:
			id := fmt.Sprintf("%064x", len(s.execs)+1)
			s.execs[id] = e
			answer(w, http.StatusCreated, map[string]string{"Id": id})
		}
	})
}

func (s *Server) inspectExec(w http.ResponseWriter, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.execs[id]
	if e == nil {
		fail(w, http.StatusNotFound, "No such exec instance: %s", id)
		return
	}
	answer(w, http.StatusOK, map[string]any{"ID": id, "ContainerID": e.container.ID, "Running": e.running, "ExitCode": e.exitCode})
}

func (s *Server) start(w http.ResponseWriter, id string) {
	s.mu.Lock()
	e := s.execs[id]
	switch {
	case e == nil:
		fail(w, http.StatusNotFound, "No such exec instance: %s", id)
	case e.started:
		fail(w, http.StatusConflict, "exec command %s has already run", id)
	case e.container.state() != "running":
		fail(w, http.StatusConflict, "container %s is %s", e.container.ID, e.container.state())
	case e.container.Stuck:
		s.mu.Unlock()
		<-s.done
		return
	default:
		e.started, e.running = true, true
		s.mu.Unlock()
		s.attach(w, e)
		return
	}
	s.mu.Unlock()
}

// attach runs the program on the connection: standard input as it comes, output in frames.
func (s *Server) attach(w http.ResponseWriter, e *exec) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	// The answer and the first output go out together, as a busy engine sends them.
	out := bufio.NewWriter(conn)
	_, _ = out.WriteString("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	p := &Process{
		Args: e.request.Cmd, Env: e.request.Env, User: e.request.User,
		Stdout: frames{out, 1}, Stderr: frames{out, 2}, Done: s.done, conn: conn,
	}
	code := 126
	if program := e.container.Programs[p.Args[0]]; program == nil {
		_, _ = fmt.Fprintf(p.Stdout, "exec: %q: executable file not found in $PATH\r\n", p.Args[0])
	} else {
		code = program(p)
	}
	s.mu.Lock()
	e.running, e.exitCode = false, &code
	s.mu.Unlock()
	_ = out.Flush()
}

// frames writes one stream of the two: a byte for which, three of zero, four of length.
type frames struct {
	w      *bufio.Writer
	stream byte
}

func (f frames) Write(p []byte) (int, error) {
	head := [8]byte{f.stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	if _, err := f.w.Write(head[:]); err != nil {
		return 0, err
	}
	return f.w.Write(p)
}
