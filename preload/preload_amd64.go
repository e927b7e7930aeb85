package preload

import _ "embed" // for the library

// Built is the library.
//
//go:embed built/amd64/libnfslock.so
var Built []byte
