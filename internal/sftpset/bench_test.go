package sftpset

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/patchset"
	"github.com/nfslock/ansible-collection-kolla/internal/sftpset/sshdtest"
)

// TestSpeed fetches a file of 200 MB into a store, checksum and sync included, and with OpenSSH's sftp, in turn. It runs only
// with NFSLOCK_SFTP_ROUNDS, the number of rounds: see tests/bench/sftp.sh.
func TestSpeed(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("NFSLOCK_SFTP_ROUNDS"))
	if rounds == 0 {
		t.Skip("a comparison, for make bench")
	}
	s := sshdtest.Start(t, "ed25519")
	path, p := put(t, s, noise(30, 200_000_000))
	config := to(t, s, s.Addr())
	var ours, theirs []time.Duration
	for round := range rounds {
		dir := t.TempDir()
		store := newStore(t, dir)
		set := open(t, config)
		began := time.Now()
		if err := set.Fetch(t.Context(), p, store); err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		set.Close()
		if err := os.Remove(filepath.Join(dir, p.SHA256+".deb")); err != nil {
			t.Fatal(err)
		}
		sftp := exec.Command("sftp", "-q", "-b", "-", "-P", strconv.Itoa(s.Port), "-i", s.Key, "-F", "none", "-o", "UserKnownHostsFile="+config.KnownHostsFile,
			"-o", "IdentitiesOnly=yes", s.User+"@"+s.Host)
		input, err := sftp.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if err := sftp.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(input, "get %s %s\n", path, filepath.Join(dir, "theirs"))
		input.Close()
		if err := sftp.Wait(); err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, time.Since(began))
		if info, err := os.Stat(filepath.Join(dir, "theirs")); err != nil || info.Size() != p.Size {
			t.Fatalf("sftp fetched %v, %v", info, err)
		}
		_ = os.Remove(filepath.Join(dir, "theirs"))
		t.Logf("round %d: this client %.2f s, OpenSSH's sftp %.2f s", round+1, ours[round].Seconds(), theirs[round].Seconds())
	}
	rate := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(p.Size) / 1e6 / d[len(d)/2].Seconds()
	}
	us, them := rate(ours), rate(theirs)
	t.Logf("200 MB, medians of %d: this client %.0f MB/s, OpenSSH's sftp %.0f MB/s, ratio %.2f", rounds, us, them, us/them)
	if us < 0.8*them {
		t.Errorf("less than 0.8 of OpenSSH's speed")
	}
}

func put(t *testing.T, s *sshdtest.Server, data []byte) (string, patchset.Package) {
	t.Helper()
	return s.Put(t, "a.deb", data), pkg(data)
}
