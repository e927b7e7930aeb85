package lockprobe

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
)

// daemon is a libvirt with rules: it knows domains by UUID, reads their descriptions, and starts them from images that are there.
type daemon struct {
	house *house
	kinds string // of guests that it can run
	start func(d *daemon, p *enginetest.Process, image, name string) int

	mu      sync.Mutex
	domains map[string]string // UUID: name
	asked   []string
}

// virsh does what a list of virsh's commands asks for.
func (d *daemon) virsh(p *enginetest.Process) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	code := 0
	for command := range strings.SplitSeq(p.Args[len(p.Args)-1], "; ") {
		d.asked = append(d.asked, command)
		words := strings.Fields(command)
		switch words[0] {
		case "domcapabilities":
			code = 0
			if !strings.Contains(d.kinds, words[2]) {
				fmt.Fprintf(p.Stderr, "error: failed to get emulator capabilities\nerror: invalid argument: the accel '%s' is not supported\n", words[2])
				code = 1
			}
		case "create":
			code = d.create(p, words[len(words)-1])
		case "domstate":
			code = d.known(p, words[1], "paused\n\n")
		case "destroy":
			code = d.known(p, words[1], "")
			delete(d.domains, words[1])
		default:
			fmt.Fprintf(p.Stderr, "error: unknown command: %q\n", words[0])
			code = 1
		}
		if code > 1 {
			return code
		}
	}
	return code
}

func (d *daemon) known(p *enginetest.Process, uuid, said string) int {
	if d.domains[uuid] == "" {
		fmt.Fprintf(p.Stderr, "error: failed to get domain '%s'\nerror: Domain not found\n", uuid)
		return 1
	}
	fmt.Fprint(p.Stdout, said)
	return 0
}

func (d *daemon) create(p *enginetest.Process, file string) int {
	text, err := os.ReadFile(filepath.Join(d.house.dir, file))
	var x struct {
		Name  string `xml:"name"`
		UUID  string `xml:"uuid"`
		Image struct {
			File string `xml:"file,attr"`
		} `xml:"devices>disk>source"`
	}
	if err == nil {
		err = xml.Unmarshal(text, &x)
	}
	image := filepath.Join(d.house.dir, x.Image.File)
	if err == nil {
		_, err = os.Stat(image)
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "error: %v\n", err)
		return 1
	}
	log := filepath.Join(d.house.dir, trialLogs, x.Name+".log")
	_ = os.MkdirAll(filepath.Dir(log), 0o755)
	_ = os.WriteFile(log, []byte("starting up libvirt\n"), 0o600)
	if d.start != nil {
		if code := d.start(d, p, image, x.Name); code != 0 {
			return code
		}
	}
	d.domains[x.UUID] = x.Name
	return 0
}

// computeNode is a house whose nova_libvirt has libvirt with kolla's settings.
func computeNode(t *testing.T, conf string, d *daemon) *house {
	t.Helper()
	d.domains = map[string]string{}
	c := enginetest.Container{Name: "nova_libvirt", Programs: map[string]func(*enginetest.Process) int{"timeout": func(p *enginetest.Process) int {
		if p.Args[4] == "virsh" {
			if strings.Join(p.Args[:3], " ") != "timeout -s KILL" || strings.Join(p.Args[5:8], " ") != "-q -c qemu:///system" || p.User != "0" {
				t.Errorf("it was told to run %q as %q", p.Args, p.User)
			}
			return d.virsh(p)
		}
		return 1 // qemu-img, which is not what is tried here
	}}}
	h := build(t, "/mnt/a", "rw", c)
	for name, text := range map[string]string{
		"etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n", "etc/libvirt/qemu.conf": conf, "usr/bin/virsh": "x", "var/log/libvirt/qemu/instance-1.log": "precious",
		"var/lib/dpkg/status": "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: libvirt-daemon-driver-qemu\nStatus: install ok installed\nArchitecture: amd64\nVersion: 11.3.0-3\n\n" +
			stanza("qemu-utils", "install", oldVersion),
	} {
		name = filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.house = h
	return h
}

// untouched fails where something of a trial is left, or something of others is gone.
func untouched(t *testing.T, h *house, d *daemon, others map[string]string) {
	t.Helper()
	var left []string
	for _, pattern := range []string{"mnt/a/.*", trialFolders + "/" + libvirt.TrialPrefix + "*", trialLogs + "/" + libvirt.TrialPrefix + "*"} {
		names, _ := filepath.Glob(filepath.Join(h.dir, pattern))
		left = append(left, names...)
	}
	if len(left) > 0 || len(d.domains) != len(others) {
		t.Errorf("left behind: %q, domains %v", left, d.domains)
	}
	for uuid := range others {
		if d.domains[uuid] == "" {
			t.Errorf("the domain %s of somebody else is gone", uuid)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, trialLogs, "instance-1.log")); err != nil {
		t.Error(err)
	}
}

// Each way in which the start of a guest can end.
func TestAGuestStartsOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	says := func(code int, text string) func(*daemon, *enginetest.Process, string, string) int {
		return func(_ *daemon, p *enginetest.Process, _, _ string) int {
			fmt.Fprint(p.Stderr, text)
			return code
		}
	}
	for _, test := range []struct {
		name     string
		conf     string
		kinds    string
		start    func(d *daemon, p *enginetest.Process, image, name string) int
		result   ProofResult
		unlocked bool
		says     string
	}{
		{name: "it starts", kinds: "kvm qemu", result: Works},
		{name: "without KVM", kinds: "qemu", result: Works},
		{name: "it warns", kinds: "kvm", start: func(d *daemon, _ *enginetest.Process, _, name string) int {
			_ = os.WriteFile(filepath.Join(d.house.dir, trialLogs, name+".log"), []byte(strings.Repeat("x\n", logLimit)+"warning: image locks are refused here; going on WITHOUT a lock\n"), 0o600)
			return 0
		}, result: Works, unlocked: true},
		{name: "libvirt's own lock", kinds: "kvm", start: says(1, "error: Failed to create domain from /x.xml\nerror: unable to lock /mnt/a/image for metadata change: No locks available\n\n"), result: Fails, says: "unable to lock /mnt/a/image for metadata change: No locks available"},
		{name: "it does not return", kinds: "kvm", start: says(killed, ""), result: Stalls, says: "did not start within"},
		{name: "the engine is lost", kinds: "kvm", start: func(_ *daemon, p *enginetest.Process, _, _ string) int {
			p.HangUp()
			return 2
		}, result: Unproved, says: "the engine was lost"},
		{name: "libvirt runs nothing here", kinds: "", result: Unproved, says: "libvirt runs no guests here"},
		{name: "the image is for QEMU's user only if libvirt gives it", kinds: "kvm", start: func(_ *daemon, p *enginetest.Process, image, _ string) int {
			info, err := os.Stat(image)
			above, err2 := os.Stat(filepath.Dir(image))
			if err != nil || err2 != nil || info.Mode() != 0o600 || info.Size() == 0 || above.Mode() != os.ModeDir|0o711 {
				return says(1, fmt.Sprintf("error: %v %v %v", info, above, err))(nil, p, "", "")
			}
			return 0
		}, result: Works},
		{name: "else for all", conf: "dynamic_ownership = 0\n", kinds: "kvm", start: func(_ *daemon, p *enginetest.Process, image, _ string) int {
			if info, err := os.Stat(image); err != nil || info.Mode() != 0o666 {
				return says(1, fmt.Sprintf("error: %v %v", info, err))(nil, p, "", "")
			}
			return 0
		}, result: Works},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := &daemon{kinds: test.kinds, start: test.start}
			h := computeNode(t, test.conf, d)
			d.domains["aaaa"] = "instance-1"
			r := proved(t, h)
			if len(r.GuestProofs) != 1 {
				t.Fatalf("%+v", r.GuestProofs)
			}
			p := r.GuestProofs[0]
			if p.Container != "nova_libvirt" || p.Path != "/mnt/a" || p.Result != test.result || p.Unlocked != test.unlocked || !strings.Contains(p.Detail, test.says) || test.says == "" && p.Detail != "" {
				t.Errorf("%+v", p)
			}
			untouched(t, h, d, map[string]string{"aaaa": "instance-1"})
		})
	}
}

// The next run ends what one that was killed has left, and nothing that only looks like it.
func TestTheNextRunEndsGuestsOfRunsThatWereKilled(t *testing.T) {
	t.Parallel()
	d := &daemon{kinds: "qemu"}
	h := computeNode(t, "", d)
	past, now := libvirt.NewTrial(time.Now().Add(-time.Minute)), libvirt.NewTrial(time.Now().Add(time.Minute))
	imitation := libvirt.NewTrial(time.Now().Add(-time.Minute))
	d.domains[past.UUID], d.domains[now.UUID], d.domains["ffff"] = past.Name, now.Name, imitation.Name
	for _, name := range []string{past.Name, now.Name} {
		if err := os.MkdirAll(filepath.Join(h.dir, trialFolders, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.dir, trialFolders, name, description), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.dir, trialLogs, name+".log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		name = filepath.Join(h.proc, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	link("mnt:[1]", "self/ns/mnt")
	for i, name := range []string{past.Name, now.Name, imitation.Name} {
		pid := strconv.Itoa(4000100 + i)
		link("mnt:[2]", pid+"/ns/mnt")
		link("/usr/bin/qemu-system-x86_64", pid+"/exe")
		if err := os.WriteFile(filepath.Join(h.proc, pid, "cmdline"), []byte("/usr/bin/qemu-system-x86_64\x00-name\x00guest="+name+",debug-threads=on\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := proved(t, h)
	if len(d.domains) != 2 || d.domains[now.UUID] == "" || d.domains["ffff"] == "" {
		t.Errorf("%v is left", d.domains)
	}
	for _, name := range []string{filepath.Join(trialFolders, now.Name, description), filepath.Join(trialLogs, now.Name+".log")} {
		if _, err := os.Stat(filepath.Join(h.dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{filepath.Join(trialFolders, past.Name), filepath.Join(trialLogs, past.Name+".log")} {
		if _, err := os.Lstat(filepath.Join(h.dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	if !strings.Contains(fmt.Sprint(r.Findings), "removed 2 guests, descriptions or logs") {
		t.Errorf("%+v", r.Findings)
	}
}

// The image of a proof is one such as Nova's and Cinder's are there: where root is squashed, its mode decides what libvirt does.
func TestTheImageHasTheModeOfThoseOfNovaAndCinder(t *testing.T) {
	nova := &user{42436, 42436}
	for _, test := range []struct {
		path    string
		as      *user
		dynamic bool
		want    uint32
	}{
		{"/var/lib/nova/mnt/0a1b", nil, true, 0o600},
		{"/var/lib/nova/mnt/0a1b", nil, false, 0o666},
		{"/var/lib/nova/mnt/0a1b", nova, true, 0o666},
		{"/var/lib/nova-mnt/0a1b", nova, true, 0o666},
		{"/var/lib/nova/instances", nova, true, 0o644},
	} {
		p := guestProof{proof: proof{trial: &trial{attempt: attempt{As: test.as}}, sight: sight{path: test.path, view: &view{libvirt: &libvirt.Locks{DynamicOwnership: test.dynamic}}}}}
		if got := p.imageMode(); got != test.want {
			t.Errorf("%+v: %o", test, got)
		}
	}
}
