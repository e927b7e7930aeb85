package deb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Package is one stanza of a dpkg status file or of a .deb's control file. The relations are kept as text, because only
// a few of a container's 500 packages are ever asked for theirs.
type Package struct {
	Name, Version, Architecture string
	SourceVersion               string // of the source it was built from: a binary rebuild (+b1) has its source's
	MultiArch                   string // "same", "foreign", "allowed" or ""
	Status                      Status // zero in a .deb
	Depends, PreDepends         string
	Provides, Conflicts, Breaks string
}

// Status is dpkg's word on an installed package: what is wanted, whether it is damaged, how far it got.
type Status struct{ Want, Flag, State string }

// String gives the letters of dpkg -l: "ii", "hi", "iF", "iHR", "rc".
func (s Status) String() string {
	want := map[string]string{"unknown": "u", "install": "i", "hold": "h", "deinstall": "r", "purge": "p"}
	state := map[string]string{
		"not-installed": "n", "config-files": "c", "half-installed": "H", "unpacked": "U", "half-configured": "F",
		"triggers-awaited": "W", "triggers-pending": "t", "installed": "i",
	}
	text := letter(want, s.Want) + letter(state, s.State)
	if s.Flag == "reinstreq" {
		text += "R"
	}
	return text
}

func letter(of map[string]string, word string) string {
	if l, ok := of[word]; ok {
		return l
	}
	return "?"
}

// present tells a package that dpkg has in some form from one it only remembers.
func (p Package) present() bool {
	return p.Status.State != "not-installed" && p.Status.State != "config-files"
}

// ParseStatus reads a status file, or a control file. A stanza without a name is an error; unknown fields are passed over.
func ParseStatus(r io.Reader) ([]Package, error) {
	var list []Package
	err := eachStanza(r, func(raw []byte) error {
		p, err := parseStatusStanza(raw)
		list = append(list, p)
		return err
	})
	return list, err
}

// eachStanza hands over the text of each stanza, without the empty line behind it. It belongs to handle only until that
// returns.
func eachStanza(r io.Reader, handle func(raw []byte) error) error {
	in := bufio.NewReaderSize(bounded(r, maxStatus, "the file"), 64<<10)
	var stanza []byte
	end := func() error {
		if len(stanza) == 0 {
			return nil
		}
		err := handle(stanza)
		stanza = stanza[:0]
		return err
	}
	for {
		line, err := in.ReadSlice('\n')
		blank := len(stanza) == 0 || stanza[len(stanza)-1] == '\n'
		if blank && err == nil && len(bytes.TrimSpace(line)) == 0 {
			if err := end(); err != nil {
				return err
			}
			continue
		}
		stanza = append(stanza, line...)
		if len(stanza) > maxStanza {
			return fmt.Errorf("a stanza has more than %d bytes", maxStanza)
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(bytes.TrimSpace(stanza)) == 0 {
				return nil
			}
			return end()
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// parseStatusStanza reads the fields that this package asks for.
func parseStatusStanza(raw []byte) (Package, error) {
	var p Package
	var last *string // where a continuation line goes
	source, status := "", ""
	for line := range bytes.Lines(raw) {
		content := bytes.TrimRight(line, "\r\n")
		if len(content) == 0 {
			continue
		}
		if content[0] == ' ' || content[0] == '\t' {
			if last != nil {
				*last += " " + string(bytes.TrimSpace(content))
			}
			continue
		}
		key, value, ok := bytes.Cut(content, []byte{':'})
		if !ok {
			return p, fmt.Errorf("no field: %.40q", content)
		}
		if last = p.field(key, &source, &status); last != nil {
			*last = string(bytes.TrimSpace(value))
		}
	}
	if p.Name == "" {
		return p, fmt.Errorf("a stanza without a package: %.40q", raw)
	}
	if status != "" {
		words := strings.Fields(status)
		if len(words) != 3 {
			return p, fmt.Errorf("%s: no status: %.60q", p.Name, status)
		}
		p.Status = Status{words[0], words[1], words[2]}
	}
	p.SourceVersion = sourceVersion(source, p.Version)
	return p, nil
}

// field is where a field's value goes, nil if nobody asks for it. dpkg ignores case in names.
func (p *Package) field(key []byte, source, status *string) *string {
	var small [16]byte
	if len(key) > len(small) {
		return nil
	}
	lower := small[:0]
	for _, c := range key {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	switch string(lower) {
	case "package":
		return &p.Name
	case "version":
		return &p.Version
	case "architecture":
		return &p.Architecture
	case "source":
		return source
	case "multi-arch":
		return &p.MultiArch
	case "status":
		return status
	case "depends":
		return &p.Depends
	case "pre-depends":
		return &p.PreDepends
	case "provides":
		return &p.Provides
	case "conflicts":
		return &p.Conflicts
	case "breaks":
		return &p.Breaks
	}
	return nil
}

// sourceVersion follows deb-control(5): "Source: qemu (1:7.2-1)" names a version where it is not the package's own.
func sourceVersion(source, version string) string {
	if _, in, ok := strings.Cut(source, "("); ok {
		return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(in), ")"))
	}
	if i := strings.LastIndex(version, "+b"); i > 0 && digits(version[i+2:]) {
		return version[:i]
	}
	return version
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// safeName follows Debian policy 5.6.7, so that a name can be part of a path.
func safeName(name string) bool {
	return len(name) > 1 && isAlnum(name[0]) && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}
