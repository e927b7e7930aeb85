// Package rpcbind makes rpcbind and rpc.statd live on the host, or in a container that outlives the mounts, and proves it
// by asking them. Observe, plan, apply, verify, report: only apply changes anything.
//
// One rule stands above all: a statd that starts with notification tells the NFS servers that this host rebooted, and they
// drop the locks of its running guests. See docs/decisions/0007-statd-without-notification.md.
package rpcbind

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
)

// Options are the user's words, of the right type already. The documentation of each is in modules/rpcbind_ensure.
type Options struct {
	State         string      `json:"state"`
	Mode          Mode        `json:"mode"`
	Statd         bool        `json:"statd"`
	Image         string      `json:"image"`
	ContainerName string      `json:"container_name"`
	Listen        []string    `json:"listen"`
	Force         bool        `json:"force"`
	Engine        engine.Kind `json:"engine"`
	EngineSocket  string      `json:"engine_socket"`
	Timeout       int         `json:"timeout"` // seconds
}

// Mode is where the services run.
type Mode string

// The modes. A plan has one of the latter two, or none when it fails or removes.
const (
	Auto        Mode = "auto"
	OnHost      Mode = "host"
	InContainer Mode = "container"
)

const absent = "absent"

func (o Options) absent() bool { return o.State == absent }

func (o Options) limit() time.Duration { return time.Duration(o.Timeout) * time.Second }

func (o Options) timeIsUp() error { return fmt.Errorf("the run's time, %v, is up", o.limit()) }

// What the engine takes for a container's name (Docker: RestrictedNamePattern), and systemd for a part of a unit's.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// check finds what no single option's type can tell, and puts the addresses into one form.
func (o *Options) check() error {
	if o.Timeout <= 0 {
		return fmt.Errorf("cannot use timeout %d: it is the seconds that the whole run may take", o.Timeout)
	}
	if !containerName.MatchString(o.ContainerName) {
		return fmt.Errorf("cannot use container_name %q: no container can be called that", o.ContainerName)
	}
	var all []string
	for _, text := range o.Listen {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("cannot listen at %q: listen takes addresses of this host, such as 192.0.2.10; leave it out for every address", text)
		}
		if ip.Is6() && ip.IsLinkLocalUnicast() {
			return fmt.Errorf("cannot listen at %q: a link-local address is one of a link, which neither systemd's sockets nor a server's call names; "+
				"give the host's address in the storage network", text)
		}
		all = append(all, ip.Unmap().String())
	}
	slices.Sort(all)
	o.Listen = slices.Compact(all)
	return nil
}

// addresses are those to listen at: the user's, and loopback, over which everything on this host asks, the kernel too. Of each of the
// two protocols there has to be one: for a protocol that it gets no socket of, rpcbind opens every address itself (measured, 1.2.6).
// Empty means every address.
func (o Options) addresses(ipv6 bool) []string {
	if len(o.Listen) == 0 {
		return nil
	}
	all := []string{"127.0.0.1"}
	if ipv6 {
		all = append(all, "::1")
	}
	for _, a := range o.Listen {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
