package lockprobe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nfslock/ansible-collection-kolla/internal/engine/enginetest"
	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/sunrpc"
)

// Glance's store on NFS is a mount of glance_api like any other: it is tried, and its verdict is Glance's.
func TestGlancesStoreIsJudged(t *testing.T) {
	h := build(t, "/var/lib/glance", "rw", enginetest.Container{Name: "glance_api"}, enginetest.Container{Name: "keystone", State: "exited"})
	list := filepath.Join(h.dir, "var/lib/dpkg/info/qemu-utils.list")
	if err := os.MkdirAll(filepath.Dir(list), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := emptyResult()
	if err := h.m.run(t.Context(), quick, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Mounts) != 1 || r.Mounts[0].Container != "glance_api" || r.Mounts[0].Path != "/var/lib/glance" || r.Mounts[0].Source != "filer:/a" || r.Mounts[0].Probes.OFD.Result == NotTried {
		t.Errorf("%+v", r.Mounts)
	}
	if len(r.Packages) != 1 || r.Packages[0].Container != "glance_api" {
		t.Errorf("%+v", r.Packages)
	}
}

const glanceConf = `[DEFAULT]
enabled_backends = file:file, http:http
[file]
filesystem_store_datadir = /var/lib/glance/images/
[os_glance_staging_store]
filesystem_store_datadir = /var/lib/glance/staging
`

func TestAnNFSMountThatGlanceIsWithout(t *testing.T) {
	disk := func(root, path string) host.MountPoint {
		return host.MountPoint{Device: "8:1", Root: root, Path: path, FSType: "ext4", Source: "/dev/vda1"}
	}
	nfs := host.MountPoint{Device: "0:57", Root: "/", Path: "/mnt/glance", FSType: "nfs", Source: "filer:/glance", Super: "rw,vers=3"}
	inside := nfs
	inside.Path = "/var/lib/glance"
	bare, gone := []host.MountPoint{disk("/", "/")}, services(sunrpc.NotThere, sunrpc.NotThere)
	const line = "# <file system> <mount point>\n\nUUID=1 / ext4 defaults 0 1\nfiler:/glance /mnt/glance nfs rw,hard 0 0\n"
	for _, test := range []struct {
		name   string
		fstab  string
		conf   string
		own    []host.MountPoint
		glance []host.MountPoint // nil: there is no such container
		want   string
		now    Verdict
	}{
		{"it is mounted", line, glanceConf, []host.MountPoint{disk("/", "/"), nfs}, []host.MountPoint{disk("/docker/1", "/"), inside}, "", OK},
		{
			"it is not", line, glanceConf, bare,
			[]host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")},
			"filer:/glance is not mounted at /mnt/glance, so that what Glance keeps in /var/lib/glance/images goes to this host's own disk", RPCBindMissing,
		},
		{
			"nor is the folder above it", strings.ReplaceAll(line, "/mnt/glance", "/mnt"), glanceConf, bare,
			[]host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")},
			"filer:/glance is not mounted at /mnt, so that", RPCBindMissing,
		},
		{"it comes when it is used", strings.ReplaceAll(line, "rw,hard", "rw,x-systemd.automount"), glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "", OK},
		{"it is mounted by hand", strings.ReplaceAll(line, "rw,hard", "noauto,rw"), glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "", OK},
		{"NFSv4 needs no services", strings.ReplaceAll(line, " nfs ", " nfs4 "), glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "filer:/glance is not", OK},
		{"another folder", line, glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/srv/glance", "/var/lib/glance")}, "", OK},
		{"a name that only begins so", line, glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance2", "/var/lib/glance")}, "", OK},
		{"Glance keeps its images elsewhere", line, "[file]\nfilesystem_store_datadir = /srv/images\n", bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "", OK},
		{
			"several folders with priorities", line, "[file]\nfilesystem_store_datadirs = /srv/images:100\nfilesystem_store_datadirs = /var/lib/glance/b:10\n", bare,
			[]host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")},
			"in /var/lib/glance/b goes", RPCBindMissing,
		},
		{"it was mounted after the container was started", line, glanceConf, []host.MountPoint{disk("/", "/"), nfs}, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "", OK},
		{"no Glance", line, glanceConf, bare, nil, "", OK},
		{"no fstab", "", glanceConf, bare, []host.MountPoint{disk("/docker/1", "/"), disk("/mnt/glance", "/var/lib/glance")}, "", OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := etc(t, map[string]string{"glance-api/glance-api.conf": test.conf, "fstab": test.fstab})
			s := seen{answers: gone, config: readConfig(dir), views: []*view{{name: Host, mounts: test.own}}}
			s.config.fixed = readFstab(filepath.Join(dir, "fstab"))
			if test.glance != nil {
				s.views = append(s.views, &view{name: "cinder_volume"}, &view{name: "glance_api", mounts: test.glance})
			}
			var got string
			for _, m := range s.missingStores() {
				f := m.finding()
				got += f.Message
				if f.Kind != UnmountedStore || f.Line != 4 || filepath.Base(f.File) != "fstab" {
					t.Errorf("%+v", f)
				}
			}
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("%q", got)
			}
			r := emptyResult()
			if r.sumUp(s); r.Verdict != test.now {
				t.Errorf("%s", r.Verdict)
			}
		})
	}
}

func TestFstab(t *testing.T) {
	dir := etc(t, map[string]string{"fstab": "a:/x /x nfs vers=4.2\n#b:/y /y nfs rw\nc:/z\t/with\\040space/\tnfs4 rw 0 0\n/dev/vda /v ext4 rw\nd:/short /d nfs\n" + strings.Repeat("e:/e /e nfs rw\n", 2*mostShares)})
	name := filepath.Join(dir, "fstab")
	all := readFstab(name)
	want := []fixed{{share{"a:/x", "vers=4.2", name, 1}, "/x"}, {share{"c:/z", "rw,vers=4", name, 3}, "/with space"}}
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(all[:2])); diff != "" || len(all) != mostShares {
		t.Errorf("%d, %s", len(all), diff)
	}
	if all := readFstab(filepath.Join(dir, "none")); all != nil {
		t.Error(all)
	}
}
