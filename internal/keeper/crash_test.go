package keeper

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestCrash: what a keeper says when it crashes during its start reaches the
// user, and its whole report stays. TestMain is the keeper that crashes.
func TestCrash(t *testing.T) {
	spec, values := testSpec(t, "ONE")
	spec.Dirs = Dirs{State: t.TempDir(), Runtime: t.TempDir()}
	_, err := Start(context.Background(), spec, values, nil)
	crash, ok := errors.AsType[*CrashError](err)
	if !ok || !strings.Contains(err.Error(), "panic: "+crashText) {
		t.Fatalf("got %v", err)
	}
	report, err := os.ReadFile(crash.Log)
	if err != nil || !strings.Contains(string(report), "goroutine ") {
		t.Errorf("the report is %q, %v", report, err)
	}
	if strings.Contains(string(report), "value-of-ONE") {
		t.Error("the report holds a value")
	}
}
