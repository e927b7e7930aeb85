package deb

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// testDeb is a .deb to be made.
type testDeb struct {
	control string            // the control file
	extra   map[string]string // more files of the control member
	files   []testFile

	controlSuffix, dataSuffix string // compression of each member; "" is plain
}

type testFile struct {
	name    string
	content string // or where a link leads to
	kind    byte   // tar's; 0 is a file, or a folder if the name ends with a slash
	mode    int64  // 0 is 0644, 0755 for folders
}

const testControl = `Package: hello
Version: 1:2.0-1
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: a test
 with a second line
`

var testTime = time.Unix(1_700_000_000, 0)

// helloFiles has one of each kind.
var helloFiles = []testFile{
	{name: "./"},
	{name: "./usr/"},
	{name: "./usr/bin/"},
	{name: "./usr/bin/hello", content: "#!/bin/sh\necho hello\n", mode: 0o755},
	{name: "./usr/bin/hello-suid", content: "suid", mode: 0o4755},
	{name: "./usr/bin/hello-hard", content: "./usr/bin/hello", kind: tar.TypeLink, mode: 0o755},
	{name: "./usr/bin/hi", content: "hello", kind: tar.TypeSymlink, mode: 0o777},
	{name: "./usr/share/"},
	{name: "./usr/share/doc/"},
	{name: "./usr/share/doc/hello/"},
	{name: "./usr/share/doc/hello/copyright", content: "free"},
	{name: "./usr/share/doc/hello/changelog.gz", content: "new"},
	{name: "./usr/share/" + strings.Repeat("long", 40) + "/"},
	{name: "./usr/share/" + strings.Repeat("long", 40) + "/" + strings.Repeat("name", 40), content: "x"},
	{name: "./usr/share/empty", content: ""},
}

func (d testDeb) bytes(t testing.TB) []byte {
	t.Helper()
	var sums strings.Builder
	contents := map[string]string{}
	for _, f := range d.files {
		if f.kind == tar.TypeLink {
			f.content = contents[f.content]
		}
		if contents[f.name] = f.content; (f.kind == 0 || f.kind == tar.TypeLink) && !strings.HasSuffix(f.name, "/") {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum([]byte(f.content)), strings.TrimPrefix(f.name, "./"))
		}
	}
	control := []testFile{{name: "./control", content: d.control}}
	if _, own := d.extra["md5sums"]; !own && sums.Len() > 0 {
		control = append(control, testFile{name: "./md5sums", content: sums.String()})
	}
	for name, content := range d.extra {
		control = append(control, testFile{name: "./" + name, content: content, mode: 0o755})
	}
	return testAr(
		"debian-binary", []byte("2.0\n"),
		"control.tar"+d.controlSuffix, compress(t, d.controlSuffix, testTar(t, control)),
		"data.tar"+d.dataSuffix, compress(t, d.dataSuffix, testTar(t, d.files)),
	)
}

// testAr takes a name and a content for each member.
func testAr(members ...any) []byte {
	out := bytes.NewBufferString("!<arch>\n")
	for i := 0; i < len(members); i += 2 {
		content := members[i+1].([]byte)
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", members[i], 0, 0, 0, 0o100644, len(content))
		out.Write(content)
		if len(content)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

func testTar(t testing.TB, files []testFile) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Typeflag: f.kind, ModTime: testTime, Format: tar.FormatGNU}
		switch {
		case f.kind == 0 && strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case f.kind == 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.content))
		case f.kind == tar.TypeSymlink || f.kind == tar.TypeLink:
			h.Linkname = f.content
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, f.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compress(t testing.TB, suffix string, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	default:
		return plain
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newRoot makes a root folder. A content that begins with "-> " makes a symbolic link.
func newRoot(t testing.TB, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "-> ")
		var err error
		if link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return openRoot(t, dir)
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func openDatabase(t testing.TB, root *os.Root) *Database {
	t.Helper()
	d, err := OpenDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs one of dpkg's programs; the test is skipped where there is none.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+t.TempDir(), "DPKG_COLORS=never")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// dpkgInstall lets real dpkg install .debs into a scratch root; options come before.
func dpkgInstall(t testing.TB, dir string, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("installing into a scratch root needs root")
	}
	for _, sub := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(dir, "var/lib/dpkg", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	status, err := os.OpenFile(filepath.Join(dir, statusFile), os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	status.Close()
	return run(t, "dpkg", append([]string{"--root=" + dir, "--force-depends,script-chrootless,unsafe-io,not-root,bad-path", "--log=/dev/null"}, args...)...)
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hello.deb")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
