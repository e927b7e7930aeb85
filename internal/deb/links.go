package deb

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dpkg makes a hard link of each file before it replaces it, and of its status file. A container's seccomp profile or filesystem may refuse that,
// which shows only from inside of the container. Both commands are perl's, which is in every image with dpkg and calls link(2) as dpkg does; they
// print a number of errno(3) and a path, line by line.
const (
	linkToItself = `for (@ARGV) { my $e = link($_, $_) ? 0 : $! + 0; print "$e $_\n" }`
	linkAside    = `for (@ARGV) { my $t = "$_` + trialSuffix + `"; unlink $t; my $e = link($_, $t) ? 0 : $! + 0; unlink $t; print "$e $_\n" }`

	trialSuffix = ".nfslock-link"
)

// LinkCheck is a command that changes nothing: a link of a file to its own name fails because the name is taken, or because links are refused before
// anything is looked at, as by seccomp.
func LinkCheck() []string { return []string{"perl", "-e", linkToItself, "/" + statusFile} }

// LinkTrial is a command that makes a hard link of each file beside it and removes it. What it leaves when it is killed it removes the next time.
func LinkTrial(files []string) []string {
	return append([]string{"perl", "-e", linkAside, "/" + statusFile}, files...)
}

// TrialLinks are what a trial with these files makes and removes.
func TrialLinks(files []string) (links []string) {
	for _, file := range append([]string{"/" + statusFile}, files...) {
		links = append(links, file+trialSuffix)
	}
	return links
}

// ReadLinks judges what either command printed. Without perl, and for a file that is gone, nothing is known, and nothing is refused.
func ReadLinks(output string) (refusals []Refusal) {
	for line := range strings.Lines(output) {
		number, file, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.Atoi(number)
		errno := unix.Errno(n)
		if err != nil || !strings.HasPrefix(file, "/") || n == 0 || errors.Is(errno, unix.EEXIST) || errors.Is(errno, unix.ENOENT) {
			continue
		}
		refusals = append(refusals, Refusal{
			Where: file, Why: fmt.Sprintf("no hard link can be made of it (%s): dpkg makes one of each file that it replaces", errno.Error()),
			Remedy: "let the container's seccomp profile allow link and linkat, or keep its layers on a filesystem that has hard links, and recreate it",
		})
	}
	return refusals
}
