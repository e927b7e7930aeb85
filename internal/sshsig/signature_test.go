package sshsig

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func encode(blob []byte) string { return base64.StdEncoding.EncodeToString(blob) }

// parts is a signature's blob, for what ssh-keygen would not make.
type parts struct {
	Magic     [6]byte
	Version   uint32
	Key       []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

func whole(key ssh.PublicKey, signature *ssh.Signature) parts {
	return parts{[6]byte([]byte(magic)), version, key.Marshal(), namespace, "", "sha512", ssh.Marshal(signature)}
}

// toSign is what a key signs.
func toSign(text string) []byte {
	sum := sha512.Sum512([]byte(text))
	return append([]byte(magic), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{namespace, "", "sha512", string(sum[:])})...)
}

// ed25519Signer has the same key each time, so that what a fuzz target found is found again.
func ed25519Signer(t testing.TB) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestWhatNobodySignedMakesNoSignature(t *testing.T) {
	signer := ed25519Signer(t)
	signature, err := signer.Sign(rand.Reader, toSign("text"))
	if err != nil {
		t.Fatal(err)
	}
	list := "ann " + string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	for name, c := range map[string]struct {
		change func(*parts)
		after  string // behind the blob
		want   string
	}{
		"nothing":         {},
		"version":         {change: func(p *parts) { p.Version = 2 }, want: "it is of version 2"},
		"no namespace":    {change: func(p *parts) { p.Namespace = "" }, want: "it has no namespace"},
		"reserved":        {change: func(p *parts) { p.Reserved = "x" }, want: "its reserved field is not empty"},
		"hash":            {change: func(p *parts) { p.Hash = "sha1" }, want: `the hash "sha1"`},
		"the other hash":  {change: func(p *parts) { p.Hash = "sha256" }, want: "it is not of this text"},
		"no key":          {change: func(p *parts) { p.Key = nil }, want: "its public key cannot be read"},
		"cut off":         {change: func(p *parts) { p.Signature = p.Signature[:10] }, want: "what the key has signed cannot be read"},
		"end":             {after: "x", want: "it is cut off, or something follows it"},
		"end of the key":  {change: func(p *parts) { p.Signature = append(p.Signature, 'x') }, want: "something follows what the key has signed"},
		"magic":           {change: func(p *parts) { p.Magic[0] = 's' }, want: "SSHSIG is not at its beginning"},
		"method":          {change: func(p *parts) { p.Signature = ssh.Marshal(ssh.Signature{Format: "ssh-dss", Blob: signature.Blob}) }, want: `method "ssh-dss"`},
		"more than 64 K":  {change: func(p *parts) { p.Namespace = strings.Repeat("x", MaxSize) }, want: "it has more than 65536 bytes"},
		"long namespaces": {change: func(p *parts) { p.Namespace = strings.Repeat("x", 1000) }, want: "it was made for the namespace \"xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			p := whole(signer.PublicKey(), signature)
			if c.change != nil {
				c.change(&p)
			}
			_, err := ours(list, namespace, "text", string(armor(append(ssh.Marshal(p), c.after...))), time.Now())
			if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || len(err.Error()) > 400) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// ssh-keygen signs with SHA-1 no more.
func TestSHA1IsRefused(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, minRSA)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	list := "ann " + string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	for method, want := range map[string]string{ssh.KeyAlgoRSASHA256: "", ssh.KeyAlgoRSASHA512: "", ssh.KeyAlgoRSA: `method "ssh-rsa"`} {
		signature, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, toSign("text"), method)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ours(list, namespace, "text", string(armor(ssh.Marshal(whole(signer.PublicKey(), signature)))), time.Now())
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestHardwareKeysMustBeTouched plays the two kinds of FIDO keys, as PROTOCOL.u2f describes them: the machine has none.
func TestHardwareKeysMustBeTouched(t *testing.T) {
	const application = "ssh:"
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecPrivate, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecPublic, err := ecPrivate.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		kind   string
		public []byte
		sign   func(data []byte) []byte
	}{
		{
			ssh.KeyAlgoSKED25519,
			ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, string(edPublic), application}),
			func(data []byte) []byte { return ed25519.Sign(edPrivate, data) },
		},
		{
			ssh.KeyAlgoSKECDSA256,
			ssh.Marshal(struct{ Type, Curve, Key, Application string }{ssh.KeyAlgoSKECDSA256, "nistp256", string(ecPublic), application}),
			func(data []byte) []byte {
				digest := sha256.Sum256(data)
				r, s, err := ecdsa.Sign(rand.Reader, ecPrivate, digest[:])
				if err != nil {
					t.Fatal(err)
				}
				return ssh.Marshal(struct{ R, S *big.Int }{r, s})
			},
		},
	} {
		t.Run(k.kind, func(t *testing.T) {
			key, err := ssh.ParsePublicKey(k.public)
			if err != nil {
				t.Fatal(err)
			}
			list := "ann " + string(ssh.MarshalAuthorizedKey(key))
			touch := func(flags byte, rest string) string {
				app, message := sha256.Sum256([]byte(application)), sha256.Sum256(toSign("text"))
				data := append(append(app[:], flags, 0, 0, 0, 7), message[:]...)
				return string(armor(ssh.Marshal(whole(key, &ssh.Signature{
					Format: k.kind, Blob: k.sign(data), Rest: append([]byte{flags, 0, 0, 0, 7}, rest...),
				}))))
			}
			const present, verified = 1, 4 // bits of the authenticator's flags
			for _, flags := range []byte{present, present | verified} {
				if _, err := ours(list, namespace, "text", touch(flags, ""), time.Now()); err != nil {
					t.Errorf("flags %d: %v", flags, err)
				}
				newBench(t).mustVerify(list, touch(flags, ""))
			}
			if _, err := ours(list, namespace, "text", touch(0, ""), time.Now()); err == nil || !strings.Contains(err.Error(), "user presence") {
				t.Errorf("not touched: %v", err)
			}
			if _, err := ours(list, namespace, "text", touch(present, "x"), time.Now()); err == nil {
				t.Error("something may follow the counter")
			}
			blob, err := dearmor([]byte(touch(present, "")))
			if err != nil {
				t.Fatal(err)
			}
			for i := range len(blob) * 8 {
				blob[i/8] ^= 1 << (i % 8)
				if _, err := ours(list, namespace, "text", string(armor(blob)), time.Now()); err == nil {
					t.Errorf("bit %d changed, and it is still accepted", i)
				}
				blob[i/8] ^= 1 << (i % 8)
			}
		})
	}
}

func (b bench) mustVerify(list, signature string) {
	b.t.Helper()
	if err := b.verify(list, "ann", namespace, "text", signature); err != nil {
		b.t.Errorf("ssh-keygen says %v", err)
	}
}

func TestTimesAreOfTheZoneUnlessTheySayUTC(t *testing.T) {
	zone := time.FixedZone("east", 2*3600)
	for text, want := range map[string]string{
		"20270131":          "2027-01-30T22:00:00Z",
		"202701311200":      "2027-01-31T10:00:00Z",
		"20270131120030":    "2027-01-31T10:00:30Z",
		"20270131Z":         "2027-01-31T00:00:00Z",
		"20270131120030utc": "2027-01-31T12:00:30Z",
	} {
		got, err := parseTime(text, zone)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v; want %s", text, got.UTC(), err, want)
		}
	}
	for _, text := range []string{"", "Z", "2027", "2027013112", "20271301", "2027-01-31", "20270131T12", "19700101Z", "+1d", "always"} {
		if got, err := parseTime(text, zone); err == nil {
			t.Errorf("%q is the time %v", text, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		text, list string
		want       bool
	}{
		{"git", "git", true},
		{"git", "file,git", true},
		{"git", "gi", false},
		{"git", "gits", false},
		{"git", "*", true},
		{"git", "g*t", true},
		{"git", "g?t", true},
		{"git", "g?", false},
		{"git", "*it*", true},
		{"git", "!git,*", false},
		{"git", "*,!git", false},
		{"git", "!file", false},
		{"git", "!file,*", true},
		{"", "", true},
		{"git", "", false},
		{"a*c", "a*c", true},
		{"ab*d", "a*\\*", false},
		{"aXbXc", "a*X*c", true},
		{"GIT", "git", false},
	} {
		if got := matchList(c.text, c.list); got != c.want {
			t.Errorf("%q in %q: %v", c.text, c.list, got)
		}
	}
	start := time.Now()
	if match(strings.Repeat("a", 50_000), strings.Repeat("*a", 500)+"b") || time.Since(start) > 10*time.Second {
		t.Errorf("a pattern took %v", time.Since(start))
	}
}

func TestAListIsBounded(t *testing.T) {
	if _, err := ParseSigners(strings.Repeat("#", MaxSigners+1), time.UTC); err == nil {
		t.Error("a list of any length is read")
	}
}

func FuzzParse(f *testing.F) {
	signer := ed25519Signer(f)
	signature, err := signer.Sign(rand.Reader, toSign("text"))
	if err != nil {
		f.Fatal(err)
	}
	blob := ssh.Marshal(whole(signer.PublicKey(), signature))
	f.Add(armor(blob), blob)
	f.Add([]byte(begin+"\n"+end), []byte("SSHSIG\x00\x00\x00\x01"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, armored, blob []byte) {
		for _, data := range [][]byte{armored, armor(blob)} {
			sig, err := Parse(data)
			if err != nil {
				continue
			}
			// Nobody else's key has signed this text with a key that the list names.
			signers := Signers{{principals: "ann", key: signer.PublicKey()}}
			if sig.Verify([]byte("another text"), namespace) == nil {
				if _, err := signers.Find(sig, time.Now()); err == nil {
					t.Errorf("a signature of ann's that she did not make: %q", data)
				}
			}
		}
	})
}

func FuzzParseSigners(f *testing.F) {
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(ed25519Signer(f).PublicKey())))
	f.Add("ann " + public)
	f.Add("# x\n\"a b\" cert-authority,namespaces=\"a,\\\"b\",valid-after=\"20270101Z\",valid-before=\"203001010000\" " + public + " c\n")
	f.Add("ann namespaces=\"")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseSigners(text, time.UTC)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%d signers, error %v", len(all), err)
		}
		for _, s := range all {
			if s.key == nil || s.principals == "" || checkKey(s.key) != nil {
				t.Errorf("line %d is %+v", s.line, s)
			}
		}
	})
}
