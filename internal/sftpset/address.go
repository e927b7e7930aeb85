package sftpset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const scheme = "sftp://"

// Address is where a patch set is: sftp://USER@HOST[:PORT]/PATH.
type Address struct {
	User string
	Host string // a name in lower case or an IP address, without brackets
	Port int
	Path string // absolute, decoded: any byte but NUL
}

// IsAddress tells an address from a folder's path. An address with a slip is one all the same, so that nobody looks for a
// folder of that name.
func IsAddress(text string) bool {
	return len(text) >= len("sftp:") && strings.EqualFold(text[:len("sftp:")], "sftp:")
}

// HoldsPassword says whether text looks as if it held a password: a scheme, and then a colon before an @, percent-encoded or not. It rather says
// yes: such a text is neither used nor shown. An @ in a path is written %40.
func HoldsPassword(text string) bool {
	before, rest, found := strings.Cut(strings.TrimSpace(text), ":")
	if !found || strings.ContainsAny(before, "/@") {
		return false
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && strings.Contains(rest[:at], ":") {
		return true
	}
	// Only user and host are looked at decoded: in a path, %40 is as it should be, and a port has a colon.
	authority, _, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
	for range 3 { // also what was encoded twice
		plain, err := url.PathUnescape(authority)
		if err != nil {
			return strings.Contains(authority, "%") && mayHide(authority)
		}
		if plain == authority {
			break
		}
		authority = plain
	}
	at := strings.LastIndexByte(authority, '@')
	return at >= 0 && strings.Contains(authority[:at], ":")
}

// mayHide tells that a text whose percent-encoding is broken has the code of a colon before an @ or its code.
func mayHide(authority string) bool {
	lower := strings.NewReplacer("%3a", ":", "%40", "@", "%25", "%").Replace(strings.ToLower(authority))
	at := strings.LastIndexByte(lower, '@')
	return at >= 0 && strings.Contains(lower[:at], ":")
}

// ParseAddress reads an address. Its errors quote nothing of a text that may hold a password.
func ParseAddress(text string) (a Address, err error) {
	if HoldsPassword(text) {
		return a, errors.New("cannot use the address in patch_set: there is a colon before an @, as in front of a password, and no password belongs there; " +
			"use a key (sftp_private_key_file, or an agent), and write an @ in the path as %40")
	}
	defer func() {
		if err != nil {
			a, err = Address{}, fmt.Errorf("cannot use the address %s: %w; it must be sftp://USER@HOST[:PORT]/PATH", quote(text), err)
		}
	}()
	if len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme) {
		return a, errors.New("it does not begin with sftp://")
	}
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		return a, fmt.Errorf("it has a %q, which has no meaning here; in a path it is written %%%X", text[i], text[i])
	}
	authority, path, found := strings.Cut(text[len(scheme):], "/")
	if !found {
		return a, errors.New("it has no path; / is the server's root")
	}
	if strings.Contains(path, "@") {
		return a, errors.New("an @ in the path is written %40")
	}
	if a.Path, err = url.PathUnescape("/" + path); err != nil {
		return a, fmt.Errorf("in its path a %% is not followed by two hexadecimal digits, and is itself written %%25: %w", err)
	}
	if strings.ContainsRune(a.Path, 0) {
		return a, errors.New("its path holds a NUL byte")
	}
	user, host, found := strings.Cut(authority, "@")
	if !found || user == "" {
		return a, errors.New("it names no user")
	}
	if a.User, err = url.PathUnescape(user); err != nil {
		return a, fmt.Errorf("in its user a %% is not followed by two hexadecimal digits: %w", err)
	}
	if !printable(a.User) {
		return a, errors.New("its user is not printable text")
	}
	a.Host, a.Port, err = hostPort(host)
	return a, err
}

func hostPort(text string) (host string, port int, err error) {
	port = 22
	if literal, rest, found := strings.Cut(text, "]"); found && strings.HasPrefix(literal, "[") {
		if host, err = url.PathUnescape(literal[1:]); err != nil {
			return "", 0, fmt.Errorf("its host: %w", err)
		}
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.Is6() || ip.Zone() != "" && !isZone(ip.Zone()) {
			return "", 0, errors.New("between [ and ] there must be an IPv6 address")
		}
		if rest == "" {
			return ip.String(), port, nil
		}
		port, err = parsePort(rest)
		return ip.String(), port, err
	}
	host, rest, found := strings.Cut(text, ":")
	if !isHost(host) {
		return "", 0, errors.New("its host must be a name of letters, digits, dots and hyphens, an IPv4 address, or an IPv6 address in [ and ]")
	}
	if found {
		port, err = parsePort(":" + rest)
	}
	return strings.ToLower(host), port, err
}

func parsePort(text string) (int, error) {
	digits, found := strings.CutPrefix(text, ":")
	port, err := strconv.ParseUint(digits, 10, 16)
	if !found || err != nil || port == 0 || strconv.FormatUint(port, 10) != digits {
		return 0, errors.New("its port must be a number from 1 to 65535")
	}
	return int(port), nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// isHost also keeps out what known_hosts would take for a pattern.
func isHost(s string) bool {
	return s != "" && len(s) <= 253 && strings.Contains(letters, s[:1]) && strings.Trim(s, letters+".-_") == ""
}

func isZone(s string) bool {
	return len(s) <= 15 && strings.Trim(s, letters+".-_") == ""
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// String is the address in its one form: ParseAddress of it is the address again.
func (a Address) String() string {
	host := a.Host
	if strings.Contains(host, ":") {
		host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
	}
	if a.Port != 22 {
		host += ":" + strconv.Itoa(a.Port)
	}
	return scheme + escape(a.User, "") + "@" + host + escape(a.Path, "/")
}

// escape leaves alone what RFC 3986 calls unreserved, and what is in keep.
func escape(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(letters+"-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (a Address) hostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// file is the path of a file in the set.
func (a Address) file(name string) string { return strings.TrimSuffix(a.Path, "/") + "/" + name }

func quote(text string) string {
	if runes := []rune(text); len(runes) > 200 {
		return strconv.Quote(string(runes[:200])) + "…"
	}
	return strconv.Quote(text)
}
