// Package sshsig verifies the signatures that `ssh-keygen -Y sign` makes, and reads the list of those who may make them.
// Formats: PROTOCOL.sshsig of OpenSSH, and ALLOWED SIGNERS in ssh-keygen(1). What is signed it does not know, and it
// opens no file.
package sshsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// MaxSize is the most that Parse reads, in bytes. A signature by the largest RSA key, with a certificate, has some 8 KiB.
const MaxSize = 64 << 10

const (
	begin   = "-----BEGIN SSH SIGNATURE-----"
	end     = "-----END SSH SIGNATURE-----"
	magic   = "SSHSIG"
	version = 1
)

// Signature is a signature that is well formed. Whether it is good only Verify tells, and whether its key may sign only
// Signers.Find.
type Signature struct {
	key       ssh.PublicKey // *ssh.Certificate where it was made with a certificate
	namespace string
	hash      string // sha256 or sha512
	signature ssh.Signature
}

// Namespace is what the signer said the signature is for.
func (s *Signature) Namespace() string { return s.namespace }

// Key names the key for people, such as "SHA256:… (ssh-ed25519)"; of a certificate, the key in it.
func (s *Signature) Key() string { return describe(plainKey(s.key)) }

// Parse reads an armored signature. Nothing may stand before it, and only white space after it.
func Parse(armored []byte) (*Signature, error) {
	blob, err := dearmor(armored)
	if err != nil {
		return nil, err
	}
	var w struct {
		Magic     [len(magic)]byte
		Version   uint32
		Key       []byte
		Namespace string
		Reserved  string
		Hash      string
		Signature []byte
	}
	if !bytes.HasPrefix(blob, []byte(magic)) {
		return nil, errors.New("it is no SSH signature: SSHSIG is not at its beginning")
	}
	if err := ssh.Unmarshal(blob, &w); err != nil {
		return nil, errors.New("it is cut off, or something follows it")
	}
	s := &Signature{namespace: w.Namespace, hash: w.Hash}
	switch {
	case w.Version != version:
		return nil, fmt.Errorf("it is of version %d, this program reads version %d", w.Version, version)
	case w.Namespace == "":
		return nil, errors.New("it has no namespace")
	case w.Reserved != "": // a verifier may ignore it; then bytes could change that nobody signed
		return nil, errors.New("its reserved field is not empty")
	case w.Hash != "sha256" && w.Hash != "sha512":
		return nil, fmt.Errorf("it was made with the hash %.20q, only sha256 and sha512 are accepted", w.Hash)
	}
	if s.key, err = ssh.ParsePublicKey(w.Key); err != nil {
		return nil, errors.New("its public key cannot be read")
	}
	if err := checkKey(plainKey(s.key)); err != nil {
		return nil, err
	}
	if err := ssh.Unmarshal(w.Signature, &s.signature); err != nil {
		return nil, errors.New("what the key has signed cannot be read")
	}
	return s, s.checkFormat()
}

// checkFormat refuses what the verification of ssh, which was made for logins, lets pass.
func (s *Signature) checkFormat() error {
	format, kind := s.signature.Format, plainKey(s.key).Type()
	want := []string{kind}
	if kind == ssh.KeyAlgoRSA { // as PROTOCOL.sshsig asks: never with SHA-1
		want = []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	}
	if !slices.Contains(want, format) {
		return fmt.Errorf("it was made by the method %.40q, which a key %s may not use", format, kind)
	}
	// Only a hardware key adds to its signature: flags and a counter. Elsewhere they would be bytes that nobody signed.
	if !slices.Contains([]string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256}, kind) && len(s.signature.Rest) > 0 {
		return errors.New("something follows what the key has signed")
	}
	return nil
}

func dearmor(armored []byte) ([]byte, error) {
	if len(armored) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	lines := bytes.Split(bytes.TrimRight(bytes.ReplaceAll(armored, []byte("\r\n"), []byte("\n")), " \t\n"), []byte("\n"))
	if len(lines) < 3 || string(lines[0]) != begin || string(lines[len(lines)-1]) != end {
		return nil, fmt.Errorf("it is no SSH signature: that begins with the line %q and ends with %q", begin, end)
	}
	text := bytes.Join(lines[1:len(lines)-1], nil)
	blob := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(blob, text)
	if err != nil {
		return nil, errors.New("between its first and last line is no base64")
	}
	return blob[:n], nil
}

// Verify is nil only where the holder of the key has signed exactly this message, for exactly this namespace. A hardware
// key must have been touched for it.
func (s *Signature) Verify(message []byte, namespace string) error {
	if s.namespace != namespace {
		return fmt.Errorf("it was made for the namespace %.100q, not for %q", s.namespace, namespace)
	}
	var digest []byte
	switch s.hash {
	case "sha256":
		sum := sha256.Sum256(message)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(message)
		digest = sum[:]
	}
	signed := append([]byte(magic), ssh.Marshal(struct {
		Namespace string
		Reserved  string
		Hash      string
		Digest    []byte
	}{s.namespace, "", s.hash, digest})...)
	if err := s.key.Verify(signed, &s.signature); err != nil {
		return fmt.Errorf("it is not of this text, or one of them was changed: %w", err)
	}
	return nil
}
