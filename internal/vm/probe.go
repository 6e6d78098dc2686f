package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A Verdict says whether KVM works here and how that was found out.
type Verdict struct {
	Usable bool
	Reason string // "no /dev/kvm", "exit 17 KVM_EXIT_INTERNAL_ERROR at stage paddd"
	Took   time.Duration
}

func (v Verdict) String() string {
	word := "unusable"
	if v.Usable {
		word = "usable"
	}
	return fmt.Sprintf("%s: %s (%.1f ms)", word, v.Reason, float64(v.Took.Microseconds())/1000)
}

const probeName = "cutout-kvmprobe"

// Limits of the two tries. On hardware the probe takes a few milliseconds; the
// second allows for a nested or overloaded host.
var probeLimits = []time.Duration{150 * time.Millisecond, time.Second}

// ProbeKVM finds out whether /dev/kvm works, by running a small guest in it.
//
// That the device opens and answers says nothing: there are hosts on which a
// machine can be made but fails on the first SSE instruction, interprets a
// thousand times slower than hardware, or hangs in the kernel. The guest
// therefore uses what a real one does, and runs in a process that can be
// killed. It never takes longer than the limits together, plus a little.
func ProbeKVM(ctx context.Context) Verdict {
	start := time.Now()
	v, final := kvmMissing()
	for _, limit := range probeLimits {
		if final {
			break
		}
		v, final = probeOnce(ctx, limit)
	}
	v.Took = time.Since(start)
	return v
}

// probeOnce runs the probe once. It is final unless the limit cut it short.
func probeOnce(ctx context.Context, limit time.Duration) (v Verdict, final bool) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.Env = []string{}
	r, w, err := os.Pipe()
	if err != nil {
		return Verdict{Reason: "cannot run the probe: " + err.Error()}, true
	}
	defer r.Close()
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return Verdict{Reason: "cannot run the probe: " + err.Error()}, true
	}
	until := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	r.SetReadDeadline(until)
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Now()) })
	defer stop()
	v, final = readProbe(r, limit)
	cmd.Process.Kill()
	// A process that hangs inside the kernel may not even die; it is not
	// waited for here.
	go cmd.Wait()
	return v, final || ctx.Err() != nil
}

// readProbe follows the child's report: a line per stage, and a verdict.
func readProbe(r *os.File, limit time.Duration) (Verdict, bool) {
	last := "start"
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 256), 256)
	for s.Scan() {
		word, rest, _ := strings.Cut(s.Text(), " ")
		switch word {
		case "stage":
			last = rest
		case "yes":
			return Verdict{Usable: true, Reason: rest}, true
		case "no":
			return Verdict{Reason: rest}, true
		}
	}
	if errors.Is(s.Err(), os.ErrDeadlineExceeded) {
		return Verdict{Reason: fmt.Sprintf("no answer within %v after stage %s", limit, last)}, false
	}
	return Verdict{Reason: "the probe died after stage " + last}, true
}

// kvmMissing answers at once where there is nothing to run.
func kvmMissing() (Verdict, bool) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return Verdict{}, false
	case errors.Is(err, os.ErrNotExist):
		return Verdict{Reason: "no /dev/kvm"}, true
	case errors.Is(err, os.ErrPermission):
		return Verdict{Reason: "no permission to open /dev/kvm"}, true
	}
	return Verdict{Reason: err.Error()}, true
}

// ProbeMain takes over the process if it was started as the probe, and does
// not return then.
func ProbeMain() {
	if os.Args[0] != probeName {
		return
	}
	reason, err := runProbe(func(stage string) { fmt.Fprintf(os.Stdout, "stage %s\n", stage) })
	if err != nil {
		fmt.Fprintf(os.Stdout, "no %s\n", bytes.ReplaceAll([]byte(err.Error()), []byte("\n"), []byte(" ")))
		os.Exit(1)
	}
	fmt.Fprintf(os.Stdout, "yes %s\n", reason)
	os.Exit(0)
}
