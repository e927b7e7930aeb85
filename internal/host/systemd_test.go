package host

import (
	"os"
	"strings"
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

func TestRuns(t *testing.T) {
	const unit = "kolla-nova_libvirt-container.service"
	for _, test := range []struct {
		name    string
		shown   string
		want    bool
		wantErr string
	}{
		{"started", "LoadState=loaded\nActiveState=active\n", true, ""},
		{"the other way round", "ActiveState=active\nLoadState=loaded\n", true, ""},
		{"between two starts", "LoadState=loaded\nActiveState=activating\n", true, ""},
		{"on its way down", "LoadState=loaded\nActiveState=deactivating\n", true, ""},
		{"stopped", "LoadState=loaded\nActiveState=inactive\n", false, ""},
		{"given up", "LoadState=loaded\nActiveState=failed\n", false, ""},
		{"none", "LoadState=not-found\nActiveState=inactive\n", false, ""},
		{"masked and stopped", "LoadState=masked\nActiveState=inactive\n", false, ""},
		{"masked and given up", "LoadState=masked\nActiveState=failed\n", false, ""},
		{"masked while it ran", "LoadState=masked\nActiveState=active\n", false, "systemd would refuse to restart " + unit + ", which runs but is masked: systemctl unmask it"},
		{"its file removed while it ran", "LoadState=not-found\nActiveState=active\n", false, "which runs but whose unit file is not-found: have kolla-ansible write it again, or set restart: never"},
		{"its file spoilt while it ran", "LoadState=bad-setting\nActiveState=active\n", false, "whose unit file is bad-setting"},
		{"no answer", "", false, "cannot tell whether " + unit + " runs"},
		{"a state that no systemd has yet", "LoadState=loaded\nActiveState=dreaming\n", false, "dreaming"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := runs(unit, test.shown)
			if got != test.want || (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("got %v, %v; want %v, %q", got, err, test.want, test.wantErr)
			}
		})
	}
}
