package keeper

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// crashText is what a keeper that is this test binary says.
const crashText = "the keeper of this test crashes"

// crash is such a keeper. It crashes at once, or, if its sandbox is named so,
// once it is ready.
func crash() {
	if h, err := receiveHeader(handoverFD); err == nil && h.Spec.ID == "later" {
		if t, err := newTeller(handoverFD); err == nil {
			t.send(Message{Ready: true})
		}
	}
	panic(crashText)
}

// TestCrash: what a keeper says when it crashes reaches the user, and its
// whole report stays.
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

	spec, values = testSpec(t, "ONE")
	spec.ID, spec.Dirs = "later", Dirs{State: t.TempDir(), Runtime: t.TempDir()}
	s, err := Start(context.Background(), spec, values, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if why := s.End(); !strings.Contains(why, "the keeper crashed: panic: "+crashText) {
		t.Errorf("got %q", why)
	}
}
