package lockfix

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

// checkFolder refuses a folder that somebody else has made or may write to: what lies in it is installed as root. A link of
// our own to such a folder of our own will do. With change it is closed to readers, too. None is as good.
func checkFolder(dir string, change bool) error {
	link, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
	case !info.IsDir():
		err = errors.New("it is no folder")
	default:
		err = cmp.Or(patchset.CheckOwner(link), patchset.CheckOwner(info))
	}
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = errors.New("others may write to it")
	}
	if err == nil && change && info.Mode().Perm() != 0o700 {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("cannot use %s: %w; make it a folder of root's own, or move it out of the way", dir, err)
	}
	return nil
}
