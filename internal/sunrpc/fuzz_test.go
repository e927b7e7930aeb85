package sunrpc

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzReply reads a record and the reply in it. Whatever comes is either a reply or an error of the package's own.
func FuzzReply(f *testing.F) {
	const xid = 0x01020304
	f.Add(record(accept(xid, encodeDump(table)...)))
	f.Add(record(words(xid, 1, 0, 0, 0, 2, 2, 4)))
	f.Add(record(words(xid, 1, 1, 0, 2, 2)))
	f.Add(append(words(4), append(words(xid), record(words(1, 0, 0, 0, 0))...)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		message, err := readRecord(bytes.NewReader(data))
		if err == nil {
			if len(message) > maxRecord || len(message) > len(data) {
				t.Fatalf("%d bytes of %d", len(message), len(data))
			}
			_, err = parseReply(message, xid)
		}
		var refused *RefusedError
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzDump: a table that is accepted is the encoding of what was read from it, to the last bit.
func FuzzDump(f *testing.F) {
	f.Add(encodeDump(nil))
	f.Add(encodeDump(table))
	f.Add(words(1, 1, 1, 0, 0, 0))
	f.Add(words(1, 1, 1, 0xffffffff))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := parseDump(data, 4)
		if err == nil && !bytes.Equal(encodeDump(rows), data) {
			t.Errorf("%x was read as %v", data, rows)
		}
		for _, r := range rows {
			r.Port()
		}
		if rows, err := parseDump(data, 2); err == nil && len(data) != 20*len(rows)+4 {
			t.Errorf("%d rows in %d bytes", len(rows), len(data))
		}
	})
}
