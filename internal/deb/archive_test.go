package deb

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var suffixes = []string{"", ".gz", ".xz", ".zst"}

func TestArchivesOfEveryCompressionAreRead(t *testing.T) {
	for _, suffix := range suffixes {
		data := testDeb{control: testControl, files: helloFiles, controlSuffix: suffix, dataSuffix: suffix}.bytes(t)
		read, err := ReadArchive(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%q: %v", suffix, err)
		}
		checked, err := CheckArchive(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%q: %v", suffix, err)
		}
		if diff := cmp.Diff(read, checked); diff != "" {
			t.Errorf("%q: read and checked differ: %s", suffix, diff)
		}
		want := Package{Name: "hello", Version: "1:2.0-1", Architecture: "amd64", Source: "hello", SourceVersion: "1:2.0-1"}
		if diff := cmp.Diff(want, read.Package); diff != "" {
			t.Errorf("%q: %s", suffix, diff)
		}
		if got, want := read.Md5sums["usr/bin/hello"], fmt.Sprintf("%x", md5.Sum([]byte("#!/bin/sh\necho hello\n"))); got != want || len(read.Md5sums) != 7 {
			t.Errorf("%q: %v", suffix, read.Md5sums)
		}
		if suffix == "" || suffix == ".xz" || suffix == ".gz" {
			if out := run(t, "dpkg-deb", "--field", writeFile(t, data), "Package"); out != "hello\n" {
				t.Errorf("dpkg-deb cannot read what this test built: %s", out)
			}
		}
	}
}

func TestPackagesOfDpkgDebAreRead(t *testing.T) {
	tree := t.TempDir()
	sums := ""
	for name, content := range map[string]string{
		"usr/bin/hello": "#!/bin/sh\n", "usr/share/doc/hello/copyright": strings.Repeat("free ", 50_000), "DEBIAN/control": testControl,
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, "DEBIAN") {
			sums += fmt.Sprintf("%x  %s\n", md5.Sum([]byte(content)), name)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "DEBIAN/md5sums"), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-Zxz"}, {"-Zxz", "-z9", "-Sextreme"}, {"-Zgzip"}, {"-Znone"}, {"-Zzstd"}, {"-Zxz", "--no-uniform-compression"}} {
		file := filepath.Join(t.TempDir(), "hello.deb")
		run(t, "dpkg-deb", append(args, "--root-owner-group", "--build", tree, file)...)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := CheckArchive(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if got.Package.Name != "hello" || len(got.Md5sums) != 2 || len(got.Missing) != 0 {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestTruncatedArchivesAreRefused(t *testing.T) {
	for _, suffix := range suffixes {
		data := testDeb{control: testControl, files: helloFiles, controlSuffix: suffix, dataSuffix: suffix}.bytes(t)
		for length := range data {
			if length > 100 && length < len(data)-100 && length%29 != 0 {
				continue
			}
			if _, err := CheckArchive(bytes.NewReader(data[:length])); err == nil && length < len(data)-1 { // the last may be padding
				t.Errorf("%q: %d of %d bytes pass for the whole", suffix, length, len(data))
			}
		}
	}
}

func TestFlippedBitsAreNoticed(t *testing.T) {
	for _, suffix := range []string{".gz", ".xz", ".zst"} {
		data := testDeb{control: testControl, files: helloFiles, controlSuffix: suffix, dataSuffix: suffix}.bytes(t)
		want, err := CheckArchive(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(data); i += 3 {
			flipped := slices.Clone(data)
			flipped[i] ^= 1 << (i % 8)
			got, err := CheckArchive(bytes.NewReader(flipped))
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				t.Errorf("%q: byte %d: %s", suffix, i, diff)
			}
		}
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	control := testTar(t, []testFile{{name: "control", content: testControl}})
	with := func(files ...testFile) []byte { return testDeb{control: testControl, files: files}.bytes(t) }
	named := func(old, new string) []byte {
		return testDeb{control: strings.Replace(testControl, old, new, 1), files: helloFiles}.bytes(t)
	}
	sums := func(lines string) []byte {
		return testDeb{control: testControl, extra: map[string]string{"md5sums": lines}, files: helloFiles}.bytes(t)
	}
	magic, empty := []byte("2.0\n"), testTar(t, nil)
	controls := func(files ...testFile) []byte {
		return testAr("debian-binary", magic, "control.tar", testTar(t, files), "data.tar", empty)
	}
	// a header that promises exabytes, in the base-256 that GNU tar writes for large numbers
	exabytes := testTar(t, []testFile{{name: "./big", content: "x"}})
	copy(exabytes[124:136], "\x80\x00\x00\x00\x70\x00\x00\x00\x00\x00\x00\x00")
	copy(exabytes[148:156], tarChecksum(exabytes[:512]))
	for name, data := range map[string][]byte{
		"nothing":               {},
		"text":                  []byte("Package: hello\n"),
		"no member":             testAr(),
		"not debian-binary":     testAr("control.tar", control, "data.tar", empty),
		"format 3":              testAr("debian-binary", []byte("3.0\n"), "control.tar", control, "data.tar", empty),
		"long format":           testAr("debian-binary", bytes.Repeat([]byte("2.0\n"), 100), "control.tar", control, "data.tar", empty),
		"data first":            testAr("debian-binary", magic, "data.tar", empty, "control.tar", control),
		"no data":               testAr("debian-binary", magic, "control.tar", control),
		"something between":     testAr("debian-binary", magic, "control.tar", control, "x", magic, "data.tar", empty),
		"two control":           testAr("debian-binary", magic, "control.tar", control, "control.tar", control, "data.tar", empty),
		"two beginnings":        testAr("debian-binary", magic, "debian-binary", magic, "control.tar", control, "data.tar", empty),
		"control file twice":    controls(testFile{name: "./control", content: testControl}, testFile{name: "control", content: testControl}),
		"control file is link":  controls(testFile{name: "./control", content: "/etc/passwd", kind: tar.TypeSymlink}),
		"a linked script":       controls(testFile{name: "./control", content: testControl}, testFile{name: "./postinst", content: "/etc/passwd", kind: tar.TypeSymlink}),
		"linked checksums":      controls(testFile{name: "./control", content: testControl}, testFile{name: "./md5sums", content: "../../x", kind: tar.TypeSymlink}),
		"a device in control":   controls(testFile{name: "./control", content: testControl}, testFile{name: "./prerm", kind: tar.TypeChar}),
		"control from above":    controls(testFile{name: "./control", content: testControl}, testFile{name: "../postinst", content: "x"}),
		"exabytes":              testAr("debian-binary", magic, "control.tar", control, "data.tar", exabytes),
		"a name without end":    with(testFile{name: "./" + strings.Repeat("x", 2<<20)}),
		"obsolete compression":  testAr("debian-binary", magic, "control.tar.bz2", control, "data.tar", empty),
		"not as it is named":    testAr("debian-binary", magic, "control.tar.gz", control, "data.tar", empty),
		"negative size":         bytes.Replace(testAr("debian-binary", magic, "control.tar", control, "data.tar", empty), []byte("4         `"), []byte("-4        `"), 1),
		"absurd size":           bytes.Replace(testAr("debian-binary", magic, "control.tar", control, "data.tar", empty), fmt.Appendf(nil, "%-10d`", len(control)), []byte("9999999999`"), 1),
		"no control file":       testAr("debian-binary", magic, "control.tar", empty, "data.tar", empty),
		"two stanzas":           named("Package: hello\n", "Package: hello\n\nPackage: other\n"),
		"a path as name":        named("Package: hello\n", "Package: ../hello\n"),
		"a short name":          named("Package: hello\n", "Package: h\n"),
		"an upper case name":    named("Package: hello\n", "Package: Hello\n"),
		"a name with underline": named("Package: hello\n", "Package: hello_2\n"),
		"a path as version":     named("1:2.0-1", "1/2"),
		"no version":            named("Version: 1:2.0-1\n", ""),
		"no architecture":       named("Architecture: amd64\n", ""),
		"a path as arch":        named("amd64", "../x"),
		"a status":              named("Architecture", "Status: install ok installed\nArchitecture"),
		"a file above":          with(testFile{name: "./usr/../../etc/passwd"}),
		"dots at the end":       with(testFile{name: "./usr/..", kind: tar.TypeSymlink, content: "x"}),
		"a link above":          with(testFile{name: "./x", kind: tar.TypeLink, content: "../../etc/passwd"}),
		"a device":              with(testFile{name: "./dev/mem", kind: tar.TypeChar}),
		"a block device":        with(testFile{name: "./dev/sda", kind: tar.TypeBlock}),
		"a pipe":                with(testFile{name: "./pipe", kind: tar.TypeFifo}),
		"a newline":             with(testFile{name: "./a\nb"}),
		"another checksum":      sums("00112233445566778899aabbccddeeff  usr/bin/hello\n"),
		"a folder's checksum":   sums("00112233445566778899aabbccddeeff  usr/bin\n"),
		"a link's checksum":     sums("00112233445566778899aabbccddeeff  usr/bin/hi\n"),
		"a hard link's":         sums("00112233445566778899aabbccddeeff  usr/bin/hello-hard\n"),
		"no checksums":          sums("hello\n"),
		"checksum of above":     sums("00112233445566778899aabbccddeeff  ../x\n"),
		"long checksum":         sums("00112233445566778899aabbccddeeff00  usr/bin/hello\n"),
	} {
		if got, err := CheckArchive(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestUsualOdditiesAreRead(t *testing.T) {
	control, data := testTar(t, []testFile{{name: "control", content: testControl}}), testTar(t, helloFiles)
	for name, data := range map[string][]byte{
		"a minor format":      testAr("debian-binary", []byte("2.1\nmore\n"), "control.tar", control, "data.tar", data),
		"unknown members":     testAr("debian-binary", []byte("2.0\n"), "_x", []byte("y"), "control.tar", control, "_y", []byte{}, "data.tar", data),
		"more at the end":     testAr("debian-binary", []byte("2.0\n"), "control.tar", control, "data.tar", data, "_gpgorigin", []byte("z")),
		"slashes in names":    testAr("debian-binary/", []byte("2.0\n"), "control.tar/", control, "data.tar/", data),
		"absolute names":      testAr("debian-binary", []byte("2.0\n"), "control.tar", control, "data.tar", testTar(t, []testFile{{name: "/usr/bin/x"}})),
		"checksums of absent": testDeb{control: testControl, extra: map[string]string{"md5sums": "00112233445566778899AABBCCDDEEFF  gone\n"}, files: helloFiles}.bytes(t),
	} {
		got, err := CheckArchive(bytes.NewReader(data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var missing []string
		if name == "checksums of absent" {
			missing = []string{"gone"}
		}
		if diff := cmp.Diff(missing, got.Missing); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// tarChecksum is what a tar header of 512 bytes is to have in its own checksum field.
func tarChecksum(header []byte) string {
	sum := 0
	for i, b := range header {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	return fmt.Sprintf("%06o\x00 ", sum)
}

// A .deb of some 70 KB, whose file has 64 MiB, is read through as it comes.
func TestLargeFilesAreReadInLittleMemory(t *testing.T) {
	small := testDeb{control: testControl, files: []testFile{{name: "./zeros", content: strings.Repeat("\x00", 64<<20)}}, dataSuffix: ".gz"}.bytes(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := CheckArchive(bytes.NewReader(small)); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("took %d MiB", used>>20)
	}
}

// TestBombsTakeBoundedMemory has small files that unpack to much, or say that they need much.
func TestBombsTakeBoundedMemory(t *testing.T) {
	zeros := make([]byte, 17<<20)
	for name, control := range map[string]struct {
		suffix string
		data   []byte
	}{
		"gz":           {".gz", compress(t, ".gz", zeros)},
		"zst":          {".zst", compress(t, ".zst", zeros)},
		"control file": {".gz", compress(t, ".gz", testTar(t, []testFile{{name: "control", content: "X: " + string(zeros[:8<<20])}}))},
		"md5sums":      {".gz", compress(t, ".gz", testTar(t, []testFile{{name: "md5sums", content: strings.Repeat("00112233445566778899aabbccddeeff  a\n", 300_000)}}))},
		"xz window":    {".xz", withWindow(compress(t, ".xz", testTar(t, nil)), 40)},
		"zst window":   {".zst", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00}}, // 2^41 bytes
	} {
		deb := testAr("debian-binary", []byte("2.0\n"), "control.tar"+control.suffix, control.data, "data.tar", testTar(t, nil))
		control.data = nil
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		if _, err := ReadArchive(bytes.NewReader(deb)); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
			t.Errorf("%s: took %d MiB", name, used>>20)
		}
	}
}

// withWindow sets the dictionary size of the first block of an .xz file; 40 stands for 4 GiB.
func withWindow(file []byte, window byte) []byte {
	size := 4 * (int(file[12]) + 1)
	block := file[12 : 12+size]
	i := bytes.Index(block, []byte{0x21, 1})
	block[i+2] = window
	binary.LittleEndian.PutUint32(block[size-4:], crc32.ChecksumIEEE(block[:size-4]))
	return file
}

// TestStreamsOfTheXzToolPass has what ulikunitz/xz itself never writes: several blocks, sizes in their headers, other checksums.
func TestStreamsOfTheXzToolPass(t *testing.T) {
	plain := make([]byte, 300_000)
	for i := range plain {
		plain[i] = byte(i * i >> 7)
	}
	copy(plain[100_000:], plain)
	path := writeFile(t, plain)
	for _, args := range [][]string{
		{"-6"},
		{"-9e"},
		{"-0"},
		{"--block-size=50000"},
		{"-T2", "--block-size=40000"},
		{"--check=none"},
		{"--check=crc32"},
		{"--check=sha256"},
		{"--lzma2=preset=1,dict=4KiB,lc=0,lp=2,pb=1"},
		{"-T2", "-6"},
	} {
		run(t, "xz", append(append([]string{"--keep", "--force"}, args...), path)...)
		packed, err := os.ReadFile(path + ".xz")
		if err != nil {
			t.Fatal(err)
		}
		r, done, err := decompress(".xz", bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		got, err := io.ReadAll(r)
		done()
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %d bytes, %v", args, len(got), err)
		}
		r, done, err = decompress(".xz", bytes.NewReader(append(packed, 'x')))
		if err == nil {
			_, err = io.ReadAll(r)
			done()
		}
		if err == nil {
			t.Errorf("%v: a byte more is not noticed", args)
		}
	}
}

func FuzzCheckArchive(f *testing.F) {
	for _, suffix := range suffixes {
		f.Add(testDeb{control: testControl, files: helloFiles[:9], controlSuffix: suffix, dataSuffix: suffix}.bytes(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checked, err := CheckArchive(bytes.NewReader(data))
		if err != nil {
			return
		}
		read, err := ReadArchive(bytes.NewReader(data))
		checked.Missing = nil
		if diff := cmp.Diff(checked, read); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		name := fmt.Sprintf("%s_%s_%s.deb", checked.Package.Name, checked.Package.Version, checked.Package.Architecture)
		if name != filepath.Base(name) || strings.ContainsAny(name, " \n\x00") {
			t.Errorf("unsafe name %q", name)
		}
		for path := range checked.Md5sums {
			if !filepath.IsLocal(path) {
				t.Errorf("path %q leaves the tree", path)
			}
		}
	})
}

func BenchmarkReadArchive(b *testing.B) {
	for _, suffix := range suffixes {
		data := testDeb{control: testControl, files: helloFiles, controlSuffix: suffix, dataSuffix: suffix}.bytes(b)
		b.Run("control.tar"+suffix, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ReadArchive(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzDecompress unpacks both at once and from a slow reader: a stream that is longer than the look ahead takes another way.
func FuzzDecompress(f *testing.F) {
	for _, suffix := range suffixes {
		f.Add(suffix, compress(f, suffix, []byte(testControl)))
		f.Add(suffix, compress(f, suffix, bytes.Repeat([]byte("hello "), 20_000)))
	}
	f.Fuzz(func(t *testing.T, suffix string, packed []byte) {
		unpack := func(r io.Reader) ([]byte, error) {
			plain, done, err := decompress(suffix, r)
			if err != nil {
				return nil, err
			}
			defer done()
			return io.ReadAll(bounded(plain, 1<<20, "it"))
		}
		once, err := unpack(bytes.NewReader(packed))
		slowly, err2 := unpack(byteReader{bytes.NewReader(packed)})
		if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(once, slowly) {
			t.Errorf("%d bytes, %v; slowly %d bytes, %v", len(once), err, len(slowly), err2)
		}
	})
}
