package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// SearchPath is where programs of the host are looked for. A test looks elsewhere.
var SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// What is kept of the task's own environment: how the repositories are reached.
var proxies = []string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}

// environment is what a program of the host is started with, whatever the task was started with. Programs are understood by what they print:
// sudo and PAM hand on LANGUAGE from /etc/default/locale, which counts for gettext in every locale but C.
func environment() []string {
	env := []string{"PATH=" + SearchPath, "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if slices.Contains(proxies, strings.ToLower(name)) {
			env = append(env, pair)
		}
	}
	return env
}

// pipeLimit is how long a program that has ended may have left its output open to one that it started, such as a service.
var pipeLimit = 5 * time.Second

// command is a program of the host with that environment.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	path := program
	for _, folder := range strings.Split(SearchPath, ":") {
		if found, err := exec.LookPath(folder + "/" + program); err == nil {
			path = found
			break
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if path == program { // the task's own PATH is not asked
		cmd.Path, cmd.Err = program, fmt.Errorf("%s: %w", program, exec.ErrNotFound)
	}
	cmd.Env, cmd.WaitDelay = environment(), pipeLimit
	return cmd
}

// systemd is what systemctl wrote to standard output. The error has what it wrote to standard error.
func systemd(ctx context.Context, args ...string) ([]byte, error) {
	out, err := command(ctx, "systemctl", args...).Output()
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well
		err = nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return out, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return out, err
}
