package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// PackageTool installs packages on the host: "apt", "dnf", or empty where neither is the distribution's way.
type PackageTool string

// The tools that are known.
const (
	Apt PackageTool = "apt"
	Dnf PackageTool = "dnf"
)

// ToolFor is the tool of a distribution, by the ID of its os-release.
func ToolFor(id string) PackageTool {
	switch id {
	case "debian", "ubuntu":
		return Apt
	case "rhel", "centos", "rocky", "almalinux", "fedora", "ol":
		return Dnf
	}
	return ""
}

// Installable tells whether the packages could be installed, and changes nothing. The error says why not. apt goes by its lists of
// what the repositories have: those in that folder, or the host's own if it is empty.
func (t PackageTool) Installable(ctx context.Context, lists string, packages []string) error {
	switch t {
	case Apt:
		args := append(listsIn(lists), "--simulate", "--quiet", "--yes", "--no-install-recommends", "install", "--")
		return run(ctx, "apt-get", append(args, packages...)...)
	case Dnf:
		for _, name := range packages { // list succeeds if it finds one of several
			if err := run(ctx, "dnf", "--quiet", "list", "--available", name); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// Refresh fetches apt's lists. dnf does so by itself.
func (t PackageTool) Refresh(ctx context.Context, lists string) error {
	if t != Apt {
		return nil
	}
	return run(ctx, "apt-get", append(listsIn(lists), "--quiet", "update")...)
}

func listsIn(folder string) []string {
	if folder == "" {
		return nil
	}
	return []string{"-o", "Dir::State::lists=" + folder, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="}
}

// Install installs the packages without what they merely recommend.
func (t PackageTool) Install(ctx context.Context, packages []string) error {
	switch t {
	case Apt:
		// A lock that somebody else holds is waited for, within the context's time.
		args := []string{"--quiet", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold", "install", "--"}
		return run(ctx, "apt-get", append(args, packages...)...)
	case Dnf:
		return run(ctx, "dnf", append([]string{"--quiet", "--assumeyes", "--setopt=install_weak_deps=False", "install"}, packages...)...)
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// Remove removes the packages; their configuration and what they kept stays. One that another package needs is refused, which is why
// the tools below apt and dnf do it: those two would remove the other package as well.
func (t PackageTool) Remove(ctx context.Context, packages []string) error {
	switch t {
	case Apt:
		return run(ctx, "dpkg", append([]string{"--remove", "--"}, packages...)...)
	case Dnf:
		return run(ctx, "rpm", append([]string{"--erase", "--"}, packages...)...)
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// run gives the end of what a program that failed printed, where package tools say why.
func run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var said []string
	for _, line := range lines {
		if strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "Error:") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		said = lines[max(0, len(lines)-3):]
	}
	return fmt.Errorf("%s: %w: %s", program, err, strings.Join(said, " "))
}
