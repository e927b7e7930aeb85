package preload

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var architectures = map[string]struct {
	machine  elf.Machine
	compiler string
}{
	"amd64": {elf.EM_X86_64, "x86_64-linux-gnu-gcc"},
	"arm64": {elf.EM_AARCH64, "aarch64-linux-gnu-gcc"},
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestChecksumsAreThoseOfTheLibraries(t *testing.T) {
	var want string
	for _, arch := range []string{"amd64", "arm64"} {
		sum := sha256.Sum256(read(t, filepath.Join("built", arch, Name)))
		want += hex.EncodeToString(sum[:]) + "  " + arch + "/" + Name + "\n"
	}
	if diff := cmp.Diff(want, string(read(t, "built/SHA256SUMS"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !bytes.Equal(Built, read(t, filepath.Join("built", runtime.GOARCH, Name))) {
		t.Error("the library in this program is not the one of this architecture")
	}
}

// What is shipped is what the source gives. The same compiler gives the same bytes; this is Debian 12's.
func TestShippedLibrariesAreWhatTheSourceGives(t *testing.T) {
	const gcc, binutils = "12.2.0", "(GNU Binutils for Debian) 2.40"
	for arch, a := range architectures {
		version, err := exec.Command(a.compiler, "-dumpfullversion").Output()
		linker, _ := exec.Command(strings.TrimSuffix(a.compiler, "gcc")+"ld", "--version").Output()
		if err != nil || strings.TrimSpace(string(version)) != gcc || !strings.Contains(string(linker), binutils) {
			text := "cannot build again for " + arch + ": " + a.compiler + " " + gcc + " and binutils 2.40 of Debian 12 are wanted (apt-get install gcc gcc-aarch64-linux-gnu libc6-dev libc6-dev-arm64-cross)"
			if os.Getenv("NFSLOCK_COMPILER") == "required" && debian12() && (arch == runtime.GOARCH || runtime.GOARCH == "amd64") {
				t.Error(text)
			}
			t.Log(text)
			continue
		}
		out := t.TempDir()
		if said, err := exec.Command("source/build.sh", out, arch).CombinedOutput(); err != nil {
			t.Fatalf("build.sh: %v: %s", err, said)
		}
		if !bytes.Equal(read(t, filepath.Join(out, arch, Name)), read(t, filepath.Join("built", arch, Name))) {
			t.Errorf("%s: the source gives another library than the one in built/ (make preload)", arch)
		}
	}
}

func debian12() bool {
	data, err := os.ReadFile("/etc/os-release")
	return err == nil && bytes.Contains(data, []byte("VERSION_CODENAME=bookworm"))
}

// What an auditor wants to know of a library that every program loads.
func TestTheLibraryNeedsNothingAndOffersTwoNames(t *testing.T) {
	for arch, a := range architectures {
		f, err := elf.Open(filepath.Join("built", arch, Name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		symbols, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		var offered, wanted []string
		for _, s := range symbols {
			switch {
			case s.Name == "": // a section
			case s.Section != elf.SHN_UNDEF:
				offered = append(offered, s.Name)
			case elf.ST_BIND(s.Info) != elf.STB_WEAK:
				t.Errorf("%s: %s is wanted of every program: one without it could not start", arch, s.Name)
			default:
				wanted = append(wanted, s.Name)
			}
		}
		slices.Sort(offered)
		slices.Sort(wanted)
		libraries, _ := f.ImportedLibraries()
		name, _ := f.DynString(elf.DT_SONAME)
		flags, _ := f.DynValue(elf.DT_FLAGS)
		got := map[string]any{
			"machine": f.Machine, "offers": offered, "wants": wanted, "loads": len(libraries), "name": name, "binds at once": len(flags) == 1 && elf.DynFlag(flags[0])&elf.DF_BIND_NOW != 0,
			"marked by its protections": f.Section(".note.gnu.property") != nil, "build id": f.Section(".note.gnu.build-id") != nil, "relro": false, "writable code": false, "executable stack": false,
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_GNU_RELRO {
				got["relro"] = true
			}
			if p.Flags&elf.PF_X != 0 && p.Flags&elf.PF_W != 0 {
				got["writable code"] = true
			}
			if p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0 {
				got["executable stack"] = true
			}
		}
		want := map[string]any{
			"machine": a.machine, "offers": []string{"fcntl", "fcntl64"}, "wants": []string{"__errno_location", "__fcntl", "getauxval"}, "loads": 0, "name": []string{Name}, "binds at once": true,
			"marked by its protections": true, "build id": false, "relro": true, "writable code": false, "executable stack": false,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", arch, diff)
		}
	}
}

func TestTheSourceIsReadInTenMinutes(t *testing.T) {
	if n := bytes.Count(read(t, "source/nfslock.c"), []byte("\n")); n > 150 {
		t.Errorf("%d lines, at most 150 are promised", n)
	}
}
