package kolla

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the images have, shortened by nothing.
const (
	bookworm = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
SUPPORT_URL="https://www.debian.org/support"
BUG_REPORT_URL="https://bugs.debian.org/"
`
	noble = `PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=noble
LOGO=ubuntu-logo
`
	rocky = `NAME="Rocky Linux"
VERSION="9.4 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"
ANSI_COLOR="0;32"
LOGO="fedora-logo-icon"
CPE_NAME="cpe:/o:rocky:rocky:9::baseos"
HOME_URL="https://rockylinux.org/"
BUG_REPORT_URL="https://bugs.rockylinux.org/"
SUPPORT_END="2032-05-31"
ROCKY_SUPPORT_PRODUCT="Rocky-Linux-9"
ROCKY_SUPPORT_PRODUCT_VERSION="9.4"
REDHAT_SUPPORT_PRODUCT="Rocky Linux"
REDHAT_SUPPORT_PRODUCT_VERSION="9.4"
`
)

func TestParseOSRelease(t *testing.T) {
	for _, test := range []struct {
		name    string
		text    string
		want    Distribution
		wantErr string
	}{
		{name: "Debian", text: bookworm, want: Distribution{"debian", "bookworm"}},
		{name: "Ubuntu, whose ID_LIKE is not its ID", text: noble, want: Distribution{"ubuntu", "noble"}},
		{name: "Rocky, which has no code name", text: rocky, want: Distribution{ID: "rocky"}},
		{name: "single quotes", text: "ID='debian'\nVERSION_CODENAME='bookworm'\n", want: Distribution{"debian", "bookworm"}},
		{name: "no newline at the end", text: "VERSION_CODENAME=noble\nID=ubuntu", want: Distribution{"ubuntu", "noble"}},
		{name: "lines of Windows", text: "ID=ubuntu\r\nVERSION_CODENAME=noble\r\n", want: Distribution{"ubuntu", "noble"}},
		{name: "comments and empty lines", text: "# a comment\n\n#ID=rocky\nID=debian\n# VERSION_CODENAME=sid\n", want: Distribution{ID: "debian"}},
		{name: "the last one counts, as in a shell", text: "ID=rocky\nID=debian\n", want: Distribution{ID: "debian"}},
		{name: "lines that are none", text: "ID\n=debian\nID=debian\n", want: Distribution{ID: "debian"}},
		{name: "empty", wantErr: "it has no ID"},
		{name: "no ID", text: "NAME=Debian\nVERSION_CODENAME=bookworm\n", wantErr: "it has no ID"},
		{name: "an ID of nothing", text: `ID=""`, wantErr: "it has no ID"},
		{name: "a line longer than any", text: "ID=debian\nNAME=" + strings.Repeat("x", 1<<20), wantErr: "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseOSRelease(strings.NewReader(test.text))
			if got != test.want || (err != nil) != (test.wantErr != "") {
				t.Fatalf("got %+v, %v; want %+v", got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("%q does not say %q", err, test.wantErr)
			}
		})
	}
}

func TestOnlyDebianAndUbuntuUseDpkg(t *testing.T) {
	for id, want := range map[string]bool{"debian": true, "ubuntu": true, "rocky": false, "centos": false, "": false} {
		if got := (Distribution{ID: id}).UsesDpkg(); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}

func TestReadDistribution(t *testing.T) {
	type files struct {
		text   map[string]string
		link   map[string]string
		folder []string
		fifo   []string
	}
	outside := filepath.Join(t.TempDir(), "os-release")
	if err := os.WriteFile(outside, []byte("ID=outside\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const etc, usr = "etc/os-release", "usr/lib/os-release"
	for _, test := range []struct {
		name    string
		files   files
		want    string
		wantErr string
	}{
		{name: "a file", files: files{text: map[string]string{etc: bookworm}}, want: "debian"},
		{name: "a relative link, as in most images", files: files{text: map[string]string{usr: noble}, link: map[string]string{etc: "../usr/lib/os-release"}}, want: "ubuntu"},
		{name: "an absolute link to the usual place", files: files{text: map[string]string{usr: noble}, link: map[string]string{etc: "/usr/lib/os-release"}}, want: "ubuntu"},
		{name: "only below /usr", files: files{text: map[string]string{usr: rocky}}, want: "rocky"},
		{name: "an absolute link is not followed out of the root", files: files{link: map[string]string{etc: outside}}, wantErr: "no such file"},
		{name: "nor a relative one", files: files{link: map[string]string{etc: "../../../../../../../.." + outside}}, wantErr: "path escapes from parent"},
		{name: "a link to the host's file gives the container's", files: files{text: map[string]string{usr: noble}, link: map[string]string{etc: outside}}, want: "ubuntu"},
		{name: "links in a circle", files: files{link: map[string]string{etc: "os-release"}}, wantErr: "etc/os-release"},
		{name: "a FIFO", files: files{fifo: []string{etc}}, wantErr: "etc/os-release: not a regular file"},
		{name: "a FIFO before a file", files: files{fifo: []string{etc}, text: map[string]string{usr: bookworm}}, want: "debian"},
		{name: "FIFOs everywhere", files: files{fifo: []string{etc, usr}}, wantErr: "not a regular file"},
		{name: "a folder", files: files{folder: []string{etc}}, wantErr: "etc/os-release: not a regular file"},
		{name: "a folder before a file", files: files{folder: []string{etc}, text: map[string]string{usr: bookworm}}, want: "debian"},
		{name: "no ID", files: files{text: map[string]string{etc: "NAME=x\n"}}, wantErr: "it has no ID"},
		{name: "longer than any os-release", files: files{text: map[string]string{etc: strings.Repeat("#\n", 1<<20) + "ID=debian\n"}}, wantErr: "it has no ID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			try := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			try(os.Mkdir(filepath.Join(dir, "etc"), 0o700))
			try(os.MkdirAll(filepath.Join(dir, "usr", "lib"), 0o700))
			for name, text := range test.files.text {
				try(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			for name, target := range test.files.link {
				try(os.Symlink(target, filepath.Join(dir, name)))
			}
			for _, name := range test.files.folder {
				try(os.Mkdir(filepath.Join(dir, name), 0o700))
			}
			for _, name := range test.files.fifo {
				try(syscall.Mkfifo(filepath.Join(dir, name), 0o600))
			}
			root, err := os.OpenRoot(dir)
			try(err)
			defer root.Close()
			type outcome struct {
				Distribution
				error
			}
			done := make(chan outcome, 1)
			go func() {
				d, err := ReadDistribution(root)
				done <- outcome{d, err}
			}()
			select {
			case got := <-done:
				if got.ID != test.want || (got.error != nil) != (test.wantErr != "") {
					t.Fatalf("got %q, %v; want %q", got.ID, got.error, test.want)
				}
				if got.error != nil && (!strings.HasPrefix(got.Error(), "cannot read os-release: ") || !strings.Contains(got.Error(), test.wantErr)) {
					t.Errorf("got %q", got.Error())
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it hangs")
			}
		})
	}
}

func TestAContainerWithoutOSReleaseSaysSo(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := ReadDistribution(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseOSRelease(f *testing.F) {
	for _, seed := range []string{bookworm, noble, rocky, "", "ID", "ID=", "ID='", "ID=\"\"\n=\n", "#ID=x\nID=\x00", "ID=debian\r\nVERSION_CODENAME=\"a b\"\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseOSRelease(strings.NewReader(text))
		if err != nil {
			if d != (Distribution{}) {
				t.Errorf("%+v beside the error %v", d, err)
			}
			return
		}
		if d.ID == "" || strings.ContainsAny(d.ID+d.Release, "\n") {
			t.Errorf("%+v", d)
		}
		// What was read can be written and read again.
		again, err := ParseOSRelease(strings.NewReader("ID='" + d.ID + "'\nVERSION_CODENAME='" + d.Release + "'\n"))
		if err != nil || again != d {
			t.Errorf("%+v became %+v, %v", d, again, err)
		}
	})
}
