package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Unit is a systemd unit as systemctl show describes it.
type Unit struct {
	Load    string // "loaded", "masked", "not-found"
	Active  string // "active", "inactive", "failed", "activating", …
	File    string // "enabled", "disabled", "static", "masked", "masked-runtime"; empty without a file
	Reload  bool   // its files changed since systemd read them
	MainPID string // "0" while it has none
	Restart string // "no", "on-failure", "always", …
}

// Exists is false of a unit that has no file, or a mask for one.
func (u Unit) Exists() bool { return u.Load == "loaded" }

// Masked units cannot be started.
func (u Unit) Masked() bool { return u.Load == "masked" || strings.HasPrefix(u.File, "masked") }

// Runs is true of a unit that systemd has started.
func (u Unit) Runs() bool {
	return u.Active == "active" || u.Active == "activating" || u.Active == "reloading"
}

// Booted tells whether systemd runs this host: sd_booted(3).
func Booted() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// Units asks systemd for all of them in one call.
func Units(ctx context.Context, names ...string) (map[string]Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	args := append([]string{"show", "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,MainPID,Restart", "--"}, names...)
	out, err := systemd(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd for %s: %w", strings.Join(names, ", "), err)
	}
	return parseUnits(out, names)
}

// parseUnits reads one paragraph for each name, in their order. Id is not the key: an alias has another.
func parseUnits(out []byte, names []string) (map[string]Unit, error) {
	paragraphs := bytes.Split(bytes.TrimSpace(out), []byte("\n\n"))
	if len(paragraphs) != len(names) {
		return nil, fmt.Errorf("cannot read what systemd says: %d answers to %d questions", len(paragraphs), len(names))
	}
	units := make(map[string]Unit, len(names))
	for i, text := range paragraphs {
		var u Unit
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
			switch key {
			case "LoadState":
				u.Load = value
			case "ActiveState":
				u.Active = value
			case "UnitFileState":
				u.File = value
			case "NeedDaemonReload":
				u.Reload = value == "yes"
			case "MainPID":
				u.MainPID = value
			case "Restart":
				u.Restart = value
			}
		}
		units[names[i]] = u
	}
	return units, nil
}

// Wake sends SIGCONT to the processes of units. One that does not run is no failure.
func Wake(ctx context.Context, units ...string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, _ = systemd(ctx, append([]string{"kill", "--signal=SIGCONT", "--"}, units...)...)
}

// MaskForBoot forbids to start units until the next boot, or until UnmaskForBoot. They need not exist yet.
func MaskForBoot(ctx context.Context, limit time.Duration, units ...string) error {
	return systemctl(ctx, limit, []string{"--runtime"}, "mask", units)
}

// UnmaskForBoot takes that back, and leaves masks that last.
func UnmaskForBoot(ctx context.Context, limit time.Duration, units ...string) error {
	return systemctl(ctx, limit, []string{"--runtime"}, "unmask", units)
}

// Unmask removes masks, those for this boot only too.
func Unmask(ctx context.Context, limit time.Duration, units ...string) error {
	if err := UnmaskForBoot(ctx, limit, units...); err != nil {
		return err
	}
	return systemctl(ctx, limit, nil, "unmask", units)
}

// Systemctl runs systemctl and waits for systemd's jobs, limit at most.
func Systemctl(ctx context.Context, limit time.Duration, verb string, units ...string) error {
	return systemctl(ctx, limit, nil, verb, units)
}

func systemctl(ctx context.Context, limit time.Duration, options []string, verb string, units []string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := append([]string{"--no-ask-password"}, append(options, verb)...)
	if len(units) > 0 {
		args = append(append(args, "--"), units...)
	}
	if _, err := systemd(ctx, args...); err != nil {
		return fmt.Errorf("cannot %s %s: %w", verb, strings.Join(units, " "), err)
	}
	return nil
}
