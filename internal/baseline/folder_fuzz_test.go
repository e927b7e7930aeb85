package baseline

import "testing"

// The index lies in a folder of root's, but a power cut or a hand may have damaged it.
func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"schema":1,"id":"0","packages":[{"name":"qemu-utils","file":"qemu-utils.deb","size":1}]}`))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"packages":[{"name":"../x","file":"../../etc/passwd"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex("index.json", data)
		if (x == nil) == (err == nil) {
			t.Errorf("index %v, error %v", x, err)
		}
	})
}
