// Package host knows the host beside its containers: its systemd units and its processes.
package host

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// askTimeout bounds a question to systemd, which answers in milliseconds when it answers at all.
const askTimeout = 20 * time.Second

// UnitRuns tells whether systemd on this host has the unit and has started it. A host that systemd did not boot has none;
// sd_booted(3) names the folder that says so. A unit that is loaded but stopped does not own a container that runs. One that runs and
// that systemd would refuse to restart is an error, so that whoever asks begins nothing.
func UnitRuns(ctx context.Context, unit string) (bool, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := systemd(ctx, "show", "--property=LoadState", "--property=ActiveState", "--", unit)
	if err != nil {
		return false, fmt.Errorf("cannot ask systemd for %s: %w", unit, err)
	}
	return runs(unit, string(out))
}

// runs judges what systemctl show prints of a unit, in whatever order. The states are those of systemd's unit-def.c.
func runs(unit, shown string) (bool, error) {
	var load, active string
	for line := range strings.Lines(shown) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "LoadState":
			load = value
		case "ActiveState":
			active = value
		}
	}
	switch active {
	case "active", "activating", "reloading", "refreshing", "deactivating":
	case "inactive", "failed", "maintenance":
		return false, nil
	default:
		return false, fmt.Errorf("cannot tell whether %s runs: systemd says %q", unit, shown)
	}
	const wayOut = "or set restart: never, and restart the container by hand"
	switch load {
	case "loaded":
		return true, nil
	case "masked":
		return false, fmt.Errorf("systemd would refuse to restart %s, which runs but is masked: systemctl unmask it and have kolla-ansible write it again, %s", unit, wayOut)
	default:
		return false, fmt.Errorf("systemd would refuse to restart %s, which runs but whose unit file is %s: have kolla-ansible write it again, %s", unit, load, wayOut)
	}
}

// RestartUnit restarts the unit and waits for systemd's job, limit at most. "unit file changed on disk" is a warning of
// systemctl's that kolla-ansible's units give as a rule, and no failure.
func RestartUnit(ctx context.Context, unit string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := systemd(ctx, "restart", "--", unit); err != nil {
		return fmt.Errorf("cannot restart %s: %w", unit, err)
	}
	return nil
}
