package baseline

import "testing"

// The index lies in a folder of root's, but a power cut or a hand may have damaged it.
func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"schema":1,"id":"0","packages":[{"name":"qemu-utils","file":"qemu-utils.deb","size":1}]}`))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"id":"0","suffix":"+site1","packages":[{"name":"qemu-utils","version":"1"}],"installed":[{"name":"qemu-utils","version":"1+site1","sum":"sum"},{"name":"x"}]}`))
	f.Add([]byte(`{"schema":1,"packages":[{"name":"../x","file":"../../etc/passwd"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex("index.json", data)
		if (x == nil) == (err == nil) {
			t.Errorf("index %v, error %v", x, err)
		}
		if x == nil {
			return
		}
		for _, name := range append(x.Names(), "qemu-utils") {
			p := distribution(x.Put(name))
			p.Name = name
			if j := (Known{ID: x.ID, Index: x}).Judge(p, "sum"); j.Whose != Stock && j.Keeping() == Keep {
				t.Errorf("%+v is kept", j)
			}
		}
	})
}
