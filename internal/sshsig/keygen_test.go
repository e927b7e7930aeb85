package sshsig

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The namespace of the tests; what it is for is of no interest here.
const namespace = "patch-set@nfslock.kolla"

// bench is a folder with keys that the real ssh-keygen made.
type bench struct {
	t   *testing.T
	dir string
}

func newBench(t *testing.T) bench {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("ssh-keygen is missing: install openssh-client, as `make test-go` does")
		}
		t.Skip("needs ssh-keygen, of openssh-client")
	}
	return bench{t, t.TempDir()}
}

func (b bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b bench) try(stdin string, args ...string) (string, error) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "ssh-keygen", args...)
	cmd.Dir, cmd.Stdin = b.dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b bench) run(args ...string) {
	b.t.Helper()
	if out, err := b.try("", args...); err != nil {
		b.t.Fatalf("ssh-keygen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// key makes a key and returns its public line, without a comment.
func (b bench) key(name, kind, bits string) string {
	b.t.Helper()
	args := []string{"-q", "-t", kind, "-N", "", "-C", "", "-f", name}
	if bits != "" {
		args = append(args, "-b", bits)
	}
	b.run(args...)
	return strings.TrimSpace(b.read(name + ".pub"))
}

func (b bench) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

func (b bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// sign returns the armored signature of the text.
func (b bench) sign(key, space, text string, options ...string) string {
	b.t.Helper()
	b.write("text", text)
	os.Remove(b.path("text.sig"))
	b.run(append([]string{"-q", "-Y", "sign", "-f", key, "-n", space}, append(options, "text")...)...)
	return b.read("text.sig")
}

// verify asks the real one.
func (b bench) verify(list, who, space, text, signature string) error {
	b.t.Helper()
	b.write("list", list)
	b.write("sig", signature)
	_, err := b.try(text, "-Y", "verify", "-f", "list", "-I", who, "-n", space, "-s", "sig")
	return err
}

// ours is all three steps, as the module takes them.
func ours(list, space, text, signature string, now time.Time) (who string, err error) {
	signers, err := ParseSigners(list, time.Local)
	if err != nil {
		return "", err
	}
	sig, err := Parse([]byte(signature))
	if err != nil {
		return "", err
	}
	if err := sig.Verify([]byte(text), space); err != nil {
		return "", err
	}
	return signers.Find(sig, now)
}

var keyKinds = []struct {
	name, kind, bits string
	stride           int // bits from one that is changed to the next: Go is slow on two of the curves
}{
	{"ed25519", "ed25519", "", 1},
	{"ecdsa256", "ecdsa", "256", 1},
	{"ecdsa384", "ecdsa", "384", 7},
	{"ecdsa521", "ecdsa", "521", 7},
	{"rsa2048", "rsa", "2048", 1},
}

func TestWhatSSHKeygenSignsIsAccepted(t *testing.T) {
	b := newBench(t)
	texts := map[string]string{"short": "schema: 1\n", "empty": "", "bytes": "\x00\xff\r\n" + strings.Repeat("x", 100_000)}
	for _, k := range keyKinds {
		public := b.key(k.name, k.kind, k.bits)
		for _, hash := range []string{"sha256", "sha512"} {
			for name, text := range texts {
				sig := b.sign(k.name, namespace, text, "-O", "hashalg="+hash)
				who, err := ours("ann@site "+public+" and a comment\n", namespace, text, sig, time.Now())
				if who != "ann@site" || err != nil {
					t.Errorf("%s, %s, %s: signer %q, %v", k.name, hash, name, who, err)
				}
				if err := b.verify("ann@site "+public+"\n", "ann@site", namespace, text, sig); err != nil {
					t.Errorf("%s, %s, %s: ssh-keygen refuses its own: %v", k.name, hash, name, err)
				}
			}
		}
	}
}

// TestNoBitOfASignatureMayChange: of what is signed, of the namespace, of the signature itself.
func TestNoBitOfASignatureMayChange(t *testing.T) {
	b := newBench(t)
	const text = "schema: 1\nvariant: fallback\n"
	for _, k := range keyKinds {
		list := "ann " + b.key(k.name, k.kind, k.bits)
		armored := b.sign(k.name, namespace, text)
		blob, err := dearmor([]byte(armored))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours(list, namespace, text, string(armor(blob)), time.Now()); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		for where, flip := range map[string]func(changed []byte) (string, string, []byte){
			text:         func(c []byte) (string, string, []byte) { return string(c), namespace, blob },
			namespace:    func(c []byte) (string, string, []byte) { return text, string(c), blob },
			string(blob): func(c []byte) (string, string, []byte) { return text, namespace, c },
		} {
			for i := 0; i < len(where)*8; i += k.stride {
				changed := []byte(where)
				changed[i/8] ^= 1 << (i % 8)
				text, space, blob := flip(changed)
				if who, err := ours(list, space, text, string(armor(blob)), time.Now()); err == nil {
					t.Errorf("%s: bit %d of %.30q changed, and it is still accepted as %s's", k.name, i, where, who)
				}
			}
		}
	}
}

// TestSSHKeygenAndThisAgree: what one refuses the other refuses, but for what is stricter here on purpose.
func TestSSHKeygenAndThisAgree(t *testing.T) {
	b := newBench(t)
	const text = "schema: 1\n"
	ann, bob := b.key("ann", "ed25519", ""), b.key("bob", "ecdsa", "")
	short := b.key("short", "rsa", "1024")
	good := b.sign("ann", namespace, text)
	day := func(days int) string { return time.Now().AddDate(0, 0, days).Format("20060102") }
	minute := func(minutes int) string {
		return time.Now().UTC().Add(time.Duration(minutes)*time.Minute).Format("200601021504") + "Z"
	}
	for _, c := range []struct {
		name, list string
		who        string // whom ssh-keygen is asked for; "ann" if empty
		space      string // asked for; ours if empty
		text, sig  string // the good ones if empty
		want       string // part of the error; empty: accepted
		stricter   bool   // ssh-keygen accepts it all the same
	}{
		{name: "plain", list: "ann " + ann},
		{name: "second line", list: "# the team\n\nbob " + bob + "\n  ann " + ann + "  \r\n"},
		{name: "several principals", list: "bob,ann " + ann},
		{name: "pattern of principals", list: "*@site,!ann@site " + ann, who: "bob@site"},
		{name: "quoted principals", list: `"ann" ` + ann},
		{name: "principals forgotten", list: `namespaces="git" ` + ann, who: "namespaces=git", want: "which names nobody", stricter: true},
		{name: "principals of an authority forgotten", list: "cert-authority " + ann, who: "cert-authority", want: "which names nobody", stricter: true},
		{name: "nobody", list: "!ann " + ann, want: "it names nobody"},
		{name: "all namespaces", list: `ann namespaces="*" ` + ann},
		{name: "our namespace among others", list: `ann namespaces="git,*@nfslock.kolla" ` + ann},
		{name: "a letter in place of any", list: `ann NameSpaces="patch-set@nfslock.koll?" ` + ann},
		{name: "other namespaces", list: `ann namespaces="git,file" ` + ann, want: `it may sign for the namespaces "git,file" only`},
		{name: "namespace excepted", list: `ann namespaces="*,!patch-set@*" ` + ann, want: "it may sign for the namespaces"},
		{name: "first line excepts, second allows", list: `ann namespaces="git" ` + ann + "\nann " + ann},
		{name: "made for another namespace", list: "ann " + ann, sig: b.sign("ann", "file", text), want: `it was made for the namespace "file"`},
		{name: "checked for another namespace", list: "ann " + ann, space: "file", want: `it was made for the namespace "patch-set@nfslock.kolla"`},
		{name: "namespace in other letters", list: "ann " + ann, sig: b.sign("ann", "Patch-Set@nfslock.kolla", text), want: "it was made for the namespace"},
		{name: "changed text", list: "ann " + ann, text: text + "\n", want: "it is not of this text"},
		{name: "other key", list: "ann " + ann, sig: b.sign("bob", namespace, text), want: "which is not among the allowed signers"},
		{name: "key withdrawn", list: "bob " + bob, who: "bob", want: "which is not among the allowed signers"},
		{name: "commented out", list: "# ann " + ann + "\nbob " + bob, want: "which is not among the allowed signers"},
		{name: "empty list", list: "# nobody yet\n", want: "the list of allowed signers is empty"},
		{name: "valid now", list: `ann valid-after="` + day(-2) + `",valid-before="` + day(2) + `" ` + ann},
		{name: "valid now, by the minute", list: `ann valid-after="` + minute(-5) + `",namespaces="*",valid-before="` + minute(5) + `" ` + ann},
		{name: "expired", list: `ann valid-before="` + day(-1) + `" ` + ann, want: "it was valid until "},
		{name: "expired a minute ago", list: `ann valid-before="` + minute(-1) + `" ` + ann, want: "it was valid until "},
		{name: "not yet", list: `ann valid-after="` + day(2) + `" ` + ann, want: "it is not valid before "},
		{name: "expired, and renewed", list: `ann valid-before="20200101" ` + ann + "\nann " + `valid-after="20200101Z" ` + ann},
		{name: "ends before it begins", list: `ann valid-after="20300101",valid-before="20290101" ` + ann, want: "valid-before is not after valid-after"},
		{name: "no time", list: `ann valid-before="tomorrow" ` + ann, want: `line 1 of the allowed signers: the option valid-before: "tomorrow" is no time`},
		{name: "31st of February", list: `ann valid-before="20990231" ` + ann, want: "is no time", stricter: true},
		{name: "option twice", list: `ann namespaces="*",namespaces="*" ` + ann, want: "is given twice"},
		{name: "unknown option", list: "ann touch-required " + ann, want: `unknown option "touch-required"`},
		{name: "no comma", list: `ann namespaces="*"valid-before="20990101" ` + ann, want: "a comma or a space is missing"},
		{name: "not quoted", list: `ann namespaces=* ` + ann, want: "no value in quotation marks"},
		{name: "not closed", list: `ann namespaces="* ` + ann, want: "no value in quotation marks"},
		{name: "no key", list: "ann", want: "a line has principals"},
		{name: "half a key", list: "ann ssh-ed25519", want: "it has no key"},
		{name: "damaged key", list: "ann " + ann[:len(ann)-8], want: "its key is no ssh-ed25519 key"},
		{name: "key of another type", list: "ann ssh-rsa " + strings.Fields(ann)[1], want: "its key is no ssh-rsa key"},
		{name: "an authority signs no texts", list: "ann cert-authority " + ann, want: "which is not among the allowed signers"},
		{name: "armor cut off", list: "ann " + ann, sig: good[:len(good)-40], want: "it is no SSH signature"},
		{name: "text before the armor", list: "ann " + ann, sig: "x\n" + good, want: "it is no SSH signature"},
		{name: "text after the armor", list: "ann " + ann, sig: good + "x\n", want: "it is no SSH signature", stricter: true},
		{name: "two signatures", list: "ann " + ann, sig: good + good, want: "no base64", stricter: true},
		{name: "armor with carriage returns", list: "ann " + ann, sig: strings.ReplaceAll(good, "\n", "\r\n"), want: "-"},
		{name: "empty signature", list: "ann " + ann, sig: "\n", want: "it is no SSH signature"},
		{name: "short RSA key", list: "ann " + short, sig: b.sign("short", namespace, text), want: "an RSA key of 1024 bits is not accepted", stricter: true},
		{name: "a line that is not understood before a good one", list: "bob whatever\nann " + ann, want: "line 1 of the allowed signers", stricter: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bench{t, b.dir}
			list, who, space, body, sig := c.list+"\n", or(c.who, "ann"), or(c.space, namespace), or(c.text, text), or(c.sig, good)
			_, err := ours(list, space, body, sig, time.Now())
			real := b.verify(list, who, space, body, sig)
			if c.want == "-" { // older ones refuse what newer ones may take; the line ends are nobody's secret
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if accepts := c.want == "" || c.stricter; accepts != (real == nil) {
				t.Errorf("ssh-keygen says %v", real)
			}
		})
	}
}

// TestNoLineIsReadMoreKindlyThanBySSHKeygen makes lines at random out of what such lines are made of: whoever is found, ssh-keygen
// finds. The other way round this is stricter; a line that is well formed must not be, so most of them are counted.
func TestNoLineIsReadMoreKindlyThanBySSHKeygen(t *testing.T) {
	b := newBench(t)
	const text, cases = "schema: 1\n", 300
	ann, bob := b.key("ann", "ed25519", ""), b.key("bob", "ed25519", "")
	sig := b.sign("ann", namespace, text)
	seed := rand.Uint64()
	if given := os.Getenv("NFSLOCK_RANDOM_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("NFSLOCK_RANDOM_SEED=%d", seed)
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	both, stricter := 0, 0
	for range cases {
		var list strings.Builder
		for range 1 + random.IntN(3) {
			list.WriteString(pick("", "", "", "#", " ", "\t") + pick("ann", "ann", "ann", "ann", "ann", "bob", "*", "a?n", "!ann,*", "ann,bob", `"ann"`, `"an`, "", "!ann"))
			list.WriteString(pick(" ", " ", " ", " ", " ", " ", "\t", "  ", ""))
			for more := random.IntN(3); more > 0; more-- {
				list.WriteString(pick(`namespaces="*"`, `namespaces="`+namespace+`"`, `namespaces="git"`, `namespaces="!git,*"`, `namespaces="a\"b,*"`, `NAMESPACES="*"`,
					`valid-after="20200101"`, `valid-before="20990101Z"`, `valid-before="20200101"`, `valid-after="20990101"`, `valid-after="2020"`,
					"cert-authority", "whatever", `namespaces=""`, `namespaces="*`, ""))
				list.WriteString(pick(",", ",", ",", ",", ",", " ", " ", " ", ""))
			}
			list.WriteString(pick("", " ", " ", " ", ",") + pick(ann, ann, ann, ann, bob, ann+" ann@site", ann[:30], ann+"\r", "ssh-ed25519") + pick("\n", "\n", "\n", " \n", "\n\n"))
		}
		who, err := ours(list.String(), namespace, text, sig, time.Now())
		// ssh-keygen is asked for one principal, this for any.
		names := []string{"ann", "bob", "somebody"}
		if who != "" {
			names = append(names, strings.Split(who, ",")...)
		}
		var real error
		for _, who := range names {
			if real = b.verify(list.String(), who, namespace, text, sig); real == nil {
				break
			}
		}
		switch {
		case err == nil && real != nil:
			t.Errorf("ssh-keygen says %v of\n%q", real, list.String())
		case err == nil:
			both++
		case real == nil:
			if stricter++; !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("%v, but ssh-keygen accepts\n%q", err, list.String())
			}
		}
	}
	if both < 3 {
		t.Errorf("only %d of %d were accepted by both, %d by ssh-keygen alone", both, cases, stricter)
	}
	t.Logf("%d of %d were accepted by both, %d by ssh-keygen alone", both, cases, stricter)
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func TestCertificates(t *testing.T) {
	b := newBench(t)
	const text = "schema: 1\n"
	authority, other := b.key("ca", "ed25519", ""), b.key("ca2", "ed25519", "")
	b.key("ann", "ed25519", "")
	b.key("rsa", "rsa", "2048")
	b.key("rsaca", "rsa", "2048")
	for _, c := range []struct {
		name     string
		ca, key  string
		issue    []string // options of ssh-keygen -s
		list     string
		who      string // whom ours finds, and ssh-keygen is asked for
		want     string
		stricter bool
	}{
		{name: "good", issue: []string{"-n", "ann"}, list: "ann cert-authority " + authority, who: "ann"},
		{name: "key of RSA", key: "rsa", issue: []string{"-n", "ann"}, list: "ann cert-authority " + authority, who: "ann"},
		{name: "one of several", issue: []string{"-n", "x,ann@site"}, list: `*@site cert-authority,namespaces="*@nfslock.kolla" ` + authority, who: "ann@site"},
		{name: "valid now", issue: []string{"-n", "ann", "-V", "-1h:+1h"}, list: "* cert-authority " + authority, who: "ann"},
		{name: "expired", issue: []string{"-n", "ann", "-V", "20200101:20210101"}, list: "* cert-authority " + authority, want: "cert has expired"},
		{name: "not yet", issue: []string{"-n", "ann", "-V", "+1d:+2d"}, list: "* cert-authority " + authority, want: "cert is not yet valid"},
		{name: "of somebody else", issue: []string{"-n", "bob"}, list: "ann cert-authority " + authority, want: `the certificate is for ["bob"]`},
		{name: "of nobody", list: "* cert-authority " + authority, want: "the certificate is for []"},
		{name: "of a host", issue: []string{"-h", "-n", "ann"}, list: "* cert-authority " + authority, want: "not a user's"},
		{name: "other authority", issue: []string{"-n", "ann"}, list: "* cert-authority " + other, want: "not among the allowed signers"},
		{name: "authority's line expired", issue: []string{"-n", "ann"}, list: `* cert-authority,valid-before="20200101" ` + authority, want: "it was valid until"},
		{name: "no word of authority", issue: []string{"-n", "ann"}, list: "* " + authority, want: "not among the allowed signers"},
		{name: "for a command", issue: []string{"-n", "ann", "-O", "force-command=true"}, list: "* cert-authority " + authority, want: "unsupported critical option", stricter: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bench{t, b.dir}
			key := or(c.key, "ann")
			b.run(append(append([]string{"-q", "-s", or(c.ca, "ca"), "-I", "test"}, c.issue...), key+".pub")...)
			sig := b.sign(key+"-cert.pub", namespace, text)
			who, err := ours(c.list+"\n", namespace, text, sig, time.Now())
			if who != c.who || (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("signer %q, error %v; want %q and %q", who, err, c.who, c.want)
			}
			real := b.verify(c.list+"\n", or(c.who, "ann"), namespace, text, sig)
			if accepts := c.want == "" || c.stricter; accepts != (real == nil) {
				t.Errorf("ssh-keygen says %v", real)
			}
			// The plain key, in a list, does not stand for its certificate.
			plain := "ann " + strings.TrimSpace(b.read(key+".pub")) + "\n"
			if _, err := ours(plain, namespace, text, sig, time.Now()); err == nil || b.verify(plain, "ann", namespace, text, sig) == nil {
				t.Errorf("the plain key stands for its certificate: %v", err)
			}
		})
	}
	b.run("-q", "-s", "rsaca", "-t", "ssh-rsa", "-I", "test", "-n", "ann", "ann.pub")
	list := "ann cert-authority " + strings.TrimSpace(b.read("rsaca.pub")) + "\n"
	if _, err := ours(list, namespace, text, b.sign("ann-cert.pub", namespace, text), time.Now()); err == nil || !strings.Contains(err.Error(), "SHA-1") {
		t.Errorf("a certificate that was signed with SHA-1: %v", err)
	}
	if _, err := ParseSigners("ann "+b.read("ann-cert.pub"), time.UTC); err == nil || !strings.Contains(err.Error(), "cert-authority") {
		t.Errorf("a certificate as a signer: %v", err)
	}
}

// armor is the inverse of dearmor, as ssh-keygen writes it.
func armor(blob []byte) []byte {
	var b bytes.Buffer
	b.WriteString(begin + "\n")
	text := encode(blob)
	for len(text) > 70 {
		b.WriteString(text[:70] + "\n")
		text = text[70:]
	}
	b.WriteString(text + "\n" + end + "\n")
	return b.Bytes()
}
