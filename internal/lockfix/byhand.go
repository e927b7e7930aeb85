package lockfix

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

// byHand says what a person can do about what is astray: first what a run needs, then the commands that do it without one, for a shell of root's on the host.
// docs/operations.md has them too, in "A container that is stuck".
func (j *job) byHand(ctx context.Context, w *work, a astray) string {
	inside := fmt.Sprintf("%s exec -u root %s ", cmp.Or(j.cli, "docker"), w.Name)
	var commands, lost []string
	if a.unread {
		commands = append(commands, w.readInByHand(inside))
	}
	kept := w.found(w.before, w.undo)
	var files, names []string
	for _, name := range slices.Sorted(maps.Keys(a.packages)) {
		k, ok := kept.packages[name]
		if !ok {
			lost = append(lost, name)
			continue
		}
		commands = append(commands, fmt.Sprintf("%s cp %s %s:/root/%s.deb", cmp.Or(j.cli, "docker"), filepath.Join(kept.from[name].Name(), k.File), w.Name, name))
		files = append(files, "/root/"+name+".deb")
		names = append(names, name)
	}
	if len(files) > 0 {
		commands = append(commands, inside+"dpkg --force-confdef --force-confold --install "+strings.Join(files, " "), inside+"rm "+strings.Join(files, " "))
	}
	if len(a.unfinished) > 0 {
		commands = append(commands, inside+"dpkg --force-confdef --force-confold --configure "+strings.Join(a.unfinished, " "))
	}
	for _, b := range w.before.Packages {
		switch { // dpkg drops holds when it installs
		case slices.Contains(a.hold, b.Name), b.Held && slices.Contains(names, b.Name):
			commands = append(commands, inside+"apt-mark hold "+b.Name)
		case slices.Contains(a.unhold, b.Name) && !slices.Contains(names, b.Name):
			commands = append(commands, inside+"apt-mark unhold "+b.Name)
		}
	}
	if a.library != "" && w.before.Library != nil && w.before.Library.List == nil {
		if _, files := back(*w.before.Library); files.Effect() == preloaded.None {
			remove := "rm -f " + preload.List + " " + preload.Library
			if !files.Folder {
				remove = fmt.Sprintf("sh -c '%s && rmdir %s'", remove, path.Dir(preload.Library))
			}
			commands = append(commands, inside+remove)
		}
	}
	if a.restart {
		restart := cmp.Or(j.cli, "docker") + " restart " + w.Name
		if owned, err := j.units.runs(ctx, kolla.Unit(w.Name)); owned && err == nil {
			restart = "systemctl restart " + kolla.Unit(w.Name)
		}
		commands = append(commands, restart)
	}
	text := "only this container is stuck. Remove what is in the way and run again for it"
	if len(commands) > 0 {
		text += "; or by hand, then run again: " + strings.Join(commands, " && ")
	}
	if len(lost) > 0 {
		text += fmt.Sprintf("; of %s nothing is kept to go back to", strings.Join(lost, ", "))
	}
	return text + "; or have kolla-ansible make it anew, which ends this too"
}

// unreadError says that dpkg cannot read in what it has left.
type unreadError struct {
	byHand string
	cause  error
}

func (e *unreadError) Error() string {
	return fmt.Sprintf("cannot have dpkg read in what one that was killed has left: %v", e.cause)
}
func (e *unreadError) Unwrap() error { return e.cause }

func (t *target) unreadByHand(cli string) string {
	inside := fmt.Sprintf("%s exec -u root %s ", cmp.Or(cli, "docker"), t.Name)
	return "remove what is in dpkg's way and run again; or by hand, then run again: " + t.readInByHand(inside) + "; or have kolla-ansible make it anew"
}

// readInByHand: any dpkg that writes reads them in. Where none can, and they say nothing that its status file does not, they can go.
func (t *target) readInByHand(inside string) string {
	if records, news, err := deb.Unread(t.root); err == nil && records && !news {
		return inside + "sh -c 'rm /var/lib/dpkg/updates/*'"
	}
	return inside + "sh -c 'echo dpkg install | dpkg --set-selections'"
}
