package host

import (
	"os"
	"testing"
)

func TestUnitRunsIsFalseWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("systemd runs this machine")
	}
	if ok, err := UnitRuns(t.Context(), "kolla-nova_libvirt-container.service"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestUnitRunsIsFalseOfAUnitThatNobodyMade(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("systemd does not run this machine")
	}
	if ok, err := UnitRuns(t.Context(), "kolla-nobody_made_this-container.service"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}
