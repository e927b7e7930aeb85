// Package preload has the library that lets QEMU and libvirt go on where a filesystem has no locks, built for this architecture, and the
// names under which it lies in a container. What it does is in source/nfslock.c; who puts it anywhere is not known here.
package preload

// Library is where the library lies in a container: below /usr/lib, from where AppArmor lets every confined program load libraries.
const Library = "/usr/lib/nfslock/libnfslock.so"

// List names the libraries that the dynamic linker loads into every program, with blanks, colons or line ends between; # begins a
// comment. Where it names one that cannot be loaded, every program says so on stderr, and goes on: so the library comes first and
// goes last.
const List = "/etc/ld.so.preload"

// Name is the library's own: its SONAME, whatever its version.
const Name = "libnfslock.so"

// WarnVariable in the environment of a tool, with any value, makes it warn in a pipe too.
const WarnVariable = "NFSLOCK_WARN"
