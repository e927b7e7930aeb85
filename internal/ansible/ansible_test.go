package ansible

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"

	"github.com/nfslock/ansible-collection-kolla/internal/shown"
)

var testSpec = Spec{
	"containers": {Type: List},
	"state":      {Default: "present", Choices: []string{"present", "absent"}},
	"engine":     {Type: List, Choices: []string{"docker", "podman"}},
	"hold":       {Type: Bool, Default: true},
	"timeout":    {Type: Int, Default: 900},
	"patch_set":  {Type: Path},
	"token":      {NoLog: true},
	"keys":       {Type: Dict, NoLog: true},
	"_manifest":  {Internal: true},
	"_uploads":   {Type: Dict, Internal: true},
}

type testOptions struct {
	Containers []string          `json:"containers"`
	State      string            `json:"state"`
	Engine     []string          `json:"engine"`
	Hold       bool              `json:"hold"`
	Timeout    int               `json:"timeout"`
	PatchSet   string            `json:"patch_set"`
	Token      string            `json:"token"`
	Keys       map[string]any    `json:"keys"`
	Manifest   string            `json:"_manifest"`
	Uploads    map[string]string `json:"_uploads"`
}

type testResult struct {
	Result
	Rows []any `json:"rows,omitempty"`
}

type testRun = func(context.Context, testOptions, Call) (testResult, error)

func nothing(context.Context, testOptions, Call) (testResult, error) { return testResult{}, nil }

// module runs a module with these arguments and returns its one object.
func module[O, R any](t *testing.T, spec Spec, args string, run func(context.Context, O, Call) (R, error)) map[string]any {
	t.Helper()
	name := filepath.Join(t.TempDir(), "args")
	if err := os.WriteFile(name, []byte(args), 0o600); err != nil {
		t.Fatal(err)
	}
	return moduleArgs(t, spec, []string{"module", name}, run)
}

func moduleArgs[O, R any](t *testing.T, spec Spec, args []string, run func(context.Context, O, Call) (R, error)) map[string]any {
	t.Helper()
	var stdout bytes.Buffer
	code := execute(t.Context(), spec, run, args, &stdout, io.Discard)
	report := oneObject(t, stdout.Bytes())
	if want := map[any]int{true: 1, false: 0}[report["failed"]]; code != want {
		t.Errorf("exit code %d with failed: %v", code, report["failed"])
	}
	return report
}

// oneObject holds for whatever a module prints.
func oneObject(t *testing.T, out []byte) map[string]any {
	t.Helper()
	if !utf8.Valid(out) || bytes.Count(out, []byte("\n")) != 1 || !bytes.HasSuffix(out, []byte("}\n")) {
		t.Fatalf("this is no line of UTF-8: %q", out)
	}
	report, err := decodeObject(out)
	if err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	for _, key := range []string{"changed", "failed"} {
		if _, ok := report[key].(bool); !ok {
			t.Errorf("%s is %v", key, report[key])
		}
	}
	if report["failed"] == true && report["msg"] == "" {
		t.Error("a failure without a message")
	}
	return report
}

func TestOptionsReachTheModule(t *testing.T) {
	const args = `{"containers": "a,b", "hold": "no", "timeout": "30", "token": null, "state": null,
		"_uploads": {"00": "/tmp/x"}, "_manifest": "schema: 1",
		"_ansible_check_mode": true, "_ansible_diff": true, "_ansible_verbosity": 3, "_ansible_new": {"x": []}}`
	var got testOptions
	var gotCall Call
	report := module(t, testSpec, args, func(_ context.Context, o testOptions, call Call) (testResult, error) {
		got, gotCall = o, call
		return testResult{Result: Result{Changed: true, Msg: "done", Diff: []Diff{{Before: "a", After: "b"}}}}, nil
	})
	want := testOptions{
		Containers: []string{"a", "b"}, State: "present", Timeout: 30,
		Uploads: map[string]string{"00": "/tmp/x"}, Manifest: "schema: 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Call{CheckMode: true, Diff: true, Verbosity: 3}, gotCall); diff != "" {
		t.Errorf("call (-want +got):\n%s", diff)
	}
	wantReport := map[string]any{
		"changed": true, "failed": false, "msg": "done",
		"diff": []any{map[string]any{"before": "a", "after": "b"}},
		"invocation": map[string]any{"module_args": map[string]any{
			"containers": []any{"a", "b"}, "state": "present", "engine": nil, "hold": false, "timeout": json.Number("30"),
			"patch_set": nil, "token": nil, "keys": nil,
		}},
	}
	if diff := cmp.Diff(wantReport, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	spec := Spec{"src": {Required: true}, "mode": {Choices: []string{"auto", "host"}}, "n": {Type: Int}, "l": {Type: List, Elements: Int, Choices: []string{"x"}}}
	for _, test := range []struct{ name, args, want string }{
		{"empty", ``, `cannot read the options in ARGS: the file is empty`},
		{"blank", " \n", `cannot read the options in ARGS: the file is empty`},
		{"cut off", `{"n": 1`, `cannot read the options in ARGS: this is not JSON: it ends too early`},
		{"cut off in a value", `{"n": `, `cannot read the options in ARGS: this is not JSON: it ends too early`},
		{"no JSON", `x=1`, `cannot read the options in ARGS: this is not JSON: invalid character 'x' looking for beginning of value`},
		{"not a number", `{"n": NaN}`, `cannot read the options in ARGS: this is not JSON: invalid character 'N' looking for beginning of value`},
		{"a list", `[]`, `cannot read the options in ARGS: this is not a JSON object`},
		{"a text", `"x"`, `cannot read the options in ARGS: this is not a JSON object`},
		{"twice", `{"n": 1, "n": 2}`, `cannot read the options in ARGS: "n" is given twice`},
		{"two objects", `{} {}`, `cannot read the options in ARGS: something follows the JSON object`},
		{"rubbish behind", `{} x`, `cannot read the options in ARGS: something follows the JSON object`},
		{"missing", `{}`, `option "src" is required`},
		{"null is missing", `{"src": null}`, `option "src" is required`},
		{"unknown", `{"src": "x", "colour": 1}`, `unknown option "colour": the options are l, mode, n, src`},
		{"near miss", `{"src": "x", "Mdoe": 1}`, `unknown option "Mdoe": did you mean "mode"?`},
		{"internal keys too", `{"src": "x", "_mode": 1}`, `unknown option "_mode": did you mean "mode"?`},
		{"choice", `{"src": "x", "mode": "hots"}`, `option "mode" is "hots", it must be one of auto, host`},
		{"type", `{"src": {}}`, `option "src" is a dictionary, it must be text`},
		{"long value", `{"src": "x", "n": "` + strings.Repeat("é", 100) + `"}`, `option "n" is "` + strings.Repeat("é", 80) + `"…, it must be a whole number`},
		{"element", `{"src": "x", "l": [1, null, "y"]}`, "2 errors:\n- element 2 of option \"l\" is null, it must be a whole number\n- element 3 of option \"l\" is \"y\", it must be a whole number"},
		{"check mode", `{"src": "x", "_ansible_check_mode": "perhaps"}`, `option "_ansible_check_mode" is "perhaps", it must be a boolean, such as true, false, yes or no`},
		{"all at once", `{"mdoe": 1, "n": 1.5, "zzzzzz": 1}`, "4 errors:\n- unknown option \"mdoe\": did you mean \"mode\"?\n- unknown option \"zzzzzz\": the options are l, mode, n, src\n- option \"n\" is 1.5, it must be a whole number\n- option \"src\" is required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := filepath.Join(t.TempDir(), "ARGS")
			if err := os.WriteFile(args, []byte(test.args), 0o600); err != nil {
				t.Fatal(err)
			}
			report := moduleArgs(t, spec, []string{"module", args}, func(context.Context, map[string]any, Call) (testResult, error) {
				t.Error("the module ran")
				return testResult{}, nil
			})
			msg, _ := report["msg"].(string)
			if diff := cmp.Diff(test.want, strings.Replace(msg, args, "ARGS", 1)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestChoicesHoldForEveryElement(t *testing.T) {
	report := module(t, testSpec, `{"engine": ["docker", "lxc"]}`, nothing)
	if want := `option "engine" is "lxc", it must be one of docker, podman`; report["msg"] != want {
		t.Errorf("got %v, want %s", report["msg"], want)
	}
}

// TestAnEmptyListThatWouldMeanAllIsRefused: it is what a template gives that found nothing.
func TestAnEmptyListThatWouldMeanAllIsRefused(t *testing.T) {
	spec := Spec{"containers": {Type: List, NotEmpty: true}}
	for args, want := range map[string]string{
		`{"containers": []}`:         `option "containers" is an empty list: name at least one, or leave the option out, which means all`,
		`{"containers": ""}`:         `element 1 of option "containers" is empty`,
		`{"containers": ["a", " "]}`: `element 2 of option "containers" is empty`,
		`{"containers": "a,,b"}`:     `element 2 of option "containers" is empty`,
	} {
		ran := false
		report := module(t, spec, args, func(context.Context, map[string]any, Call) (testResult, error) {
			ran = true
			return testResult{}, nil
		})
		if report["msg"] != want || ran {
			t.Errorf("%s: got %v, want %s; the module ran: %v", args, report["msg"], want, ran)
		}
	}
	for _, args := range []string{`{}`, `{"containers": null}`, `{"containers": "a,b"}`} {
		if report := module(t, spec, args, func(context.Context, map[string]any, Call) (testResult, error) { return testResult{}, nil }); report["failed"] != false {
			t.Errorf("%s: %v", args, report["msg"])
		}
	}
}

func TestAnUnreadableArgumentFileIsAFailure(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "cannot read the options: the program needs one argument, the file that holds them, and has 0"},
		{[]string{"module"}, "cannot read the options: the program needs one argument, the file that holds them, and has 0"},
		{[]string{"module", "a", "b"}, "cannot read the options: the program needs one argument, the file that holds them, and has 2"},
		{[]string{"module", missing}, "cannot read the options: open " + missing + ": no such file or directory"},
	} {
		if got := moduleArgs(t, testSpec, test.args, nothing)["msg"]; got != test.want {
			t.Errorf("%v: got %v", test.args, got)
		}
	}
}

func TestAHugeArgumentFileIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "args")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	if got, want := moduleArgs(t, testSpec, []string{"module", name}, nothing)["msg"], "cannot read the options in "+name+": more than 16 MiB"; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestAnErrorKeepsWhatTheModuleReported(t *testing.T) {
	two := multierror.Append(errors.New("first\nsecond line"), errors.New("last"))
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"one", errors.New("cannot"), "cannot"},
		{"one in a multierror", multierror.Append(nil, errors.New("cannot")), "cannot"},
		{"two", two, "2 errors:\n- first\n  second line\n- last"},
		{"wrapped", fmt.Errorf("cannot fix a: %w", two), "cannot fix a: 2 errors:\n- first\n  second line\n- last"},
		{"nested", multierror.Append(nil, fmt.Errorf("a: %w", two), errors.New("b")), "2 errors:\n- a: 2 errors:\n  - first\n    second line\n  - last\n- b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := module(t, testSpec, `{}`, func(context.Context, testOptions, Call) (testResult, error) {
				return testResult{Result: Result{Changed: true, Msg: "half done"}, Rows: []any{"row"}}, test.err
			})
			delete(report, "invocation")
			want := map[string]any{"changed": true, "failed": true, "msg": test.want, "rows": []any{"row"}}
			if diff := cmp.Diff(want, report); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestACancelledRunNamesTheSignal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "args")
	if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("terminated signal received"))
	var stdout bytes.Buffer
	execute(ctx, testSpec, func(ctx context.Context, _ testOptions, _ Call) (testResult, error) {
		return testResult{}, fmt.Errorf("cannot wait: %w", ctx.Err())
	}, []string{"module", name}, &stdout, io.Discard)
	if got, want := oneObject(t, stdout.Bytes())["msg"], "cannot wait: context canceled (terminated signal received)"; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestTheWatchdogLetsGoOfARunThatIsOver: it would end this very process.
func TestTheWatchdogLetsGoOfARunThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dog := &watchdog{allowed: map[*int]time.Time{}, finish: func(map[string]any) {}, end: func(report map[string]any) { t.Errorf("it bites: %v", report) }}
		stopped, cancel := context.WithCancelCause(t.Context())
		ctx, free := dog.guard(stopped)
		timed, done := WithTimeout(ctx, time.Second, errors.New("the time is up"))
		time.Sleep(2 * time.Second)
		if context.Cause(timed) == nil {
			t.Error("no time was set")
		}
		cancel(errors.New("told to stop"))
		time.Sleep(grace - 2*time.Second)
		done()
		free()
		time.Sleep(time.Hour)
	})
}

func TestTheWatchdogWaitsForWhatIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, bites := time.Now(), make(chan map[string]any)
		dog := &watchdog{allowed: map[*int]time.Time{}, finish: func(map[string]any) {}, end: func(report map[string]any) { bites <- report }}
		ctx, free := dog.guard(t.Context())
		defer free()
		timed, done := WithTimeout(ctx, time.Minute, errors.New("the time is up"))
		defer done()
		taken := Allow(context.WithoutCancel(timed), 10*time.Minute) // as the way back, which began in time
		Known(timed, Result{Changed: true})
		time.Sleep(5 * time.Minute)
		taken()
		said := <-bites
		if bitten := time.Since(began); bitten < 5*time.Minute+grace || bitten > 10*time.Minute+time.Second || said["changed"] != true || said["failed"] != true {
			t.Errorf("after %v: %v", bitten, said)
		}
	})
}

func TestAFailureNeedsNoError(t *testing.T) {
	type result struct {
		Result
		Missing []string `json:"_missing"`
	}
	report := module(t, testSpec, `{}`, func(context.Context, testOptions, Call) (result, error) {
		return result{Result{Failed: true, Msg: "files are missing"}, []string{"00"}}, nil
	})
	if report["failed"] != true || report["msg"] != "files are missing" || !cmp.Equal(report["_missing"], []any{"00"}) {
		t.Errorf("got %v", report)
	}
}

func TestAPanicIsAFailureWithItsStack(t *testing.T) {
	for _, test := range []struct {
		name, want string
		run        testRun
	}{
		{"of the runtime", "runtime error: index out of range [0] with length 0", func(_ context.Context, o testOptions, _ Call) (testResult, error) {
			return testResult{Rows: []any{o.Containers[0]}}, nil
		}},
		{"of the module", "boom", func(context.Context, testOptions, Call) (testResult, error) { panic("boom") }},
		{"while reporting", "bang", func(context.Context, testOptions, Call) (testResult, error) {
			return testResult{Rows: []any{explosive{}}}, nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := module(t, testSpec, `{}`, test.run)
			if want := "internal error, please report it: " + test.want; report["msg"] != want {
				t.Errorf("got %v, want %s", report["msg"], want)
			}
			if exception, _ := report["exception"].(string); !strings.Contains(exception, "ansible_test.go") {
				t.Errorf("exception %q", exception)
			}
			if report["invocation"] == nil {
				t.Error("no invocation")
			}
		})
	}
}

type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("bang") }

func TestAnImpossibleDefaultIsAFailure(t *testing.T) {
	report := module(t, Spec{"x": {Default: math.Inf(1)}}, `{}`, nothing)
	if msg, _ := report["msg"].(string); !strings.Contains(msg, "default +Inf of an option") {
		t.Errorf("got %v", report)
	}
}

func TestAnOptionWithoutAFieldIsFoundAtOnce(t *testing.T) {
	report := module(t, Spec{"x": {}}, `{}`, nothing)
	if want := `cannot pass the options on: json: unknown field "x"`; report["msg"] != want {
		t.Errorf("got %v, want %s", report["msg"], want)
	}
}

func TestAValueThatFitsNoFieldNamesTheOption(t *testing.T) {
	report := module(t, testSpec, `{"_uploads": {"00": 1}}`, nothing)
	if want := `cannot use option "_uploads": a number does not fit there`; report["msg"] != want {
		t.Errorf("got %v, want %s", report["msg"], want)
	}
}

func TestOnlyObjectsWithRealBooleansAreReported(t *testing.T) {
	for _, test := range []struct {
		name   string
		result any
		want   map[string]any
	}{
		{"nothing", nil, map[string]any{"changed": false, "failed": false}},
		{"no flags", map[string]any{"n": int64(1 << 62)}, map[string]any{"changed": false, "failed": false, "n": json.Number("4611686018427387904")}},
		{"an exception without a failure", map[string]any{"exception": "x"}, map[string]any{"changed": false, "failed": false}},
		{"failed is a word", map[string]any{"failed": "no"}, map[string]any{"changed": false, "failed": true, "msg": `cannot report the result: "failed" is no boolean`}},
		{"changed is a number", map[string]any{"changed": 1}, map[string]any{"changed": false, "failed": true, "msg": `cannot report the result: "changed" is no boolean`}},
		{"a list", []int{}, map[string]any{"changed": false, "failed": true, "msg": "cannot report the result: json: cannot unmarshal array into Go value of type map[string]interface {}"}},
		{"no JSON", math.NaN(), map[string]any{"changed": false, "failed": true, "msg": "cannot report the result: json: unsupported value: NaN"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := module(t, testSpec, `{}`, func(context.Context, testOptions, Call) (any, error) { return test.result, nil })
			delete(report, "invocation")
			if diff := cmp.Diff(test.want, report); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestBothErrorsAreToldWhenTheResultCannotBe(t *testing.T) {
	report := module(t, testSpec, `{}`, func(context.Context, testOptions, Call) (any, error) { return math.NaN(), errors.New("cannot fix it") })
	if want := "2 errors:\n- cannot fix it\n- cannot report the result: json: unsupported value: NaN"; report["msg"] != want {
		t.Errorf("got %v", report["msg"])
	}
}

func TestEverythingPrintedIsUTF8(t *testing.T) {
	bad := "a\xff\xc3b"
	report := module(t, testSpec, `{"patch_set": "`+bad+`\ud800"}`, func(context.Context, testOptions, Call) (testResult, error) {
		return testResult{
			Result: Result{Msg: bad, Diff: []Diff{{Before: bad}}, Warnings: []string{bad}},
			Rows:   []any{map[string]any{bad: []string{bad}}, json.RawMessage(`"` + bad + `"`)},
		}, errors.New(bad)
	})
	const good = "a\ufffd\ufffdb"
	args := report["invocation"].(map[string]any)["module_args"].(map[string]any)
	for _, got := range []any{report["msg"], report["warnings"].([]any)[0], report["rows"].([]any)[0].(map[string]any)[good].([]any)[0], report["rows"].([]any)[1]} {
		if got != good {
			t.Errorf("got %q, want %q", got, good)
		}
	}
	if got := args["patch_set"]; got != good+"\ufffd" {
		t.Errorf("got %q", got)
	}
}

func TestSecretsAreHiddenEverywhere(t *testing.T) {
	const args = `{"token": "s3c\"ret", "keys": {"a": "longer s3c\"ret", "n": 4711, "l": ["deep"], "b": true}, "containers": ["x deep y"]}`
	report := module(t, testSpec, args, func(_ context.Context, o testOptions, _ Call) (testResult, error) {
		return testResult{
			Result: Result{Changed: true, Diff: []Diff{{Before: "with " + o.Token + "."}}},
			Rows:   []any{o.Token, 4711, 47110, 12, "a longer s3c\"ret", map[string]any{"deep": "deeper"}, true},
		}, fmt.Errorf("cannot use %q", o.Token)
	})
	want := map[string]any{
		"changed": true, "failed": true, "msg": `cannot use "********"`,
		"diff": []any{map[string]any{"before": "with ********.", "after": ""}},
		"rows": []any{hiddenValue, hiddenValue, hiddenValue, json.Number("12"), "a ********", map[string]any{"deep": "********er"}, true},
		"invocation": map[string]any{"module_args": map[string]any{
			"containers": []any{"x ******** y"}, "state": "present", "engine": nil, "hold": true, "timeout": json.Number("900"),
			"patch_set": nil, "token": hiddenValue, "keys": hiddenValue,
		}},
	}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSecretsAreHiddenInFailures(t *testing.T) {
	for name, args := range map[string]string{
		"panic":       `{"token": "hunter2", "_ansible_x": 1}`,
		"wrong value": `{"token": "hunter2", "state": "hunter2"}`,
		"wrong type":  `{"token": ["hunter2"]}`,
		"unknown":     `{"token": "x", "tokne": "hunter2"}`,
	} {
		t.Run(name, func(t *testing.T) {
			report := module(t, testSpec, args, func(_ context.Context, o testOptions, _ Call) (testResult, error) { panic(o.Token) })
			data, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			if report["failed"] != true || strings.Contains(string(data), "hunter2") {
				t.Errorf("got %s", data)
			}
		})
	}
}

// What the action plugin sends may have a megabyte; Ansible would log it with every task.
// An option that is no secret holds one all the same, in whatever shape it was given.
func TestASecretInAnOpenOptionIsHidden(t *testing.T) {
	spec := maps.Clone(testSpec)
	spec["patch_set"] = Option{Secret: func(text string) bool { return strings.Contains(text, ":hunter2@") }}
	for _, args := range []string{
		`{"patch_set": "sftp://p:hunter2@h/a"}`, `{"patch_set": ["sftp://p:hunter2@h/a"]}`, `{"patch_set": {"a": "sftp://p:hunter2@h/a"}}`,
	} {
		report := module(t, spec, args, func(_ context.Context, o testOptions, _ Call) (testResult, error) {
			return testResult{Rows: []any{o.PatchSet}}, fmt.Errorf("cannot read %s", o.PatchSet)
		})
		if text := fmt.Sprint(report); strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", args, text)
		}
	}
	report := module(t, spec, `{"patch_set": "sftp://p@h/a"}`, nothing)
	if shown := report["invocation"].(map[string]any)["module_args"].(map[string]any)["patch_set"]; shown != "sftp://p@h/a" {
		t.Errorf("one without a secret is shown as %v", shown)
	}
}

func TestASecretIsHiddenInEverySpelling(t *testing.T) {
	for secret, spelt := range map[string][]string{
		"hun ter2/":                              {"hun%20ter2%2F", "hun%20ter2%2f", "hun+ter2%2F", "hun ter2/"},
		"a\x1bb\tc":                              {`a\x1bb\tc`, "a\x1bb\tc"},
		"first line of it\nsecond line of it\nx": {"second line of it", "first line of it"},
		"sftp://u%3ahunter%32@h/a":               {"u:hunter2@h", "hunter2", "hunter%32", "sftp://u:hunter2@h/a"},
		"sftp://u:hunter2@h/a":                   {"hunter2", `parse "sftp://u:hunter2@h/a"`},
	} {
		args, err := json.Marshal(map[string]any{"token": secret})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range spelt {
			report := module(t, testSpec, string(args), func(context.Context, testOptions, Call) (testResult, error) {
				return testResult{Result: Result{Warnings: []string{"x " + s + " y"}}}, nil
			})
			if got := fmt.Sprint(report["warnings"]); strings.Contains(got, "hun") || strings.Contains(got, "line of") || strings.Contains(got, "x1b") || strings.Contains(got, "u001b") {
				t.Errorf("%q spelt %q: %s", secret, s, got)
			}
		}
	}
}

// TestAKeyInThePlaceOfItsFileIsRefusedAndNotShown, in whatever form it comes.
func TestAKeyInThePlaceOfItsFileIsRefusedAndNotShown(t *testing.T) {
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\nQyNTUxOQAAACDsecretsecret\n-----END OPENSSH PRIVATE KEY-----\n"
	spec := Spec{"key_file": {Type: Path}, "name": {}}
	for name, given := range map[string]any{
		"as it is": key, "in one line": strings.ReplaceAll(key, "\n", " "), "without its marks": "b3BlbnNzaC1rZXktdjEAAAAABsecretsecret", "in base64": "LS0tLS1CRUdJTiBPsecretsecret",
		"PuTTY's": "PuTTY-User-Key-File-3: ssh-ed25519 secretsecret", "a list": []string{key}, "several lines": "/a\nsecretsecret", "endless": strings.Repeat("secret", 1000),
	} {
		args, err := json.Marshal(map[string]any{"key_file": given})
		if err != nil {
			t.Fatal(err)
		}
		report := module(t, spec, string(args), func(context.Context, map[string]any, Call) (testResult, error) {
			t.Errorf("%s: the module ran", name)
			return testResult{}, nil
		})
		text := fmt.Sprint(report)
		if report["failed"] != true || strings.Contains(text, "secretsecret") || strings.Contains(text, "BEGIN") || !strings.Contains(text, `option "key_file" is `) {
			t.Errorf("%s: %s", name, text)
		}
	}
	// In any other option it is not shown either.
	report := module(t, spec, `{"name": "-----BEGIN RSA PRIVATE KEY-----\nsecretsecret"}`, func(_ context.Context, o map[string]any, _ Call) (testResult, error) {
		return testResult{}, fmt.Errorf("cannot use %v", o["name"])
	})
	if text := fmt.Sprint(report); strings.Contains(text, "secretsecret") {
		t.Errorf("%s", text)
	}
}

// TestWhatComesFromContainersCannotSpeakToTheTerminal: Ansible prints warnings, messages and differences as they are.
func TestWhatComesFromContainersCannotSpeakToTheTerminal(t *testing.T) {
	const name = "a\x1b]0;owned\a\u202eb\rok: [forged]\u009b2J"
	report := module(t, testSpec, `{"patch_set": "/a\u001b[2J"}`, func(context.Context, testOptions, Call) (testResult, error) {
		return testResult{
			Result: Result{Diff: []Diff{{Before: "line\n" + name}}, Warnings: []string{name + "\nok: [forged]"}},
			Rows:   []any{name, map[string]any{name: name}},
		}, fmt.Errorf("2 errors:\n\t- %s", name)
	})
	text := fmt.Sprint(report)
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && shown.Hidden(r) }); i >= 0 {
		t.Errorf("%q", text[i:])
	}
	if want := `2 errors:` + "\n\t" + `- a\u001b]0;owned\u0007\u202eb\rok: [forged]\u009b2J`; report["msg"] != want {
		t.Errorf("got %q, want %q", report["msg"], want)
	}
	if got := fmt.Sprint(report["warnings"]); strings.Contains(got, "\n") || !strings.Contains(got, "; ok: [forged]") {
		t.Errorf("%q", got)
	}
}

func TestInternalOptionsAreNeverShown(t *testing.T) {
	long := strings.Repeat("manifest", 1<<17)
	for name, args := range map[string]string{
		"success":       `{"_manifest": "` + long + `", "_uploads": {"` + long + `": "` + long + `"}}`,
		"failure":       `{"_manifest": "` + long + `", "state": "absent"}`,
		"wrong value":   `{"_manifest": "` + long + `", "state": "x"}`,
		"wrong type":    `{"_uploads": "` + long + `"}`,
		"wrong element": `{"_uploads": {"a": ["` + long + `"]}}`,
		"wrong nesting": `{"_manifest": {"a": "` + long + `"}}`,
		"panic":         `{"_manifest": "` + long + `", "timeout": 1}`,
	} {
		t.Run(name, func(t *testing.T) {
			report := module(t, testSpec, args, func(_ context.Context, o testOptions, _ Call) (testResult, error) {
				if o.Timeout == 1 {
					panic("a bug")
				}
				if o.State == "absent" {
					return testResult{}, errors.New("cannot do it")
				}
				return testResult{}, nil
			})
			delete(report, "exception") // a stack, of any length
			data, err := json.Marshal(report)
			if err != nil || len(data) > 2000 || strings.Contains(string(data), `"_manifest":`) || strings.Contains(string(data), `"_uploads":`) {
				t.Errorf("%d bytes: %.300s, %v", len(data), data, err)
			}
		})
	}
}

func TestASecretDoesNotSpoilItsOwnPlaceholder(t *testing.T) {
	report := module(t, testSpec, `{"token": "LOG"}`, nothing)
	if got := report["invocation"].(map[string]any)["module_args"].(map[string]any)["token"]; got != hiddenValue {
		t.Errorf("got %v", got)
	}
}

func TestAResultThatCannotBePrintedIsAFailure(t *testing.T) {
	name := filepath.Join(t.TempDir(), "args")
	if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	if code := execute(t.Context(), testSpec, nothing, []string{"module", name}, w, &stderr); code != 1 || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
}

func TestNearMisses(t *testing.T) {
	spec := Spec{"patch_set": {}, "containers": {}, "on_error": {}, "hold": {}, "_manifest": {Internal: true}}
	for key, want := range map[string]string{
		"patchset": "patch_set", "PATCH-SET": "patch_set", "container": "containers", "contaners": "containers",
		"onerror": "on_error", "holt": "hold", "hell": "", "cold": "hold", "manifest": "", "x": "", "": "", strings.Repeat("hold", 1000): "",
	} {
		got := spec.unknown(key).Error()
		if hint := fmt.Sprintf("did you mean %q?", want); want != "" && !strings.HasSuffix(got, hint) || want == "" && strings.Contains(got, "did you mean") {
			t.Errorf("%.20q: got %s, want %q", key, got, want)
		}
	}
}

// Whatever the file holds, the answer is one object, and an object of arguments comes back coerced or is refused.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `{"containers": "a,b"}`, `{"keys": "a=b, c='d e'", "token": "a"}`, `{"timeout": "3e2", "hold": "yes"}`,
		`{"token": "failed", "_uploads": {"a": 1}}`, `{"keys": "{\"a\": [1e400]}"}`, `{"patch_set": "~root/${HOME}$"}`,
		"{\"token\": \"\xff\", \"state\": \"\\ud800\"}", `{"engine": [null, [[]], {}]}`, `{"timeout": 1e999999999}`, `{"a": 1} x`,
	} {
		f.Add([]byte(seed))
	}
	name := filepath.Join(f.TempDir(), "args")
	f.Fuzz(func(t *testing.T, args []byte) {
		if err := os.WriteFile(name, args, 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout bytes.Buffer
		code := execute(t.Context(), testSpec, func(_ context.Context, o testOptions, _ Call) (testResult, error) {
			return testResult{Rows: []any{o}}, nil
		}, []string{"module", name}, &stdout, io.Discard)
		report := oneObject(t, stdout.Bytes())
		if _, panicked := report["exception"]; panicked || (code == 1) != (report["failed"] == true) {
			t.Errorf("exit code %d: %s", code, &stdout)
		}
	})
}
