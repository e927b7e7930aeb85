package sunrpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Registration is one row of rpcbind's table.
type Registration struct {
	Program uint32
	Version uint32
	NetID   string // "tcp", "udp", "tcp6", "udp6" or "local"
	Address string // universal: "0.0.0.0.0.111", "::.0.111" (RFC 5665), or a path
	Owner   string // as rpcbind has it: "superuser", a user id, "unknown"; empty in version 2
}

// Port is the number at the end of the address; false of a path.
func (r Registration) Port() (uint16, bool) {
	parts := strings.Split(r.Address, ".")
	if len(parts) < 3 || strings.HasPrefix(r.Address, "/") {
		return 0, false
	}
	high, err1 := strconv.ParseUint(parts[len(parts)-2], 10, 8)
	low, err2 := strconv.ParseUint(parts[len(parts)-1], 10, 8)
	if err1 != nil || err2 != nil {
		return 0, false
	}
	return uint16(high<<8 | low), true
}

// Bounds of a table: honest ones have some dozen rows, universal addresses below 60 bytes and paths below 108 (unix(7)).
const (
	maxRows   = 4096
	maxString = 256 // bytes
)

// Dump asks rpcbind, or a portmapper, for its table in the newest version that it speaks, and tells which that was. Only
// versions 4 and 3 show what is registered for local transports.
func (c Client) Dump(ctx context.Context, t Target) (rows []Registration, version uint32, err error) {
	for _, version = range []uint32{4, 3, 2} {
		rows, err = c.DumpVersion(ctx, t, version)
		var refused *RefusedError
		if !errors.As(err, &refused) {
			break
		}
	}
	return rows, version, err
}

// DumpVersion asks for the table in that version: 4, 3 or 2.
func (c Client) DumpVersion(ctx context.Context, t Target, version uint32) ([]Registration, error) {
	rest, err := c.call(ctx, t, Portmapper, version, procDump)
	var rows []Registration
	if err == nil {
		rows, err = parseDump(rest, version)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read rpcbind's table, version %d, at %s: %w", version, t, err)
	}
	return rows, nil
}

// parseDump reads a list of rows, each with a one in front, and a zero behind the last: RFC 1833 sections 2.1 and 3.1.
func parseDump(data []byte, version uint32) ([]Registration, error) {
	d := decoder{data}
	var rows []Registration
	for d.bool() {
		if len(rows) == maxRows {
			return nil, fmt.Errorf("%w: more than %d rows", ErrMalformed, maxRows)
		}
		r := Registration{Program: d.uint32(), Version: d.uint32()}
		if version == 2 {
			r.mapping(d.uint32(), d.uint32())
		} else {
			r.NetID, r.Address, r.Owner = string(d.opaque(maxString)), string(d.opaque(maxString)), string(d.opaque(maxString))
		}
		if d.failed() {
			break
		}
		rows = append(rows, r)
	}
	if d.failed() || len(d.rest) > 0 {
		return nil, fmt.Errorf("%w: it is no list of registrations", ErrMalformed)
	}
	return rows, nil
}

// mapping gives what version 2 says, a protocol of IP and a port, the form of the later versions.
func (r *Registration) mapping(protocol, port uint32) {
	switch protocol {
	case 6:
		r.NetID = "tcp"
	case 17:
		r.NetID = "udp"
	default:
		r.NetID = fmt.Sprintf("protocol %d", protocol)
	}
	if port <= 0xffff {
		r.Address = fmt.Sprintf("0.0.0.0.%d.%d", port>>8, port&0xff)
	}
}
