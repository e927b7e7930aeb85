package lockprobe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// Glance keeps its images in folders. Where these are on NFS the host mounts that, mostly by /etc/fstab, and kolla-ansible binds it into
// glance_api (glance_file_datadir_volume): no file of kolla's on this host tells of NFS.
const glance = "glance_api"

var glanceFiles = []string{"glance-api/glance-api.conf"}

// fixed is an NFS mount in /etc/fstab.
type fixed struct {
	share
	path string
}

// readFstab reads fstab(5). A host without one has nothing to mount at boot.
func readFstab(name string) (all []fixed) {
	file, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, configLimit))
	for n := 1; lines.Scan() && len(all) < mostShares; n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || fields[2] != "nfs" && fields[2] != "nfs4" || onDemand(fields[3]) {
			continue
		}
		options := fields[3]
		if fields[2] == "nfs4" {
			options += ",vers=4"
		}
		all = append(all, fixed{share{fields[0], options, name, n}, path.Clean(strings.ReplaceAll(fields[1], `\040`, " "))})
	}
	return all
}

// onDemand tells of a mount's options whether it need not be there: systemd.mount(5).
func onDemand(options string) bool {
	return slices.ContainsFunc(strings.Split(options, ","), func(o string) bool { return o == "noauto" || o == "x-systemd.automount" })
}

// missing is an NFS mount of the host's that is not there, and what of Glance's is below it.
type missing struct {
	fixed
	folder string // in glance_api
}

// missingStores compares what glance_api sees in place of its stores with where the host has no mount that it should have.
func (s seen) missingStores() (all []missing) {
	at := s.order(glance)
	if at < 0 {
		return nil
	}
	own, v := s.views[s.order(Host)], s.views[at]
	for _, f := range s.config.fixed {
		below, ok := place(own, f.path)
		if !ok || below.mount.IsNFS() {
			continue
		}
		for _, store := range s.config.glance {
			folder, _, _ := strings.Cut(store.value, ":") // filesystem_store_datadirs has a priority behind
			if sight, ok := place(v, path.Clean(folder)); ok && sight.mount.Device == below.mount.Device && under(below.spot().folder, sight.spot().folder) {
				all = append(all, missing{f, sight.path})
				break
			}
		}
	}
	return all
}

func place(v *view, p string) (sight, bool) {
	m, ok := mountOf(visible(v.mounts), p)
	return sight{view: v, mount: m, path: p}, ok
}

func (m missing) finding() Finding {
	return Finding{
		Kind: UnmountedStore, File: m.file, Line: m.line,
		Message: fmt.Sprintf("%s is not mounted at %s, so that what Glance keeps in %s goes to this host's own disk: mount it, and restart %s, which sees it from then on", m.export, m.path, m.folder, glance),
	}
}
