package lockfix

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nfslock/ansible-collection-kolla/internal/baseline"
	"github.com/nfslock/ansible-collection-kolla/internal/kolla"
	"github.com/nfslock/ansible-collection-kolla/internal/preloaded"
	"github.com/nfslock/ansible-collection-kolla/preload"
)

var (
	ourList    = &preloaded.File{Data: []byte(preload.Library + "\n"), Mode: 0o644}
	ourLibrary = &preloaded.File{Data: preload.Built, Mode: 0o644}
	oldLibrary = &preloaded.File{Data: append(bytes.Clone(preload.Built), 0), Mode: 0o644}
	cutLibrary = &preloaded.File{Data: preload.Built[:999], Mode: 0o644}
	otherList  = &preloaded.File{Data: []byte("/a.so\n"), Mode: 0o644}
	bothList   = &preloaded.File{Data: []byte("/a.so\n" + preload.Library + "\n"), Mode: 0o644}
	fits       = preloaded.Program{Path: "/usr/bin/qemu-img", Architecture: runtime.GOARCH, Glibc: true}
)

// place is a container's, with two files in its layer.
func place(list, library *preloaded.File) preloaded.Place {
	files := preloaded.Files{List: list, Library: library, Folder: library != nil}
	return preloaded.Place{Files: files, Seen: preloaded.Seen{State: files.Effect(), Current: library == ourLibrary}}
}

func lacks(name string, p preloaded.Place) Seen {
	return Seen{Name: name, ID: "1", State: "running", Distribution: kolla.Distribution{ID: "rocky"}, Architecture: "amd64", Library: p, Program: fits}
}

func but(s Seen, f func(*Seen)) Seen {
	f(&s)
	return s
}

func TestPlanOfTheLibrary(t *testing.T) {
	bound := place(ourList, ourLibrary)
	bound.State, bound.Mounted, bound.Refusal = preloaded.Bound, true, "something is mounted at /usr/lib/nfslock"
	half := place(nil, ourLibrary)
	half.Mounted, half.Refusal = true, "something is mounted at /usr/lib/nfslock"
	linked := place(nil, nil)
	linked.Refusal = "/etc/ld.so.preload is a symbolic link, and not a file"
	leads := linked
	leads.State = preloaded.Installed
	emptied := place(nil, nil)
	emptied.Folder, emptied.Empty = true, true
	runs := func(loaded ...bool) func(*Seen) {
		return func(s *Seen) {
			for _, l := range loaded {
				s.Daemons = append(s.Daemons, Daemon{PID: 7, Name: "libvirtd", Loaded: l})
			}
		}
	}
	named := func(o *Options) { o.Containers = []string{"x"} }
	absent := func(o *Options) { o.State = Absent }
	start := time.Unix(1000, 0)
	dead := func(b Before) func(*Seen) {
		return func(s *Seen) { s.Dead, s.StartedAt = &b, start }
	}
	for _, test := range []struct {
		name    string
		seen    Seen
		options func(*Options)
		want    string // state, steps
		list    string // what is to be in the list, where there is a step
		library *preloaded.File
		note    string
	}{
		{name: "none", seen: lacks("glance_api", place(nil, nil)), want: "patched; load", list: preload.Library + "\n", library: ourLibrary},
		{name: "beside another", seen: lacks("glance_api", place(otherList, nil)), want: "patched; load", list: "/a.so\n" + preload.Library + "\n", library: ourLibrary},
		{name: "the library alone", seen: lacks("glance_api", place(nil, ourLibrary)), want: "patched; load", list: preload.Library + "\n", library: ourLibrary},
		{name: "an older build", seen: lacks("glance_api", place(bothList, oldLibrary)), want: "patched; load", list: string(bothList.Data), library: ourLibrary},
		{name: "cut", seen: lacks("glance_api", place(ourList, cutLibrary)), want: "patched; load", list: preload.Library + "\n", library: ourLibrary},
		{name: "the list alone", seen: lacks("glance_api", place(bothList, nil)), want: "patched; load", list: string(bothList.Data), library: ourLibrary},
		{name: "there", seen: lacks("glance_api", place(ourList, ourLibrary)), want: "unchanged"},
		{name: "bound", seen: but(lacks("glance_api", bound), func(s *Seen) { s.Library.Current = true }), want: "unchanged"},
		{name: "bound in another build", seen: but(lacks("glance_api", bound), func(s *Seen) { s.Library.Current = false }), want: "unchanged", note: "nfs_lock_keep"},
		{name: "half bound", seen: lacks("glance_api", half), want: "failed: cannot put the library into glance_api: something is mounted at /usr/lib/nfslock"},
		{name: "a link", seen: lacks("glance_api", linked), want: "failed: cannot put the library into glance_api: /etc/ld.so.preload is a symbolic link, and not a file"},
		{name: "a link that leads to it", seen: lacks("glance_api", leads), want: "unchanged"},
		{name: "read-only", seen: but(lacks("glance_api", place(nil, nil)), func(s *Seen) { s.ReadOnly = true }), want: "failed: cannot put the library into glance_api: its root filesystem is read-only"},
		{name: "read-only, and there", seen: but(lacks("glance_api", place(ourList, ourLibrary)), func(s *Seen) { s.ReadOnly = true }), want: "unchanged"},
		{name: "no program", seen: but(lacks("cinder_api", place(nil, nil)), func(s *Seen) { s.Program = preloaded.Program{} }), want: "skipped"},
		{name: "musl", seen: but(lacks("cinder_api", place(nil, nil)), func(s *Seen) { s.Program.Glibc = false }), want: "skipped"},
		{
			name: "musl, named", seen: but(lacks("x", place(nil, nil)), func(s *Seen) { s.Program.Glibc = false }), options: named,
			want: "failed: cannot put the library into x: /usr/bin/qemu-img is not started by glibc's dynamic linker, and no other reads /etc/ld.so.preload as the library needs it",
		},
		{name: "another architecture", seen: but(lacks("cinder_api", place(nil, nil)), func(s *Seen) { s.Program.Architecture = "riscv64" }), want: "skipped"},
		{
			name: "it could not be seen", seen: but(lacks("x", preloaded.Place{}), func(s *Seen) { s.LibraryDamage = "input/output error" }),
			want: "failed: cannot look at the library in x: input/output error",
		},
		{
			name: "beside patched packages", seen: but(lacks("glance_api", place(nil, nil)), func(s *Seen) { s.Kept = &baseline.Index{ID: "1"} }), want: "patched; load",
			list: preload.Library + "\n", library: ourLibrary, note: "the patched packages too",
		},

		{name: "libvirt is restarted", seen: lacks("nova_libvirt", place(nil, nil)), want: "patched; load; restart", list: preload.Library + "\n", library: ourLibrary},
		{
			name: "unless it is left to the operator, who is told", seen: but(lacks("nova_libvirt", place(nil, nil)), runs(false)),
			options: func(o *Options) { o.Restart = RestartNever }, want: "patched; load", list: preload.Library + "\n", library: ourLibrary, note: "libvirtd (process 7) runs without",
		},
		{name: "a restart that is owed", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(false)), want: "unchanged; restart"},
		{name: "of a bound one", seen: but(but(lacks("nova_libvirt", bound), func(s *Seen) { s.Library.Current = true }), runs(false)), want: "unchanged; restart"},
		{name: "one of two daemons", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(true, false)), want: "unchanged; restart"},
		{name: "none is owed", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(true)), want: "unchanged"},
		{name: "always", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(true)), options: func(o *Options) { o.Restart = RestartAlways }, want: "unchanged; restart"},
		{
			name: "a dead run owes one for a new build, which no daemon tells", want: "unchanged; restart",
			seen: but(but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(true)), dead(Before{Begun: []Verb{Load}, Owed: &start})),
		},
		{name: "in any other container nobody is restarted", seen: but(lacks("nova_compute", place(ourList, ourLibrary)), runs(false)), want: "unchanged"},

		{name: "absent: none", seen: lacks("glance_api", place(nil, nil)), options: absent, want: "unchanged"},
		{name: "absent: another's list", seen: lacks("glance_api", place(otherList, nil)), options: absent, want: "unchanged"},
		{name: "absent: there", seen: lacks("glance_api", place(ourList, ourLibrary)), options: absent, want: "restored; unload"},
		{name: "absent: beside another", seen: lacks("glance_api", place(bothList, ourLibrary)), options: absent, want: "restored; unload", list: "/a.so\n"},
		{name: "absent: the library alone", seen: lacks("glance_api", place(nil, oldLibrary)), options: absent, want: "restored; unload"},
		{name: "absent: the list alone", seen: lacks("glance_api", place(ourList, nil)), options: absent, want: "restored; unload"},
		{name: "absent: its folder alone", seen: lacks("glance_api", emptied), options: absent, want: "restored; unload"},
		{name: "absent: bound", seen: lacks("glance_api", bound), options: absent, want: "unchanged", note: "globals.d/nfslock.yml"},
		{
			name: "absent: bound, and named", seen: lacks("x", bound), options: func(o *Options) { absent(o); named(o) },
			want: "failed: cannot take the library out of x: it is bound into it by kolla's volumes",
		},
		{name: "absent: a link that is not ours", seen: lacks("glance_api", linked), options: absent, want: "unchanged"},
		{
			name: "absent: a link that leads to it", seen: lacks("glance_api", leads), options: absent,
			want: "failed: cannot take the library out of glance_api: /etc/ld.so.preload is a symbolic link, and not a file",
		},
		{name: "absent: libvirt is restarted", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), runs(true)), options: absent, want: "restored; unload; restart"},
		{name: "absent: not for a library that nothing loads", seen: but(lacks("nova_libvirt", place(nil, ourLibrary)), runs(false)), options: absent, want: "restored; unload"},
		{name: "absent: a restart that is owed", seen: but(lacks("nova_libvirt", place(nil, nil)), runs(true)), options: absent, want: "unchanged; restart"},
		{name: "absent: no program", seen: but(lacks("cinder_api", place(ourList, ourLibrary)), func(s *Seen) { s.Program = preloaded.Program{} }), options: absent, want: "restored; unload"},

		{
			name: "nobody asked for what a dead run put there: it goes", seen: but(lacks("glance_api", place(bothList, ourLibrary)), func(s *Seen) {
				s.Unasked, s.Dead = true, &Before{Begun: []Verb{Load}, Library: &preloaded.Files{List: otherList}}
			}), want: "rolled_back; unload", list: "/a.so\n",
		},
		{
			name: "and what it took comes back", seen: but(lacks("glance_api", place(nil, nil)), func(s *Seen) {
				s.Unasked, s.Dead = true, &Before{Begun: []Verb{Unload}, Library: &preloaded.Files{List: ourList, Library: oldLibrary, Folder: true}}
			}), want: "rolled_back; load", list: preload.Library + "\n", library: oldLibrary,
		},
		{
			name: "nothing goes back to a list without its library", seen: but(lacks("glance_api", place(ourList, ourLibrary)), func(s *Seen) {
				s.Unasked, s.Dead = true, &Before{Begun: []Verb{Load}, Library: &preloaded.Files{List: bothList}}
			}), want: "rolled_back; unload", list: "/a.so\n",
		},
		{
			name: "a dead run that restarted libvirt restarts it back", seen: but(lacks("nova_libvirt", place(ourList, ourLibrary)), func(s *Seen) {
				s.Unasked, s.Dead = true, &Before{Begun: []Verb{Load, Restart}, Library: &preloaded.Files{}}
			}), want: "rolled_back; unload; restart",
		},
		{
			name: "packages: what a dead run did with the library goes back", seen: but(lacks("glance_api", place(ourList, ourLibrary)), func(s *Seen) {
				s.Distribution = kolla.Distribution{ID: "debian", Release: "bookworm"}
				s.Dead = &Before{Begun: []Verb{Load}, Library: &preloaded.Files{}}
			}), options: func(o *Options) { absent(o); o.Method = MethodPackages }, want: "restored; unload",
		},
		{
			name: "packages: rpm is refused", seen: lacks("glance_api", place(nil, nil)), options: func(o *Options) { o.Method = MethodPackages },
			want: "failed: cannot work in glance_api: its image is rocky, and only Debian's and Ubuntu's packages can be rebuilt",
		},
		{
			name: "both: rpm has the library alone", seen: lacks("glance_api", place(ourList, ourLibrary)), options: func(o *Options) { absent(o); o.Method = "" },
			want: "restored; unload",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options()
			o.PatchSet, o.Method = "", MethodLibrary
			if test.options != nil {
				test.options(&o)
			}
			p := MakePlan(o, Set{}, []Seen{test.seen})[0]
			if got := tell(p); got != test.want {
				t.Fatalf("got  %s\nwant %s", got, test.want)
			}
			if notes := strings.Join(p.Notes, "\n"); (notes != "") != (test.note != "") || !strings.Contains(notes, test.note) {
				t.Errorf("notes: %s", notes)
			}
			if _, ok := p.libraryStep(); !ok {
				return
			}
			list := ""
			if p.Library.List != nil {
				list = string(p.Library.List.Data)
			}
			if list != test.list {
				t.Errorf("list %q, want %q", list, test.list)
			}
			if got := p.Library.Library; (got == nil) != (test.library == nil) || got != nil && !bytes.Equal(got.Data, test.library.Data) {
				t.Errorf("library %+v", got)
			}
		})
	}
}

// What was planned for packages alone says of the library only what there is.
func TestMethods(t *testing.T) {
	for _, test := range []struct {
		o                 Options
		packages, library bool
	}{
		{Options{State: Present}, false, true},
		{Options{State: Present, PatchSet: "/set"}, true, false},
		{Options{State: Present, Method: MethodLibrary}, false, true},
		{Options{State: Present, Method: MethodPackages, PatchSet: "/set"}, true, false},
		{Options{State: Absent}, true, true},
		{Options{State: Absent, PatchSet: "/set"}, true, true},
		{Options{State: Absent, Method: MethodLibrary}, false, true},
		{Options{State: Absent, Method: MethodPackages}, true, false},
	} {
		if test.o.packages() != test.packages || test.o.library() != test.library {
			t.Errorf("%+v: packages %v, library %v", test.o, test.o.packages(), test.o.library())
		}
	}
}

func TestNothingIsBegunWhereOneCannotHaveTheLibrary(t *testing.T) {
	linked := place(nil, nil)
	linked.Refusal = "/etc/ld.so.preload is a folder, and not a file"
	o := options()
	o.PatchSet, o.Method = "", MethodLibrary
	plans := MakePlan(o, Set{}, []Seen{lacks("glance_api", place(nil, nil)), lacks("cinder_volume", linked)})
	allOrNothing(plans)
	if got := tell(plans[0]); got != "unchanged" {
		t.Error(got)
	}
	if row := plans[0].libraryRow(true, plans[0].Seen.Library); row.After != preloaded.None {
		t.Errorf("%+v", row)
	}
}
