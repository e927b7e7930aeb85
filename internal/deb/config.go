package deb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/nfslock/ansible-collection-kolla/internal/foreign"
)

// configLine is one setting of dpkg's configuration.
type configLine struct {
	file        string // absolute
	line        int
	name, value string
	valued      bool // there is a value, be it an empty one
	unbalanced  bool // of its quotes one is missing: dpkg refuses to do anything
}

func (c configLine) where() string { return fmt.Sprintf("%s:%d", c.file, c.line) }

// readConfig reads dpkg's configuration as dpkg does (lib/dpkg/options.c): first the folder, sorted, then the file, then that in root's home.
func readConfig(root *os.Root) ([]configLine, error) {
	const config = "etc/dpkg/dpkg.cfg"
	names, err := readDirNames(root, config+".d")
	if err != nil {
		return nil, fmt.Errorf("cannot read dpkg's configuration: %w", err)
	}
	var files []string
	for _, name := range names {
		if strings.IndexFunc(name, func(c rune) bool { return c >= utf8.RuneSelf || !isAlnum(byte(c)) && c != '_' && c != '-' }) < 0 {
			files = append(files, path.Join(config+".d", name))
		}
	}
	var lines []configLine
	for _, name := range append(files, config, "root/.dpkg.cfg") {
		f, _, err := foreign.OpenLinked(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read dpkg's configuration: %w", err)
		}
		text, err := io.ReadAll(bounded(f, maxConfig, "the file"))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		lines = append(lines, parseConfig("/"+name, string(text))...)
	}
	return lines, nil
}

const (
	spaces = " \t\n\v\f\r"
	// maxConfigLine is what dpkg reads at once: the rest of a longer line is a line of its own (lib/dpkg/options.h, MAX_CONFIG_LINE).
	maxConfigLine = 1023
)

func parseConfig(file, text string) (lines []configLine) {
	for number := 1; text != ""; number++ {
		end := strings.IndexByte(text, '\n') + 1
		if end == 0 || end > maxConfigLine {
			end = min(len(text), maxConfigLine)
		}
		line := text[:end]
		text = text[end:]
		line, _, _ = strings.Cut(line, "\x00")
		line = strings.TrimRight(line, spaces)
		if line == "" || line[0] == '#' {
			continue
		}
		end = 0
		for end < len(line) && (isAlnum(line[end]) || line[end] == '-') {
			end++
		}
		c := configLine{file: file, line: number, name: line[:end]}
		if end < len(line) {
			// One character ends the name, whatever it is; then a "=" may come, then spaces.
			c.valued = true
			c.value = strings.TrimLeft(strings.TrimPrefix(line[end+1:], "="), spaces)
			if c.value != "" && (c.value[0] == '"' || c.value[0] == '\'') {
				if c.unbalanced = len(c.value) < 2 || c.value[len(c.value)-1] != c.value[0]; !c.unbalanced {
					c.value = c.value[1 : len(c.value)-1]
				}
			}
		}
		lines = append(lines, c)
	}
	return lines
}
