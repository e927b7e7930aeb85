package lockfix

import (
	"context"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/deb"
	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
)

const verifyLimit = 5 * time.Minute

// verify trusts dpkg's exit code in nothing: state, version, every file, and the dependencies of all other packages. What
// dpkg has done is looked at also when the run is told to stop.
func (t *target) verify(ctx context.Context, before []deb.Package, d delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyLimit)
	defer cancel()
	if err := t.readPackages(); err != nil {
		return fail("verify", "cannot verify %s: %w", t.Name, err)
	}
	var now []deb.Package
	for _, p := range d.packages {
		have, ok := t.seen.find(p.Name)
		if !ok || have.Version != p.Version || !whole(have) {
			return fail("verify", "cannot install %s in %s: dpkg succeeded, yet %s is there", p.Name+" "+p.Version, t.Name, describe(have))
		}
		now = append(now, have)
		sums, err := d.sums(p)
		if err != nil {
			return fail("verify", "cannot verify %s: %w", t.Name, err)
		}
		problems, err := t.db.VerifyFiles(ctx, have, sums)
		if err != nil {
			return fail("verify", "cannot verify %s: %w", t.Name, err)
		}
		if len(problems) > 0 {
			return fail("verify", "cannot install %s in %s: dpkg succeeded, yet %s is %s", p.Name, t.Name, problems[0].Path, problems[0].Kind)
		}
	}
	broken, err := deb.NewlyUnmet(before, now)
	if err != nil {
		return fail("verify", "cannot verify %s: %w", t.Name, err)
	}
	if len(broken) > 0 {
		return fail("verify", "cannot leave %s so: apt would no longer work there: %s", t.Name, broken[0].String())
	}
	return nil
}

// sums are the checksums of all files that are to be there after the install.
func (d delivery) sums(p patchset.Package) (map[string]string, error) {
	file, err := d.open(p)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	archive, err := deb.ReadArchive(file)
	return baseline.Expected(archive.Md5sums, d.excluded[p.Name]), err
}
