package foreign

import (
	"fmt"
	"io"
)

// TooLargeError says that there was more to read than was to be expected.
type TooLargeError struct{ Most int64 } // bytes

func (e *TooLargeError) Error() string { return fmt.Sprintf("it has more than %d bytes", e.Most) }

// ReadAtMost reads all of r. More than most bytes are a TooLargeError, so that nothing cut off passes for the whole.
func ReadAtMost(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = &TooLargeError{most}
	}
	return data, err
}
