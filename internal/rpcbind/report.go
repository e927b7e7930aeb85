package rpcbind

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible"
)

// Result is what a run reports.
type Result struct {
	ansible.Result
	Mode                 Mode      `json:"mode"`   // empty where nothing is to run
	Reason               string    `json:"reason"` // why that mode
	RPCBind              Service   `json:"rpcbind"`
	Statd                Service   `json:"statd"`
	Programs             []Program `json:"programs"`
	ContainersWithoutRun []string  `json:"containers_without_run"`
	Findings             []string  `json:"findings"` // what was wrong when the run began
}

// Service is one of the two.
type Service struct {
	Running   bool    `json:"running"`    // it answers
	Enabled   bool    `json:"enabled"`    // it comes back at boot
	Where     string  `json:"where"`      // "host", a container's name, or empty
	State     string  `json:"state"`      // a Condition
	AnswersMS float64 `json:"answers_ms"` // the slowest of its ways; 0 if it does not answer
}

// Program is a row of rpcbind's table.
type Program struct {
	Program uint32 `json:"program"`
	Version uint32 `json:"version"`
	NetID   string `json:"netid"`
	Address string `json:"address"`
	Owner   string `json:"owner"`
}

func emptyResult() Result {
	return Result{Programs: []Program{}, ContainersWithoutRun: []string{}, Findings: []string{}}
}

// tell fills in what was seen.
func (r *Result) tell(o Options, s Seen, p Plan) {
	r.Mode, r.Reason = p.Mode, p.Reason
	r.RPCBind = s.service(rpcbindName, s.Answers.RPCBind, s.Answers.RPCBindMS)
	r.Statd = s.service(statdName, s.Answers.Statd, s.Answers.StatdMS)
	r.Programs, r.ContainersWithoutRun = []Program{}, []string{}
	for _, row := range s.Answers.Programs {
		r.Programs = append(r.Programs, Program(row))
	}
	for _, u := range s.Unbound {
		r.ContainersWithoutRun = append(r.ContainersWithoutRun, u.Name)
	}
	r.Findings = append([]string{}, s.findings(o)...)
	r.Warnings = s.warnings(o, p.Mode)
}

func (s Seen) service(name string, c Condition, ms float64) Service {
	v := Service{Running: c == Answering, State: string(c)}
	if v.Running {
		v.AnswersMS = ms
	}
	i := slices.IndexFunc(s.Processes, func(d Daemon) bool { return d.Name == name })
	if i < 0 {
		return v
	}
	d := s.Processes[i]
	switch {
	case d.Ours:
		v.Where = d.Where
		unit := ownUnit(s.Ours.Name)
		_, owned := s.Files[unitFolder+unit]
		v.Enabled = !owned || s.Units[unit].File == "enabled"
	case d.Container != "":
		v.Where = d.Where
	default:
		v.Where = "host"
		v.Enabled = s.Units[d.Where].File == "enabled"
	}
	return v
}

func summary(o Options, s Seen, p Plan, check bool) string {
	where := "on the host"
	if p.Mode == InContainer {
		where = "in container " + o.ContainerName
	}
	what := "rpcbind and rpc.statd answer"
	if !o.Statd {
		what = "rpcbind answers"
	}
	switch steps := len(p.Steps); {
	case o.absent() && steps == 0:
		return "there is nothing here that this module made"
	case o.absent() && check:
		return fmt.Sprintf("would remove what this module made: %d steps", steps)
	case o.absent():
		return "what this module made is removed"
	case steps == 0:
		return fmt.Sprintf("%s %s", what, where)
	case check:
		return fmt.Sprintf("would see to it that %s %s: %d steps", what, where, steps)
	}
	if found := s.findings(o); len(found) > 0 {
		return fmt.Sprintf("%s %s now; before: %s", what, where, strings.Join(found, "; "))
	}
	return fmt.Sprintf("%s %s", what, where)
}

// diff shows units, packages and processes in one text, each file and the container in one of its own.
func (p Plan) diff(s Seen) []ansible.Diff {
	var before, after strings.Builder
	var files []ansible.Diff
	for _, step := range p.Steps {
		switch step.Verb {
		case Write, Link:
			files = append(files, fileDiff(step.Names[0], s.Files[step.Names[0]], step.Text))
		case Delete:
			files = append(files, fileDiff(step.Names[0], s.Files[step.Names[0]], ""))
		case Create:
			files = append(files, ansible.Diff{After: describe(step.Spec), BeforeHeader: "container " + step.Spec.Name, AfterHeader: "container " + step.Spec.Name})
		case Reload, TryImage, Fetch: // nothing is another afterwards
		default:
			for _, name := range step.Names {
				was, is := step.line(s, name)
				fmt.Fprintf(&before, "%s: %s\n", name, was)
				fmt.Fprintf(&after, "%s: %s%s\n", name, is, because(step.Why))
			}
		}
	}
	if before.Len() == 0 {
		return files
	}
	return append([]ansible.Diff{{Before: before.String(), After: after.String(), BeforeHeader: "host", AfterHeader: "host"}}, files...)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func fileDiff(path, before, after string) ansible.Diff {
	end := func(text string) string {
		if text != "" && !strings.HasSuffix(text, "\n") { // of a link
			return "-> " + text + "\n"
		}
		return text
	}
	return ansible.Diff{Before: end(before), After: end(after), BeforeHeader: path, AfterHeader: path}
}

// line is what a name is before the step and after it.
func (step Step) line(s Seen, name string) (before, after string) {
	active := s.Units[name].Active
	if active == "" {
		active = "not there"
	}
	file := s.Units[name].File
	if file == "" {
		file = "not there"
	}
	switch step.Verb {
	case Silence:
		return "absent", "present"
	case Install:
		return "not installed", "installed"
	case Uninstall:
		return "installed", "not installed"
	case Hold:
		return file, "masked until the next boot"
	case Release:
		return "masked until the next boot", "not masked"
	case Unmask:
		return file, "not masked"
	case Mask:
		return file, "masked"
	case Enable:
		return file, "enabled"
	case Disable:
		return file, "disabled"
	case Start:
		return active, "active"
	case Stop:
		return active, "inactive"
	case Restart:
		return active, "restarted"
	case TakeOver:
		return "runs", "ended, its state kept"
	case Inherit:
		return "kept by nobody", "carried to the " + string(step.To)
	case Unpause:
		return "paused", "running"
	case Carry:
		return "statd's state", "carried to the " + string(step.To)
	case Remove, RemoveVolume, RemoveImage:
		return "present", "absent"
	case MakeImage:
		return "absent", "with the layers of " + step.Image.Reference
	case StartBox:
		return "stopped", "started"
	case RestartBox:
		return "running", "restarted"
	}
	return "", string(step.Verb)
}
