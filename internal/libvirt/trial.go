package libvirt

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Trial is a domain that only tries whether a guest starts from an image. Its name tells until when it may be there, and its UUID follows from its
// name: whoever removes one that was left asks for the UUID, which a domain of somebody else with such a name does not have.
type Trial struct {
	Name string
	UUID string
}

// TrialPrefix begins the names of trials, and of the folder and log that go with each.
const TrialPrefix = "nfslock-guest-"

var trialName = regexp.MustCompile(`^` + TrialPrefix + `([0-9]{10})-[0-9a-f]{16}$`)

// NewTrial names one that may be there until a moment.
func NewTrial(until time.Time) Trial {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // it never fails: crypto/rand
	return trial(fmt.Sprintf("%s%010d-%s", TrialPrefix, until.Unix(), hex.EncodeToString(random)))
}

// LeftTrial tells whether a domain's name is that of a trial whose time is over.
func LeftTrial(name string, now time.Time) (Trial, bool) {
	found := trialName.FindStringSubmatch(name)
	if found == nil {
		return Trial{}, false
	}
	until, err := strconv.ParseInt(found[1], 10, 64)
	return trial(name), err == nil && now.Unix() > until
}

// trial makes a UUID of a name, of the version for such private ways: RFC 9562, section 5.8.
func trial(name string) Trial {
	sum := sha256.Sum256([]byte(name))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return Trial{Name: name, UUID: fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])}
}

// Kind is how a guest's instructions are run: libvirt's word.
type Kind string

// Kinds.
const (
	KVM Kind = "kvm"
	TCG Kind = "qemu"
)

// XML describes the domain: as small as QEMU takes it, without network, clock and input, with the image as its only disk. machine is the
// guest's architecture as uname calls it.
func (t Trial) XML(kind Kind, machine, image string) []byte {
	var path bytes.Buffer
	_ = xml.EscapeText(&path, []byte(image)) // a buffer takes all
	return fmt.Appendf(nil, `<domain type='%s'>
  <name>%s</name>
  <uuid>%s</uuid>
  <title>made by nfs_lock_info to see whether guests start; it may be destroyed</title>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='%s'>hvm</type></os>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
`, kind, t.Name, t.UUID, machine, path.Bytes())
}
