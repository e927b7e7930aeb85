package host

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
)

// parseAddress reads the hexadecimal of /proc/net/tcp: words of four bytes in the byte order of the machine, which is little
// endian on every one that this project is built for.
func parseAddress(text string) (string, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return "", fmt.Errorf("%q is no address", text)
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	ip, _ := netip.AddrFromSlice(raw)
	return ip.Unmap().String(), nil
}

// Addresses are those of this host's own interfaces.
func Addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("cannot list this host's addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, prefix.Addr().Unmap().WithZone(""))
		}
	}
	return all, nil
}
