package lockprobe

import (
	"strings"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
)

// A guest starts where both QEMU and libvirt get what they ask for, or go on without.
func TestWhetherAGuestStarts(t *testing.T) {
	locks := func(conf string) *libvirt.Locks {
		l := libvirt.ReadLocks(container(t, "", map[string]string{"etc/libvirt/qemu.conf": conf}), "11.3.0-3")
		return &l
	}
	own, none := locks(""), locks("remember_owner = 0\n")
	both := Probes{OFD: noLocks, POSIX: noLocks}
	onlyOFD := Probes{OFD: noLocks, POSIX: granted}
	onlyPOSIX := Probes{OFD: granted, POSIX: noLocks}
	fine := Probes{OFD: granted, POSIX: granted}
	for _, test := range []struct {
		name    string
		probes  Probes
		qemu    QEMU
		libvirt *libvirt.Locks
		start   Start
		missing string // a word of each sentence
		fix     Fix
		text    string
		asUser  string // the type of a filesystem on which root may not write, empty where root may
	}{
		{"locks work", fine, Stock, own, Starts, "", FixNone, "Nothing is to be done", ""},
		{"stock, and libvirt locks", both, Stock, own, StartsNot, "QEMU libvirt", FixPatch, "For guests they are half of it", ""},
		{"patched in part", both, Mixed, own, StartsNot, "QEMU libvirt", FixPatch, "remember_owner = 0", ""},
		{"patched, and libvirt locks", both, Patched, own, StartsNot, "libvirt", FixLibvirt, "replaces the template as a whole", ""},
		{"patched, and libvirt does not", both, Patched, none, Starts, "", FixNone, "Nothing more is to be done", ""},
		{"stock, and libvirt does not", both, Stock, none, StartsNot, "QEMU", FixPatch, "put the library into the containers", ""},
		{"libvirt gets its lock", onlyOFD, Patched, own, Starts, "", FixNone, "Nothing more is to be done", ""},
		{"only libvirt's is refused", onlyPOSIX, Stock, own, StartsNot, "libvirt", FixLibvirt, "Or put the library into nova_libvirt", ""},
		{"root is squashed, so that libvirt may go without", both, Patched, own, StartsOpen, "libvirt", FixNone, "Nothing more is to be done", "nfs"},
		{"root is squashed, and QEMU is stock", both, Stock, own, StartsNot, "QEMU libvirt", FixPatch, "put the library into the containers", "nfs"},
		{"root may not write on what is no shared filesystem for libvirt", both, Stock, own, StartsNot, "QEMU libvirt", FixPatch, "For guests they are half of it", "fuse.store"},
		{"a container without libvirt", both, Stock, nil, "", "", FixPatch, "put the library into the containers", ""},
		{"nothing was tried", Probes{OFD: untried, POSIX: untried}, Stock, own, StartsOpen, "", FixLook, "", ""},
		{"locks hang", Probes{OFD: Probe{Result: Hung}, POSIX: untried}, Patched, none, StartsNot, "return", FixServer, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := Evidence{Container: "nova_libvirt", FSType: "fuse.store", Probes: test.probes, QEMU: test.qemu, Libvirt: test.libvirt}
			if test.asUser != "" {
				e.As, e.FSType = &user{42436, 42436}, test.asUser
			}
			if e.squashed() != (test.asUser == "nfs") {
				t.Error("it is wrong about root")
			}
			if test.qemu == Patched {
				e.Variant = "fallback"
			}
			if test.probes.OFD.Result == Hung {
				e.Hangs = "ofd"
			}
			j := judge(e)
			if j.Guests.Start != test.start || len(j.Guests.Missing) != len(strings.Fields(test.missing)) {
				t.Fatalf("%+v", j.Guests)
			}
			for i, word := range strings.Fields(test.missing) {
				if !strings.Contains(j.Guests.Missing[i], word) {
					t.Errorf("%q does not say %s", j.Guests.Missing[i], word)
				}
			}
			if j.Cure.Fix != test.fix || !strings.Contains(j.Cure.Text, test.text) {
				t.Errorf("%+v", j.Cure)
			}
			says := strings.Contains(strings.Join(j.Evidence, "\n"), "remember_owner = ")
			if wants := test.libvirt != nil && test.probes.POSIX.Result == Refused; says != wants {
				t.Errorf("evidence: %q", j.Evidence)
			}
		})
	}
}

// A host is told what is most to be done: its own view of a store, where nothing is to be patched, does not hide what a container needs.
func TestTheHostsCureIsTheOneWithMostToDo(t *testing.T) {
	row := func(container string, v Verdict, f Fix) Mount { return Mount{Container: container, Verdict: v, Fix: f} }
	for _, test := range []struct {
		mounts []Mount
		want   string
	}{
		{[]Mount{row(Host, LocksRefused, FixNone), row("nova_libvirt", LocksRefused, FixLibvirt), row("cinder_volume", LocksRefused, FixPatch)}, "cinder_volume"},
		{[]Mount{row(Host, LocksRefused, FixNone), row("nova_libvirt", LocksRefused, FixLibvirt), row("cinder_volume", LocksRefused, FixNone)}, "nova_libvirt"},
		{[]Mount{row(Host, OK, FixNone), row("nova_libvirt", OK, FixLibvirt)}, "nova_libvirt"},
		{[]Mount{row(Host, LocksRefused, FixNone), row("nova_libvirt", StatdDead, FixRPCBind), row("cinder_volume", LocksRefused, FixPatch)}, "nova_libvirt"},
		{[]Mount{row(Host, LocksRefused, FixNone), row("nova_libvirt", LocksRefused, FixNone), row("cinder_volume", LocksRefused, FixNone)}, "nova_libvirt"},
		{[]Mount{row(Host, Held, FixHolder), row("nova_libvirt", OK, FixNone)}, Host},
	} {
		if worst, found := sum(test.mounts); !found || worst.Container != test.want {
			t.Errorf("%+v, want %s", worst, test.want)
		}
	}
}
