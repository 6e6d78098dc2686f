package keeper

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/source"
)

// crashText is what a keeper that is this test binary says.
const crashText = "the keeper of this test crashes"

// crash is such a keeper. It crashes at once, or, if its sandbox is named so,
// once it is ready.
func crash() {
	var spec Spec
	if err := receiveJSON(handoverFD, maxSpec, &spec); err == nil && spec.ID == "later" {
		if t, err := newTeller(handoverFD); err == nil {
			t.send(Message{Ready: true})
		}
	}
	panic(crashText)
}

// TestCrash: what a keeper says when it crashes reaches the user, and its
// whole report stays.
func TestCrash(t *testing.T) {
	spec, _ := testSpec(t, "ONE")
	values := waiting(t, "value-of-ONE")
	spec.Dirs = Dirs{State: t.TempDir(), Runtime: t.TempDir()}
	_, err := Start(context.Background(), spec, Files{Values: values}, nil)
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

	spec, _ = testSpec(t, "ONE")
	spec.ID, spec.Dirs = "later", Dirs{State: t.TempDir(), Runtime: t.TempDir()}
	s, err := Start(context.Background(), spec, Files{Values: values}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if why := s.End(); !strings.Contains(why, "the keeper crashed: panic: "+crashText) {
		t.Errorf("got %q", why)
	}
}

// waiting is a socket from which a keeper can read value.
func waiting(t *testing.T, value string) *os.File {
	t.Helper()
	conn, theirs, err := socketPair("values")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); theirs.Close() })
	b, err := source.Hold([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := source.WriteValues(conn, []source.Named{{Name: "ONE", Value: source.Value{Data: b}}}); err != nil {
		t.Fatal(err)
	}
	return theirs
}
