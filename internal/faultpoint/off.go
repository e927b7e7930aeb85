//go:build !faultpoints

package faultpoint

// Hit marks a moment.
func Hit(string) {}
