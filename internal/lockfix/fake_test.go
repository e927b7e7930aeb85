package lockfix

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/engine"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// world is a host with an engine and containers that have files and a dpkg with rules: it unpacks, writes its database,
// refuses damaged files, and leaves documentation out as kolla's images have it. Faults are asked of it by the number of the call that changes something.
type world struct {
	t     *testing.T
	dir   string
	mutex sync.Mutex
	boxes map[string]*box
	calls []string // what was changed, in order
	fail  func(call string) error
	// listed is called after the containers were listed, as something may happen before they are looked at.
	listed    func()
	restarted func()                  // called after each restart
	open      func(name string) error // whether its files can be opened
	proc      string                  // its processes, in a folder of the test's
	clock     time.Duration           // by which the engine's clock is set before each restart
}

type box struct {
	engine.Container
	root     string
	labels   map[string]string
	unwell   bool     // its health test fails
	unhealed bool     // … after the next restart
	daemon   int      // libvirt's process, if there is one
	noLinks  bool     // none can be made in it
	mounted  []string // what something is mounted over
	trials   []string // the files of each trial of hard links
	faults   faults
	disk     disk // how its dpkg cares for power cuts
}

// disk is what dpkg does for it.
type disk int

const (
	never  disk = iota // nothing, so that tests need not wait
	unsafe             // it syncs its database, as dpkg does with force-unsafe-io
	safe               // and each file before it is renamed
)

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), boxes: map[string]*box{}, proc: t.TempDir()}
	w.must(os.MkdirAll(filepath.Join(w.proc, "self", "ns"), 0o755))
	w.must(os.Symlink("mnt:[1]", filepath.Join(w.proc, "self", "ns", "mnt")))
	return w
}

const footprint = "path-exclude=/usr/share/doc/*\n"

const osRelease = "ID=debian\nVERSION_CODENAME=bookworm\n"

// add makes a container of Debian bookworm with the packages installed.
func (w *world) add(name string, packages ...testDeb) *box {
	root := filepath.Join(w.dir, name)
	b := &box{root: root, labels: map[string]string{"kolla_version": "20.0.0"}, Container: engine.Container{
		ID: strings.Repeat("0", 63) + fmt.Sprint(len(w.boxes)), Name: name, Image: "kolla/" + name, State: "running", PID: 1000 + len(w.boxes),
		StartedAt: time.Unix(1000, 0), Health: []string{"healthcheck"},
	}}
	for _, program := range []string{"sh", "rm", "tar", "diff", "dpkg-deb", "ldconfig", "start-stop-daemon"} {
		w.must(os.MkdirAll(filepath.Join(root, "sbin"), 0o755))
		w.must(os.WriteFile(filepath.Join(root, "sbin", program), nil, 0o755))
	}
	for _, dir := range []string{"etc/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/bin", "usr/lib", "usr/sbin"} {
		w.must(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	w.must(os.WriteFile(filepath.Join(root, "etc/os-release"), []byte(osRelease), 0o644))
	w.must(os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644))
	w.must(os.WriteFile(filepath.Join(root, "etc/dpkg/dpkg.cfg"), []byte(footprint), 0o644))
	w.boxes[name] = b
	for _, p := range append([]testDeb{{name: "dpkg", version: "1.21.22"}}, packages...) {
		w.must(b.unpack(bytes.NewReader(p.bytes()), nil))
	}
	return b
}

// rpm makes it one of Rocky Linux.
func (b *box) rpm() {
	_ = os.WriteFile(filepath.Join(b.root, "etc/os-release"), []byte("ID=rocky\n"), 0o644)
	_ = os.RemoveAll(filepath.Join(b.root, "var/lib/dpkg"))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) List(context.Context) (all []engine.Listed, err error) {
	for name, b := range w.boxes {
		all = append(all, engine.Listed{ID: b.ID, Name: name, State: b.State, Labels: b.labels})
	}
	if w.listed != nil {
		w.listed()
	}
	return all, nil
}

func (w *world) find(id string) (*box, error) {
	for name, b := range w.boxes {
		if name == id || b.ID == id {
			return b, nil
		}
	}
	return nil, engine.ErrNotFound
}

func (w *world) Inspect(_ context.Context, id string) (engine.Container, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	b, err := w.find(id)
	if err != nil {
		return engine.Container{}, err
	}
	return b.Container, nil
}

func (w *world) OpenRoot(_ context.Context, c engine.Container) (*os.Root, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.open != nil {
		if err := w.open(c.Name); err != nil {
			return nil, err
		}
	}
	b := w.boxes[c.Name]
	if b.PID != c.PID || !b.StartedAt.Equal(c.StartedAt) {
		return nil, errors.New("it was restarted meanwhile")
	}
	return os.OpenRoot(b.root)
}

func (w *world) Exec(_ context.Context, id string, c engine.Command) (engine.Outcome, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	b, err := w.find(id)
	if err != nil {
		return engine.Outcome{}, err
	}
	if b.State != "running" {
		return engine.Outcome{}, errors.New("container is " + b.State)
	}
	if c.Args[0] == "healthcheck" || len(b.Health) == 0 && c.Args[0] == "virsh" && b.Name == "nova_libvirt" {
		if b.unwell {
			return engine.Outcome{ExitCode: 1, Output: "not well"}, nil
		}
		return engine.Outcome{}, nil
	}
	if c.User != "0" {
		w.t.Errorf("%v runs as %q, not as root", c.Args, c.User)
	}
	if i := slices.Index(c.Args, "perl"); i >= 0 {
		return engine.Outcome{Output: b.link(c.Args[i+2:])}, nil // not a call that changes something
	}
	call := b.Name + ": " + strings.Join(c.Args[slices.Index(c.Args, "dpkg"):], " ")
	w.calls = append(w.calls, call)
	if w.fail != nil {
		if err := w.fail(call); err != nil {
			return engine.Outcome{ExitCode: 1, Output: err.Error()}, nil
		}
	}
	if err := b.faulty(c); err != nil {
		return engine.Outcome{ExitCode: 1, Output: err.Error()}, nil
	}
	return engine.Outcome{}, nil
}

func (w *world) Restart(_ context.Context, id string, _ time.Duration) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	b, err := w.find(id)
	if err != nil {
		return err
	}
	w.calls = append(w.calls, b.Name+": restart")
	b.StartedAt = b.StartedAt.Add(time.Second)
	if w.clock != 0 {
		b.StartedAt = b.StartedAt.Add(w.clock)
	}
	b.PID += 100
	b.unwell, b.unhealed = b.unhealed, false
	if w.restarted != nil {
		w.restarted()
	}
	if b.daemon != 0 {
		w.must(os.RemoveAll(filepath.Join(w.proc, fmt.Sprint(b.daemon))))
		b.daemon += 100
		w.process(b, b.daemon, "libvirtd", "/usr/sbin/libvirtd")
	}
	return nil
}

func (b *box) dpkg(c engine.Command) error {
	if b.noLinks {
		return errors.New("error creating new backup file '/var/lib/dpkg/status-old': Invalid cross-device link")
	}
	if slices.Contains(c.Args, "--set-selections") {
		for line := range strings.Lines(c.Args[slices.Index(c.Args, "-c")+3]) { // sh -c SCRIPT sh TEXT dpkg…
			var name, selection string
			if _, err := fmt.Sscan(line, &name, &selection); err != nil {
				return err
			}
			if err := b.edit(name, func(stanza string) string {
				for _, old := range []string{"hold", "install"} {
					stanza = strings.Replace(stanza, "Status: "+old+" ", "Status: "+selection+" ", 1)
				}
				return stanza
			}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := b.refuses(c.Args); err != nil {
		return err
	}
	for _, path := range c.Args[slices.Index(c.Args, "--install")+1:] {
		file, err := os.Open(b.root + path)
		if err != nil {
			return err
		}
		err = b.unpack(file, c.Args)
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// leavesOut: by the container's configuration, or by an option.
func (b *box) leavesOut(path string, args []string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(b.root, "etc/dpkg/dpkg.cfg"))
	for line := range strings.Lines(string(text) + strings.ReplaceAll(strings.Join(args, "\n"), "--path-", "path-")) {
		pattern, exclude := strings.CutPrefix(strings.TrimSpace(line), "path-exclude=")
		if prefix, below := strings.CutSuffix(pattern, "*"); exclude && (path == pattern || below && strings.HasPrefix(path, prefix)) {
			return true, err
		}
	}
	return false, err
}

// unpack installs a .deb of testDeb's or of Repack's making.
func (b *box) unpack(r io.Reader, args []string) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	archive, err := deb.CheckArchive(bytes.NewReader(data))
	if err != nil {
		return err
	}
	name := archive.Package.Name
	var control, list string
	for _, member := range members(data) {
		z, err := gzip.NewReader(bytes.NewReader(member))
		if err != nil {
			return err
		}
		for t := tar.NewReader(z); ; {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			text, err := io.ReadAll(t)
			if err != nil {
				return err
			}
			switch path := strings.TrimPrefix(h.Name, "."); path {
			case "/control":
				control = string(text)
			case "/md5sums":
				err = b.put("var/lib/dpkg/info/"+name+".md5sums", text, 0o644, unsafe)
			default:
				var left bool
				list += strings.TrimSuffix(path, "/") + "\n"
				left, err = b.leavesOut(path, args)
				switch {
				case err != nil || left:
				case h.Typeflag == tar.TypeLink && h.Linkname == h.Name:
					err = fmt.Errorf("error creating hard link '%s': No such file or directory", h.Name)
				case h.Typeflag == tar.TypeReg:
					err = errors.Join(os.MkdirAll(filepath.Dir(b.root+path), 0o755), b.put(path, text, fs.FileMode(h.Mode), safe))
				}
			}
			if err != nil {
				return err
			}
		}
	}
	former, _ := os.ReadFile(filepath.Join(b.root, "var/lib/dpkg/info", name+".list"))
	for path := range strings.Lines(string(former)) {
		if !strings.Contains(list, path) {
			if err := os.Remove(b.root + strings.TrimSpace(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := b.put("var/lib/dpkg/info/"+name+".list", []byte(list), 0o644, unsafe); err != nil {
		return err
	}
	stanza := strings.Replace(control, "\n", "\nStatus: install ok installed\n", 1)
	return b.edit(name, func(string) string { return stanza })
}

func (b *box) hold(name string) error {
	return b.dpkg(engine.Command{Args: []string{"sh", "-c", "", "sh", name + " hold\n", "dpkg", "--set-selections"}})
}

// edit replaces a package's stanza in the status file, or adds it.
func (b *box) edit(name string, f func(string) string) error {
	const status = "var/lib/dpkg/status"
	text, err := os.ReadFile(filepath.Join(b.root, status))
	if err != nil {
		return err
	}
	var out []string
	found := false
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		if strings.HasPrefix(stanza, "Package: "+name+"\n") {
			stanza, found = strings.TrimSpace(f(stanza)), true
		}
		if strings.TrimSpace(stanza) != "" {
			out = append(out, strings.TrimSpace(stanza))
		}
	}
	if !found {
		out = append(out, strings.TrimSpace(f("")))
	}
	return b.put(status, []byte(strings.Join(out, "\n\n")+"\n"), 0o644, unsafe)
}

// put writes a file beside its place and renames it, as dpkg does. It is synced before that where the container's dpkg syncs that kind of file.
func (b *box) put(name string, text []byte, mode fs.FileMode, synced disk) error {
	path := filepath.Join(b.root, name)
	file, err := os.OpenFile(path+".dpkg-new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil && b.disk >= synced {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close(), os.Rename(path+".dpkg-new", path)); err != nil || synced != unsafe || b.disk == never {
		return err
	}
	folder, err := os.Open(filepath.Dir(path)) // of its database alone
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// snapshot is every file of every container, by path: what a rollback has to bring back.
func (w *world) snapshot() map[string]string {
	all := map[string]string{}
	for name, b := range w.boxes {
		w.must(filepath.WalkDir(b.root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if d.Name() == "status" {
				stanzas := strings.Split(string(text), "\n\n")
				slices.Sort(stanzas)
				text = []byte(strings.Join(stanzas, "\n\n"))
			}
			all[name+strings.TrimPrefix(path, b.root)] = string(text)
			return err
		}))
	}
	return all
}

// testDeb is a small package.
type testDeb struct {
	name, version string
	fields        string // further control fields, each with its newline
	files         map[string]string
}

func qemuUtils(version string) testDeb {
	return testDeb{name: "qemu-utils", version: version, files: map[string]string{
		"usr/bin/qemu-img": "qemu-img " + version, "usr/share/doc/qemu-utils/changelog.gz": "changes up to " + version,
	}}
}

func (p testDeb) bytes() []byte {
	var sums strings.Builder
	var data []entry
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		sum := md5.Sum([]byte(p.files[path]))
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), path)
		data = append(data, entry{"./" + path, p.files[path]})
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\n%s", p.name, p.version, p.fields)
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []entry{
		{"debian-binary", "2.0\n"},
		{"control.tar.gz", tarball([]entry{{"./control", control}, {"./md5sums", sums.String()}})},
		{"data.tar.gz", tarball(data)},
	} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", m.name, 0, 0, 0, 0o100644, len(m.text), m.text)
		if len(m.text)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

type entry struct{ name, text string }

func tarball(entries []entry) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, e := range entries {
		_ = t.WriteHeader(&tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.text)), Typeflag: tar.TypeReg})
		_, _ = t.Write([]byte(e.text))
	}
	t.Close()
	z.Close()
	return out.String()
}

// members gives the two tar members of a .deb that CheckArchive has passed.
func members(data []byte) (list [][]byte) {
	for at := 8; at < len(data); {
		var size int
		_, _ = fmt.Sscan(string(data[at+48:at+58]), &size)
		list = append(list, data[at+60:at+60+size])
		at += 60 + size + size%2
	}
	return list[1:]
}

// folder writes a patch set with the packages and opens it.
func folder(t *testing.T, packages ...testDeb) (Set, *files) {
	t.Helper()
	dir := t.TempDir()
	set := Set{Manifest: patchset.Manifest{Schema: 1, Variant: "fallback", Suffix: "+nfslock1"}}
	for _, p := range packages {
		data := p.bytes()
		sum := sha256.Sum256(data)
		m := patchset.Package{
			Name: p.name, Version: p.version, BuiltFrom: strings.TrimSuffix(p.version, "+nfslock1"), Distribution: "debian", Release: "bookworm",
			Architecture: "amd64", File: p.name + ".deb", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		}
		if err := os.WriteFile(filepath.Join(dir, m.File), data, 0o600); err != nil {
			t.Fatal(err)
		}
		set.Packages = append(set.Packages, m)
	}
	opened, err := patchset.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return set, &files{source: hostFolder{opened}}
}
