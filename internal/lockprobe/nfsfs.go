package lockprobe

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// volume is a filesystem that the kernel's NFS client has open, whether or not somebody sees it mounted.
type volume struct {
	version string // "v3", "v4"
	server  string // its address
	device  string // "0:57", as in mountinfo
}

// readVolumes reads what the NFS client says of itself. Without it there is no such file.
func readVolumes(proc string) []volume {
	file, err := os.Open(filepath.Join(proc, "fs/nfsfs/volumes"))
	if err != nil {
		return nil
	}
	defer file.Close()
	return parseVolumes(io.LimitReader(file, 1<<20))
}

// parseVolumes reads "v4 c0000207  801 0:57         3f2a…:0   no" below a head line: fs/nfs/client.c, nfs_volume_list_show. The address
// is in hexadecimal, as it is sent.
func parseVolumes(r io.Reader) (all []volume) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "v") {
			continue
		}
		raw, err := hex.DecodeString(f[1])
		if err != nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(raw)
		if _, _, pair := strings.Cut(f[3], ":"); ok && pair {
			all = append(all, volume{f[0], ip.Unmap().String(), f[3]})
		}
	}
	return all
}

// findUnseen names volumes that no view has: mounts that leaked when a container was recreated, or of containers that were not looked at.
func findUnseen(volumes []volume, views []*view, add adder) {
	seen := map[string]bool{}
	for _, v := range views {
		for _, m := range v.mounts {
			seen[m.Device] = true
		}
	}
	for _, v := range volumes {
		if !seen[v.device] {
			add(UnseenMount, "the kernel has a filesystem of the NFS server %s open (%s, device %s) that neither the host nor a container which was looked at sees: %s",
				v.server, v.version, v.device, fmt.Sprintf("grep -l ' %s ' /proc/[0-9]*/mountinfo names the processes that do", v.device))
		}
	}
}
