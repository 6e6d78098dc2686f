// Package attack is the corpus of ATTACKS.md: probes sent as raw bytes from a
// guest's network stack through the real boundary to servers that record what
// reached them and echo it.
//
// With -way the boundary is not in the test's process: it is that of a real
// cutout boundary, on a machine of its own, reached by --unix, --tap or, as
// connect and socks, by --listen. Every probe is sent in every way, except
//
//   - one that makes or reads frames, or that wants an address told to the
//     guest, to clients of a proxy, who have neither: boundary.guest and
//     Boundary.Pin say so;
//   - one that reaches into the boundary's process, or is about loading alone:
//     it asks for that with Boundary.InProcess, which says why.
//
// Those are counted and told by their reasons. How much memory a probe may
// take is measured in the test's process alone.
//
// Every probe is judged at both ends: what the guest read and what the
// servers got. Whatever a probe expects, the guest never reads the value in
// any form, and only a probe that says so brings it upstream.
package attack

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A probe is one variant of an entry.
type probe struct {
	entry, name string
	only        string          // h1 or h2; "" = both
	change      func(*boundary) // to the boundary, before it starts
	run         func(*boundary) outcome
	want        want
	check       func(*boundary) error // what else must hold
	// budget is how much memory may be in use at any time of the probe over
	// what its world needs at rest, guest and servers included. Such a probe
	// runs alone.
	budget uint64
}

// A want is what must come of a probe.
type want struct {
	status  []int         // that the guest may get; 0 = no answer
	reason  policy.Reason // told, or on record where there is no answer
	value   bool          // the upstream gets the value
	carried bool          // the upstream gets the placeholder
	scrubs  bool          // the value is taken out of an answer
}

// A result is the line of one probe in one protocol.
type result struct {
	line, verdict string
	failed        bool
	inapplicable  string // why
}

var (
	mu      sync.Mutex
	results = map[int]result{} // by their place in the corpus
)

var (
	way     = flag.String("way", "", "how to reach the boundary of a real program: unix, tap, connect or socks")
	program = flag.String("cutout", "", "the program; empty: it is built")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := 1
	if dir, err := os.MkdirTemp("", "attack"); err == nil {
		if err = build(dir); err == nil {
			code = m.Run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.RemoveAll(dir)
	}
	tell()
	os.Exit(code)
}

// build makes the program, if one is needed and none was named.
func build(dir string) error {
	if *way == "" || *program != "" {
		return nil
	}
	*program = filepath.Join(dir, "cutout")
	cmd := exec.Command("go", "build", "-trimpath", "-o", *program, "../../cmd/cutout")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	return nil
}

// tell prints a line for each probe, and the sums.
func tell() {
	failed := 0
	why := map[string]int{}
	for _, i := range slices.Sorted(maps.Keys(results)) {
		r := results[i]
		fmt.Println(r.line, r.verdict)
		switch {
		case r.inapplicable != "":
			why[r.inapplicable]++
		case r.failed:
			failed++
		}
	}
	left := 0
	for _, n := range why {
		left += n
	}
	fmt.Printf("%d passed, %d failed", len(results)-failed-left, failed)
	if left > 0 {
		fmt.Printf(", %d do not apply", left)
	}
	fmt.Println()
	for _, text := range slices.Sorted(maps.Keys(why)) {
		fmt.Printf("%4d do not apply: %s\n", why[text], text)
	}
}

func TestCorpus(t *testing.T) {
	if *way != "" && os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	for i, p := range slices.Concat(sectionA, sectionHello, sectionName, sectionNetwork, sectionB, sectionC, sectionAnswer, sectionD, sectionPlace, sectionSplit, sectionSize, sectionOwn, sectionMessage, sectionRequest, sectionFlood, webSockets(), sectionPackets, sectionScope, sectionBody, sectionChange) {
		for j, protocol := range []string{"h1", "h2"} {
			if p.only != "" && p.only != protocol {
				continue
			}
			t.Run(p.entry+"/"+p.name+"/"+protocol, func(t *testing.T) {
				if p.budget == 0 {
					t.Parallel()
				}
				p.try(t, protocol, 2*i+j)
			})
		}
	}
}

// try sends the probe to a boundary of its own. Its result is that of place.
func (p probe) try(t *testing.T, protocol string, place int) {
	var o outcome
	r := result{verdict: "passed"}
	t.Cleanup(func() { // when the boundary has ended too
		if r.failed = t.Failed(); r.failed {
			r.verdict = "FAILED"
		}
		r.line = fmt.Sprintf("%-4s %-48s %s  %3d %-20s", p.entry, p.name, protocol, o.status, o.reason())
		mu.Lock()
		defer mu.Unlock()
		results[place] = r
	})
	defer func() {
		switch x := recover().(type) {
		case nil:
		case inapplicable:
			r.inapplicable, r.verdict = string(x), "does not apply: "+string(x)
		default:
			panic(x)
		}
	}()
	b := start(t, protocol, p.change)
	measured := p.budget > 0 && b.Way == ""
	used := func() uint64 { return 0 }
	if measured {
		b.guest().Buffers(16 << 10)
		used = watch()
	}
	o = p.run(b)
	b.judge(p, o)
	if n := used(); measured {
		r.verdict = fmt.Sprintf("passed, %d of %d MiB", n>>20, p.budget>>20)
		if n > p.budget {
			t.Errorf("%d MiB of memory were in use, more than %d", n>>20, p.budget>>20)
		}
	}
}

// judge compares what happened with what must.
func (b *boundary) judge(p probe, o outcome) {
	b.T.Helper()
	if !slices.Contains(p.want.status, o.status) {
		b.T.Errorf("the guest got %d %.500q %v, want %v", o.status, o.text, o.err, p.want.status)
	}
	if r := p.want.reason; r != policy.None {
		if o.status != 0 && o.reason() != r {
			b.T.Errorf("the guest was told %q, want %q: %s", o.reason(), r, o.text)
		}
		if !b.Recorded(r) {
			b.T.Errorf("no event says %s", r)
		}
	}
	got := b.Received()
	for i := 0; p.want.value && !strings.Contains(got, V) && i < 100; i++ {
		time.Sleep(10 * time.Millisecond) // a server records a request when it has ended
		got = b.Received()
	}
	if strings.Contains(got, V) != p.want.value {
		b.T.Errorf("value upstream: %v, want %v: %.500s", !p.want.value, p.want.value, got)
	}
	if p.want.carried && !strings.Contains(got, P) {
		b.T.Errorf("the placeholder did not go on: %.500s", got)
	}
	if p.want.reason != policy.None && !p.want.carried && strings.Contains(got, P) {
		b.T.Errorf("the placeholder went on: %.500s", got)
	}
	if p.want.value && !b.recorded(audit.Substituted) {
		b.T.Error("no event says that the value went out")
	}
	if p.want.scrubs && !b.recorded(audit.Scrubbed) {
		b.T.Error("no event says that the value was taken out of an answer")
	}
	b.mu.Lock()
	read := b.read.String()
	b.mu.Unlock()
	unwrapped := strings.NewReplacer("\r\n", "", "\n", "").Replace(read)
	for _, form := range forms() {
		if strings.Contains(read, form) || strings.Contains(unwrapped, form) {
			b.T.Errorf("the guest reads the value as %s: %.500s", form, read)
		}
	}
	for _, e := range b.Events.All() { // C11: our own mouth
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, V) {
			b.T.Errorf("an event tells the value: %s", text)
		}
	}
	if p.check != nil {
		if err := p.check(b); err != nil {
			b.T.Error(err)
		}
	}
	if b.T.Failed() {
		for i, e := range b.Events.All() {
			if i < 20 {
				b.T.Logf("event %+v", e)
			}
		}
	}
}

// recorded reports whether an event of a kind is, or soon will be, on record.
func (b *boundary) recorded(kind string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, ok := b.Events.Find(ctx, func(e audit.Event) bool { return e.Event == kind })
	return ok
}

// The usual wants.
var (
	substituted = want{status: []int{200}, value: true}
	scrubbed    = want{status: []int{200}, value: true, scrubs: true}
	misdirected = want{status: []int{421}, reason: policy.AuthorityMismatch}
	malformed   = want{status: []int{400}, reason: policy.MalformedRequest}
	unanswered  = want{status: []int{0}}
)

func forbidden(reason policy.Reason) want { return want{status: []int{403}, reason: reason} }

const bearer = "Bearer " + P

// ask is a probe of one request to good.test over TLS.
func ask(method, path, authority string, fields ...string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.request(c, method, path, authority, fields...)
	}
}

// bytesToGood is a probe of raw HTTP/1 bytes to good.test over TLS.
func bytesToGood(text string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.raw(c, text, 1)[0]
	}
}

// connect is a probe of an honest request over a connection to somewhere.
func connect(to target, authority string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(to)
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.request(c, "GET", "/echo", authority, "Authorization", bearer)
	}
}
