// Package attack is the corpus of ATTACKS.md: probes sent as raw bytes from a
// guest's network stack through the real boundary to servers that record what
// reached them and echo it.
//
// Every probe is judged at both ends: what the guest read and what the
// servers got. Whatever a probe expects, the guest never reads the value in
// any form, and only a probe that says so brings it upstream.
package attack

import (
	"context"
	"fmt"
	"maps"
	"os"
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
	line   string
	failed bool
}

var (
	mu      sync.Mutex
	results = map[int]result{} // by their place in the corpus
)

func TestMain(m *testing.M) {
	code := m.Run()
	failed := 0
	for _, i := range slices.Sorted(maps.Keys(results)) {
		fmt.Println(results[i].line)
		if results[i].failed {
			failed++
		}
	}
	fmt.Printf("%d passed, %d failed\n", len(results)-failed, failed)
	os.Exit(code)
}

func TestCorpus(t *testing.T) {
	for i, p := range slices.Concat(sectionA, sectionHello, sectionName, sectionNetwork, sectionB, sectionC, sectionAnswer, sectionD, sectionPlace, sectionSplit, sectionSize, sectionOwn, sectionMessage, sectionRequest, sectionFlood, webSockets(), sectionPackets, sectionScope, sectionBody, sectionChange) {
		for j, protocol := range []string{"h1", "h2"} {
			if p.only != "" && p.only != protocol {
				continue
			}
			t.Run(p.entry+"/"+p.name+"/"+protocol, func(t *testing.T) {
				if p.budget == 0 {
					t.Parallel()
				}
				b := start(t, protocol, p.change)
				used := func() uint64 { return 0 }
				if p.budget > 0 {
					b.Guest.Buffers(16 << 10)
					used = watch()
				}
				o := p.run(b)
				b.judge(p, o)
				verdict := "passed"
				if n := used(); p.budget > 0 {
					verdict = fmt.Sprintf("passed, %d of %d MiB", n>>20, p.budget>>20)
					if n > p.budget {
						t.Errorf("%d MiB of memory were in use, more than %d", n>>20, p.budget>>20)
					}
				}
				if t.Failed() {
					verdict = "FAILED"
				}
				mu.Lock()
				defer mu.Unlock()
				results[2*i+j] = result{
					fmt.Sprintf("%-4s %-48s %s  %3d %-20s %s", p.entry, p.name, protocol, o.status, o.reason(), verdict), t.Failed(),
				}
			})
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
