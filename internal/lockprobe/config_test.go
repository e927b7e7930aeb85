package lockprobe

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// etc writes files below a folder that stands for /etc/kolla.
func etc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLint(t *testing.T) {
	const cinder = "[DEFAULT]\nenabled_backends = nfs-1\n\n[nfs-1]\nvolume_driver = cinder.volume.drivers.nfs.NfsDriver\nnfs_shares_config = /etc/cinder/nfs_shares\n"
	tests := []struct {
		name  string
		files map[string]string
		want  []string // "kind file:line part of the message"
	}{
		{"nothing there", nil, nil},
		{"as kolla-ansible writes it", map[string]string{"cinder-volume/nfs_shares": "# shares\nfiler:/cinder\n", "cinder-volume/cinder.conf": cinder}, []string{
			"no_version cinder-volume/nfs_shares:2 the share filer:/cinder has no vers option",
		}},
		{"both asked for by the share", map[string]string{"cinder-volume/nfs_shares": "filer:/cinder -o vers=4.2,hard\n", "cinder-volume/cinder.conf": cinder}, nil},
		{"Cinder alone", map[string]string{"cinder-volume/nfs_shares": "filer:/cinder\n", "cinder-volume/cinder.conf": cinder + "nfs_mount_options = vers=4.2\n"}, []string{
			"options_differ cinder-volume/cinder.conf:7 Cinder mounts filer:/cinder with vers=4.2, Nova with no vers option",
		}},
		{"Nova alone", map[string]string{"cinder-volume/nfs_shares": "filer:/cinder\n", "nova-compute/nova.conf": "[libvirt]\nnfs_mount_options = vers=3,nolock\n"}, []string{
			"nolock nova-compute/nova.conf:2 nolock makes locks local",
			"options_differ nova-compute/nova.conf:2 Cinder mounts filer:/cinder with no vers option, Nova with vers=3 and nolock",
		}},
		{"the share settles it for both", map[string]string{
			"cinder-volume/nfs_shares": "filer:/cinder -o nfsvers=4,minorversion=2\n", "cinder-volume/cinder.conf": cinder + "nfs_mount_options = vers=3\n",
			"nova-compute/nova.conf": "[libvirt]\nnfs_mount_options = vers=3\n",
		}, nil},
		{"in another section of nova.conf it counts nothing", map[string]string{"cinder-volume/nfs_shares": "filer:/cinder -o vers=4.2\n", "nova-compute/nova.conf": "[DEFAULT]\nnfs_mount_options = nolock\n"}, nil},
		{"nolock behind a share", map[string]string{"cinder-volume/nfs_shares": "filer:/cinder -o vers=3,local_lock=posix\n"}, []string{
			"nolock cinder-volume/nfs_shares:1 local_lock=posix at the share filer:/cinder",
		}},
		{"continued lines, comments and spaces", map[string]string{
			"cinder-volume/nfs_shares":  "filer:/cinder -o vers=4.2\n",
			"cinder-volume/cinder.conf": "[nfs-1]\n# nfs_mount_options = nolock\nnfs_mount_options = hard,\n  nolock\n; nolock\n[other]\nx = nolock\n",
		}, []string{
			"nolock cinder-volume/cinder.conf:3 nolock makes locks local",
			"options_differ cinder-volume/cinder.conf:3 vers=4.2 and nolock, Nova with vers=4.2",
		}},
		{"overrides of a deployment host", map[string]string{"config/nfs_shares": "filer:/cinder\n"}, []string{"no_version config/nfs_shares:1 "}},
		{"a template", map[string]string{"config/nfs_shares.j2": "{% for s in shares %}\n{{ s }}\n{% endfor %}\n"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := etc(t, test.files)
			found := readConfig(dir).lint()
			if len(found) != len(test.want) {
				t.Fatalf("%d findings: %+v", len(found), found)
			}
			for i, f := range found {
				kind, rest, _ := strings.Cut(test.want[i], " ")
				at, says, _ := strings.Cut(rest, " ")
				name, line, _ := strings.Cut(at, ":")
				if string(f.Kind) != kind || f.File != filepath.Join(dir, name) || line != strconv.Itoa(f.Line) || !strings.Contains(f.Message, says) {
					t.Errorf("%d: %+v, want %s", i, f, test.want[i])
				}
			}
		})
	}
}

// What is no file, or too long for a line, is named and does no harm.
// What the files say goes out with its place, and so does where nothing stands yet.
func TestSettings(t *testing.T) {
	dir := etc(t, map[string]string{
		"cinder-volume/nfs_shares":  "filer:/a -o vers=3,hard\nfiler:/b\n",
		"cinder-volume/cinder.conf": "[backend_defaults]\nnas_mount_options = soft\n[nfs-1]\nnfs_shares_config = /etc/cinder/nfs_shares\nnfs_mount_options = vers=3\n[nfs-2]\nnfs_shares_config = /etc/cinder/nfs_shares\n[rbd-1]\nx = y\n",
		"nova-compute/nova.conf":    "[DEFAULT]\nx = y\n",
		"config/nova.conf":          "[libvirt]\nnfs_mount_options = rsize=65536\n",
	})
	want := []Setting{
		{Service: "share", Export: "filer:/a", Options: "vers=3,hard", File: "cinder-volume/nfs_shares", Line: 1},
		{Service: "share", Export: "filer:/b", File: "cinder-volume/nfs_shares", Line: 2},
		{Service: "cinder", Section: "backend_defaults", Option: "nas_mount_options", Options: "soft", File: "cinder-volume/cinder.conf", Line: 2},
		{Service: "cinder", Section: "nfs-1", Option: "nfs_mount_options", Options: "vers=3", File: "cinder-volume/cinder.conf", Line: 5},
		{Service: "cinder", Section: "nfs-2", File: "cinder-volume/cinder.conf", Line: 7},
		{Service: "nova", Section: "libvirt", Option: "nfs_mount_options", Options: "rsize=65536", File: "config/nova.conf", Line: 2},
		{Service: "nova", Section: "libvirt", File: "nova-compute/nova.conf"},
	}
	for i := range want {
		want[i].File = filepath.Join(dir, want[i].File)
	}
	if diff := cmp.Diff(want, readConfig(dir).settings()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (config{}).settings(); got == nil || len(got) != 0 {
		t.Errorf("without files: %v", got)
	}
}

func TestHostileConfiguration(t *testing.T) {
	dir := etc(t, map[string]string{"cinder-volume/nfs_shares": strings.Repeat("x", 1<<20), "nova-compute/nova.conf/x": ""})
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "cinder-volume/cinder.conf")); err != nil {
		t.Fatal(err)
	}
	c := readConfig(dir)
	if len(c.unread) != 2 || len(c.shares)+len(c.cinder)+len(c.nova) != 0 {
		t.Errorf("%+v", c)
	}
	for _, f := range c.unread {
		if f.Kind != UnreadConfig || f.File == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestReadOptions(t *testing.T) {
	for text, want := range map[string]nfsOptions{
		"":                              {},
		"rw,vers=3,nolock":              {"3", "nolock"},
		"nolock,lock":                   {},
		"nfsvers=4.1":                   {vers: "4.1"},
		"v3":                            {vers: "3"},
		"vers=3,vers=4.2":               {vers: "4.2"},
		"vers=4,minorversion=1":         {vers: "4.1"},
		"local_lock=flock":              {},
		"local_lock=all":                {local: "local_lock=all"},
		"hard, vers=4.2 , local_lock=x": {vers: "4.2"},
	} {
		if got := readOptions(text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestLintMounts(t *testing.T) {
	mount := func(container, source, vers, options string) Mount {
		return Mount{Container: container, Path: "/mnt", Source: source, Vers: vers, Options: options}
	}
	c := config{shares: []share{{"filer:/a", "", "f", 1}, {"filer:/b", "vers=3", "f", 2}}}
	found := c.lintMounts([]Mount{
		mount("nova_compute", "filer:/a", "3", "rw,vers=3"), mount("cinder_volume", "filer:/a", "4.2", "rw,vers=4.2"), mount("nova_libvirt", "filer:/a", "3", "rw,vers=3"),
		mount("nova_compute", "filer:/b", "3", "rw,vers=3"), mount("cinder_volume", "filer:/b", "3", "rw,vers=3,nolock"),
		mount("cinder_volume", "filer:/c", "4.1", "rw,vers=4.1"),
	})
	var got []string
	for _, f := range found {
		got = append(got, string(f.Kind)+" "+f.Message)
	}
	want := []string{
		"silent_v3 filer:/a is mounted with version 3 at /mnt in nova_compute, though no option under the configuration asks for it: the server or the mount program settled on it",
		"options_differ filer:/a is mounted with vers=3 at /mnt in nova_compute, and with vers=4.2 at /mnt in cinder_volume",
		"options_differ filer:/b is mounted with vers=3 at /mnt in nova_compute, and with vers=3 and nolock at /mnt in cinder_volume",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("filer:/cinder -o vers=4.2,hard\n# x\n", "[libvirt]\nnfs_mount_options = vers=3,\n  nolock\n")
	f.Add("a:/b", "x\n[\n=\n y\n:")
	f.Fuzz(func(t *testing.T, shares, options string) {
		found, err := parseShares(strings.NewReader(shares), "f")
		lines := strings.Count(shares, "\n") + 1
		for _, s := range found {
			if s.line < 1 || s.line > lines || !strings.Contains(s.export, ":/") {
				t.Errorf("%+v", s)
			}
		}
		set, err2 := parseOptions(strings.NewReader(options), "g", func(string, string) bool { return true })
		for _, s := range set {
			if s.line < 1 || s.line > strings.Count(options, "\n")+1 {
				t.Errorf("%+v", s)
			}
		}
		if err == nil && err2 == nil {
			config{shares: found, cinder: set, nova: set}.lint()
		}
	})
}
