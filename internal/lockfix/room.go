package lockfix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/statedir"
)

// Room is what a filesystem has: statfs(2). Several containers' roots, and this host's own folder, are often on the same
// one; it is known by its total.
type Room struct {
	Free, Total uint64 // bytes; a Total of 0 says that it could not be measured
}

// roomMargin is what dpkg wants beside the packages, in bytes: it writes its status file anew (0.7 MiB for 500 packages)
// and keeps the former one.
const roomMargin = 4 << 20

// placesWritten are where a package's files and dpkg's database go, below a container's root: the tightest counts.
var placesWritten = []string{"usr/bin", "usr/lib", "var/lib/dpkg", "var/lib"}

// measure finds the tightest of the places that exist.
func measure(root *os.Root) Room {
	var tightest Room
	for _, place := range placesWritten {
		folder, err := root.OpenFile(place, os.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		var st syscall.Statfs_t
		err = syscall.Fstatfs(int(folder.Fd()), &st)
		folder.Close()
		if room := roomOf(st); err == nil && room.Total > 0 && (tightest.Total == 0 || room.Free < tightest.Free) {
			tightest = room
		}
	}
	return tightest
}

// measureHost looks at dir or, before it is made, at what is above it.
func measureHost(dir string) Room {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	for ; errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir; err = syscall.Statfs(dir, &st) {
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return Room{}
	}
	return roomOf(st)
}

func roomOf(st syscall.Statfs_t) Room {
	return Room{Free: st.Bavail * uint64(st.Bsize), Total: st.Blocks * uint64(st.Bsize)}
}

// needs is how much an install takes in the container: the .debs, and the unpacked files beside those that they replace.
func (p *ContainerPlan) needs(set Set) (bytes uint64) {
	for _, f := range p.Files {
		bytes += uint64(f.Size) + set.Contents[f.SHA256].Package.InstalledSize
	}
	install, ok := p.step(Install)
	if ok && len(p.Files) == 0 && p.Seen.Kept != nil {
		for _, k := range p.Seen.Kept.Packages {
			if slices.Contains(install.Packages, k.Name) {
				bytes += uint64(k.Size) + k.Control.InstalledSize
			}
		}
	}
	return bytes
}

// keeps is how much this host needs for the packages from before: they are packed, so their unpacked size is more than
// enough.
func (p *ContainerPlan) keeps() (bytes uint64) {
	install, _ := p.step(Install)
	for _, name := range install.Packages {
		if have, ok := p.Seen.find(name); ok && !p.Seen.Kept.Keeps(p.Seen.ID, have) {
			bytes += have.InstalledSize
		}
	}
	return bytes
}

// lacksRoom is about this container alone; hostLacksRoom about all that share a filesystem.
func (p *ContainerPlan) lacksRoom(set Set) *Failure {
	need, room := p.needs(set), p.Seen.Room
	if p.Back || need == 0 || room.Total == 0 || need+roomMargin <= room.Free {
		return nil
	}
	return noRoom(fmt.Sprintf("cannot change %s: the install needs %d MiB there", p.Seen.Name, mebibytes(need+roomMargin)), room)
}

// hostLacksRoom fails every plan that would write where all of them together lack room.
func hostLacksRoom(set Set, own Room, plans []ContainerPlan) {
	needs := map[uint64]uint64{}
	for i := range plans {
		if need := plans[i].needs(set); need > 0 && !plans[i].Back {
			needs[plans[i].Seen.Room.Total] += need
			needs[own.Total] += plans[i].keeps()
		}
	}
	for i := range plans {
		p := &plans[i]
		if p.Back || p.needs(set) == 0 || p.Failure != nil {
			continue
		}
		for _, room := range []Room{p.Seen.Room, own} {
			need := needs[room.Total] + roomMargin
			if room.Total == 0 || need <= room.Free {
				continue
			}
			where := "in all containers that share its filesystem"
			if room == own {
				where = "on this host, with the packages from before that are kept"
			}
			p.Failure = noRoom(fmt.Sprintf("cannot change %s: the run needs %d MiB %s", p.Seen.Name, mebibytes(need), where), room)
			p.Status, p.Steps, p.Files = Failed, nil, nil
			if p.Seen.Dead != nil {
				p.takeBack()
			}
			break
		}
	}
}

// keptBytes is the size of all files below dir.
func keptBytes(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != statedir.LockName {
			if info, err := d.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil // what cannot be read is not counted
	})
	return bytes
}

func noRoom(message string, room Room) *Failure {
	return &Failure{
		Step: "plan", Message: fmt.Sprintf("%s, and %d MiB are free", message, room.Free>>20),
		Hint: "make room on that filesystem; nothing was copied",
	}
}

func mebibytes(n uint64) uint64 { return (n + 1<<20 - 1) >> 20 }
