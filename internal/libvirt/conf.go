package libvirt

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// settings are the values of a configuration file by their names: numbers as they are written, strings without their quotes. Lists are left
// out, as no setting of interest is one.
type settings map[string]string

// confLimit is libvirt's own limit of such a file: virConfReadFile in src/util/virconf.c.
const confLimit = 10 << 20

// parseConf reads the format of qemu.conf as libvirt does (src/util/virconf.c): of a name that stands twice the first value holds, and
// one error makes the whole file unusable, so that libvirt does not start with it.
func parseConf(r io.Reader) (settings, error) {
	data, err := io.ReadAll(io.LimitReader(r, confLimit+1))
	if err != nil {
		return nil, err
	}
	if len(data) > confLimit {
		return nil, errors.New("it is larger than libvirt reads")
	}
	p := &parser{rest: string(data), line: 1}
	found := settings{}
	for {
		p.skip(" \t\r\n")
		if p.rest == "" {
			return found, nil
		}
		if err := p.statement(found); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
}

// parser is what is left of the file.
type parser struct {
	rest string
	line int // from 1
}

func (p *parser) take(n int) (taken string) {
	taken, p.rest = p.rest[:n], p.rest[n:]
	p.line += strings.Count(taken, "\n")
	return taken
}

func (p *parser) skip(chars string) {
	p.take(len(p.rest) - len(strings.TrimLeft(p.rest, chars)))
}

// statement is a comment, or a name and its value, which end at the line's end or at a semicolon.
func (p *parser) statement(found settings) error {
	if p.rest[0] == '#' {
		p.comment()
		return nil
	}
	name := p.take(len(p.rest) - len(strings.TrimLeftFunc(p.rest, inName)))
	if name == "" || name[0] >= '0' && name[0] <= '9' || name[0] == '_' {
		return errors.New("a name is expected")
	}
	p.skip(" \t")
	if !strings.HasPrefix(p.rest, "=") {
		return errors.New("an assignment is expected")
	}
	p.take(1)
	value, list, err := p.value()
	if err != nil {
		return err
	}
	if _, twice := found[name]; !twice && !list {
		found[name] = value
	}
	p.skip(" \t")
	if strings.HasPrefix(p.rest, "#") {
		p.comment()
	}
	if p.rest != "" && !strings.ContainsRune("\r\n;", rune(p.rest[0])) {
		return errors.New("the end of the line is expected")
	}
	if p.rest != "" {
		p.take(1)
	}
	return nil
}

func inName(c rune) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *parser) comment() {
	end := strings.IndexAny(p.rest, "\r\n")
	if end < 0 {
		end = len(p.rest)
	}
	p.take(end)
}

// value is a number, a string or a list of such.
func (p *parser) value() (text string, list bool, err error) {
	p.skip(" \t")
	switch {
	case strings.HasPrefix(p.rest, `"""`):
		p.take(3)
		text, err = p.until(`"""`)
	case strings.HasPrefix(p.rest, `"`), strings.HasPrefix(p.rest, `'`):
		quote := p.take(1)
		text, err = p.until(quote)
		if strings.ContainsAny(text, "\r\n") {
			err = errors.New("a string is not closed")
		}
	case strings.HasPrefix(p.rest, "["):
		p.take(1)
		return "", true, p.list()
	default:
		text = p.take(len(p.rest) - len(strings.TrimLeft(p.rest, "+-0123456789")))
		if _, e := strconv.ParseInt(text, 10, 64); e != nil {
			err = errors.New("a value is expected")
		}
		text = strings.TrimPrefix(text, "+")
	}
	return text, false, err
}

func (p *parser) until(end string) (string, error) {
	i := strings.Index(p.rest, end)
	if i < 0 {
		return "", errors.New("a string is not closed")
	}
	text := p.take(i)
	p.take(len(end))
	return text, nil
}

func (p *parser) list() error {
	for {
		p.skip(" \t\r\n,")
		if strings.HasPrefix(p.rest, "]") {
			p.take(1)
			return nil
		}
		if p.rest == "" || p.rest[0] == '[' {
			return errors.New("a list is not closed")
		}
		if _, _, err := p.value(); err != nil {
			return err
		}
	}
}
