package lockprobe

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/host"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/libvirt"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// loadedLimit is for the question what processes have loaded, which the kernel answers at once unless one hangs.
const loadedLimit = 2 * time.Second

// readLibrary fills in what of the library is in a container.
func (v *view) readLibrary() error {
	seen, err := preloaded.Read(v.root)
	if err != nil {
		return fmt.Errorf("cannot tell whether %s has the library: %w", v.name, err)
	}
	v.row.Library = Library{State: seen.State, SHA256: seen.SHA256, Current: seen.Current, Others: seen.Others}
	return nil
}

// readOther is readPackages for a container without dpkg: only with the library it is known what its QEMU does.
func (v *view) readOther() error {
	p := &v.row
	v.architecture = runtime.GOARCH // dpkg's word, for both that there are modules for
	if kolla.RunsGuests(p.Container) && slices.ContainsFunc(preloaded.Daemons, func(name string) bool { return hasFile(v.root, "usr/sbin/"+name) }) {
		l := libvirt.ReadLocks(v.root, "")
		v.libvirt = &l
	}
	program, err := preloaded.FindQEMU(v.root)
	if err != nil {
		return fmt.Errorf("cannot tell whether %s has QEMU: %w", p.Container, err)
	}
	if program.Path == "" {
		p.QEMU = NoQEMU
		return nil
	}
	if unfit := program.Fit(); unfit != nil {
		return fmt.Errorf("cannot tell which QEMU %s has: it is no Debian or Ubuntu, and the library is no use there: %w", p.Container, unfit)
	}
	if !p.Library.active() {
		return fmt.Errorf("cannot tell which QEMU %s has: it is no Debian or Ubuntu; where locks are refused, the library is the way: nfs_lock_fix with method=library", p.Container)
	}
	p.QEMU = ByLibrary
	return nil
}

// findCovered finds out whether the libvirt of the container that runs guests has the library loaded. One that was started before it has not.
func (m *machine) findCovered(ctx context.Context, s *seen) (warnings []string) {
	v := s.runsGuests()
	if v == nil || v.libvirt == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadedLimit)
	defer cancel()
	found := false
	for _, p := range s.processes {
		if p.Container != v.ID || !slices.Contains(preloaded.Daemons, p.Name) {
			continue
		}
		loaded, err := preloaded.Loaded(ctx, m.proc, p.PID)
		if err != nil {
			return []string{fmt.Sprintf("cannot tell whether the libvirt of %s has the library: %v", v.name, err)}
		}
		if !loaded {
			return nil
		}
		found = true
	}
	v.covered = found
	return nil
}

// without keeps of the guests those that run without the library: they were started before it.
func (m *machine) without(ctx context.Context, guests []host.Guest) ([]host.Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, loadedLimit)
	defer cancel()
	loaded, errs := make([]bool, len(guests)), make([]error, len(guests))
	var wait sync.WaitGroup
	for i, g := range guests { // all at once: one that hangs is not to keep the others from being asked
		wait.Go(func() { loaded[i], errs[i] = preloaded.Loaded(ctx, m.proc, g.PID) })
	}
	wait.Wait()
	var found []host.Guest
	for i, g := range guests {
		if errs[i] == nil && !loaded[i] {
			found = append(found, g)
		}
	}
	return found, errors.Join(errs...)
}

// lostLibrary compares a container with what nfs_lock_fix put there. One whose packages are patched by now has lost
// nothing.
func lostLibrary(put preloaded.Put, now Packages) (Drift, bool) {
	name := now.Container
	if now.State != "running" || now.Library.State == "" || now.Library.active() || now.QEMU == Patched || now.QEMU == NoQEMU {
		return Drift{}, false
	}
	d := Drift{Container: name, What: "library", Kind: Lost, Was: preload.Name + " " + put.SHA256[:min(12, len(put.SHA256))], Is: string(now.Library.State), Counts: true}
	d.Message = fmt.Sprintf("%s no longer has the library (it is %s): %s", name, now.Library.State, runAgain)
	if now.ID != put.ID {
		d.Kind, d.Was, d.Is = Recreated, put.ID, now.ID
		d.Message = fmt.Sprintf("%s was recreated and has lost the library: %s; with nfslock.kolla.keep kolla itself puts it into each new container", name, runAgain)
	}
	return d, true
}

// findLibraries adds what is to be known of the library in each container.
func (r *Result) findLibraries(add adder) {
	for _, p := range r.Packages {
		switch l := p.Library; {
		case l.State == preloaded.Broken:
			add(LibraryBroken, "%s in %s names %s, which no program there can load (%s), so that each one that starts says so on stderr, which Glance takes for a failure: put it there again with nfs_lock_fix method=library, or take it back with state=absent",
				preload.List, p.Container, preload.Library, orMissing(l.SHA256))
		case l.State != "" && l.SHA256 != "" && !l.Current:
			add(LibraryDiffers, "%s in %s is another build of it than this collection's, or was changed by somebody: its SHA-256 is %s; nfs_lock_fix with method=library puts this one there, nfslock.kolla.keep where kolla binds it",
				preload.Library, p.Container, l.SHA256)
		}
	}
}

func orMissing(sha256 string) string {
	if sha256 == "" {
		return "it is missing"
	}
	return "SHA-256 " + sha256
}
