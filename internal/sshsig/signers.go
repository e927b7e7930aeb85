package sshsig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Signers is a list of allowed signers: at least one.
type Signers []signer

// signer is one line of it.
type signer struct {
	line       int
	principals string // pattern list
	key        ssh.PublicKey
	authority  bool   // the key signs certificates, not texts
	namespaces string // pattern list; empty: all
	validAfter,
	validBefore time.Time // zero: no bound
}

// MaxSigners is the most that ParseSigners reads, in bytes; some 500 keys.
const MaxSigners = 64 << 10

// ParseSigners reads the text of a file of allowed signers. ssh-keygen skips a line that it does not understand; here it is
// an error that names the line: a key that was meant to sign, or an option that was meant to bound it, is not lost in
// silence. Times without a Z are of the zone local.
func ParseSigners(text string, local *time.Location) (Signers, error) {
	if len(text) > MaxSigners {
		return nil, fmt.Errorf("the list of allowed signers has more than %d bytes", MaxSigners)
	}
	var all Signers
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.Trim(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSigner(line, local)
		if err != nil {
			return nil, fmt.Errorf("line %d of the allowed signers: %w", number, err)
		}
		s.line = number
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, errors.New("the list of allowed signers is empty")
	}
	return all, nil
}

func parseSigner(line string, local *time.Location) (s signer, err error) {
	var rest string
	if s.principals, rest, err = parsePrincipals(line); err != nil {
		return s, err
	}
	if rest == "" {
		return s, errors.New("a line has principals, options if there are any, and a key")
	}
	if !looksLikeKey(rest) {
		options, after := cutOptions(rest)
		if err := s.parseOptions(options, local); err != nil {
			return s, err
		}
		rest = strings.TrimLeft(after, " \t")
	}
	fields := strings.Fields(rest) // what follows the key is a comment
	if len(fields) < 2 {
		return s, errors.New("it has no key, which is a type and a base64 text")
	}
	if strings.Contains(fields[0], "-cert-v01@") {
		return s, errors.New("a certificate names no signer: give the key that signs certificates, with the option cert-authority")
	}
	if !slices.Contains(keyTypes, fields[0]) {
		return s, fmt.Errorf("a key of type %.60q is not accepted, only %s", fields[0], strings.Join(keyTypes, ", "))
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err == nil {
		s.key, err = ssh.ParsePublicKey(blob)
	}
	if err != nil || s.key.Type() != fields[0] {
		return s, fmt.Errorf("its key is no %s key", fields[0])
	}
	return s, checkKey(s.key)
}

// parsePrincipals takes the first field, which is quoted where it holds spaces.
func parsePrincipals(line string) (principals, rest string, err error) {
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		if principals, rest, ok = strings.Cut(quoted, `"`); !ok {
			return "", "", errors.New("a quotation mark is not closed")
		}
	} else if i := strings.IndexAny(line, " \t"); i >= 0 {
		principals, rest = line[:i], line[i:]
	} else {
		principals = line
	}
	// An option in the first field is one whose principals were forgotten.
	if strings.Contains(principals, `"`) || strings.EqualFold(principals, "cert-authority") {
		return "", "", fmt.Errorf("it begins with %.60q, which names nobody: the principals come first", principals)
	}
	names := strings.Split(principals, ",")
	if !slices.ContainsFunc(names, func(name string) bool { return name != "" && name[0] != '!' }) {
		return "", "", errors.New("it names nobody")
	}
	return principals, strings.TrimLeft(rest, " \t"), nil
}

// looksLikeKey: no option has such a beginning.
func looksLikeKey(text string) bool {
	return slices.ContainsFunc([]string{"ssh-", "ecdsa-", "sk-", "webauthn-"}, func(start string) bool { return strings.HasPrefix(text, start) })
}

// cutOptions ends the options at the first white space that is not quoted.
func cutOptions(text string) (options, rest string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			return text[:i], text[i:]
		}
	}
	return text, ""
}

func (s *signer) parseOptions(text string, local *time.Location) error {
	seen := map[string]bool{}
	for more := true; more; {
		name := text
		if i := strings.IndexAny(text, "=,"); i >= 0 {
			name = text[:i]
		}
		text = text[len(name):]
		key := strings.ToLower(name)
		if seen[key] {
			return fmt.Errorf("the option %.40q is given twice", name)
		}
		seen[key] = true
		var value string
		assigned, hasValue := strings.CutPrefix(text, "=")
		if hasValue {
			var ok bool
			if value, text, ok = dequote(assigned); !ok || value == "" {
				return fmt.Errorf("the option %.40q has no value in quotation marks", name)
			}
		}
		if err := s.option(key, value, hasValue, local); err != nil {
			return err
		}
		if text, more = strings.CutPrefix(text, ","); !more && text != "" {
			return fmt.Errorf("after the option %.40q a comma or a space is missing", name)
		}
	}
	if !s.validAfter.IsZero() && !s.validBefore.IsZero() && !s.validAfter.Before(s.validBefore) {
		return errors.New("valid-before is not after valid-after")
	}
	return nil
}

func (s *signer) option(name, value string, hasValue bool, local *time.Location) (err error) {
	switch {
	case name == "cert-authority" && !hasValue:
		s.authority = true
	case name == "namespaces" && hasValue:
		s.namespaces = value
	case name == "valid-after" && hasValue:
		s.validAfter, err = parseTime(value, local)
	case name == "valid-before" && hasValue:
		s.validBefore, err = parseTime(value, local)
	default:
		return fmt.Errorf("unknown option %.60q, or one without its value: there are cert-authority, namespaces=\"…\", valid-after=\"…\" and valid-before=\"…\"", name)
	}
	if err != nil {
		return fmt.Errorf("the option %s: %w", name, err)
	}
	return nil
}

// dequote takes a text in quotation marks, in which \" is one.
func dequote(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		return "", text, false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
			b.WriteByte('"')
		case text[i] == '"':
			return b.String(), text[i+1:], true
		default:
			b.WriteByte(text[i])
		}
	}
	return "", text, false
}

// parseTime reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, of UTC where Z or UTC follows.
func parseTime(text string, zone *time.Location) (time.Time, error) {
	digits := text
	for _, suffix := range []string{"UTC", "Z"} {
		if n := len(text) - len(suffix); n > 0 && strings.EqualFold(text[n:], suffix) {
			digits, zone = text[:n], time.UTC
			break
		}
	}
	layout := "20060102150405"
	if n := len(digits); n == 8 || n == 12 || n == 14 {
		if t, err := time.ParseInLocation(layout[:n], digits, zone); err == nil && t.Unix() > 0 {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time, as 20270131, 202701312359 or 20270131235959 is, with Z for UTC", text)
}

// Find says who of the list made the signature: the principals of the line, or of a certificate those that the line allows.
// It does not say whether the signature is good: see Verify.
func (all Signers) Find(sig *Signature, now time.Time) (who string, err error) {
	var reasons []string
	for _, s := range all {
		who, err := s.made(sig, now)
		if err == nil && who != "" {
			return who, nil
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("line %d of the allowed signers: %v", s.line, err))
		}
	}
	if reasons == nil {
		return "", fmt.Errorf("it was made with the key %s, which is not among the allowed signers", sig.Key())
	}
	return "", fmt.Errorf("it was made with the key %s: %s", sig.Key(), strings.Join(reasons, "; "))
}

// made is empty where the line is about another key.
func (s signer) made(sig *Signature, now time.Time) (who string, err error) {
	cert, isCert := sig.key.(*ssh.Certificate)
	if isCert != s.authority {
		return "", nil
	}
	key := sig.key
	if isCert {
		key = cert.SignatureKey
	}
	if !bytes.Equal(key.Marshal(), s.key.Marshal()) {
		return "", nil
	}
	if who = s.principals; isCert {
		if who, err = s.certified(cert, now); err != nil {
			return "", err
		}
	}
	const readable = "2006-01-02 15:04:05 MST"
	switch {
	case s.namespaces != "" && !matchList(sig.namespace, s.namespaces):
		return "", fmt.Errorf("it may sign for the namespaces %.200q only, not for %.100q", s.namespaces, sig.namespace)
	case !s.validAfter.IsZero() && now.Unix() < s.validAfter.Unix():
		return "", fmt.Errorf("it is not valid before %s, and this host's clock says %s", s.validAfter.Format(readable), now.Format(readable))
	case !s.validBefore.IsZero() && now.Unix() > s.validBefore.Unix():
		return "", fmt.Errorf("it was valid until %s, and this host's clock says %s", s.validBefore.Format(readable), now.Format(readable))
	}
	return who, nil
}

// certified says for whom the certificate speaks, of those that the line allows.
func (s signer) certified(cert *ssh.Certificate, now time.Time) (string, error) {
	if cert.CertType != ssh.UserCert {
		return "", errors.New("the certificate is not a user's")
	}
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return "", errors.New("the certificate was signed with SHA-1")
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	for _, principal := range cert.ValidPrincipals {
		if principal == "" || !matchList(principal, s.principals) {
			continue
		}
		if err := checker.CheckCert(principal, cert); err != nil {
			return "", fmt.Errorf("the certificate is not good: %w", err)
		}
		return principal, nil
	}
	return "", fmt.Errorf("the certificate is for %.200q, the line for %.200q", cert.ValidPrincipals, s.principals)
}
