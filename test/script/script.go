// Package script holds the commands of testscript that several tests share.
package script

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// Status is "status N CMD…": CMD ends with exit status N. What it printed can
// be looked at with stdout and stderr.
func Status(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: status N CMD…")
	}
	if code := run(ts, args[1:]); args[0] != strconv.Itoa(code) {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

// oneError is an error as users see it.
var oneError = regexp.MustCompile(`^cutout: [^\n]+\nhint: [^\n]+\n$`)

// Mistake is "mistake CMD…": CMD is refused with exit status 125, one error
// and one hint, and prints nothing else.
func Mistake(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: mistake CMD…")
	}
	if code := run(ts, args); code != 125 {
		ts.Fatalf("exit status %d, want 125", code)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output has %q", out)
	}
	if said := ts.ReadFile("stderr"); !oneError.MatchString(said) {
		ts.Fatalf("not one error and one hint: %q", said)
	}
}

func run(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	return 0
}
