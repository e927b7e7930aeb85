package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Package is one stanza of a dpkg status file, or the control file of a .deb. Relations are kept as text: a status file
// has hundreds, and few are looked at.
type Package struct {
	Name, Architecture, Version string

	Source        string // Name, where the stanza names none
	SourceVersion string // Version without the +bN of a rebuild, where the stanza names none
	MultiArch     string // same, foreign, allowed or ""
	Status        Status // zero for a .deb
	InstalledSize uint64 // bytes on the disk, as the packager estimates them; 0 where the stanza does not tell
	Graft         Graft  // zero where the package is not one of ours, or of an earlier release

	PreDepends, Depends, Provides, Conflicts, Breaks string
}

// Status is what dpkg keeps of a package's fate, in the words of its status file: install ok installed.
type Status struct{ Want, Flag, State string }

type statusWord struct {
	word   string
	letter string
}

// statusWords has dpkg's words in the order of the field, with the letters that dpkg-query(1) shows for them.
var statusWords = [3][]statusWord{
	{{"unknown", "u"}, {"install", "i"}, {"hold", "h"}, {"deinstall", "r"}, {"purge", "p"}},
	{{"ok", ""}, {"reinstreq", "R"}},
	{
		{"not-installed", "n"},
		{"config-files", "c"},
		{"half-installed", "H"},
		{"unpacked", "U"},
		{"half-configured", "F"},
		{"triggers-awaited", "W"},
		{"triggers-pending", "t"},
		{"installed", "i"},
	},
}

// String is dpkg's short form: ii, hi, rc, iF, iHR. The zero Status gives "".
func (s Status) String() string {
	return findWord(0, s.Want).letter + findWord(2, s.State).letter + findWord(1, s.Flag).letter
}

func findWord(place int, word string) statusWord {
	for _, known := range statusWords[place] {
		if known.word == word {
			return known
		}
	}
	return statusWord{}
}

// parseStatusField returns words of the table, not of the stanza: hundreds of packages share them.
func parseStatusField(value string) (Status, error) {
	words := strings.Fields(value)
	if len(words) != len(statusWords) {
		return Status{}, fmt.Errorf("status %.80q is not three words", value)
	}
	for i, word := range words {
		if words[i] = findWord(i, word).word; words[i] == "" {
			return Status{}, fmt.Errorf("unknown word %.40q in status", word)
		}
	}
	return Status{words[0], words[1], words[2]}, nil
}

// present tells whether anything of the package is unpacked. apt counts all of these when it checks dependencies
// (apt-pkg/deb/deblistparser.cc, ParseStatus), and a .deb stands for what it will be.
func (p *Package) present() bool {
	return p.Status.State != "not-installed" && p.Status.State != "config-files"
}

// ParseStatus reads a dpkg status file.
func ParseStatus(r io.Reader) ([]Package, error) {
	var packages []Package
	err := eachStanza(r, func(raw []byte) error {
		p, err := parseStatusStanza(raw)
		packages = append(packages, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the status of packages: %w", err)
	}
	return packages, nil
}

// eachStanza hands over one stanza after the other, with all its newlines. The bytes are valid during the call only.
func eachStanza(r io.Reader, handle func([]byte) error) error {
	r = bounded(r, maxStatus, "the file")
	buf := make([]byte, 64<<10)
	start, searched, end := 0, 0, 0 // buf[start:end] is read, and has no blank line before searched
	number := 1
	for {
		n, readErr := r.Read(buf[end:])
		end += n
		if readErr != nil && readErr != io.EOF {
			return readErr
		}
		for start < end {
			if buf[start] == '\n' {
				start++
				searched = max(searched, start)
				continue
			}
			length := 0
			if i := bytes.Index(buf[searched:end], []byte("\n\n")); i >= 0 {
				length = searched + i + 1 - start
			} else if readErr == io.EOF {
				length = end - start
			}
			if length > maxStanza || length == 0 && end-start > maxStanza {
				return fmt.Errorf("stanza %d has more than %d bytes", number, maxStanza)
			}
			if length == 0 {
				searched = end - 1
				break
			}
			if err := handle(buf[start : start+length]); err != nil {
				return fmt.Errorf("stanza %d: %w", number, err)
			}
			number++
			start += length
			searched = start
		}
		if readErr == io.EOF {
			return nil
		}
		switch {
		case start > 0:
			copy(buf, buf[start:end])
			start, searched, end = 0, searched-start, end-start
		case end == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// parseStatusStanza knows that dpkg holds a package without a status for not installed.
func parseStatusStanza(raw []byte) (Package, error) {
	p, err := parseStanza(raw)
	if err == nil && p.Status == (Status{}) {
		p.Status = Status{"unknown", "ok", "not-installed"}
	}
	return p, err
}

func parseStanza(raw []byte) (Package, error) {
	var p Package
	var source, status, size string
	fields := [...]struct {
		name  string
		value *string
	}{
		{"Package", &p.Name},
		{"Status", &status},
		{"Installed-Size", &size},
		{"Architecture", &p.Architecture},
		{"Multi-Arch", &p.MultiArch},
		{"Source", &source},
		{"Version", &p.Version},
		{"Provides", &p.Provides},
		{"Depends", &p.Depends},
		{"Pre-Depends", &p.PreDepends},
		{"Breaks", &p.Breaks},
		{"Conflicts", &p.Conflicts},
		{"Nfslock-Variant", &p.Graft.Variant},
		{"Nfslock-Suffix", &p.Graft.Suffix},
		{"Nfslock-Built-From", &p.Graft.BuiltFrom},
		{"Nfslock-Stock", &p.Graft.Stock},
	}
	seen := [len(fields)]bool{}
	err := eachField(raw, func(name, field []byte) error {
		for i, f := range fields {
			if len(name) != len(f.name) || !strings.EqualFold(f.name, string(name)) {
				continue
			}
			if seen[i] {
				return fmt.Errorf("field %s is there twice", f.name)
			}
			seen[i] = true
			*f.value = string(bytes.TrimSpace(field[bytes.IndexByte(field, ':')+1:]))
		}
		return nil
	})
	if err != nil {
		return Package{}, err
	}
	if !safeName(p.Name) {
		return Package{}, fmt.Errorf("invalid package name %.80q", p.Name)
	}
	if p.Architecture != "" && !safeName(p.Architecture) {
		return Package{}, fmt.Errorf("invalid architecture %.80q of %s", p.Architecture, p.Name)
	}
	if kibibytes, err := strconv.ParseUint(size, 10, 40); err == nil { // deb-control(5)
		p.InstalledSize = kibibytes << 10
	}
	if status != "" {
		if p.Status, err = parseStatusField(status); err != nil {
			return Package{}, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	p.Source, p.SourceVersion = p.Name, WithoutRebuild(p.Version)
	if source != "" {
		name, version, versioned := strings.Cut(source, "(")
		p.Source = strings.TrimSpace(name)
		if versioned {
			p.SourceVersion = strings.TrimSpace(strings.TrimSuffix(version, ")"))
		}
	}
	return p, nil
}

// eachField hands over each field of a stanza: its name, and all its bytes with the lines that continue it.
func eachField(raw []byte, handle func(name, field []byte) error) error {
	for len(raw) > 0 {
		end := 0
		for {
			i := bytes.IndexByte(raw[end:], '\n')
			if i < 0 {
				return errors.New("the last line does not end")
			}
			end += i + 1
			if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
				break
			}
		}
		n := 0
		for raw[n] > ' ' && raw[n] != ':' { // a field ends with a newline
			n++
		}
		if rest := bytes.TrimLeft(raw[n:end], " \t"); n == 0 || raw[0] == '-' || rest[0] != ':' {
			return fmt.Errorf("no field in %.40q", raw[:end])
		}
		if err := handle(raw[:n], raw[:end]); err != nil {
			return err
		}
		raw = raw[end:]
	}
	return nil
}

// safeName tells whether a name from a status file can be part of a path. dpkg itself takes upper case and "_" there
// (lib/dpkg/parsehelp.c, pkg_name_is_invalid).
func safeName(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && (i == 0 || strings.IndexByte("-+._", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// WithoutRebuild takes off the +bN that a rebuild without change of source adds to the version of a binary package.
func WithoutRebuild(version string) string {
	i := strings.LastIndex(version, "+b")
	if i < 0 || i+2 == len(version) || strings.Trim(version[i+2:], "0123456789") != "" {
		return version
	}
	return version[:i]
}
