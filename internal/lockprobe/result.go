package lockprobe

import (
	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
)

// Result is what a run reports. Changed is always false. No list is ever null.
type Result struct {
	ansible.Result
	Engine      Engine      `json:"engine"`
	Verdict     Verdict     `json:"verdict"`  // the worst of the mounts', in the order of the verdicts
	Reason      string      `json:"reason"`   // what that verdict means here, a sentence
	Evidence    []string    `json:"evidence"` // what led to it
	Cure        Cure        `json:"cure"`     // the smallest one
	Mounts      []Mount     `json:"mounts"`
	Packages    []Packages  `json:"packages"` // one row for each container that was looked at
	StaleGuests []Guest     `json:"stale_guests"`
	Drift       []Drift     `json:"drift"`
	Findings    []Finding   `json:"findings"`
	Settings    []Setting   `json:"settings"` // of NFS mounts, as the files of kolla-ansible on this host have them
	RPCBind     Service     `json:"rpcbind"`
	Statd       Service     `json:"statd"`
	Leftovers   []LeftProbe `json:"stuck_probes"`
	Guests      int         `json:"guests"`       // that run, in containers of this host; -1 if that could not be told
	Proofs      []Proof     `json:"proofs"`       // with the option prove: one row for each container with QEMU's tools and each folder of it in Mounts
	GuestProofs []Proof     `json:"guest_proofs"` // with the option prove: one row for each folder in Mounts of the container that runs guests
	Libvirt     Libvirt     `json:"libvirt"`
	TookMS      float64     `json:"took_ms"`
}

// Engine is the engine that was spoken to, or why there was none.
type Engine struct {
	Name    string `json:"name"` // empty without one
	Version string `json:"version"`
	Error   string `json:"error"` // why none answers; the host's own mounts are judged all the same
}

// Mount is a mount, a folder or an image file as one container, or the host itself, sees it.
type Mount struct {
	Container string `json:"container"` // its name, or Host
	Path      string `json:"path"`      // as seen there
	Source    string `json:"source"`    // "filer:/export"
	FSType    string `json:"fstype"`    // "nfs", "nfs4", "fuse.juicefs"
	Vers      string `json:"vers"`      // "3", "4.2"; empty where it is no NFS
	Options   string `json:"options"`   // the mount's and the filesystem's
	Image     bool   `json:"image"`     // Path is a file: it was only asked who holds it
	Probed    string `json:"probed"`    // "outside" or "inside" the container; "with cinder_volume" if the same view was probed there; empty if not
	Probes    Probes `json:"probes"`

	Verdict  Verdict  `json:"verdict"`
	Reason   string   `json:"reason"`
	Evidence []string `json:"evidence"`
	Fix      Fix      `json:"recommended_fix"`
	Cure     Cure     `json:"cure"`
	Holders  []Holder `json:"holders"`  // of an image
	Guests   Guests   `json:"guests"`   // of the container that runs guests
	Squashed bool     `json:"squashed"` // root may not write there, so that it depends on a disk's mode whether libvirt takes a lock of its own on it
}

// Guests tells whether a guest can start from an image on a mount, as far as locks matter.
type Guests struct {
	Start   Start    `json:"start"`
	Missing []string `json:"missing"` // sentences: whose lock is refused, and what takes it
}

// Start is whether a guest can.
type Start string

// Answers to that.
const (
	Starts     Start = "yes"
	StartsNot  Start = "no"
	StartsOpen Start = "unknown"
)

// Host is what stands for a container's name where the host itself is meant.
const Host = "host"

// Probes are the three kinds of lock. Each was tried shared and exclusive.
type Probes struct {
	OFD   Probe `json:"ofd"`   // F_OFD_SETLK, what QEMU takes
	POSIX Probe `json:"posix"` // F_SETLK
	Flock Probe `json:"flock"` // flock(2)
}

// Probe is how one kind of lock fared.
type Probe struct {
	Result Outcome `json:"result"`
	Errno  string  `json:"errno"`  // "ENOLCK"; empty unless refused or held
	MS     float64 `json:"ms"`     // all calls of that kind
	Detail string  `json:"detail"` // the call that did not succeed, or why none was made
}

// Outcome is what became of a lock.
type Outcome string

// Outcomes.
const (
	Granted  Outcome = "granted"
	Refused  Outcome = "refused"
	HeldBy   Outcome = "held" // EAGAIN or EACCES: somebody has it
	Hung     Outcome = "hangs"
	NotTried Outcome = "not_tried"
)

// Cure is the smallest thing that helps.
type Cure struct {
	Fix     Fix    `json:"fix"`
	Text    string `json:"text"`
	Command string `json:"command"` // to be run on the controller or, where the text says so, on the host; may be empty
}

// Fix is a kind of cure.
type Fix string

// The cures, by what they touch.
const (
	FixNone    Fix = "none"
	FixRPCBind Fix = "rpcbind_ensure" // rpcbind and rpc.statd on this host: the module of that name
	FixNFSv4   Fix = "nfsv4"          // mount options
	FixServer  Fix = "server"         // the NFS server, or the network to it
	FixPatch   Fix = "patch"          // the library, or the patched QEMU packages: the module nfs_lock_fix
	FixLibvirt Fix = "libvirt"        // libvirt's own settings, which kolla-ansible writes
	FixHolder  Fix = "holder"         // whoever holds the lock
	FixLook    Fix = "look"           // nothing can be said before what Reason names is cleared up
)

// Packages is one container's QEMU.
type Packages struct {
	Container    string       `json:"container"`
	ID           string       `json:"id"`
	Image        string       `json:"image"`
	State        string       `json:"state"`        // of the container, the engine's word: "running"
	Distribution string       `json:"distribution"` // "debian bookworm"
	QEMU         QEMU         `json:"qemu"`
	Variant      string       `json:"variant"` // "fallback" or "disable_ofd" if patched; empty otherwise, or if it cannot be told
	Installed    []QEMUPacket `json:"installed"`

	// Unpatched are those of the packages that count which are stock; of these, UnpatchedFurther only emulate another architecture than the host's.
	Unpatched        []string `json:"unpatched"`
	UnpatchedFurther []string `json:"unpatched_further"`
	// StockEmulators are emulators without the patch that the container's own work does not use, so that they count for nothing: "arm", "ppc".
	StockEmulators []string `json:"stock_emulators"`
	Library        Library  `json:"library"` // the preloaded one, which does what the patch does, whatever the packages are
	Seccomp        string   `json:"seccomp"` // "none", "default" or "custom"
	Error          string   `json:"error"`   // why it could not be looked at, wholly or in part
}

// Library is what of the preloaded library is in a container.
type Library struct {
	State   preloaded.State `json:"state"`   // empty where it could not be looked at
	SHA256  string          `json:"sha256"`  // of the file, for intrusion detection; empty without one
	Current bool            `json:"current"` // it is the build of this program
	Others  []string        `json:"others"`  // what else /etc/ld.so.preload names
}

// active tells whether programs that start in the container have it.
func (l Library) active() bool { return preloaded.Seen{State: l.State}.Active() }

// QEMU is what a container's QEMU packages come to, by the programs that its own work uses.
type QEMU string

// What QEMU packages can be.
const (
	Stock     QEMU = "stock"
	Patched   QEMU = "patched"
	Mixed     QEMU = "mixed"   // some of those that count are patched, or a program is not its package's
	ByLibrary QEMU = "library" // not all of those that count are patched, and the preloaded library does it
	NoQEMU    QEMU = "none"    // none is installed
	Unknown   QEMU = "unknown" // see Error
)

// QEMUPacket is one installed package that is built from QEMU's source.
type QEMUPacket struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Patched bool   `json:"patched"`
	Held    bool   `json:"held"` // apt was told to keep it

	whose baseline.Whose
	doubt string // why that cannot be told
}

// unlocked tells whether QEMU goes on where locks are refused.
func (q QEMU) unlocked() bool { return q == Patched || q == ByLibrary }

// Guest is a running guest whose program is not the one in its container, or which has not the library that is there.
type Guest struct {
	PID    int    `json:"pid"`
	Guest  string `json:"guest"`  // its name, as libvirt knows it
	Locks  int    `json:"locks"`  // byte locks that it holds
	Advice string `json:"advice"` // what to do
}

// Drift is a container that is not as the last run of nfs_lock_fix left it.
type Drift struct {
	Container string    `json:"container"`
	What      string    `json:"what"` // "packages" or "library"
	Kind      DriftKind `json:"kind"`
	Was       string    `json:"was"` // the id, or the package and version
	Is        string    `json:"is"`
	Counts    bool      `json:"counts"` // the container's own work uses what is stock again, or the container is gone
	Message   string    `json:"message"`
}

// DriftKind tells how.
type DriftKind string

// Drifts.
const (
	Recreated  DriftKind = "recreated"  // another container of that name, without the patch or the library
	Lost       DriftKind = "lost"       // the same container, without it
	Superseded DriftKind = "superseded" // a later version of the distribution's replaced the patched one
	Gone       DriftKind = "gone"       // there is no such container now
)

// Finding is something to know that is no verdict by itself.
type Finding struct {
	Kind    FindingKind `json:"kind"`
	Message string      `json:"message"`
	File    string      `json:"file"` // where it is written; empty if nowhere
	Line    int         `json:"line"` // from 1; 0 without a file
}

// Setting is what a file of kolla-ansible says of NFS mounts, or a place where it could.
type Setting struct {
	Service string `json:"service"` // "share", a line of nfs_shares, which Cinder and Nova both get; "cinder"; "nova"
	Section string `json:"section"` // of cinder.conf or nova.conf: "nfs-1", "libvirt"
	Option  string `json:"option"`  // "nfs_mount_options"; empty where the section does not have it
	Export  string `json:"export"`  // of a share: "filer:/cinder"
	Options string `json:"options"` // "vers=3,hard"
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0 where nothing stands
}

// FindingKind is what a finding is about.
type FindingKind string

// Findings.
const (
	OptionsDiffer   FindingKind = "options_differ"    // one export, mounted or configured by Cinder and Nova with other versions or lock options
	SilentV3        FindingKind = "silent_v3"         // mounted with version 3 though nothing asks for it
	NoLockOption    FindingKind = "nolock"            // an option that makes locks local
	ShareNoVersion  FindingKind = "no_version"        // a share whose version is left to chance
	ForeignProgram  FindingKind = "foreign_program"   // something else has the port or the registration of rpcbind, statd or the lock manager
	StrayStatd      FindingKind = "stray_statd"       // a statd in a container that mounts: it dies with it
	NoRestartStatd  FindingKind = "statd_dead"        // statd does not answer, though some locks still work
	SeccompRefuses  FindingKind = "seccomp_refuses"   // the container's profile refuses what the mount grants
	PatchNotNeeded  FindingKind = "patch_not_needed"  // patched, or with the library in its layer, and every lock works
	LibraryDiffers  FindingKind = "library_differs"   // the library in a container is another build than this program's
	LibraryBroken   FindingKind = "library_broken"    // /etc/ld.so.preload names it, and no program can load it
	ClassicVariant  FindingKind = "disable_ofd"       // the classic edit: QEMU's own locking is off
	DoubtfulPackage FindingKind = "doubtful_package"  // whose an installed package is cannot be told
	NoLockManager   FindingKind = "no_lock_manager"   // the kernel's lock manager is not registered
	UnseenMount     FindingKind = "unseen_mount"      // the kernel has an NFS filesystem open that nobody here sees
	UnmountedStore  FindingKind = "unmounted_store"   // an NFS mount of /etc/fstab that Glance's images belong on is not there
	PathNotFound    FindingKind = "path_not_found"    // a path of the option is nowhere
	ContainerAbsent FindingKind = "container_stopped" // a container that does not run
	LeftoverRemoved FindingKind = "leftover_removed"  // a probe file of an earlier run
	UnreadConfig    FindingKind = "unread_config"     // a file under /etc/kolla that could not be read
)

// Service is rpcbind or rpc.statd, asked over RPC on this host.
type Service struct {
	State     string  `json:"state"`      // "answers", "hangs", "absent", "partial", "dead", "unregistered"
	AnswersMS float64 `json:"answers_ms"` // 0 if it does not answer
	Detail    string  `json:"detail"`     // why it does not
	Where     string  `json:"where"`      // "host", a container's name, or empty
}

// Holder is a process of this host that has a lock on an image.
type Holder struct {
	PID       int    `json:"pid"`
	Program   string `json:"program"`
	Guest     string `json:"guest"`     // if it is QEMU's and has a name
	Container string `json:"container"` // Host outside of containers
	Kind      string `json:"kind"`      // "ofd", "posix" or "flock"
	Bytes     string `json:"bytes"`     // "100-103"; "all"
}

// Proof is what a container's own qemu-img made of one of its mounts or folders, or libvirt of a guest there.
type Proof struct {
	Container string      `json:"container"`
	Path      string      `json:"path"`
	Result    ProofResult `json:"result"`
	Step      ProofStep   `json:"step"`     // at which it did not go on; empty if it works, or if qemu-img was never run
	Unlocked  bool        `json:"unlocked"` // it warned that it goes on without a lock, as the patched one does, and any with the library
	Detail    string      `json:"detail"`   // the end of what it printed, or why it was not tried
	MS        float64     `json:"ms"`       // both steps, with the engine's time
}

// ProofResult is how that went.
type ProofResult string

// Results of a proof.
const (
	Works    ProofResult = "works" // both steps ended well, and both images were there
	Fails    ProofResult = "fails"
	Stalls   ProofResult = "hangs"
	Unproved ProofResult = "not_tried"
)

// ProofStep is a command of qemu-img, or libvirt's.
type ProofStep string

// The steps of a proof.
const (
	StepCreate  ProofStep = "create"
	StepConvert ProofStep = "convert"
	StepStart   ProofStep = "start" // of a guest
)

// Libvirt is how the container that runs guests fares.
type Libvirt struct {
	Container string       `json:"container"` // its name; empty without the option prove, and where none was looked at or none runs
	Healthy   bool         `json:"healthy"`
	Detail    string       `json:"detail"` // why it is not
	Locks     LibvirtLocks `json:"locks"`
}

// LibvirtLocks are the locks that libvirt takes by itself, and by which settings.
type LibvirtLocks struct {
	Container string `json:"container"` // empty where no libvirt was looked at
	Covered   bool   `json:"covered"`   // its daemon has the preloaded library loaded, so that a lock of its own that is refused keeps no guest from starting
	libvirt.Locks
}

// LeftProbe is a process of an earlier run that still hangs. It goes away when its mount does.
type LeftProbe struct {
	PID    int    `json:"pid"`
	Device string `json:"device"` // of the mount, as /proc/PID/mountinfo has it
}
