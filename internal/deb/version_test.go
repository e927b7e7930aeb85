package deb

import (
	"fmt"
	"strings"
	"testing"
)

// versions are those that packages have, and those that are easily taken for each other.
var versions = []string{
	"0", "00", "0:0", "1", "1.0", "1.00", "1.0-0", "1.0-1", "1.0-1+b1", "1.0-1~bpo12+1", "1.0~rc1-1", "1.0~~", "1.0~", "1.0a", "1.0+",
	"1.0.0", "1:1.0-1", "2:0", "1.10", "1.9", "1.a", "1a", "1A", "1.0-a", "1.0-~", "1.0-+", "1-1-1", "1-1.1", "1:1:1-1", "1.0-1.",
	"1:7.2+dfsg-7+deb12u18", "1:7.2+dfsg-7+deb12u18+b3", "1:7.2+dfsg-7+deb12u18+nfslock1", "1:7.2+dfsg-7+deb12u9", "1:10.0.13+ds-0+deb13u1",
	"1:10.0.13+ds-0+deb13u1+nfslock1", "1:8.2.2+ds-0ubuntu1.4", "20240203", "9999999999", "2.36-9+deb12u10", "0.0~git20241115132648.6f4aee6-1",
}

func TestVersionsAreOrderedAsByDpkg(t *testing.T) {
	run(t, "dpkg", "--version") // or skip
	// One shell for all pairs: a process for each would take longer than all other tests.
	const script = `while read a b; do
		if dpkg --compare-versions "$a" lt "$b"; then echo -1; elif dpkg --compare-versions "$a" eq "$b"; then echo 0; else echo 1; fi
	done <"$1"`
	var pairs strings.Builder
	for i, a := range versions {
		for _, b := range versions[i:] {
			fmt.Fprintln(&pairs, a, b)
		}
	}
	answers := strings.Fields(run(t, "sh", "-c", script, "sh", writeFile(t, []byte(pairs.String()))))
	for i, pair := range strings.Split(strings.TrimSpace(pairs.String()), "\n") {
		a, b, _ := strings.Cut(pair, " ")
		got, err := CompareVersions(a, b)
		if err != nil {
			t.Fatal(err)
		}
		if back, _ := CompareVersions(b, a); back != -got || fmt.Sprint(got) != answers[i] {
			t.Errorf("%s and %s: %d, the other way round %d; dpkg says %s", a, b, got, back, answers[i])
		}
	}
}

func TestInvalidVersionsAreRefused(t *testing.T) {
	for _, version := range []string{
		"", " ", "1 2", ":1", "a:1", "-1:1", "2147483648:1", "+1:1", "1:", "1-", "a", "-1", "1_2", "1é", "1.0-1:2", "1\n", "1/2", "1.0-1_2",
		"1.1234567890123456789", "99999999999999999999:1",
	} {
		if got, err := CompareVersions(version, "1"); err == nil {
			t.Errorf("%q compares as %d", version, got)
		}
		if got, err := CompareVersions("1", version); err == nil {
			t.Errorf("%q compares as %d", version, got)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	for i, version := range versions {
		f.Add(version, versions[(i+1)%len(versions)], versions[(i+2)%len(versions)])
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, err := CompareVersions(a, b)
		ba, err2 := CompareVersions(b, a)
		if ab != -ba || (err == nil) != (err2 == nil) {
			t.Fatalf("%q and %q: %d %v, the other way round %d %v", a, b, ab, err, ba, err2)
		}
		if same, err := CompareVersions(a, a); same != 0 {
			t.Fatalf("%q and itself: %d %v", a, same, err)
		}
		bc, err2 := CompareVersions(b, c)
		ac, err3 := CompareVersions(a, c)
		if err == nil && err2 == nil && err3 == nil && ab <= 0 && bc <= 0 && ac > 0 {
			t.Fatalf("%q <= %q <= %q, and the first is greater than the last", a, b, c)
		}
	})
}
