package rpcbind

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// hostOf is a host with the packages installed and nothing running, to be changed by a test.
func hostOf(change func(s *Seen)) Seen {
	stopped := host.Unit{Load: "loaded", Active: "inactive", File: "enabled"}
	s := Seen{
		Systemd: true, EngineName: "docker", Image: Image{Reference: "kolla/cinder-volume", ID: "sha256:1"},
		Units:     map[string]host.Unit{socketUnit: stopped, rpcUnit: stopped, statdUnit: {Load: "loaded", Active: "inactive", File: "static"}},
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1")},
		Answers:   Answers{RPCBind: NotThere, Statd: NotThere},
	}
	change(&s)
	return s
}

func masked(s *Seen) { s.Units[socketUnit] = host.Unit{Load: "masked", File: "masked"} }

func missing(s *Seen) {
	s.Missing, s.Uninstall = []string{"rpcbind", "nfs-common"}, "apt-get: exit status 100: E: Unable to locate package rpcbind"
}

func noEngine(s *Seen) { s.EngineError = "cannot reach docker at /var/run/docker.sock" }

func TestAutoSaysWhichModeAndWhy(t *testing.T) {
	tests := []struct {
		name    string
		change  func(s *Seen)
		mode    Mode
		because string // of the error, where there is no mode
	}{
		{"installed", func(*Seen) {}, OnHost, "the packages are installed"},
		{"runs", func(s *Seen) { s.Units[socketUnit] = host.Unit{Load: "loaded", Active: "active"} }, OnHost, "rpcbind.socket runs on the host"},
		{"can be installed", func(s *Seen) { s.Missing = []string{"nfs-common"} }, OnHost, "the packages can be installed: nfs-common"},
		{"cannot be installed", missing, InContainer, "the host lacks rpcbind and nfs-common, which cannot be installed (apt-get: exit"},
		{"masked", masked, InContainer, "rpcbind.socket masked on the host"},
		{"no systemd", func(s *Seen) { s.Systemd = false }, InContainer, "systemd does not run this host"},
		{"our container, installed", func(s *Seen) { s.Ours = &OurContainer{Name: "nfs_rpcbind"} }, InContainer, "container nfs_rpcbind is there"},
		{"neither: no engine", func(s *Seen) { masked(s); noEngine(s) }, "", "not host, because rpcbind.socket masked on the host; not container, because cannot reach docker"},
		{"neither: no image", func(s *Seen) { missing(s); s.Image = Image{Problem: "no image is named"} }, "", "not container, because no image is named"},
	}
	for _, test := range tests {
		mode, reason, err := hostOf(test.change).choose(options(Auto))
		if err != nil {
			reason = err.Error()
		}
		if mode != test.mode || !strings.Contains(reason, test.because) {
			t.Errorf("%s: mode %q, %s", test.name, mode, reason)
		}
	}
}

// TestRefusalsNameWhatIsInTheWay, and come before any step.
func TestRefusalsNameWhatIsInTheWay(t *testing.T) {
	another := func(s *Seen) {
		s.Processes = []Daemon{{Process: host.Process{PID: 7, Name: rpcbindName, Container: strings.Repeat("0", 64)}, Where: "gateway"}}
	}
	byHand := func(s *Seen) { s.Processes = []Daemon{{Process: host.Process{PID: 7, Name: rpcbindName}}} }
	tests := []struct {
		name   string
		mode   Mode
		change func(s *Seen)
		want   string
	}{
		{"another rpcbind", OnHost, another, "cannot run rpcbind of the host (rpcbind.socket) beside rpcbind in container gateway (process 7)"},
		{"another rpcbind", InContainer, another, "cannot run rpcbind in container nfs_rpcbind beside rpcbind in container gateway (process 7)"},
		{"one by hand", OnHost, byHand, "beside rpcbind (process 7, started by hand)"},
		{"the host's", InContainer, func(s *Seen) { s.Units[socketUnit] = host.Unit{Load: "loaded", Active: "active"} }, "beside rpcbind of the host (rpcbind.socket), which was there before"},
		{"a stranger", OnHost, func(s *Seen) { s.Foreign = []string{"dnsmasq (process 812)"} }, "port 111 is taken by dnsmasq (process 812)"},
		{"no package", OnHost, missing, "cannot install rpcbind and nfs-common on this host: apt-get: exit status 100"},
		{"no systemd", OnHost, func(s *Seen) { s.Systemd = false }, "use mode: container"},
		{"no engine", InContainer, noEngine, "cannot use mode container: cannot reach docker"},
		{"no image", InContainer, func(s *Seen) { s.Image = Image{Problem: "image x is not on this host; pull it first"} }, "pull it first"},
		{"another status monitor", OnHost, func(s *Seen) { s.Answers.Statd = Answering }, "program 100024, the status monitor, answers already"},
		{"its volume, without an engine", OnHost, func(s *Seen) { noEngine(s); s.Record.Volume = true }, "in whose volume nfs_rpcbind statd's state is: cannot reach docker"},
		{
			"a statd that comes back", OnHost, func(s *Seen) {
				s.Processes = []Daemon{{Process: host.Process{PID: 7, Name: statdName, Unit: "my-statd.service"}, Where: "my-statd.service", Main: true}}
			},
			"rpc.statd (process 7 of my-statd.service): that unit would start it again; first: systemctl disable --now my-statd.service",
		},
		{"a namesake", InContainer, func(s *Seen) { s.OtherNames = map[string]string{"1": "nfs_rpcbind"} }, "there is one of that name that this module did not make"},
	}
	for _, test := range tests {
		p, err := MakePlan(options(test.mode), hostOf(test.change))
		if err == nil || !strings.Contains(err.Error(), test.want) || len(p.Steps) > 0 {
			t.Errorf("%s, %s: %v, %d steps", test.name, test.mode, err, len(p.Steps))
		}
	}
	o := options(OnHost)
	o.Listen = []string{"10.0.0.9"}
	if _, err := MakePlan(o, hostOf(func(*Seen) {})); err == nil || !strings.Contains(err.Error(), "cannot listen at 10.0.0.9: this host has no such address") {
		t.Errorf("%v", err)
	}
}

// TestListenIsNotPromisedInVain: another drop-in adds addresses.
func TestListenIsNotPromisedInVain(t *testing.T) {
	o := options(OnHost)
	o.Listen = []string{"10.0.0.1"}
	s := hostOf(func(s *Seen) { s.Listeners = []string{"/etc/systemd/system/rpcbind.socket.d/zzz.conf"} })
	if p, err := MakePlan(o, s); err == nil || !strings.Contains(err.Error(), "rpcbind.socket.d/zzz.conf is read after") || len(p.Steps) > 0 {
		t.Errorf("%v", err)
	}
	if _, err := MakePlan(options(OnHost), s); err != nil {
		t.Errorf("without listen it is nobody's business: %v", err)
	}
	for text, want := range map[string]string{"fe80::1": "link-local", "fe80::1%eth0": "cannot listen", "169.254.0.5": ""} {
		o.Listen = []string{text}
		if err := o.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestAnyUnitOfKollasTellsThatSystemdOwnsItsContainers, of whichever container; not ours, and not what is masked.
func TestAnyUnitOfKollasTellsThatSystemdOwnsItsContainers(t *testing.T) {
	for name, want := range map[string]bool{
		"kolla-glance_api-container.service": true, "kolla-nova_libvirt-container.service": true,
		"kolla-nfs_rpcbind-container.service": false, "kolla-nova_libvirt-container.service.d": false, "kolla-masked-container.service": false, "kolla.target": false,
	} {
		root := t.TempDir()
		path := filepath.Join(root, "etc/systemd/system", name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case strings.HasSuffix(name, ".d"):
			err = os.Mkdir(path, 0o755)
		case strings.Contains(name, "masked"):
			err = os.Symlink("/dev/null", path)
		default:
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := kollaUnits(root, kolla.Unit("nfs_rpcbind"), kolla.Unit("")); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestOurDropInIsReadLast, and its old name goes.
func TestOurDropInIsReadLast(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"etc/systemd/system/rpcbind.socket.d/override.conf":   "[Socket]\nListenStream=10.0.0.7:111\n",
		"etc/systemd/system/rpcbind.socket.d/zz-nfslock.conf": "[Socket]\nListenStream=10.0.0.1:111\n",
		"usr/lib/systemd/system/rpcbind.socket.d/zzz.conf":    "[Socket]\n# ListenStream=none\nListenStream=\nBacklog=5\n",
		"run/systemd/system/rpcbind.socket.d/zzz.conf":        "[Socket]\nListenDatagram = 10.0.0.9:111\n",
	} {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got := listeners(root); len(got) != 1 || !strings.HasSuffix(got[0], "run/systemd/system/rpcbind.socket.d/zzz.conf") {
		t.Errorf("%q", got)
	}
	o := options(OnHost)
	o.Listen = []string{"10.0.0.1"}
	p, err := MakePlan(o, hostOf(func(s *Seen) { s.Files = map[string]string{oldListen: listenText(o.addresses(false))} }))
	var changes []string
	for _, step := range p.Steps {
		if step.Verb == Write || step.Verb == Delete {
			changes = append(changes, string(step.Verb)+" "+step.Names[0])
		}
	}
	if err != nil || !slices.Contains(changes, "write "+listenDropIn) || !slices.Contains(changes, "delete "+oldListen) {
		t.Errorf("%v, %q", err, changes)
	}
}

// TestAStatdWhoseRPCBindFailedIsNotLeftBesideTheContainer, nor whom it watches behind.
func TestAStatdWhoseRPCBindFailedIsNotLeftBesideTheContainer(t *testing.T) {
	p, err := MakePlan(options(InContainer), hostOf(func(s *Seen) {
		failed := host.Unit{Load: "loaded", Active: "failed", File: "enabled"}
		s.Units[socketUnit], s.Units[rpcUnit] = failed, failed
		s.Units[statdUnit] = host.Unit{Load: "loaded", Active: "active", File: "static"}
		s.Processes = []Daemon{{Process: host.Process{PID: 9, Name: statdName, Unit: statdUnit, HostNetwork: true}, Where: statdUnit}}
	}))
	at := func(verb Verb, name string) int {
		return slices.IndexFunc(p.Steps, func(step Step) bool { return step.Verb == verb && slices.Contains(step.Names, name) })
	}
	stop, carry, start, disable := at(Stop, statdUnit), at(Carry, volume), at(StartBox, "nfs_rpcbind"), at(Disable, socketUnit)
	if err != nil || stop < 0 || carry < stop || start < carry || disable < start {
		t.Errorf("stop %d, carry %d, start %d, disable %d: %v", stop, carry, start, disable, err)
	}
}

// TestRPCBindComesBackWhereTheDistributionLeavesItDead, and what Debian has is not repeated.
func TestRPCBindComesBackWhereTheDistributionLeavesItDead(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *Seen)
		want   bool
	}{
		"EL": {func(s *Seen) { s.Units[rpcUnit] = host.Unit{Load: "loaded", Restart: "no"} }, true},
		"EL, ours": {func(s *Seen) {
			s.Units[rpcUnit] = host.Unit{Load: "loaded", Restart: "on-failure"}
			s.Files = map[string]string{rpcDropIn: rpcText()}
		}, true},
		"Debian":        {func(s *Seen) { s.Units[rpcUnit] = host.Unit{Load: "loaded", Restart: "on-failure"} }, false},
		"EL, fresh":     {func(s *Seen) { s.Units[rpcUnit] = host.Unit{Load: "not-found", Restart: "no"}; s.Tool = host.Dnf }, true},
		"Debian, fresh": {func(s *Seen) { s.Units[rpcUnit] = host.Unit{Load: "not-found", Restart: "no"}; s.Tool = host.Apt }, false},
	} {
		if _, got := hostFiles(options(OnHost), hostOf(test.change))[rpcDropIn]; got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestServersThatNobodyWatchesAreNamed by the address that the kernel uses.
func TestServersThatNobodyWatchesAreNamed(t *testing.T) {
	s := Seen{
		InUse: []host.Mount{{Source: "filer:/a", Options: "vers=3,addr=10.0.0.2"}, {Source: "filer:/b", Options: "vers=3,addr=10.0.0.2"}, {Source: "[fd00::3]:/c", Options: "vers=3"}},
	}
	for _, test := range []struct {
		watched []string
		want    string
	}{
		{nil, "10.0.0.2, fd00::3: "},
		{[]string{"10.0.0.2"}, "watch fd00::3: "},
		{[]string{"fd00::3", "filer"}, ""},
	} {
		s.Watched = map[Mode][]string{OnHost: test.watched}
		if got := strings.Join(s.unwatched(OnHost), ""); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%q: %q", test.watched, got)
		}
	}
}

// TestAServerOfThisHostIsUse: its clients drop locks as guests do.
func TestAServerOfThisHostIsUse(t *testing.T) {
	s := hostOf(func(s *Seen) { s.Threads = 8 })
	p, err := MakePlan(options(OnHost), s)
	if err != nil || p.Steps[0].Verb != Silence {
		t.Errorf("%v, %+v", err, p.Steps)
	}
	s.Record = Record{Mode: OnHost, Packages: []string{"rpcbind"}}
	o := options(OnHost)
	o.State = absent
	if _, err := MakePlan(o, s); err == nil || !strings.Contains(err.Error(), "this host's own NFS server (8 threads)") {
		t.Errorf("%v", err)
	}
}

func TestWarnings(t *testing.T) {
	everywhere := func(s *Seen) {
		s.Addresses = append(s.Addresses, netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("100.64.0.1"))
		s.Sockets = []host.Socket{{Address: "0.0.0.0", TCP: true}, {Address: "0.0.0.0"}}
	}
	listen := func(addresses ...string) Options {
		o := options(OnHost)
		o.Listen = addresses
		return o
	}
	tests := []struct {
		name   string
		o      Options
		change func(s *Seen)
		want   []string // one part of each, in order
	}{
		{"nothing", options(OnHost), func(*Seen) {}, nil},
		{"public", options(OnHost), everywhere, []string{"port 111 is open at 203.0.113.5: "}},
		{"public, told where to listen", listen("10.0.0.1"), everywhere, nil},
		{
			"a package that others need", options(InContainer), func(s *Seen) { s.Needed = map[string]string{"rpcbind": "dpkg: nis depends on rpcbind"} },
			[]string{"package rpcbind stays, though this module installed it: dpkg: nis"},
		},
		{"loopback only", listen("127.0.0.1"), func(*Seen) {}, []string{"listen has loopback addresses only"}},
		{
			"no /run", options(OnHost),
			func(s *Seen) {
				s.Answers.RPCBind = Answering
				s.Unbound = []Unbound{{"cinder_backup", false}, {"nova_compute", true}}
			},
			[]string{"cinder_backup does not bind /run", "reaches rpcbind at 127.0.0.1:111 only, which the probe found to be: answers. In kolla-ansible: nova_compute_extra_volumes: "},
		},
		{
			"no lock manager", options(OnHost),
			func(s *Seen) {
				s.Answers.RPCBind = Answering
				s.InUse = []host.Mount{{Source: "filer:/a", Path: "/mnt"}}
			},
			[]string{"the kernel's lock manager (program 100021) is not registered"},
		},
	}
	for _, test := range tests {
		got := hostOf(test.change).warnings(test.o, test.o.Mode)
		ok := len(got) == len(test.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i], test.want[i])
		}
		if !ok {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

// TestOptionsOfTheContainerAreInItsChecksum: what changes it, and what does not.
func TestOptionsOfTheContainerAreInItsChecksum(t *testing.T) {
	sum := func(o Options, s Seen) string {
		bare, plain := containerSpec(o, s)
		if bare.Labels[kolla.RPCBindLabel] == plain.Labels[kolla.RPCBindLabel] || bare.Image == plain.Image != s.Image.Ours {
			t.Errorf("with and without an image of ours it is the same: %+v", bare)
		}
		return bare.Labels[kolla.RPCBindLabel]
	}
	s := hostOf(func(*Seen) {})
	base := sum(options(InContainer), s)
	for name, other := range map[string]string{
		"listen":    sum(Options{Statd: true, ContainerName: "nfs_rpcbind", Listen: []string{"10.0.0.1"}}, s),
		"statd":     sum(Options{ContainerName: "nfs_rpcbind"}, s),
		"name":      sum(Options{Statd: true, ContainerName: "other"}, s),
		"new image": sum(options(InContainer), hostOf(func(s *Seen) { s.Image.ID = "sha256:2" })),
		"units":     sum(options(InContainer), hostOf(func(s *Seen) { s.KollaUnits = true })),
	} {
		if other == base {
			t.Errorf("%s does not change it", name)
		}
	}
	if other := sum(options(Auto), hostOf(func(s *Seen) { s.Image.Reference = "sha256:1" })); other != base {
		t.Error("the mode, or another name of the same image, changes it")
	}
	if other := sum(options(Auto), hostOf(func(s *Seen) { s.Image.Reference, s.Image.Ours = "nfslock/rpcbind:1", true })); other != base {
		t.Error("it changes when kolla's containers are gone, and ours is what is left of their image")
	}
}
