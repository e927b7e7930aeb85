package lockprobe

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
)

const volumes = `NV SERVER   PORT DEV          FSID                              FSC
v3 c0000207  801 0:57         3f2a5c1d00000000:0                no
v4 20010db8000000000000000000000007  801 0:58         1:2                no
`

func TestVolumesThatNobodySees(t *testing.T) {
	all := parseVolumes(strings.NewReader(volumes))
	if diff := cmp.Diff(fmt.Sprint([]volume{{"v3", "192.0.2.7", "0:57"}, {"v4", "2001:db8::7", "0:58"}}), fmt.Sprint(all)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	var found []string
	add := func(kind FindingKind, format string, args ...any) {
		found = append(found, string(kind)+" "+fmt.Sprintf(format, args...))
	}
	findUnseen(all, []*view{{mounts: []host.MountPoint{{Device: "0:57"}}}}, add)
	if len(found) != 1 || !strings.HasPrefix(found[0], "unseen_mount the kernel has a filesystem of the NFS server 2001:db8::7 open (v4, device 0:58)") {
		t.Errorf("%q", found)
	}
}

func FuzzParseVolumes(f *testing.F) {
	f.Add(volumes)
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range parseVolumes(strings.NewReader(text)) {
			if v.server == "" || !strings.Contains(v.device, ":") {
				t.Errorf("%+v", v)
			}
		}
	})
}
