package lockfix

import (
	"slices"
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// The classic edit costs locking everywhere. Whoever installs it hears that, check mode included; whoever has it already does not
// hear it at each run, and the other variant never says so.
func TestInstallingDisableOFDWarnsThatLockingIsOff(t *testing.T) {
	w := twoContainers(t)
	set, f := folder(t, qemuUtils(patched))
	warned := func(when string, call ansible.Call, set Set, want bool) {
		t.Helper()
		r, err := w.run(options(), call, set, f)
		if got := slices.Contains(r.Warnings, disableOFDWarning); err != nil || got != want {
			t.Errorf("%s: warned %v, want %v; %v, %q", when, got, want, err, r.Warnings)
		}
	}
	warned("check mode of the fallback", ansible.Call{CheckMode: true}, set, false)
	set.Variant = "disable_ofd"
	warned("check mode", ansible.Call{CheckMode: true}, set, true)
	warned("install", ansible.Call{}, set, true)
	warned("it is installed", ansible.Call{}, set, false)
}
