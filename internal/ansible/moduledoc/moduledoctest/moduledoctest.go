// Package moduledoctest compares documentation with the file that is kept of it.
package moduledoctest

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Golden fails the test where the file of that name is not what was written now. With update it is written first.
func Golden(t *testing.T, name string, got []byte, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is another, -update would rewrite it (-is +would be):\n%s", name, diff)
	}
}
