package patchset

import (
	"fmt"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/sshsig"
)

// Namespace is what a manifest is signed for. A signature for anything else, such as a commit in git, is none for a
// manifest, though the same key made it.
const Namespace = "patch-set@nfslock.kolla"

// signCommand makes the signature.
const signCommand = "ssh-keygen -Y sign -f KEY -n " + Namespace + " " + ManifestName

// VerifyManifest says which of the allowed signers signed these bytes of a manifest. An empty signature is none.
func VerifyManifest(manifest, signature []byte, allowed sshsig.Signers, now time.Time) (signer string, err error) {
	if len(signature) == 0 {
		return "", fmt.Errorf("it is not signed, there is no %s beside it; one of the allowed signers makes that with %s", SignatureName, signCommand)
	}
	sig, err := sshsig.Parse(signature)
	if err != nil {
		return "", fmt.Errorf("its signature, %s, cannot be used: %w", SignatureName, err)
	}
	if err = sig.Verify(manifest, Namespace); err == nil {
		signer, err = allowed.Find(sig, now)
	}
	if err != nil {
		return "", fmt.Errorf("its signature, %s, is not good: %w; a good one is made with %s", SignatureName, err, signCommand)
	}
	return signer, nil
}
