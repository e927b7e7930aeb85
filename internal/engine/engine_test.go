package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
)

// listen starts an engine on a socket of its own. The name of a Unix socket has room for 107 bytes (unix(7)), which
// t.TempDir may exceed.
func listen(t *testing.T, e enginetest.Engine) (server *enginetest.Server, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "sock")
	server, err = enginetest.Listen(socket, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, socket
}

// reach connects to a current engine with these containers.
func reach(t *testing.T, containers ...enginetest.Container) (*Engine, *enginetest.Server) {
	t.Helper()
	server, socket := listen(t, enginetest.Engine{Version: "20.10.24", API: "1.41", MinAPI: "1.12", Containers: containers})
	e, err := Connect(t.Context(), Auto, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, server
}

func TestEnginesOfAllAgesAreSpokenToInAVersionTheyKnow(t *testing.T) {
	program := func(*enginetest.Process) int { return 3 }
	for _, test := range []struct {
		name             string
		api, min, spoken string
	}{
		{"older than the client's minimum", "1.38", "1.12", "/v1.38/"},
		{"much older", "1.24", "1.12", "/v1.24/"},
		{"the client's minimum", "1.40", "1.12", "/v1.40/"},
		{"between", "1.41", "1.12", "/v1.41/"},
		{"newer than the client, and old versions refused", "1.99", "1.44", "/v1.56/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, socket := listen(t, enginetest.Engine{Version: "18.06.3-ce", API: test.api, MinAPI: test.min, Containers: []enginetest.Container{
				{ID: "0a", Name: "nova_compute", Programs: map[string]func(*enginetest.Process) int{"dpkg": program}},
			}})
			e, err := Connect(t.Context(), Docker, "unix://"+socket)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if e.Name != "docker" || e.Version != "18.06.3-ce" {
				t.Errorf("got %s %s", e.Name, e.Version)
			}
			if list, err := e.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != "0a" {
				t.Errorf("list: %v, %v", list, err)
			}
			if _, err := e.Inspect(t.Context(), "nova_compute"); err != nil {
				t.Error(err)
			}
			if got, err := e.Exec(t.Context(), "0a", Command{Args: []string{"dpkg"}}); err != nil || got.ExitCode != 3 {
				t.Errorf("exec: %v, %v", got, err)
			}
			if err := e.Restart(t.Context(), "0a", 0); err != nil {
				t.Error(err)
			}
			calls := 0
			for _, path := range server.Paths() {
				if path == "/_ping" {
					continue
				}
				calls++
				if !strings.HasPrefix(path, test.spoken) {
					t.Errorf("request for %s, want %s...", path, test.spoken)
				}
			}
			if calls != 7 { // version, list, inspect, three for exec, restart
				t.Errorf("%d calls: %v", calls, server.Paths())
			}
		})
	}
}

func TestTheEnvironmentDoesNotChooseTheEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
	t.Setenv("DOCKER_API_VERSION", "1.12")
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:3128")
	_, server := reach(t)
	if diff := cmp.Diff([]string{"/_ping", "/_ping", "/v1.41/version"}, server.Paths()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNoEngineAtTheSocketIsAnErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"absent": filepath.Join(dir, "absent.sock"), "a file": file, "a folder": dir} {
		t.Run(name, func(t *testing.T) {
			e, err := Connect(t.Context(), Auto, path)
			if err == nil {
				e.Close()
				t.Fatal("connected")
			}
			if want := "cannot reach docker at " + path + ": "; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %q, want it to begin with %q", err, want)
			}
		})
	}
}

func TestLocate(t *testing.T) {
	const docker, podman = dockerSocket, podmanSocket
	for _, test := range []struct {
		name    string
		kind    Kind
		socket  string
		there   []string
		want    string
		wantErr []string
	}{
		{name: "auto takes docker", kind: Auto, there: []string{docker}, want: docker},
		{name: "auto takes docker beside podman", kind: Auto, there: []string{docker, podman}, want: docker},
		{name: "with nothing there docker is what is missed", kind: Auto, want: docker},
		{name: "auto with podman alone names podman", kind: Auto, there: []string{podman}, wantErr: []string{docker, podman, "knows docker only"}},
		{name: "docker on request, whatever is there", kind: Docker, there: []string{podman}, want: docker},
		{name: "a path", kind: Auto, socket: "/srv/engine.sock", there: []string{podman}, want: "/srv/engine.sock"},
		{name: "a unix address", kind: Docker, socket: "unix:///srv/engine.sock", want: "/srv/engine.sock"},
		{name: "a unix address without a path", kind: Docker, socket: "unix://", want: docker},
		{name: "tcp is refused", kind: Auto, socket: "tcp://10.0.0.1:2375", wantErr: []string{`"tcp://10.0.0.1:2375"`, "unix socket"}},
		{name: "ssh is refused", kind: Docker, socket: "ssh://root@host", wantErr: []string{`"ssh://root@host"`, "unix socket"}},
		{name: "podman is refused", kind: Podman, there: []string{podman}, wantErr: []string{"cannot use podman", "knows docker only"}},
		{name: "podman is refused with a socket, too", kind: Podman, socket: podman, wantErr: []string{"cannot use podman"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := locate(test.kind, test.socket, func(path string) bool { return slices.Contains(test.there, path) })
			if got != test.want || (err != nil) != (test.wantErr != nil) {
				t.Fatalf("got %q, %v; want %q", got, err, test.want)
			}
			for _, want := range test.wantErr {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestExistsCountsWhatCannotBeSeenAsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{file: true, file + ".absent": false, file + "/below": true} {
		if got := exists(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"1.38", "1.40", true},
		{"1.9", "1.40", true},
		{"1.40", "1.40", false},
		{"1.100", "1.40", false},
		{"2.0", "1.40", false},
		{"0.99", "1.40", true},
		{"", "1.40", false},
		{"new", "1.40", false},
		{"1", "1.40", false},
	} {
		if got := olderThan(test.a, test.b); got != test.want {
			t.Errorf("olderThan(%q, %q) = %v", test.a, test.b, got)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	for _, test := range []struct {
		name   string
		writes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"less than the limit", []string{"abc"}, "abc"},
		{"one long write", []string{"abcdefgh"}, "efgh"},
		{"many writes", []string{"ab", "cd", "e", "fg"}, "defg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := &tail{limit: 4}
			for _, s := range test.writes {
				if n, err := out.Write([]byte(s)); n != len(s) || err != nil {
					t.Errorf("Write(%q) = %d, %v", s, n, err)
				}
			}
			if out.String() != test.want {
				t.Errorf("got %q, want %q", out, test.want)
			}
		})
	}
}
