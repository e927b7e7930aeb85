package rpcbind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// What statd's state may come to: a file of about 100 bytes for each server.
const (
	maxServers  = 4096
	maxSizeFile = 64 << 10 // bytes
)

// Its folders and its number: rpc.statd(8). sm holds who is watched, sm.bak who is still to be told of the last reboot.
var stateFolders = []string{"sm", "sm.bak"}

const stateNumber = "state"

// openState opens the folder that has sm in it, below /var/lib/nfs: that itself on Debian, statd on EL. nil where there is none.
func openState(path string) (*os.Root, error) {
	return stateIn(os.OpenRoot(path))
}

// openStateOf opens the same of a process. Its root may be a container's, in which somebody else is root: a link there does not lead out.
func openStateOf(proc string, pid int) (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Join(proc, strconv.Itoa(pid), "root"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return stateBelow(root)
}

// stateBelow opens the same in a root.
func stateBelow(root *os.Root) (*os.Root, error) {
	return stateIn(root.OpenRoot(strings.TrimPrefix(stateFolder, "/")))
}

func stateIn(root *os.Root, err error) (*os.Root, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, folder := range []string{"statd", "."} {
		if info, err := root.Stat(folder + "/sm"); err == nil && info.IsDir() {
			inner, err := root.OpenRoot(folder)
			root.Close()
			return inner, err
		}
	}
	root.Close()
	return nil, nil
}

// carry brings statd's state from one folder to another: files that are not there yet, and the number where it is higher.
// Neither statd may run. Files get the owner of the folder that they come into, whom statd becomes (rpc.statd(8)).
func carry(from, to *os.Root) error {
	if from == nil {
		return nil
	}
	if to == nil {
		return fmt.Errorf("cannot carry statd's state over: there is no folder %s/sm", stateFolder)
	}
	same, err := sameFolder(from, to)
	if err != nil || same {
		return err
	}
	for _, folder := range stateFolders {
		if err := carryFolder(from, to, folder); err != nil {
			return fmt.Errorf("cannot carry statd's state over: %w", err)
		}
	}
	if err := carryNumber(from, to); err != nil {
		return fmt.Errorf("cannot carry statd's state over: %w", err)
	}
	return nil
}

// move is carry, and leaves nothing behind for the next run to find. Nobody reads there any more.
func move(from, to *os.Root) error {
	if err := carry(from, to); err != nil || from == nil {
		return err
	}
	if same, err := sameFolder(from, to); err != nil || same {
		return err
	}
	for _, folder := range stateFolders {
		names, err := list(from, folder)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := folder + "/" + name
			if _, err := to.Lstat(path); err != nil {
				continue // no file of statd's
			}
			if err := from.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot carry statd's state over: %w", err)
			}
		}
	}
	return nil
}

// watches reads whom the statd of a folder watches, by name and address: a file is called as the server is, and the sixth word in it is what the
// kernel calls it (nfs-utils, support/nsm/file.c).
func watches(root *os.Root) (servers []string, err error) {
	names, err := list(root, "sm")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := readSmall(root, "sm/"+name)
		if err != nil {
			continue // a link, or gone meanwhile
		}
		servers = append(servers, name)
		if words := strings.Fields(string(text)); len(words) > 5 && words[5] != name {
			servers = append(servers, words[5])
		}
	}
	slices.Sort(servers)
	return servers, nil
}

func list(root *os.Root, folder string) ([]string, error) {
	dir, err := root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxServers + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxServers {
		return nil, fmt.Errorf("%s has more than %d files", folder, maxServers)
	}
	return names, nil
}

func sameFolder(from, to *os.Root) (bool, error) {
	a, err := from.Stat("sm")
	if err != nil {
		return false, err
	}
	b, err := to.Stat("sm")
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}

func carryFolder(from, to *os.Root, folder string) error {
	names, err := list(from, folder)
	if err != nil || len(names) == 0 {
		return err
	}
	home, err := to.Stat(folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := folder + "/" + name
		text, err := readSmall(from, path)
		if errors.Is(err, foreign.ErrNotRegular) {
			continue
		}
		if err == nil {
			err = writeNew(to, path, text, home)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readSmall(root *os.Root, path string) ([]byte, error) {
	file, info, err := foreign.Open(root, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info.Size() > maxSizeFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxSizeFile)
	}
	return io.ReadAll(io.LimitReader(file, maxSizeFile))
}

// writeNew leaves a file that is there as it is: what the statd that is to run wrote is newer, or the same.
func writeNew(to *os.Root, path string, text []byte, home fs.FileInfo) error {
	file, err := to.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if owner, ok := home.Sys().(*syscall.Stat_t); ok && err == nil {
		err = file.Chown(int(owner.Uid), int(owner.Gid))
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// carryNumber: the number rises by two with each reboot that was notified, and servers compare it with the one they know.
// It is a C int of the machine (nfs-utils, support/nsm/file.c).
func carryNumber(from, to *os.Root) error {
	theirs, err := readSmall(from, stateNumber)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(theirs) != 4 {
		return nil
	}
	if err != nil {
		return err
	}
	own, err := readSmall(to, stateNumber)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(own) == 4 && binary.NativeEndian.Uint32(own) >= binary.NativeEndian.Uint32(theirs) {
		return nil
	}
	home, err := to.Stat("sm")
	if err != nil {
		return err
	}
	if err := to.Remove(stateNumber); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeNew(to, stateNumber, theirs, home)
}
