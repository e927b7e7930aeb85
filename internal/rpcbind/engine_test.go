package rpcbind

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// TestAnEngineThatIsStuckIsNone: it says that it is there, and lists no containers. Mode host does without it.
func TestAnEngineThatIsStuckIsNone(t *testing.T) {
	t.Parallel() // it waits for real
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stuck := make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case strings.HasSuffix(r.URL.Path, "/version"):
			_, _ = w.Write([]byte(`{"Version": "20.10.24", "ApiVersion": "1.41"}`))
		default:
			<-stuck
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { close(stuck); server.Close() })
	m := &machine{proc: "/proc", connect: func(ctx context.Context) (*engine.Engine, string) {
		e, err := engine.Connect(ctx, engine.Docker, socket)
		if err != nil {
			return nil, err.Error()
		}
		return e, ""
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	var s Seen
	err = m.lookAtContainers(ctx, options(OnHost), &s)
	if err != nil || !strings.Contains(s.EngineError, "cannot list containers") || time.Since(began) > 2*engineLimit {
		t.Errorf("after %v: %v, %q", time.Since(began), err, s.EngineError)
	}
}
