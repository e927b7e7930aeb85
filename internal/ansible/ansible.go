// Package ansible speaks Ansible's protocol for compiled modules: a JSON file of arguments in, one JSON object out. It
// knows nothing of what a module does; how a module is documented is in the package moduledoc.
package ansible

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/nfslock/ansible-collection-kolla/internal/shown"
	"github.com/nfslock/ansible-collection-kolla/internal/supervise"
)

// Call is what Ansible asks of one run, beside the options.
type Call struct {
	CheckMode bool // change nothing, report what would change
	Diff      bool // --diff: fill Result.Diff
	Verbosity int  // number of -v
}

// Result is what every module reports; a module embeds it in its own result.
type Result struct {
	Changed  bool     `json:"changed"`
	Failed   bool     `json:"failed"`
	Msg      string   `json:"msg"`
	Diff     []Diff   `json:"diff,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Diff is one text before and after, as Ansible's callbacks render it.
type Diff struct {
	Before       string `json:"before"`
	After        string `json:"after"`
	BeforeHeader string `json:"before_header,omitempty"`
	AfterHeader  string `json:"after_header,omitempty"`
}

// Main is a module's main function: it reads the file that os.Args names, fills O by its json tags, which equal the
// option names, calls run, prints one JSON object and exits with 0, or with 1 after a failure.
//
// An error of run makes the result failed and its text the message; what run returned beside it is printed too.
// SIGINT, SIGTERM and SIGHUP cancel the context, and the result is still printed: by run, or by the watchdog if run hangs. A panic of run
// becomes a failure. One in a goroutine that run started ends the process; where it is supervised that is told as a failure, too.
func Main[O, R any](spec Spec, run func(context.Context, O, Call) (R, error)) {
	var stdout io.Writer = os.Stdout
	if supervise.Supervised() {
		stdout = answers{}
		_ = debug.SetCrashOutput(supervise.CrashOutput(), debug.CrashOptions{}) // without it the end is told, and not the reason
	}
	os.Stdout = os.Stderr // a stray print would spoil the one object
	// Caught and not read: once the connection is gone a line on stderr would otherwise kill the run midway. Unlike
	// with signal.Ignore, programs started from here keep the default.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(execute(ctx, spec, run, os.Args, stdout, os.Stderr))
}

// execute is Main with the world passed in; args begins with the program's name.
func execute[O, R any](ctx context.Context, spec Spec, run func(context.Context, O, Call) (R, error),
	args []string, stdout, stderr io.Writer,
) int {
	return answer(ctx, args, stdout, stderr, spec, func(ctx context.Context, options []byte, call Call) (any, error) {
		var o O
		if err := fill(&o, options); err != nil {
			return nil, err
		}
		r, err := run(ctx, o, call)
		if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w (%w)", err, cause) // the cause names the signal
		}
		return r, err
	})
}

// work is a module's run, with its options in JSON.
type work = func(ctx context.Context, options []byte, call Call) (any, error)

// answer is the part of execute that is the same for all options and results, so that it is compiled once.
func answer(ctx context.Context, args []string, stdout, stderr io.Writer, spec Spec, run work) int {
	out := &printer{stdout: stdout, stderr: stderr}
	if len(args) != 2 {
		_, _ = fmt.Fprintf(stderr, "usage: %s ARGS_FILE\nThis is an Ansible module: Ansible runs it with a JSON file of its options.\n", program(args))
		return out.print(failure(fmt.Errorf("cannot read the options: the program needs one argument, the file that holds them, and has %d", max(len(args)-1, 0))))
	}
	// Two guards: this one for mistakes of the module's author, such as an impossible default, the one in respond for
	// the module's run, so that a panic there still passes through the masking.
	return out.print(guard(func() map[string]any { return respond(ctx, args[1], spec, run, out) }))
}

func respond(ctx context.Context, argsFile string, spec Spec, run work, out *printer) map[string]any {
	data, err := readArgs(argsFile)
	if err != nil {
		return failure(err)
	}
	given, err := decodeObject(data)
	if err != nil {
		return failure(fmt.Errorf("cannot read the options in %s: %w", argsFile, err))
	}
	in, err := spec.read(given)
	if err != nil {
		report := failure(err)
		in.finish(report)
		return report
	}
	dog := &watchdog{finish: in.finish, allowed: map[*int]time.Time{}, end: func(report map[string]any) { os.Exit(out.print(report)) }}
	ctx, free := dog.guard(ctx)
	defer free()
	report := guard(func() map[string]any {
		options, err := json.Marshal(in.values)
		if err != nil {
			return failure(fmt.Errorf("cannot pass the options on: %w", err))
		}
		return combine(run(ctx, options, in.call))
	})
	in.finish(report)
	return report
}

// finish makes a report one that may be printed: no secret is in it, and nothing that a terminal or a reader would be misled by.
func (in input) finish(report map[string]any) {
	if report["failed"] == false {
		delete(report, "exception") // ansible-core 2.19 prints it as an error, even of a success
	}
	for key, value := range report {
		report[key] = shown.All(mask(value, in.secrets))
	}
	if warnings, ok := report["warnings"].([]any); ok {
		for i := range warnings {
			if text, ok := warnings[i].(string); ok { // each is one line of the play's output
				warnings[i] = strings.ReplaceAll(text, "\n", "; ")
			}
		}
	}
	// A secret such as "LOG" must not cut into its own placeholder.
	arguments := mask(in.shown, in.secrets).(map[string]any)
	for name := range in.hidden {
		arguments[name] = hiddenValue
	}
	report["invocation"] = map[string]any{"module_args": shown.All(arguments)}
}

func program(args []string) string {
	if len(args) == 0 {
		return "module"
	}
	return filepath.Base(args[0])
}

// readArgs bounds what is read: Ansible's own part is some kilobytes, a manifest at most one megabyte.
func readArgs(name string) ([]byte, error) {
	const limit = 16 << 20
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the options: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the options: %w", err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("cannot read the options in %s: more than %d MiB", name, limit>>20)
	}
	return data, nil
}

// decodeObject is strict where encoding/json is not: one object, no key twice at the top, nothing after it.
func decodeObject(data []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	start, err := dec.Token()
	if err == io.EOF {
		return nil, errors.New("the file is empty")
	}
	if err != nil {
		return nil, notJSON(err)
	}
	if start != json.Delim('{') {
		return nil, errors.New("this is not a JSON object")
	}
	object := map[string]any{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		key, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("this is not JSON: a key is %v", token)
		}
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("%q is given twice", key)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, notJSON(err)
		}
		object[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return object, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("this is not JSON: it ends too early")
	}
	return fmt.Errorf("this is not JSON: %w", err)
}

// fill sets the options in o. Every option of the spec is in data, as null at least, so that one for which o has no
// field is found by whatever runs the module first.
func fill(o any, data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(o)
	var unfit *json.UnmarshalTypeError
	if errors.As(err, &unfit) {
		return fmt.Errorf("cannot use option %q: a %s does not fit there", unfit.Field, unfit.Value)
	}
	if err != nil {
		return fmt.Errorf("cannot pass the options on: %w", err)
	}
	return nil
}

// guard turns a panic into a report.
func guard(f func() map[string]any) (report map[string]any) {
	defer func() {
		if cause := recover(); cause != nil {
			report = failure(fmt.Errorf("internal error, please report it: %v", cause))
			report["exception"] = string(debug.Stack())
		}
	}()
	return f()
}

func failure(err error) map[string]any {
	return map[string]any{"changed": false, "failed": true, "msg": message(err)}
}

// combine makes the report of what a run returned. Ansible reads any non-empty string in changed and failed as true, so
// only booleans pass.
func combine(result any, runErr error) map[string]any {
	data, err := json.Marshal(result)
	var report map[string]any
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber() // an int64 may not fit a float64
		err = dec.Decode(&report)
	}
	if err != nil {
		return failure(multierror.Append(runErr, fmt.Errorf("cannot report the result: %w", err)))
	}
	if report == nil { // a nil pointer
		report = map[string]any{}
	}
	for _, key := range []string{"changed", "failed"} {
		if report[key] == nil {
			report[key] = false
		}
		if _, ok := report[key].(bool); !ok {
			return failure(multierror.Append(runErr, fmt.Errorf("cannot report the result: %q is no boolean", key)))
		}
	}
	if runErr != nil {
		report["failed"] = true
		report["msg"] = message(runErr)
	}
	return report
}

// message is the error's text, with go-multierror's own layout (tabs, stars, two empty lines) replaced by one line for
// one error and a plain list for several.
func message(err error) string {
	text := err.Error()
	var several *multierror.Error
	if !errors.As(err, &several) {
		return text
	}
	plain := ""
	if n := len(several.Errors); n == 1 {
		plain = message(several.Errors[0])
	} else {
		lines := []string{fmt.Sprintf("%d errors:", n)}
		for _, e := range several.Errors {
			lines = append(lines, "- "+strings.ReplaceAll(message(e), "\n", "\n  "))
		}
		plain = strings.Join(lines, "\n")
	}
	return strings.Replace(text, several.Error(), plain, 1)
}

// printer prints one report, the first that it is given. A second one, of a run that comes to its end as the watchdog bites, waits for that.
type printer struct {
	stdout, stderr io.Writer
	once           sync.Once
	code           int
}

func (p *printer) print(report map[string]any) int {
	p.once.Do(func() { p.code = write(p.stdout, p.stderr, report) })
	return p.code
}

// answers is the way to the process that supervises this one and prints what it says.
type answers struct{ failed bool }

func (a answers) Write(text []byte) (int, error) { return len(text), supervise.Answer(a.failed, text) }

func write(stdout, stderr io.Writer, report map[string]any) int {
	var out bytes.Buffer
	enc := json.NewEncoder(&out) // also replaces what is not UTF-8, a hard error in ansible-core 2.19
	enc.SetEscapeHTML(false)
	if err := enc.Encode(report); err != nil {
		out.Reset()
		_ = enc.Encode(failure(fmt.Errorf("cannot report the result: %w", err)))
		report = map[string]any{"failed": true}
	}
	if _, supervised := stdout.(answers); supervised {
		stdout = answers{failed: report["failed"] == true}
	}
	if _, err := stdout.Write(out.Bytes()); err != nil {
		_, _ = fmt.Fprintf(stderr, "cannot print the result: %v\n", err)
		return 1
	}
	if report["failed"] == true {
		return 1
	}
	return 0
}
