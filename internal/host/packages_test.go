package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusalsAreToldApart by what the tools print.
func TestRefusalsAreToldApart(t *testing.T) {
	for said, want := range map[string]error{
		"E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)":                  ErrBusy,
		"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)\nE: Unable to lock directory": ErrBusy,
		"dpkg: error: dpkg frontend lock was locked by another process with pid 4711":                                      ErrBusy,
		"dpkg: dependency problems prevent removal of rpcbind:\n nis depends on rpcbind.":                                  ErrNeeded,
		"error: Failed dependencies:\n\trpcbind is needed by (installed) nfs-utils-1:2.5.4-20.el9.x86_64":                  ErrNeeded,
		"E: Unable to locate package rpcbind": nil,
		"E: Failed to fetch http://deb.debian.org/debian/pool/main/r/rpcbind/rpcbind_1.2.6-6_amd64.deb  404  Not Found [IP: …]\n": nil,
	} {
		if got := reason(said); !errors.Is(got, want) || want == nil && got != nil {
			t.Errorf("%q: %v", said, got)
		}
	}
}

func TestALockIsWaitedForAndNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := patiently(t.Context(), func() error {
			if tries++; tries < 5 {
				return ErrBusy
			}
			return nil
		})
		if err != nil || tries != 5 {
			t.Errorf("%d tries, %v", tries, err)
		}
		began := time.Now()
		if err := patiently(t.Context(), func() error { return ErrBusy }); !errors.Is(err, ErrBusy) || time.Since(began) > lockLimit+lockRetry {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := patiently(ctx, func() error { return ErrBusy }); !errors.Is(err, ErrBusy) {
			t.Errorf("%v", err)
		}
	})
}

// tool puts a program in apt-get's place, which writes down its arguments and does what the script says.
func tool(t *testing.T, script string) (asked func() []string) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	text := "#!/bin/sh\necho \"$*\" >>" + log + "\n" + script
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	former := SearchPath
	SearchPath = dir + ":" + former
	t.Cleanup(func() { SearchPath = former })
	return func() []string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

// TestStaleListsAreFetchedOnce: the file that they name is no longer at the mirror.
func TestStaleListsAreFetchedOnce(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "fresh")
	asked := tool(t, "case \"$*\" in *update) touch "+fresh+";; esac\n[ -e "+fresh+" ] || { echo 'E: Failed to fetch … 404  Not Found'; exit 100; }\n")
	if err := Apt.Fetch(t.Context(), []string{"rpcbind"}); err != nil {
		t.Error(err)
	}
	all := asked()
	if len(all) != 3 || !strings.HasSuffix(all[1], " update") {
		t.Errorf("%q", all)
	}
	for _, i := range []int{0, 2} {
		if i < len(all) && !strings.Contains(all[i], " --download-only install -- rpcbind") {
			t.Errorf("nothing may be installed: %q", all[i])
		}
	}
}

func TestAMirrorThatStaysWithoutTheFileIsAnError(t *testing.T) {
	asked := tool(t, "case \"$*\" in *update) exit 0;; esac\necho 'E: Failed to fetch … 404  Not Found'; exit 100\n")
	if err := Apt.Fetch(t.Context(), []string{"rpcbind"}); err == nil || !strings.Contains(err.Error(), "404  Not Found") {
		t.Errorf("%v", err)
	}
	if n := len(asked()); n != 3 {
		t.Errorf("asked %d times", n)
	}
}
