//go:build lab

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What becomes of an import into Glance where image locks are refused. Glance takes any word on stderr of qemu-img for a failure, and a patched
// qemu-img warns; with the preloaded library it says nothing into Glance's pipe. The table is in docs/locks.md: the test compares what it sees with that page, and -update rewrites the table.

// glanceStores are the columns' first halves: how Glance's folders, all below /var/lib/glance, lie on stores.
var glanceStores = []struct {
	title             string
	refusing, staging bool // /var/lib/glance on a store that refuses all locks; its folder for staging on a disk nevertheless
}{
	{title: "locks work"},
	{title: "locks refused", refusing: true},
	{title: "refused, the staging folder on a disk", refusing: true, staging: true},
}

// glanceImports are the rows: the format of what is imported, and the one that the plugin image_conversion is to make of it.
var glanceImports = []struct{ from, to string }{{"qcow2", "raw"}, {"qcow2", "qcow2"}, {"raw", "qcow2"}, {"raw", "raw"}}

// glanceUser is what kolla's glance_api runs as: user and group glance.
const glanceUser = "42415:42415"

func TestGlance(t *testing.T) {
	image := os.Getenv("NFSLOCK_GLANCE_IMAGE")
	if image == "" {
		t.Skip("no image with Glance: tests/integration/glance.sh makes one, in two minutes")
	}
	m := newRuns(t, image)
	m.install(fallback, os.Getenv("NFSLOCK_PATCH_SET"))
	m.preload()
	program := filepath.Join(t.TempDir(), "nolocks")
	if out, err := exec.Command("go", "build", "-o", program, "./nolocks").CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	sources := m.glanceSources()
	measured := map[[3]string]string{} // by row, store and build
	for _, store := range glanceStores {
		for _, build := range m.variants {
			options := []string{"-v", sources + ":/sources:ro"}
			data := m.worldWritable()
			if store.refusing {
				mountpoint := m.worldWritable()
				if out, err := exec.Command(program, data, mountpoint, "filer:/glance").CombinedOutput(); err != nil {
					t.Fatalf("cannot mount: %v\n%s", err, out)
				}
				t.Cleanup(func() {
					if out, err := exec.Command("umount", "-l", mountpoint).CombinedOutput(); err != nil {
						t.Errorf("cannot unmount: %v: %s", err, out)
					}
				})
				data = mountpoint
			}
			options = append(options, "-v", data+":/var/lib/glance")
			if store.staging {
				options = append(options, "-v", m.worldWritable()+":/var/lib/glance/staging")
			}
			for row, result := range m.importImages(m.images[build], options) {
				measured[[3]string{row, store.title, build}] = result
			}
		}
	}
	compareSection(t, "TestGlance", glanceTable(m.variants, measured))
}

// importImages runs Glance in a container and returns what became of each import.
func (m *matrix) importImages(image string, options []string) map[string]string {
	script, err := filepath.Abs("glance/import.py")
	m.check(err)
	args := append([]string{"--user", glanceUser, "-v", script + ":/import.py:ro"}, options...)
	line := []string{"-c", `exec /var/lib/kolla/venv/bin/python -W ignore /import.py /sources "$@"`, "-"}
	for _, i := range glanceImports {
		line = append(line, i.from+":"+i.to)
	}
	results := map[string]string{}
	decoder := json.NewDecoder(strings.NewReader(m.run(10*time.Minute, image, args, line...)))
	for decoder.More() {
		var r struct{ From, To, Task, Said, Image, Format string }
		m.check(decoder.Decode(&r))
		results[glanceRow(r.From, r.To)] = glanceResult(r.Task == "success" && r.Image == "active" && r.Format == r.To, r.Said)
	}
	if len(results) != len(glanceImports) {
		m.t.Fatalf("%d imports of %d have a result: %v", len(results), len(glanceImports), results)
	}
	return results
}

// glanceResult says in a few words how an import ended. What stopped it is the last line that a failed qemu-img printed, or all that one printed
// that worked.
func glanceResult(done bool, said string) string {
	first, _, _ := strings.Cut(said, "\n")
	locked := lockByte.FindStringSubmatch(said)
	switch {
	case done && said == "":
		return succeeded
	case !done && warned.MatchString(first):
		return "fails, the warning"
	case !done && locked != nil:
		return "fails, byte " + locked[1]
	}
	return strange + said
}

func glanceRow(from, to string) string {
	if from == to {
		return from + ", left as it is"
	}
	return from + ", converted to " + to
}

// glanceTable writes the page's table.
func glanceTable(builds []string, measured map[[3]string]string) string {
	var b strings.Builder
	b.WriteString("\n| import |")
	for _, store := range glanceStores {
		fmt.Fprintf(&b, " %s: %s |", store.title, strings.Join(builds, " | "))
	}
	fmt.Fprintf(&b, "\n|%s\n", strings.Repeat("---|", len(builds)*len(glanceStores)+1))
	for _, i := range glanceImports {
		row := glanceRow(i.from, i.to)
		fmt.Fprintf(&b, "| %s |", row)
		for _, store := range glanceStores {
			for _, build := range builds {
				fmt.Fprintf(&b, " %s |", measured[[3]string{row, store.title, build}])
			}
		}
		b.WriteString("\n")
	}
	return b.String() + "\n"
}

// glanceSources makes the images that are imported.
func (m *matrix) glanceSources() string {
	dir := m.worldWritable()
	m.run(time.Minute, m.images[stock], []string{"-v", dir + ":/m", "-w", "/m"}, "-ec", `
		for format in qcow2 raw; do qemu-img create -q -f "$format" "image.$format" 4M; done`)
	return dir
}

// worldWritable makes a folder for containers' users: t.TempDir lies in one that root alone may enter.
func (m *matrix) worldWritable() string {
	dir, err := os.MkdirTemp("", "nfslock-glance-")
	m.check(errors.Join(err, os.Chmod(dir, 0o777)))
	m.t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// compareSection compares what stands on the page between a test's two marks with what was measured, or rewrites it.
func compareSection(t *testing.T, test, measured string) {
	t.Helper()
	data, err := os.ReadFile(lockPage)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- Written by tests/integration, %s -update. -->\n", test), fmt.Sprintf("<!-- End of %s. -->\n", test)
	head, rest, began := strings.Cut(string(data), begin)
	section, tail, ended := strings.Cut(rest, end)
	if !began || !ended {
		t.Fatalf("%s has no lines %q and %q", lockPage, begin, end)
	}
	if *update {
		if err := os.WriteFile(lockPage, []byte(head+begin+measured+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(section, measured); diff != "" {
		t.Errorf("%s is not what was measured (-page +measured):\n%s", lockPage, diff)
	}
}
