package sunrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What a reply may come to. rpcbind's whole table is some kilobytes: about 100 bytes for each of some dozen entries.
const (
	maxRecord    = 1 << 20 // bytes
	maxFragments = 1024    // of one record; they may be empty
	maxVerifier  = 400     // bytes, RFC 5531 section 8.2
)

var errOtherCall = fmt.Errorf("%w: it answers another call", ErrMalformed)

// callMessage is a call without arguments and without credentials: RFC 5531 section 9.
func callMessage(xid, program, version, procedure uint32) []byte {
	const (
		call       = 0
		rpcVersion = 2
		authNone   = 0
		noBody     = 0
	)
	var b []byte
	for _, v := range []uint32{xid, call, rpcVersion, program, version, procedure, authNone, noBody, authNone, noBody} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// lastFragment marks a record's last fragment; the other bits are its length: RFC 5531 section 11.
const lastFragment = 1 << 31

// record puts the mark in front that a message needs on a stream, all of it being one fragment.
func record(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, lastFragment|uint32(len(message))), message...)
}

// readRecord reads one record. It allocates as the bytes come, not as their count is announced.
func readRecord(r io.Reader) ([]byte, error) {
	var all []byte
	for range maxFragments {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, cutOff(err)
		}
		mark := binary.BigEndian.Uint32(head[:])
		length := int64(mark &^ lastFragment)
		if int64(len(all))+length > maxRecord {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, maxRecord)
		}
		part, err := io.ReadAll(io.LimitReader(r, length))
		if err == nil && int64(len(part)) < length {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, cutOff(err)
		}
		all = append(all, part...)
		if mark&lastFragment != 0 {
			return all, nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d fragments", ErrMalformed, maxFragments)
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrMalformed)
	}
	return err
}

// parseReply checks the header of a reply and returns the results behind it.
func parseReply(data []byte, xid uint32) ([]byte, error) {
	const (
		reply    = 1
		accepted = 0
		denied   = 1
	)
	d := decoder{data}
	if got := d.uint32(); len(data) >= 4 && got != xid {
		return nil, errOtherCall
	}
	if kind := d.uint32(); !d.failed() && kind != reply {
		return nil, fmt.Errorf("%w: message type %d", ErrMalformed, kind)
	}
	var refusal error
	switch status := d.uint32(); status {
	case accepted:
		d.uint32() // the verifier's flavor
		d.opaque(maxVerifier)
		refusal = d.acceptStatus()
	case denied:
		refusal = d.rejectStatus()
	default:
		refusal = fmt.Errorf("%w: reply status %d", ErrMalformed, status)
	}
	if d.failed() {
		return nil, cutOff(io.ErrUnexpectedEOF)
	}
	return d.rest, refusal
}

func (d *decoder) acceptStatus() error {
	switch status := d.uint32(); status {
	case 0:
		return nil
	case 1:
		return &RefusedError{Reason: "it has no such program"}
	case 2:
		low, high := d.uint32(), d.uint32()
		return &RefusedError{Reason: fmt.Sprintf("it has versions %d to %d only", low, high), Low: low, High: high}
	case 3:
		return &RefusedError{Reason: "it has no such procedure"}
	case 4:
		return &RefusedError{Reason: "it cannot read the arguments"}
	case 5:
		return &RefusedError{Reason: "system error"}
	default:
		return fmt.Errorf("%w: accept status %d", ErrMalformed, status)
	}
}

func (d *decoder) rejectStatus() error {
	switch status := d.uint32(); status {
	case 0:
		low, high := d.uint32(), d.uint32()
		return &RefusedError{Reason: fmt.Sprintf("it speaks RPC versions %d to %d only", low, high)}
	case 1:
		return &RefusedError{Reason: fmt.Sprintf("authentication, status %d", d.uint32())}
	default:
		return fmt.Errorf("%w: reject status %d", ErrMalformed, status)
	}
}

// decoder reads XDR (RFC 4506). After data that is too short or not XDR it gives zeros, and failed.
type decoder struct{ rest []byte }

func (d *decoder) fail() { d.rest = nil }

// failed is rest being nil: data that was read to its end leaves an empty slice.
func (d *decoder) failed() bool { return d.rest == nil }

func (d *decoder) uint32() uint32 {
	if len(d.rest) < 4 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(d.rest)
	d.rest = d.rest[4:]
	return v
}

// opaque reads bytes of variable length, and the zeros that fill the last word.
func (d *decoder) opaque(limit uint32) []byte {
	n := d.uint32()
	padded := (int64(n) + 3) &^ 3
	if d.failed() || n > limit || padded > int64(len(d.rest)) {
		d.fail()
		return nil
	}
	value := d.rest[:n]
	for _, b := range d.rest[n:padded] {
		if b != 0 {
			d.fail()
			return nil
		}
	}
	d.rest = d.rest[padded:]
	return value
}

func (d *decoder) bool() bool {
	v := d.uint32()
	if v > 1 {
		d.fail()
	}
	return v == 1
}
