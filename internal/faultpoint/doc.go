// Package faultpoint names the moments at which a test lets the program die, as snapd and mender do. In a program that is
// shipped a point is an empty function; in one built with the tag faultpoints see on.go.
package faultpoint
