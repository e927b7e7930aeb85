package foreign

import (
	"errors"
	"strings"
	"testing"
)

func TestReadAtMost(t *testing.T) {
	for text, fits := range map[string]bool{"": true, "12345": true, "123456": false} {
		data, err := ReadAtMost(strings.NewReader(text), 5)
		var large *TooLargeError
		if fits && (err != nil || string(data) != text) || !fits && (!errors.As(err, &large) || err.Error() != "it has more than 5 bytes") {
			t.Errorf("%q: %q, %v", text, data, err)
		}
	}
}
