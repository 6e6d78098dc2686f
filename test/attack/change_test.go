package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// D9: a secret changes while 100 requests are under way, some with a body
// that has begun.
var sectionChange = []probe{
	{entry: "D9", name: "rotated under 100 requests", change: inBodies, want: substituted, run: (&change{
		ends: true, to: func(b *boundary, s *secret.Secret) { s.Value = b.Value(newV) },
	}).run},
	{entry: "D9", name: "narrowed under 100 requests", change: inBodies, want: want{status: []int{403}, reason: policy.HostNotAllowed, value: true}, run: (&change{
		to: func(b *boundary, s *secret.Secret) { s.Hosts = b.NewSecret("", P, V, "evil.test").Hosts },
	}).run},
	{entry: "D9", name: "removed under 100 requests", change: inBodies, want: want{status: []int{403}, reason: policy.SecretRemoved, value: true}, run: (&change{
		to: func(_ *boundary, s *secret.Secret) { s.State = secret.Removed },
	}).run},
}

const (
	newV     = "an0ther-value-of-the-corpus"
	held     = 95 // requests whose head has gone up
	halfSent = 5  // and those whose body has begun
)

// A change is what becomes of the secret.
type change struct {
	to   func(*boundary, *secret.Secret)
	ends bool // the uploads do, before that is acknowledged
}

// A changing server holds the requests of /wait until release is closed, and
// notes what of the old value comes after the change was acknowledged.
type changing struct {
	begun        sync.WaitGroup
	release      chan struct{}
	acknowledged atomic.Bool
	late, renew  atomic.Int32
}

func (c *changing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.see(r.Header.Get("Authorization"))
	switch r.URL.Path {
	case "/wait":
		c.begun.Done()
		<-c.release
	case "/upload":
		io.ReadFull(r.Body, make([]byte, 5))
		c.begun.Done()
		rest, _ := io.ReadAll(r.Body)
		c.see(string(rest))
	}
}

func (c *changing) see(text string) {
	if strings.Contains(text, V) && c.acknowledged.Load() {
		c.late.Add(1)
	}
	if strings.Contains(text, newV) {
		c.renew.Add(1)
	}
}

func (x *change) run(b *boundary) outcome {
	c := &changing{release: make(chan struct{})}
	b.Answer(c.ServeHTTP)
	t := &http.Transport{ForceAttemptHTTP2: true, MaxIdleConnsPerHost: held, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return b.Secure(target{})
	}}
	defer t.CloseIdleConnections()
	send := func(path string, body io.Reader) (*http.Response, error) {
		r := must(http.NewRequest("POST", "https://good.test"+path, body))
		r.Header.Set("Authorization", bearer)
		r.Header.Set("Content-Type", "text/plain")
		return t.RoundTrip(r)
	}
	var broken atomic.Int32
	var flights sync.WaitGroup
	fly := func(path string, body io.Reader) {
		c.begun.Add(1)
		flights.Go(func() {
			resp, err := send(path, body)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err != nil || resp.StatusCode != 200 {
				broken.Add(1)
			}
		})
	}
	for range held {
		fly("/wait", nil)
	}
	var bodies [halfSent]*io.PipeWriter
	for i := range bodies {
		r, w := io.Pipe()
		bodies[i] = w
		fly("/upload", r)
		w.Write([]byte("begin"))
	}
	c.begun.Wait()

	finish := func() {
		for _, w := range bodies {
			go func() { w.Write([]byte(P)); w.Close() }()
		}
	}
	close(c.release)
	wait, aborted := 200*time.Millisecond, halfSent
	if x.ends {
		wait, aborted = 20*time.Second, 0
		finish()
	}
	s := *b.Secret
	x.to(b, &s)
	n, err := b.Change(&s, wait)
	c.acknowledged.Store(true)
	if !x.ends {
		finish() // too late
	}
	flights.Wait()
	if err != nil || n != aborted || int(broken.Load()) != aborted {
		return outcome{err: fmt.Errorf("%d were aborted and %d broke, want %d: %v", n, broken.Load(), aborted, err)}
	}
	var o outcome
	for range 10 {
		resp, err := send("/", nil)
		if err != nil {
			return outcome{err: err}
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		o = b.got(outcome{resp.StatusCode, string(text), err})
	}
	if n := c.late.Load(); n > 0 {
		return outcome{err: fmt.Errorf("the old value came %d times after the change was acknowledged", n)}
	}
	if n := c.renew.Load(); (n == 10) != x.ends {
		return outcome{err: fmt.Errorf("the new value came %d times", n)}
	}
	return o
}
