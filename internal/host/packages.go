package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
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

// ErrBusy is of a package tool whose lock another one holds. It says nothing of whether a package can be had.
var ErrBusy = errors.New("another package tool is at work on this host")

// ErrNeeded is of a package that another one needs.
var ErrNeeded = errors.New("another package needs it")

// apt gives up a mirror that does not answer sooner than it would by itself, which is minutes for each file.
var impatient = []string{"-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10", "-o", "Acquire::ftp::Timeout=10", "-o", "Acquire::Retries=1"}

// How long a lock that another tool holds is waited for.
const (
	lockLimit = 2 * time.Minute
	lockRetry = 2 * time.Second
)

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
	return patiently(ctx, func() error {
		return run(ctx, "apt-get", append(append(listsIn(lists), impatient...), "--quiet", "update")...)
	})
}

func listsIn(folder string) []string {
	if folder == "" {
		return nil
	}
	return []string{"-o", "Dir::State::lists=" + folder, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="}
}

// Fetch downloads the packages, and installs nothing. apt's lists may be older than the mirror, which then has these files no longer: where
// it fails, they are fetched once, and it is tried again.
func (t PackageTool) Fetch(ctx context.Context, packages []string) error {
	err := t.install(ctx, packages, "--download-only", "--downloadonly")
	if err == nil || t != Apt || errors.Is(err, ErrBusy) {
		return err
	}
	if refreshed := t.Refresh(ctx, ""); refreshed != nil {
		return errors.Join(err, refreshed)
	}
	return t.install(ctx, packages, "--download-only", "")
}

// Install installs the packages without what they merely recommend.
func (t PackageTool) Install(ctx context.Context, packages []string) error {
	return t.install(ctx, packages, "", "")
}

func (t PackageTool) install(ctx context.Context, packages []string, apt, dnf string) error {
	switch t {
	case Apt:
		// A lock that somebody else holds is waited for, within the context's time.
		args := append([]string{"--quiet", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"}, impatient...)
		if apt != "" {
			args = append(args, apt)
		}
		return patiently(ctx, func() error { return run(ctx, "apt-get", append(append(args, "install", "--"), packages...)...) })
	case Dnf:
		args := []string{"--quiet", "--assumeyes", "--setopt=install_weak_deps=False", "install"}
		if dnf != "" {
			args = append(args, dnf)
		}
		return run(ctx, "dnf", append(args, packages...)...)
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// Removable tells whether the packages could be removed without another one that needs them, and changes nothing: ErrNeeded if not.
func (t PackageTool) Removable(ctx context.Context, packages []string) error {
	switch t {
	case Apt:
		return run(ctx, "dpkg", append([]string{"--no-act", "--remove", "--"}, packages...)...)
	case Dnf:
		return goneIsFine(run(ctx, "rpm", append([]string{"--erase", "--test", "--"}, packages...)...))
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// Remove removes the packages; their configuration and what they kept stays. One that another package needs is refused, which is why
// the tools below apt and dnf do it: those two would remove the other package as well. A lock that somebody else holds is waited for.
func (t PackageTool) Remove(ctx context.Context, packages []string) error {
	switch t {
	case Apt:
		return patiently(ctx, func() error { return run(ctx, "dpkg", append([]string{"--remove", "--"}, packages...)...) })
	case Dnf:
		return goneIsFine(run(ctx, "rpm", append([]string{"--erase", "--"}, packages...)...))
	}
	return errors.New("this distribution has neither apt nor dnf")
}

// goneIsFine: rpm, unlike dpkg, fails where a package is not installed.
func goneIsFine(err error) error {
	if err != nil && strings.HasSuffix(err.Error(), "is not installed") {
		return nil
	}
	return err
}

// patiently does it again while another tool holds a lock, for lockLimit at the longest.
func patiently(ctx context.Context, do func() error) error {
	began := time.Now()
	for {
		err := do()
		if !errors.Is(err, ErrBusy) || time.Since(began) > lockLimit {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockRetry):
		}
	}
}

// run gives the end of what a program that failed printed, where package tools say why.
func run(ctx context.Context, program string, args ...string) error {
	out, err := command(ctx, program, args...).CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // with the latter, it ended well
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
	if why := reason(string(out)); why != nil {
		return fmt.Errorf("%s: %w: %w: %s", program, why, err, strings.Join(said, " "))
	}
	return fmt.Errorf("%s: %w: %s", program, err, strings.Join(said, " "))
}

// reason knows the two refusals that are told apart. apt, dpkg and rpm say it in these words (apt-pkg/contrib/fileutl.cc,
// dpkg's lib/dpkg/file.c and src/main/remove.c, rpm's lib/rpmps.c and lib/rpmlock.c), and in English: command sees to it.
func reason(said string) error {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(said, part) })
	}
	switch {
	case has("Could not get lock", "Unable to acquire the dpkg frontend lock", "locked by another process", "can't create transaction lock"):
		return ErrBusy
	case has("dependency problems prevent removal", "is needed by (installed)"):
		return ErrNeeded
	}
	return nil
}
