package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

const otherValue = "an0ther-v4lue-0f-the-test-55443322"

// A d9 is a server that notes what of the old value comes after the change was
// acknowledged, attack D9.
type d9 struct {
	acknowledged atomic.Bool
	late         atomic.Int32 // old values after that
	old, new     atomic.Int32 // values that came in heads
	uploaded     atomic.Int32 // bodies with the old value that came to their end
	inHead       sync.WaitGroup
	begun        sync.WaitGroup // uploads
	release      chan struct{}
}

func (d *d9) see(text string) {
	if strings.Contains(text, value) {
		d.old.Add(1)
		if d.acknowledged.Load() {
			d.late.Add(1)
		}
	}
	if strings.Contains(text, otherValue) {
		d.new.Add(1)
	}
}

func (d *d9) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.see(r.Header.Get("Authorization"))
	switch r.URL.Path {
	case "/held":
		d.inHead.Done()
		<-d.release
	case "/upload":
		first := make([]byte, 5)
		io.ReadFull(r.Body, first)
		d.begun.Done()
		rest, err := io.ReadAll(r.Body)
		if strings.Contains(string(rest), value) {
			if d.acknowledged.Load() {
				d.late.Add(1)
			}
			if err == nil {
				d.uploaded.Add(1)
			}
		}
	case "/values":
		fmt.Fprintf(w, "%s %s", value, otherValue)
	}
}

// TestChangeInFlight: attack D9. While 100 requests and 5 uploads are under
// way on open connections the secret is rotated, narrowed or removed: nothing
// of the old value comes after that is acknowledged, a rotation breaks
// nothing that ends in time, and what comes next on the same connections goes
// by the new rules.
func TestChangeInFlight(t *testing.T) {
	const requests, uploads = 100, 5
	changes := map[string]func(w *world, old secret.Secret) *secret.Secret{
		"rotate": func(w *world, s secret.Secret) *secret.Secret { s.Value = load(w.t, w.store, otherValue); return &s },
		"narrow": func(w *world, s secret.Secret) *secret.Secret {
			s.Hosts = []secret.Host{{Pattern: must(hostname.ParsePattern("evil.test")), Port: 443}}
			return &s
		},
		"remove": func(_ *world, s secret.Secret) *secret.Secret { s.State = secret.Removed; return &s },
	}
	for name, change := range changes {
		protocols(t, func(t *testing.T, protocol string) {
			t.Run(name, func(t *testing.T) {
				d := &d9{release: make(chan struct{})}
				var current atomic.Pointer[secret.Set]
				w := newWorld(t, protocol, inBodies, func(w *world) {
					current.Store(w.cfg.Secrets())
					w.cfg.Secrets = current.Load
				})
				cert := must(w.ca.Cert("good.test"))
				w.serve("good.test", goodAddr, w.start(testnet.UpstreamConfig{Cert: &cert, Handler: d}).Addr())
				c := w.client()

				d.inHead.Add(requests)
				d.begun.Add(uploads)
				var flights sync.WaitGroup
				var failed atomic.Int32
				send := func(path string, body io.Reader) {
					flights.Go(func() {
						a := w.do(c, "POST", "https://good.test"+path, body, func(r *http.Request) {
							r.Header.Set("Authorization", "Bearer "+placeholder)
							r.Header.Set("Content-Type", "text/plain")
						})
						if a.err != nil || a.status != 200 {
							failed.Add(1)
						}
						w.clean(a.all)
					})
				}
				for range requests {
					send("/held", nil)
				}
				pipes := make([]*io.PipeWriter, uploads)
				for i := range pipes {
					r, p := io.Pipe()
					pipes[i] = p
					send("/upload", r)
					p.Write([]byte("begin"))
				}
				d.inHead.Wait()
				d.begun.Wait()

				next := must(current.Load().Next([]*secret.Secret{change(w, *current.Load().All()[0])}))
				if err := w.proxy.Prepare(next); err != nil {
					t.Fatal(err)
				}
				current.Store(next)
				finish := func() {
					for _, p := range pipes {
						go func() { p.Write([]byte(placeholder)); p.Close() }()
					}
				}
				wait := 500 * time.Millisecond
				close(d.release)
				if name == "rotate" {
					wait = 20 * time.Second
					finish()
				}
				good := func(n hostname.Name) bool { return n == "good.test" }
				aborted, err := w.proxy.Settle(context.Background(), next, good, wait)
				d.acknowledged.Store(true)
				if name != "rotate" {
					finish() // too late
				}
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				if name != "rotate" {
					want = uploads
				}
				flights.Wait()
				if aborted != want || int(failed.Load()) != want {
					t.Errorf("%d were aborted and %d failed, want %d", aborted, failed.Load(), want)
				}
				if got := int(d.uploaded.Load()); got != uploads-want {
					t.Errorf("%d uploads came whole, want %d", got, uploads-want)
				}

				for range 20 {
					a := w.get(c, "https://good.test/", placeholder)
					switch name {
					case "rotate":
						if a.status != 200 {
							t.Fatalf("status %d %s %v", a.status, a.body, a.err)
						}
					case "narrow":
						w.refused(a, 403, policy.HostNotAllowed)
					case "remove":
						w.refused(a, 403, policy.SecretRemoved)
					}
				}
				if got := int(d.new.Load()); name == "rotate" && got != 20 {
					t.Errorf("the new value came %d times, want 20", got)
				}
				if got := d.late.Load(); got != 0 || d.old.Load() != requests+uploads {
					t.Errorf("the old value came %d times, %d after the change was acknowledged", d.old.Load(), got)
				}
				// The old value is still found in what the host sends.
				a := w.get(c, "https://good.test/values", "nothing")
				w.clean(a.all)
				if name == "rotate" && strings.Contains(a.body, otherValue) {
					t.Error("the guest reads the new value")
				}
			})
		})
	}
}

// TestManyRotations: the locked memory has room for as many former values as is
// documented, and for any number of them that have expired.
func TestManyRotations(t *testing.T) {
	var current atomic.Pointer[secret.Set]
	w := newWorld(t, "h1", withValue(value), func(w *world) { current.Store(w.cfg.Secrets()); w.cfg.Secrets = current.Load })
	for i := range 40 {
		s := *current.Load().All()[0]
		s.Value = load(t, w.store, fmt.Sprintf("an0ther-v4lue-0f-the-test-%08d", i))
		if s.Expires = (time.Time{}); i >= 16 {
			s.Expires = time.Now()
		}
		next, err := current.Load().Next([]*secret.Secret{&s})
		if err == nil {
			for err = w.proxy.Prepare(next); errors.Is(err, secret.ErrFull) && next.Forget(); {
				err = w.proxy.Prepare(next)
			}
		}
		if err != nil {
			t.Fatalf("rotation %d: %v", i, err)
		}
		current.Store(next)
		w.proxy.currentRules()
	}
}

// TestNothingSlipsPast: a request that begins while the set changes goes by
// the new one, or is waited for.
func TestNothingSlipsPast(t *testing.T) {
	var current atomic.Pointer[secret.Set]
	w := newWorld(t, "h1", func(w *world) { current.Store(w.cfg.Secrets()); w.cfg.Secrets = current.Load })
	for range 200 {
		begun := make(chan *use)
		go func() { begun <- w.proxy.begin("good.test", func() {}) }()
		s := *current.Load().All()[0]
		s.Value = secret.Value{} // or needles would fill the memory
		next := must(current.Load().Next([]*secret.Secret{&s}))
		current.Store(next)
		settled := make(chan struct{})
		go func() {
			w.proxy.Settle(context.Background(), next, func(hostname.Name) bool { return true }, time.Minute)
			close(settled)
		}()
		u := <-begun
		if u.rules.set != next {
			select {
			case <-settled:
				t.Fatal("a use of the old set was not waited for")
			case <-time.After(time.Millisecond):
			}
		}
		u.end()
		<-settled
	}
}
