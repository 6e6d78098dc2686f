package vm

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	ProbeMain()
	os.Exit(m.Run())
}

// The verdict depends on the host; that there is one, in time, does not.
func TestProbeKVMAnswers(t *testing.T) {
	start := time.Now()
	v := ProbeKVM(context.Background())
	t.Log(v)
	if v.Reason == "" || time.Since(start) > 3*time.Second {
		t.Errorf("verdict %q after %v", v.Reason, time.Since(start))
	}
}

// report is a child's report, on a pipe that ends or does not.
func report(t *testing.T, text string, end bool) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	w.WriteString(text)
	if end {
		w.Close()
	}
	return r
}

func TestReadProbe(t *testing.T) {
	const limit = 30 * time.Millisecond
	for _, tt := range []struct {
		name, text string
		end        bool
		want       Verdict
		final      bool
	}{
		{"yes", "stage entry\nyes all stages passed\n", false, Verdict{Usable: true, Reason: "all stages passed"}, true},
		{"no", "no exit 17 at stage paddd\n", false, Verdict{Reason: "exit 17 at stage paddd"}, true},
		{"hangs", "stage entry\nstage CR3 reload\n", false, Verdict{Reason: "no answer within 30ms after stage CR3 reload"}, false},
		{"dies", "stage entry\n", true, Verdict{Reason: "the probe died after stage entry"}, true},
		{"babbles", strings.Repeat("x", 4096), false, Verdict{Reason: "the probe died after stage start"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := report(t, tt.text, tt.end)
			r.SetReadDeadline(time.Now().Add(limit))
			v, final := readProbe(r, limit)
			if v != tt.want || final != tt.final {
				t.Errorf("%+v, final %v", v, final)
			}
		})
	}
}

func TestTSC(t *testing.T) {
	khz := measureTSC()
	if khz == 0 {
		t.Skip("skipped: no time stamp counter is read on this architecture")
	}
	again := measureTSC()
	t.Logf("%d kHz, %d kHz", khz, again)
	if d := khz - again; khz < 100_000 || khz > 10_000_000 || d*d > khz/1000*(khz/1000) {
		t.Errorf("%d and %d kHz", khz, again)
	}
}
