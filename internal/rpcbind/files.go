package rpcbind

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
)

// Where files of ours lie.
const (
	unitFolder    = "/etc/systemd/system/"
	socketDropIns = unitFolder + "rpcbind.socket.d/"
	statdDropIn   = unitFolder + "rpc-statd.service.d/nfslock.conf"
	notifyDropIn  = unitFolder + "rpc-statd-notify.service.d/nfslock.conf"
	rpcDropIn     = unitFolder + "rpcbind.service.d/nfslock.conf"
	listenDropIn  = socketDropIns + "zz-nfslock.conf" // behind what systemctl edit makes, override.conf: the last empty ListenStream= counts
	oldListen     = socketDropIns + "nfslock.conf"    // its name once
	bootLink      = unitFolder + "multi-user.target.wants/" + statdUnit
	rpcLink       = unitFolder + "rpcbind.service.wants/" + statdUnit
	// Systemd goes by the link's own name; what it points to is for people.
	linkTarget = "/usr/lib/systemd/system/" + statdUnit
)

// dropIns are all of ours.
var dropIns = []string{listenDropIn, oldListen, rpcDropIn, statdDropIn, notifyDropIn}

// mark is the first line of each file of ours.
const mark = "# Made by nfslock.kolla.rpcbind_ensure; its state absent removes it.\n"

// beforeGuests are the units that bring up guests or what mounts NFS for them: statd has to be there first, and a reboot's
// notification on its way, because servers drop the locks that they know of when it arrives.
func beforeGuests() string {
	units := []string{"docker.service", "podman.service"}
	for _, name := range kolla.NFSUsers {
		units = append(units, kolla.Unit(name))
	}
	return strings.Join(units, " ")
}

func statdText() string {
	return mark + `[Unit]
Before=` + beforeGuests() + `
# Killed and started again, rpcbind knows nobody: statd has to register again. systemd restarts it along with rpcbind.
PartOf=rpcbind.service
StartLimitIntervalSec=0

[Service]
# The distribution's own setting, repeated because guests depend on it: a statd that notifies tells the servers that this host
# rebooted, and they drop the locks of its running guests.
Environment=RPC_STATD_NO_NOTIFY=1
Restart=always
RestartSec=1
# It says goodbye to rpcbind, and systemd starts an rpcbind that died only after statd has ended: they would wait for each other.
TimeoutStopSec=2
`
}

// notifyText: the program forks at once and then tries for a quarter of an hour. A server that is up has heard of it within moments, and
// these are waited for; for one that is down, guests are not kept waiting.
func notifyText() string {
	return mark + `[Unit]
Before=` + beforeGuests() + `

[Service]
ExecStartPost=-/usr/bin/timeout 5 /bin/sh -c 'while [ -n "$MAINPID" ] && kill -0 "$MAINPID" 2>/dev/null; do sleep 0.1; done'
`
}

// noNotifyText: with statd in a container, the host's sm-notify knows nobody. It would only leave the mark, and the container's, which knows
// whom to tell, would be silent.
func noNotifyText() string {
	return mark + `[Unit]
# Never true: the container notifies.
ConditionPathExists=!/
`
}

// rpcText is for distributions whose unit leaves a dead rpcbind dead (upstream's, and so EL's); Debian's has the same line.
func rpcText() string {
	return mark + `[Service]
Restart=on-failure
`
}

func listenText(addresses []string) string {
	text := mark + `[Socket]
# An empty one takes back all of the distribution's.
ListenStream=
ListenDatagram=
ListenStream=/run/rpcbind.sock
`
	for _, a := range addresses {
		if strings.Contains(a, ":") {
			a = "[" + a + "]"
		}
		text += fmt.Sprintf("ListenStream=%s:111\nListenDatagram=%s:111\n", a, a)
	}
	return text + `# At boot the addresses may come later than this socket.
FreeBind=yes
`
}

// hostFiles are those that mode host wants, path to text.
func hostFiles(o Options, s Seen) map[string]string {
	files := map[string]string{}
	if o.Statd {
		files[statdDropIn], files[notifyDropIn] = statdText(), notifyText()
	}
	if addresses := o.addresses(s.IPv6); addresses != nil {
		files[listenDropIn] = listenText(addresses)
	}
	// With ours in place nobody can tell any more whether the distribution's own unit has it.
	_, ours := s.Files[rpcDropIn]
	unit := s.Units[rpcUnit]
	if ours || unit.Exists() && unit.Restart == "no" || !unit.Exists() && s.Tool == host.Dnf {
		files[rpcDropIn] = rpcText()
	}
	return files
}

// containerFiles are those that mode container wants on the host beside its unit: nothing but silence, if the host can speak at all.
func containerFiles(o Options, s Seen, removing []string) map[string]string {
	if !o.Statd || !s.Units[notifyUnit].Exists() || belongs(notifyUnit, removing) {
		return nil
	}
	return map[string]string{notifyDropIn: noNotifyText()}
}

// ownUnit is the unit of our container. It is not called as those of kolla's are (kolla.Unit), as it once was: kolla-ansible destroy removes all files
// that are.
func ownUnit(container string) string { return "nfslock-" + container + ".service" }

// containerUnitText is what kolla-ansible writes for its own containers with its defaults (ansible/module_utils/
// kolla_systemd_worker.py, 2023.1 and later), and the order at boot: Before= waits for a process that is started, which says nothing yet,
// so ExecStartPost= waits until both answer. Guests are not kept from starting for longer than a minute.
func containerUnitText(name, program string, statd bool) string {
	ready := "--ready"
	if statd {
		ready += " --statd"
	}
	var guests []string
	for _, user := range kolla.NFSUsers {
		guests = append(guests, kolla.Unit(user))
	}
	return mark + fmt.Sprintf(`[Unit]
Description=rpcbind and rpc.statd in container %[1]s
PartOf=kolla.target
After=%[2]s.service
Wants=%[2]s.service
Before=%[3]s
StartLimitIntervalSec=120
StartLimitBurst=10

[Service]
ExecStart=/usr/bin/%[2]s start -a %[1]s
ExecStartPost=-/usr/bin/timeout 60 /bin/sh -c 'while kill -0 "$MAINPID" 2>/dev/null && ! /usr/bin/%[2]s exec %[1]s python3 %[4]s %[5]s; do sleep 0.5; done'
ExecStop=/usr/bin/%[2]s stop %[1]s -t 10
Restart=always
RestartSec=11
SuccessExitStatus=143

[Install]
WantedBy=multi-user.target
`, name, program, strings.Join(guests, " "), supervisorPath, ready)
}

//go:embed supervise.py
var supervisor string

const (
	supervisorPath = "/usr/local/lib/nfs_rpcbind.py"
	volume         = "nfs_rpcbind"
	stateFolder    = "/var/lib/nfs" // statd's, on the host and in the container
)

// containerSpec is the container of mode container. /run is bound as kolla binds it. Its image is one of ours, which has the layers of kolla's and not its
// labels; plain is the same from kolla's own, where the engine makes none of ours. See docs/decisions/0015-own-image.md.
func containerSpec(o Options, s Seen) (bare, plain engine.Spec) {
	command := []string{"python3", supervisorPath}
	if o.Statd {
		command = append(command, "--statd")
	}
	spec := engine.Spec{
		Name: o.ContainerName, Image: s.Image.Reference, Command: append(command, o.addresses(s.IPv6)...),
		Binds: []string{"/run:/run:shared", volume + ":" + stateFolder}, Restart: "unless-stopped",
		Files: map[string]string{supervisorPath: supervisor}, Volumes: []string{volume},
	}
	if s.KollaUnits {
		spec.Restart = "no"
	}
	bare, plain = spec, spec
	if !s.Image.Ours {
		bare.Image = ownImage(s.Image.ID)
	}
	// A reference may come to name another image. Containers of versions before had neither word, and are made anew.
	bare.Labels = map[string]string{kolla.RPCBindLabel: checksum(spec, s.Image.ID+" bare")}
	plain.Labels = map[string]string{kolla.RPCBindLabel: checksum(spec, s.Image.ID+" as it is")}
	return bare, plain
}

func checksum(spec engine.Spec, image string) string {
	spec.Image = image
	text, err := json.Marshal(spec)
	if err != nil {
		panic(err) // strings only
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])
}

// baseLabel is on our images, and so on their containers: the id of the image whose layers they have.
const baseLabel = "nfslock.rpcbind.base"

// ownImage is what our image of another one is called.
func ownImage(base string) string {
	base = strings.TrimPrefix(base, "sha256:")
	return "nfslock/rpcbind:" + base[:min(len(base), 12)]
}

// containerPrograms are what its image must have.
func containerPrograms(o Options) []string {
	if o.Statd {
		return []string{"python3", rpcbindName, statdName, "sm-notify"}
	}
	return []string{"python3", rpcbindName}
}

// describe is the container in lines, for the diff.
func describe(s engine.Spec) string {
	return fmt.Sprintf("image: %s\ncommand: %s\nbinds: %s\nrestart: %s\n", s.Image, strings.Join(s.Command, " "), strings.Join(s.Binds, " "), s.Restart)
}

// packages are those of mode host, by the tool that installs them; the second is statd's.
func packages(tool string, statd bool) []string {
	names := []string{"rpcbind", "nfs-common"}
	if tool == "dnf" {
		names[1] = "nfs-utils"
	}
	if !statd {
		return names[:1]
	}
	return slices.Clone(names)
}
