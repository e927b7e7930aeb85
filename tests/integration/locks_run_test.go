//go:build lab

package integration

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/preload"
)

// limit is a command's time. A loaded machine needs 2 s for the longest.
const limit = 30 * time.Second

// matrix runs the commands: one container for each build in each state of the locks, and one more that is healthy. They share a folder,
// and so the kernel's locks on the files in it. lab/image-locks.sh is what runs in each.
type matrix struct {
	t        *testing.T
	name     string            // of containers and images, with something random in it
	images   map[string]string // by build
	variants []string
	release  string
	folder   string
	blank    map[string][]byte // the images that each operation finds

	mu       sync.Mutex
	outcomes map[trial]outcome
}

// newMatrix has the stock build only. Those that are installed after it come in the order of the page.
func newMatrix(t *testing.T, release string) *matrix {
	m := newRuns(t, "nfslock-lab/nova-compute:"+release)
	m.release = release
	m.images[healthy] = m.images[stock]
	m.makeBlank()
	return m
}

// newRuns is for tests that run containers of an image, and of what install makes of it. It removes them after the test.
func newRuns(t *testing.T, image string) *matrix {
	m := &matrix{
		t: t, name: "nfslock-matrix-" + strings.ToLower(rand.Text()[:8]), folder: t.TempDir(), blank: map[string][]byte{},
		variants: []string{stock}, images: map[string]string{stock: image}, outcomes: map[trial]outcome{},
	}
	t.Cleanup(func() { // also after a run that was given up
		for _, kind := range []struct{ list, remove []string }{
			{[]string{"ps", "-aq", "--filter", "label=" + m.name}, []string{"rm", "-f"}},
			{[]string{"images", "-q", "--filter", "reference=" + m.name}, []string{"rmi", "-f"}},
		} {
			if ids := strings.Fields(m.docker(time.Minute, kind.list...)); len(ids) > 0 {
				m.docker(time.Minute, append(kind.remove, ids...)...)
			}
		}
	})
	return m
}

// has tells whether a build, or what a name for one of a pair means, is measured.
func (m *matrix) has(variant string) bool {
	return variant == itself || variant == healthy || slices.Contains(m.variants, variant)
}

// docker returns the standard output of one call of the engine's client.
func (m *matrix) docker(d time.Duration, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func (m *matrix) run(d time.Duration, image string, options []string, script ...string) string {
	args := []string{"run", "--label", m.name, "--label", "nfslock.scratch=matrix", "--user", "root", "--network", "none", "--entrypoint", "bash"}
	return m.docker(d, append(append(append(args, options...), image), script...)...)
}

// install makes an image in which dpkg has installed those of a patch set's packages that are there, and looks at them as an operator would.
func (m *matrix) install(variant, set string) {
	container := m.name + "-" + variant
	out := m.run(2*time.Minute, m.images[stock], []string{"--name", container, "-v", set + ":/set:ro"}, "-ec", `
		grep -qx "variant: $1" /set/manifest.yml
		for deb in /set/*_"$(dpkg --print-architecture)".deb; do
			name=$(dpkg-deb -f "$deb" Package)
			if dpkg -s "$name" >/dev/null 2>&1; then names+=("$name") debs+=("$deb"); fi
		done
		dpkg -i "${debs[@]}" >&2
		apt-get check >&2
		dpkg -V "${names[@]}" | grep -v /usr/share/ >&2 && exit 1
		dpkg-query -W "${names[@]}"`, "-", variant)
	if !strings.Contains(out, "qemu-utils\t") || strings.Count(out, "+nfslock") != strings.Count(out, "\n") {
		m.t.Fatalf("the packages of %s are not installed: %s", variant, out)
	}
	m.t.Logf("%s: %s", variant, strings.ReplaceAll(strings.TrimSpace(out), "\n", ", "))
	m.commit(variant, container)
}

func (m *matrix) commit(variant, container string) {
	m.images[variant] = m.name + ":" + variant
	m.docker(time.Minute, "commit", container, m.images[variant])
	m.variants = append(m.variants, variant)
}

// preload makes an image in which the library lies, beside the stock packages.
func (m *matrix) preload() {
	built, err := filepath.Abs("../../preload/built")
	m.check(err)
	container := m.name + "-" + library
	out := m.run(time.Minute, m.images[stock], []string{"--name", container, "-v", built + ":/built:ro"}, "-ec", `
		install -D -m 644 "/built/$1/libnfslock.so" "$2"
		echo "$2" >"$3"
		dpkg -V qemu-utils | grep -v /usr/share/ >&2 && exit 1
		qemu-img --version
		getconf GNU_LIBC_VERSION`, "-", runtime.GOARCH, preload.Library, preload.List)
	m.t.Logf("%s: %s", m.images[stock], strings.ReplaceAll(strings.TrimSpace(out), "\n", ", "))
	m.commit(library, container)
}

// makeBlank makes images where nothing is refused: where everything is, stock QEMU cannot.
func (m *matrix) makeBlank() {
	dir := filepath.Join(m.folder, "blank")
	m.check(os.Mkdir(dir, 0o700))
	m.run(time.Minute, m.images[stock], []string{"-v", dir + ":/m", "-w", "/m"}, "-ec", `
		qemu-img create -q -f qcow2 a.qcow2 1M
		qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 overlay.qcow2
		qemu-io -c "write 0 4k" overlay.qcow2
		truncate -s 4k p.raw`)
	for _, name := range []string{"a.qcow2", "overlay.qcow2", "p.raw"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		m.check(err)
		m.blank[name] = data
	}
}

func (m *matrix) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// measure runs all states, two at a time, and returns the table.
func (m *matrix) measure() table {
	began := time.Now()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, state := range lockStates {
		errnos := state.errnos
		if len(errnos) == 0 {
			errnos = []syscall.Errno{0}
		}
		for _, errno := range errnos {
			r := m.plan(state, errno)
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				r.start()
			})
		}
	}
	wg.Wait()
	if m.t.Failed() {
		m.t.FailNow()
	}
	m.t.Logf("%d commands in %v", len(m.outcomes), time.Since(began).Round(time.Second))
	return m.table()
}

// table merges the errnos of a column, which have to agree.
func (m *matrix) table() table {
	merged := table{}
	for at, o := range m.outcomes {
		result := o.result()
		if at.isLocks() {
			result = o.heldLocks()
		}
		if other, ok := merged[at.place]; ok && other != result {
			m.t.Errorf("%v: %q with one errno, %q with %v", at.place, other, result, at.errno)
		}
		merged[at.place] = result
	}
	return merged
}

func (at trial) isLocks() bool {
	return slices.ContainsFunc(pairs, func(p pair) bool { return at.row != "" && p.titleLocks == at.row })
}

// A round is one state of the locks with one errno: its containers, and where each trial leaves its outcome.
type round struct {
	m            *matrix
	state        lockState
	errno        syscall.Errno
	dir          string
	holds, cells map[string][]string // by container: lines for image-locks.sh
	folders      map[trial]string
	holder       map[trial]string // of a second writer: the folder of the first
}

func (m *matrix) plan(state lockState, errno syscall.Errno) *round {
	r := &round{
		m: m, state: state, errno: errno, dir: filepath.Join(m.folder, fmt.Sprintf("%d-%d", slices.IndexFunc(lockStates, func(s lockState) bool { return s.title == state.title }), errno)),
		holds: map[string][]string{}, cells: map[string][]string{}, folders: map[trial]string{}, holder: map[trial]string{},
	}
	at := func(variant, row string) trial { return trial{place{variant, row, state.title}, errno} }
	for _, v := range m.variants {
		for i, o := range operations {
			folder := fmt.Sprintf("%s-operation%d", v, i)
			r.prepare(folder, o)
			r.cells[v] = append(r.cells[v], folder+"\t"+o.line)
			r.folders[at(v, o.title)] = folder
			if state.held {
				r.hold(healthy, folder, o.image, "qemu-io -f "+strings.TrimPrefix(filepath.Ext(o.image), ".")+" ../"+o.image)
			}
		}
		if state.held {
			continue
		}
		for i, p := range pairs {
			holder, second := p.holder, p.second
			if holder == v || !m.has(holder) {
				continue
			}
			if holder == itself {
				holder = v
			}
			if second == itself {
				second = v
			}
			folder := fmt.Sprintf("%s-pair%d", v, i)
			r.prepare(folder, operation{image: "a.qcow2"})
			r.hold(holder, folder, "a.qcow2", strings.ReplaceAll(p.opens, "a.qcow2", "../a.qcow2"))
			r.cells[second] = append(r.cells[second], folder+"\t"+writes)
			r.folders[at(v, p.title)] = folder
			r.holder[at(v, p.title)] = folder + "/holder"
			if p.titleOpen != "" {
				r.folders[at(v, p.titleOpen)] = folder + "/holder"
				r.folders[at(v, p.titleLocks)] = folder + "/holder"
			}
		}
	}
	for _, name := range r.names() {
		for file, lines := range map[string][]string{"holds": r.holds[name], "cells": r.cells[name]} {
			r.m.check(os.WriteFile(filepath.Join(r.dir, name+"."+file), []byte(strings.Join(append(lines, ""), "\n")), 0o600))
		}
	}
	r.m.check(os.WriteFile(r.profile(), r.rules(), 0o600))
	return r
}

func (r *round) names() []string { return append([]string{healthy}, r.m.variants...) }

func (r *round) profile() string { return filepath.Join(r.dir, "seccomp.json") }

// prepare makes the folder of one command.
func (r *round) prepare(folder string, o operation) {
	files := map[string]string{"a.qcow2": "a.qcow2", "overlay.qcow2": "overlay.qcow2"}
	if strings.HasSuffix(o.image, ".raw") {
		for i := range 70 {
			files[fmt.Sprintf("p%d.raw", i+1)] = "p.raw"
		}
	}
	if r.state.held && files[o.image] == "" { // what is to be created is there already, and held
		files[o.image] = "a.qcow2"
	}
	r.m.check(os.MkdirAll(filepath.Join(r.dir, folder, "holder"), 0o700))
	for name, blank := range files {
		r.m.check(os.WriteFile(filepath.Join(r.dir, folder, name), r.m.blank[blank], 0o600))
	}
}

// hold has a container open an image before any command runs.
func (r *round) hold(container, folder, image, line string) {
	r.holds[container] = append(r.holds[container], strings.Join([]string{folder + "/holder", "../" + image, line}, "\t"))
}

// start runs the round's containers and reads what they left.
func (r *round) start() {
	script, err := filepath.Abs("lab/image-locks.sh")
	if err != nil {
		r.m.t.Error(err)
		return
	}
	var wg sync.WaitGroup
	for _, name := range r.names() {
		options := []string{"--rm", "-v", r.dir + ":/m", "-v", script + ":/image-locks.sh:ro"}
		if len(r.state.refused) > 0 && name != healthy {
			options = append(options, "--security-opt", "seccomp="+r.profile())
		}
		wg.Go(func() {
			r.m.run(5*time.Minute, r.m.images[name], options, append([]string{"/image-locks.sh", fmt.Sprint(limit.Seconds()), name}, r.names()...)...)
		})
	}
	wg.Wait()
	for at, folder := range r.folders {
		o := r.read(folder)
		if h := r.holder[at]; h != "" && r.read(h).code != "open" {
			o.code = noHolder
		}
		r.m.mu.Lock()
		r.m.outcomes[at] = o
		r.m.mu.Unlock()
	}
}

func (r *round) read(folder string) outcome {
	text := func(name string) string {
		data, err := os.ReadFile(filepath.Join(r.dir, folder, name))
		if err != nil && name != "locks" {
			r.m.t.Errorf("%s: %v", r.state.title, err)
		}
		return strings.TrimSpace(string(data))
	}
	return outcome{text("code"), text("err"), text("locks")}
}

// rules is the seccomp profile that refuses the state's commands with the errno.
func (r *round) rules() []byte {
	type argument struct {
		Index int    `json:"index"`
		Value int    `json:"value"`
		Op    string `json:"op"`
	}
	type rule struct {
		Names  []string   `json:"names"`
		Action string     `json:"action"`
		Errno  int        `json:"errnoRet"`
		Args   []argument `json:"args"`
	}
	var rules []rule
	for _, cmd := range r.state.refused {
		rules = append(rules, rule{[]string{"fcntl"}, "SCMP_ACT_ERRNO", int(r.errno), []argument{{1, cmd, "SCMP_CMP_EQ"}}})
	}
	data, err := json.Marshal(map[string]any{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
	r.m.check(err)
	return data
}
