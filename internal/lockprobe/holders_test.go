package lockprobe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
)

func TestParseLock(t *testing.T) {
	image := fileID{0, 0x2d, 1234}
	for line, want := range map[string]heldLock{
		"1: OFDLCK ADVISORY  READ -1 00:2d:1234 100 100":     {"ofd", image, "100", 100},
		"12: POSIX  ADVISORY  WRITE 4711 00:2d:1234 201 203": {"posix", image, "201-203", 201},
		"2: POSIX  ADVISORY  WRITE 4711 00:2d:1234 0 EOF":    {"posix", image, "all", 0},
		"2: POSIX  ADVISORY  WRITE 4711 00:2d:1234 5 EOF":    {"posix", image, "from 5", 5},
		"3: FLOCK  ADVISORY  WRITE 4711 fd:01:99 0 EOF":      {"flock", fileID{0xfd, 1, 99}, "all", 0},
	} {
		if got, ok := parseLock(line); !ok || got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{
		"", "1: -> POSIX  ADVISORY  WRITE 4711 00:2d:1234 0 EOF", "1: LEASE  ACTIVE    READ  4711 00:2d:1234 0 EOF", "1: POSIX  ADVISORY  WRITE 4711 <none>:0 0 EOF",
		"1: POSIX  ADVISORY  WRITE 4711 00:2d:x 0 EOF", "1: POSIX  ADVISORY  WRITE 4711 00:2d:1234 0 x",
	} {
		if got, ok := parseLock(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add("1: OFDLCK ADVISORY  READ -1 00:2d:1234 100 100")
	f.Add("2: POSIX  ADVISORY  WRITE 4711 00:2d:1234 5 EOF")
	f.Fuzz(func(t *testing.T, line string) {
		if l, ok := parseLock(line); ok && (l.kind == "" || l.bytes == "") {
			t.Errorf("%q: %+v", line, l)
		}
	})
}

// The kernel itself writes what is read: a lock of this process is found with its kind and bytes.
func TestTheHolderOfAnImageIsFound(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for start, cmd := range map[int64]int{100: unix.F_OFD_SETLK, 201: unix.F_SETLK} {
		if err := unix.FcntlFlock(file.Fd(), cmd, &unix.Flock_t{Type: unix.F_RDLCK, Start: start, Len: 2}); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	id := imageID(st.Dev, st.Ino)
	found, err := findHolders("/proc", map[fileID]bool{id: true}, func(id string) string { return id })
	if err != nil {
		t.Fatal(err)
	}
	comm, _ := os.ReadFile("/proc/self/comm")
	holder := func(kind, bytes string) Holder {
		return Holder{PID: os.Getpid(), Program: strings.TrimSpace(string(comm)), Container: Host, Kind: kind, Bytes: bytes}
	}
	if diff := cmp.Diff([]Holder{holder("ofd", "100-101"), holder("posix", "201-202")}, found[id]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := imageLocks(locksOf("/proc", os.Getpid())); n != 2 {
		t.Errorf("%d byte locks", n)
	}

	// And the whole run says who it is, and takes no lock itself.
	m := &machine{proc: "/proc", dir: t.TempDir(), caller: well(), try: start}
	o := quick
	o.Paths = []string{name}
	r := report(t, m, o)
	i := -1
	for k, row := range r.Mounts {
		if row.Path == name {
			i = k
		}
	}
	if i < 0 || r.Mounts[i].Verdict != Held || len(r.Mounts[i].Holders) != 2 || !strings.Contains(r.Mounts[i].Reason, fmt.Sprintf("(process %d)", os.Getpid())) {
		t.Errorf("%+v", r.Mounts)
	}
}

func TestImages(t *testing.T) {
	held := Probe{Result: HeldBy, Detail: "somebody has a shared lock on bytes 100 to 100"}
	guest := Holder{PID: 7, Program: "qemu-system-x86", Guest: "instance-'1", Container: "nova_libvirt", Kind: "ofd", Bytes: "100"}
	tests := []struct {
		name    string
		e       Evidence
		verdict Verdict
		says    string // in reason and cure
	}{
		{
			"a guest of this host",
			Evidence{Probes: Probes{OFD: held}, Holders: []Holder{guest}, Virsh: "docker exec nova_libvirt virsh"},
			Held,
			`guest instance-'1, in nova_libvirt).*qemu-img -U.* docker exec nova_libvirt virsh domstate 'instance-'\''1'`,
		},
		{"another program", Evidence{Probes: Probes{OFD: held}, Holders: []Holder{{PID: 8, Program: "qemu-img", Container: Host}}}, Held, "qemu-img (process 8).*Wait for"},
		{"another client, or a dead one", Evidence{Probes: Probes{OFD: held}}, Held, "another client of the store, or one that died.*fence it first"},
		{"the server does not tell of a shared lock", Evidence{Probes: Probes{OFD: Probe{Result: Granted}}, Holders: []Holder{guest}}, Held, "instance-'1"},
		{"free", Evidence{Probes: Probes{OFD: Probe{Result: Granted}}}, OK, "nobody is known"},
		{"it cannot be asked", Evidence{Probes: Probes{OFD: Probe{Result: Refused, Errno: "ENOLCK"}}}, OFDUnsupported, ""},
		{"not opened", Evidence{Probes: Probes{OFD: Probe{Result: NotTried}}, Problem: "no"}, Unclear, "no"},
		{"the mount hangs", Evidence{Probes: Probes{OFD: Probe{Result: NotTried}}, Hangs: "open"}, Hangs, "does not answer"},
	}
	for _, test := range tests {
		test.e.Image = true
		j := judge(test.e)
		text := j.Reason + " " + j.Cure.Text + " " + j.Cure.Command
		for _, part := range strings.Split(test.says, ".*") {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in %q", test.name, part, text)
			}
		}
		if j.Verdict != test.verdict {
			t.Errorf("%s: %s", test.name, j.Verdict)
		}
	}
}

func TestVirshIsCalledWhereTheGuestsAre(t *testing.T) {
	for want, s := range map[string]seen{
		"virsh":                          {names: map[string]string{"1": "cinder_volume"}}, // libvirt is the host's own
		"podman exec nova_libvirt virsh": {names: map[string]string{"1": "cinder_volume", "2": "nova_libvirt"}},
	} {
		if got := s.callVirsh("podman"); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
