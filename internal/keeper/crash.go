package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// LogName is the file in a sandbox's state directory with what its keeper
// wrote when it crashed.
const LogName = "keeper.log"

// errCrashed is a keeper's end without a word on the hand-over socket.
var errCrashed = errors.New("the keeper ended before the sandbox had started")

// A CrashError is a keeper that ended while it started and did not say why.
type CrashError struct {
	Log   string // the file with the report
	Words string // its first line, "" if there is none
}

func (e *CrashError) Error() string {
	if e.Words == "" {
		return errCrashed.Error()
	}
	return fmt.Sprintf("%v: %s", errCrashed, e.Words)
}

// maxWords bounds what is shown of a crash report.
const maxWords = 300

// lastWords returns the line of a crash report that says what happened.
func lastWords(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	first := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if first == "" {
			first = line
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			first = line
			break
		}
	}
	return first[:min(len(first), maxWords)]
}
