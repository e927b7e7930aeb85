package libvirt

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kollas is what kolla-ansible 23 writes with its defaults.
const kollas = `stdio_handler = "logd"

user = "nova"
group = "nova"

max_files =  32768
max_processes =  131072


`

func TestParseConf(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want settings
		err  string
	}{
		{"kolla-ansible's", kollas, settings{"stdio_handler": "logd", "user": "nova", "group": "nova", "max_files": "32768", "max_processes": "131072"}, ""},
		{"nothing", "", settings{}, ""},
		{"comments", "#remember_owner = 0\n  # x\nremember_owner = 1 # no\n", settings{"remember_owner": "1"}, ""},
		{"the first holds, as in libvirt", "remember_owner = 0\nremember_owner = 1\n", settings{"remember_owner": "0"}, ""},
		{"lists are passed over", "cgroup_device_acl = [\n  \"/dev/null\", \"/dev/full\",\n \"a = 1\"\n]\nuser=\"x\"", settings{"user": "x"}, ""},
		{"an empty list", "namespaces = []\nuser = 'x'\n", settings{"user": "x"}, ""},
		{"a string over several lines", "a = \"\"\"one\ntwo\"\"\"\nb = 2\n", settings{"a": "one\ntwo", "b": "2"}, ""},
		{"semicolons", "a = 1; b = 2", settings{"a": "1", "b": "2"}, ""},
		{"lines of Windows", "a = 1\r\nb = 2\r\n", settings{"a": "1", "b": "2"}, ""},
		{"no value", "a =\n", nil, "line 1: a value is expected"},
		{"no assignment", "a 1\n", nil, "line 1: an assignment is expected"},
		{"no name", "\n\n= 1\n", nil, "line 3: a name is expected"},
		{"an open string", "a = \"x\nb = \"y\"\n", nil, "a string is not closed"},
		{"an open list", "a = [ 1, 2\n", nil, "a list is not closed"},
		{"words", "a = yes\n", nil, "line 1: a value is expected"},
		{"two values", "a = 1 2\n", nil, "the end of the line is expected"},
	} {
		got, err := parseConf(strings.NewReader(test.text))
		if diff := cmp.Diff(test.want, got); diff != "" || fmt.Sprint(err) != "<nil>" && test.err == "" || test.err != "" && !strings.Contains(fmt.Sprint(err), test.err) {
			t.Errorf("%s: %v, -want +got:\n%s", test.name, err, diff)
		}
	}
}

func FuzzParseConf(f *testing.F) {
	for _, seed := range []string{kollas, "a = [ 1, \"x\", 'y' ]\n", "a = \"\"\"x\ny\"\"\"", "a=+1;b=-2#c", "\"", "a = [", "_=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseConf(strings.NewReader(text))
		if err != nil && got != nil {
			t.Errorf("%v beside %v", got, err)
		}
		for name, value := range got { // what was read can be written and read again
			if strings.ContainsAny(value, "\"\r\n") {
				continue
			}
			again, err := parseConf(strings.NewReader(name + ` = "` + value + `"`))
			if err != nil || again[name] != value {
				t.Errorf("%s = %q became %v, %v", name, value, again, err)
			}
		}
	})
}

// tree is a container's root with some files.
func tree(t *testing.T, files map[string]string) *os.Root {
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
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestWhichLocksLibvirtTakesByItself(t *testing.T) {
	for _, test := range []struct {
		name    string
		files   map[string]string
		version string
		own     bool
		why     string
		detail  string
	}{
		{"kolla-ansible's file", map[string]string{qemuConf: kollas}, "11.3.0-3+deb13u3", true, "remember_owner", ""},
		{"no file", nil, "9.0.0-4+deb12u2", true, "remember_owner", ""},
		{"off", map[string]string{qemuConf: kollas + "remember_owner = 0\n"}, "11.3.0-3", false, "", ""},
		{"ownership off", map[string]string{qemuConf: "dynamic_ownership = 0\n"}, "11.3.0-3", false, "", ""},
		{"libvirt of before that", map[string]string{qemuConf: kollas}, "1:5.0.0-4", false, "", ""},
		{"the lock daemon on the disks", map[string]string{qemuConf: "remember_owner = 0\nlock_manager = \"lockd\"\n"}, "11.3.0-3", true, "lockd", ""},
		{"the lock daemon elsewhere", map[string]string{qemuConf: "remember_owner = 0\nlock_manager = \"lockd\"\n", lockdConf: "file_lockspace_dir = \"/srv/locks\"\n"}, "11.3.0-3", false, "", ""},
		{"the lock daemon elsewhere, and ownership", map[string]string{qemuConf: "lock_manager = \"lockd\"\n", lockdConf: "file_lockspace_dir = \"/srv/locks\"\n"}, "11.3.0-3", true, "remember_owner", ""},
		{"the lock daemon where it is told to", map[string]string{qemuConf: "remember_owner = 0\nlock_manager = \"lockd\"\n", lockdConf: "auto_disk_leases = 0\n"}, "11.3.0-3", false, "", ""},
		{"both", map[string]string{qemuConf: "lock_manager = \"lockd\"\n"}, "11.3.0-3", true, "and lock_manager", ""},
		{"sanlock", map[string]string{qemuConf: "remember_owner = 0\nlock_manager = \"sanlock\"\n"}, "11.3.0-3", false, "", ""},
		{"deployed, and not yet in force", map[string]string{qemuConf: kollas, deployedConf: kollas + "remember_owner = 0\n"}, "11.3.0-3", true, "remember_owner", "holds after the container's next start"},
		{"deployed, and in force", map[string]string{qemuConf: kollas, deployedConf: kollas}, "11.3.0-3", true, "remember_owner", ""},
		{"a file that libvirt cannot read either", map[string]string{qemuConf: "remember_owner = no\n"}, "11.3.0-3", true, "remember_owner", "cannot read /etc/libvirt/qemu.conf: line 1"},
	} {
		l := ReadLocks(tree(t, test.files), test.version)
		if l.OwnLocks != test.own || (l.Why() == "") == test.own || (l.Remedy == "") == test.own ||
			strings.Contains(l.Remedy, "remember_owner = 0") != strings.Contains(l.Why(), "remember_owner") || strings.Contains(l.Remedy, "file_lockspace_dir") != strings.Contains(l.Why(), "lockd") ||
			!strings.Contains(l.Why(), test.why) || !strings.Contains(l.Detail, test.detail) || test.detail == "" && l.Detail != "" {
			t.Errorf("%s: %+v, %q", test.name, l, l.Why())
		}
	}
	if l := ReadLocks(tree(t, nil), "1:11.3.0-3+deb13u3"); l.Version != "11.3.0" {
		t.Errorf("%q", l.Version)
	}
}

func TestAPipeInPlaceOfASettingsFileIsNotWaitedFor(t *testing.T) {
	root := tree(t, map[string]string{"etc/libvirt/x": ""})
	if err := syscall.Mkfifo(filepath.Join(root.Name(), qemuConf), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := ReadLocks(root, "11.3.0"); !l.OwnLocks || !strings.Contains(l.Detail, "not a regular file") {
		t.Errorf("%+v", l)
	}
}

func TestEmulatorsOfDefinedDomains(t *testing.T) {
	domain := func(emulator string) string {
		return "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n<domain type='kvm'>\n  <name>instance-00000001</name>\n  <devices>\n    <emulator>" + emulator + "</emulator>\n  </devices>\n</domain>\n"
	}
	root := tree(t, map[string]string{
		definedFolder + "/instance-00000001.xml": domain("/usr/bin/qemu-system-x86_64"),
		definedFolder + "/instance-00000002.xml": domain("/usr/bin/qemu-system-x86_64"),
		definedFolder + "/arm.xml":               domain("/usr/bin/qemu-system-aarch64"),
		definedFolder + "/broken.xml":            "<domain><devices><emulator>/usr/bin/no",
		definedFolder + "/none.xml":              "<domain/>",
		definedFolder + "/arm.xml.new":           domain("/usr/bin/qemu-system-ppc64"),
		definedFolder + "/networks/default.xml":  "<network/>",
		definedFolder + "/other.xml":             "<network><devices><emulator>/x</emulator></devices></network>",
	})
	got, err := Emulators(root)
	if diff := cmp.Diff([]string{"/usr/bin/qemu-system-aarch64", "/usr/bin/qemu-system-x86_64"}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := Emulators(tree(t, nil)); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestATrialIsToldFromEverybodyElsesDomain(t *testing.T) {
	now := time.Unix(1700000000, 0)
	tr := NewTrial(now)
	if again, left := LeftTrial(tr.Name, now.Add(time.Second)); !left || again != tr {
		t.Errorf("%+v, %v, of %+v", again, left, tr)
	}
	if _, left := LeftTrial(tr.Name, now); left {
		t.Error("one that is at work counts as left")
	}
	if other := NewTrial(now); other.Name == tr.Name || other.UUID == tr.UUID {
		t.Errorf("%+v twice", other)
	}
	for _, name := range []string{"", "instance-00000001", TrialPrefix, tr.Name + "x", "x" + tr.Name, strings.ToUpper(tr.Name), TrialPrefix + "1-0123456789abcdef"} {
		if found, left := LeftTrial(name, now.Add(time.Hour)); left || found != (Trial{}) {
			t.Errorf("%q: %+v", name, found)
		}
	}
}

func TestTheDescriptionIsXMLWhateverTheImageIsCalled(t *testing.T) {
	const image = `/var/lib/nova/mnt/a'b<c>&"d/image`
	tr := NewTrial(time.Unix(1700000000, 0))
	var d struct {
		Type   string `xml:"type,attr"`
		Name   string `xml:"name"`
		UUID   string `xml:"uuid"`
		Source struct {
			File string `xml:"file,attr"`
		} `xml:"devices>disk>source"`
		OS struct {
			Arch string `xml:"arch,attr"`
		} `xml:"os>type"`
	}
	if err := xml.Unmarshal(tr.XML(TCG, "aarch64", image), &d); err != nil {
		t.Fatal(err)
	}
	if d.Type != "qemu" || d.Name != tr.Name || d.UUID != tr.UUID || d.Source.File != image || d.OS.Arch != "aarch64" {
		t.Errorf("%+v", d)
	}
}
