package host

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a process on this host, in a container or not.
type Process struct {
	PID         int
	Name        string // comm, at most 15 bytes: proc(5)
	Stopped     bool   // by a signal
	Container   string // the engine's id of the container it is in, 64 hex digits; empty outside
	Unit        string // the systemd unit it belongs to, outside of containers
	OwnPIDs     bool   // it is in another PID namespace than the host's first process
	HostNetwork bool   // it shares the host's network, so its ports are the host's
	PIDInside   int    // what it calls itself in its own PID namespace
}

// Processes finds the processes with one of the names below proc, usually "/proc". Zombies are none: they answer nobody.
func Processes(proc string, names ...string) ([]Process, error) {
	pids, err := pids(proc)
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, pid := range pids {
		comm, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
		if err != nil || !slices.Contains(names, strings.TrimSuffix(string(comm), "\n")) {
			continue
		}
		if p, ok := process(proc, pid); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

// PIDs lists the processes below proc, usually "/proc", in the order of their numbers.
func PIDs(proc string) ([]int, error) { return pids(proc) }

// pids lists the processes in the order of their numbers, so that the host's first one is the first.
func pids(proc string) ([]int, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list, nil
}

// process looks at one process. One that ends meanwhile is none.
func process(proc string, pid int) (Process, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	p := Process{PID: pid}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, false
	}
	state := ""
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); key {
		case "Name":
			p.Name = value
		case "State":
			state, _, _ = strings.Cut(value, " ")
		case "NSpid": // from the outermost namespace to its own
			fields := strings.Fields(value)
			p.PIDInside, _ = strconv.Atoi(fields[len(fields)-1])
		}
	}
	if state == "Z" || state == "X" {
		return p, false
	}
	p.Stopped = state == "T" || state == "t"
	p.OwnPIDs = !sameNamespace(proc, pid, "pid")
	p.HostNetwork = sameNamespace(proc, pid, "net")
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return p, false
	}
	p.Container, p.Unit = owner(string(cgroup))
	return p, true
}

// sameNamespace compares with the host's first process.
func sameNamespace(proc string, pid int, kind string) bool {
	first, err1 := os.Readlink(filepath.Join(proc, "1", "ns", kind))
	other, err2 := os.Readlink(filepath.Join(proc, strconv.Itoa(pid), "ns", kind))
	return err1 == nil && err2 == nil && first == other
}

// Docker's and Podman's cgroups, version 1 and 2, with either driver: "/docker/<id>", "/system.slice/docker-<id>.scope",
// "/machine.slice/libpod-<id>.scope/container".
var containerID = regexp.MustCompile(`(?:^|[/-])([0-9a-f]{64})(?:$|[/.])`)

// owner reads /proc/PID/cgroup: lines "1:name=systemd:/system.slice/rpc-statd.service", or one line "0::/…" (cgroups(7)).
func owner(cgroup string) (container, unit string) {
	for line := range strings.Lines(cgroup) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if m := containerID.FindStringSubmatch(parts[2]); m != nil {
			return m[1], ""
		}
		if base := filepath.Base(parts[2]); strings.HasSuffix(base, ".service") && (parts[0] == "0" || parts[1] == "name=systemd") {
			unit = base
		}
	}
	return "", unit
}

// ContainerOf is the engine's id of the container that a process is in; empty outside.
func ContainerOf(proc string, pid int) string {
	cgroup, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	id, _ := owner(string(cgroup))
	return id
}

// StartOf is when a process was started, in clock ticks since boot. With its number it names it for good: no clock that is set changes it.
func StartOf(proc string, pid int) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("cannot tell when process %d was started: %w", pid, err)
	}
	// The name before, in brackets, may hold anything. The start is the 22nd field, the 20th behind it: proc(5).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("cannot tell when process %d was started: the kernel does not say", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// EndProcess ends a process, by force if it does not heed SIGTERM within grace, and waits until it is gone. name guards
// against a number that meanwhile belongs to another process.
func EndProcess(ctx context.Context, pid int, name string, grace time.Duration) error {
	p, err := os.FindProcess(pid) // by a file descriptor, so from here on it is this process: pidfd_open(2)
	if err != nil {
		return fmt.Errorf("cannot end process %d: %w", pid, err)
	}
	defer func() { _ = p.Release() }()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(comm)) != name {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot end process %d: %w", pid, err)
	}
	deadline := time.Now().Add(grace)
	// A stopped process takes no signal but these two.
	err = p.Signal(syscall.SIGTERM)
	if err == nil {
		err = p.Signal(syscall.SIGCONT)
	}
	for killed := false; err == nil; {
		if !lives(pid, name) {
			return nil
		}
		if time.Now().After(deadline) {
			if killed {
				return fmt.Errorf("cannot end process %d (%s): it survives SIGKILL", pid, name)
			}
			killed = true
			deadline = time.Now().Add(grace)
			err = p.Signal(syscall.SIGKILL)
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the end of process %d (%s): %w", pid, name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return fmt.Errorf("cannot end process %d (%s): %w", pid, name, err)
}

// lives is false of a zombie, which its container's first process may never collect.
func lives(pid int, name string) bool {
	p, ok := process("/proc", pid)
	return ok && p.Name == name
}

// Socket is an open socket that is bound to a port of the host.
type Socket struct {
	Address string // "0.0.0.0", "::", "192.0.2.1"
	TCP     bool   // listening; else UDP
	inode   string
}

// Bound finds what is bound to a port in the host's network: TCP sockets that listen, and UDP.
func Bound(proc string, port uint16) ([]Socket, error) {
	var all []Socket
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		file, err := os.Open(filepath.Join(proc, "1", "net", table))
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list sockets: %w", err)
		}
		found, err := parseSockets(file, port, strings.HasPrefix(table, "tcp"))
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot list sockets: %w", err)
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b Socket) int { return cmp.Compare(a.Address, b.Address) })
	return all, nil
}

// parseSockets reads a table of /proc/net: the fields are, from 0, slot, local address, remote address, state, …, and the
// inode is the tenth (proc_net_tcp in the kernel's documentation).
func parseSockets(r io.Reader, port uint16, tcp bool) ([]Socket, error) {
	const listening = "0A"
	var found []Socket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || tcp && fields[3] != listening {
			continue
		}
		address, number, ok := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(number, 16, 16); !ok || err != nil || uint16(n) != port {
			continue
		}
		ip, err := parseAddress(address)
		if err != nil {
			return nil, err
		}
		found = append(found, Socket{ip, tcp, fields[9]})
	}
	return found, lines.Err()
}

// Holders names the processes that hold one of the sockets. likely are looked at first, because going through all open files of
// a host with many guests takes long; the first process, which may be systemd, is always among them.
func Holders(proc string, sockets []Socket, likely []int) ([]int, error) {
	all, err := pids(proc)
	if err != nil {
		return nil, err
	}
	return HoldersAmong(proc, sockets, slices.Concat([]int{1}, likely, all)), nil
}

// HoldersAmong keeps of the processes those that hold one of the sockets, and stops when all sockets are found. The kernel's own, such
// as its lock manager's, are held by no process.
func HoldersAmong(proc string, sockets []Socket, among []int) (holders []int) {
	wanted := map[string]bool{}
	for _, s := range sockets {
		wanted["socket:["+s.inode+"]"] = true
	}
	seen := map[string]bool{}
	for _, pid := range among {
		if len(seen) == len(wanted) {
			break
		}
		if slices.Contains(holders, pid) {
			continue
		}
		dir := filepath.Join(proc, strconv.Itoa(pid), "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it ended, or is the kernel's
		}
		holds := false
		for _, entry := range entries {
			if link, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && wanted[link] {
				seen[link], holds = true, true
			}
		}
		if holds {
			holders = append(holders, pid)
		}
	}
	return holders
}

// CommandName is the process's name, empty if there is no such process.
func CommandName(proc string, pid int) string {
	comm, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(comm))
}
