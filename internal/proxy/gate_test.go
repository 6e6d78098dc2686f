package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func TestSubstitute(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		c := w.client()
		tests := []struct {
			name       string
			edit       func(*http.Request)
			field, got string
		}{
			{"bearer", header("Authorization", "Bearer "+placeholder), "Authorization", "Bearer " + value},
			{"api key", header("X-Api-Key", placeholder), "X-Api-Key", value},
			{"lower case scheme", header("Authorization", "bearer  "+placeholder), "Authorization", "bearer  " + value},
			{"basic password", basic("user", placeholder), "Authorization", "Basic " + b64("user:"+value)},
			{"basic user", basic(placeholder, ""), "Authorization", "Basic " + b64(value+":")},
			{"host in upper case", host("GOOD.Test"), "Authorization", "Bearer " + value},
			{"host with dot", host("good.test."), "Authorization", "Bearer " + value},
			{"host with port", host("good.test:443"), "Authorization", "Bearer " + value},
			{"no placeholder", header("Authorization", "Bearer own"), "Authorization", "Bearer own"},
		}
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w.t = t
				a := w.do(c, "GET", "https://good.test/echo", nil, tt.edit)
				if a.status != 200 {
					t.Fatalf("status %d, %s, %v", a.status, a.body, a.err)
				}
				r := w.last(w.good, i+1)
				if got := r.Header.Get(tt.field); got != tt.got {
					t.Errorf("upstream got %s %q, want %q", tt.field, got, tt.got)
				}
				if r.Host != "good.test" {
					t.Errorf("upstream got host %q", r.Host)
				}
				w.clean(a.all)
			})
		}
		if e := w.found(audit.Substituted); len(e) != len(tests)-1 || e[0].Secret != "API_KEY" || e[0].Host != "good.test" {
			t.Errorf("substituted events: %+v", e)
		}
	})
}

func TestRefuse(t *testing.T) {
	const p = placeholder
	bearer := header("Authorization", "Bearer "+p)
	tests := []struct {
		name   string
		method string
		url    string
		edit   func(*http.Request)
		status int
		reason policy.Reason
	}{
		{"other host in Host", "GET", "https://good.test/", both(bearer, host("evil.test")), 421, policy.AuthorityMismatch},
		{"other host, no placeholder", "GET", "https://good.test/", host("evil.test"), 421, policy.AuthorityMismatch},
		{"other port in Host", "GET", "https://good.test/", both(bearer, host("good.test:9999")), 421, policy.AuthorityMismatch},
		{"header that is not for credentials", "GET", "https://good.test/", header("X-Note", p), 403, policy.SurfaceOff},
		{"cookie", "GET", "https://good.test/", header("Cookie", "a="+p), 403, policy.SurfaceOff},
		{"user agent", "GET", "https://good.test/", header("User-Agent", p), 403, policy.SurfaceOff},
		{"beside a good one", "GET", "https://good.test/", both(bearer, header("X-Amz-Meta-A", p)), 403, policy.SurfaceOff},
		{"query", "GET", "https://good.test/?k=" + p, nil, 403, policy.SurfaceOff},
		{"query, percent-encoded", "GET", "https://good.test/?k=%24MSB%5fAPI_KEY", nil, 403, policy.SurfaceOff},
		{"path", "GET", "https://good.test/x/" + p + "/y", nil, 403, policy.SurfaceOff},
		{"five copies", "GET", "https://good.test/", header("Authorization", strings.Repeat(p+" ", 5)), 403, policy.TooMany},
		{"method", placeholder, "https://good.test/", nil, 403, policy.BadPosition},
		{"TRACE", "TRACE", "https://good.test/", bearer, 403, policy.TraceMethod},
		{"TRACK", "TRACK", "https://good.test/", bearer, 403, policy.TraceMethod},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol)
				c := w.client()
				w.refused(w.do(c, tt.method, tt.url, nil, tt.edit), tt.status, tt.reason)
				if n := len(w.good.Requests()); n != 0 {
					t.Errorf("upstream got %d requests", n)
				}
				// The connection is still good for an honest request.
				if a := w.get(c, "https://good.test/ok", p); a.status != 200 {
					t.Errorf("next request: %d %s %v", a.status, a.body, a.err)
				}
			})
		}
	})
}

// A connection to an address that was not resolved for the name is answered,
// and nobody is called. A3.
func TestNotPinned(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		stray := netip.MustParseAddrPort("93.184.216.99:443")
		for _, addr := range []netip.AddrPort{stray, evilAddr} { // pinned for nobody, for another
			w.names["good.test:443"] = addr
			w.to[addr] = w.good.Addr()
			c := w.client()
			w.refused(w.get(c, "https://good.test/echo", placeholder), 403, policy.NotPinned)
			w.refused(w.get(c, "https://good.test/echo", "harmless"), 403, policy.NotPinned)
			if w.wasDialed(addr) {
				t.Errorf("%s was dialled", addr)
			}
		}
		w.unseen()
	})
}

// An upstream that does not prove its name gets no request byte. A13.
func TestUnverified(t *testing.T) {
	other, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	certs := map[string]func(*testnet.CA) (tls.Certificate, error){
		"expired":     func(ca *testnet.CA) (tls.Certificate, error) { return ca.Expired("good.test") },
		"self-signed": func(ca *testnet.CA) (tls.Certificate, error) { return ca.SelfSigned("good.test") },
		"wrong name":  func(ca *testnet.CA) (tls.Certificate, error) { return ca.Cert("evil.test") },
		"unknown CA":  func(*testnet.CA) (tls.Certificate, error) { return other.Cert("good.test") },
	}
	protocols(t, func(t *testing.T, protocol string) {
		for name, cert := range certs {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, protocol)
				c := must(cert(w.ca))
				u := w.start(testnet.UpstreamConfig{Cert: &c})
				w.to[goodAddr] = u.Addr()
				client := w.client()
				w.refused(w.get(client, "https://good.test/echo", placeholder), 403, policy.UpstreamUnverified)
				w.refused(w.get(client, "https://good.test/echo", "harmless"), 403, policy.UpstreamUnverified)
				if n := len(u.Requests()); n != 0 {
					t.Errorf("upstream got %d requests", n)
				}
			})
		}
	})
}

// Another host may have the placeholder where the action is to let it pass,
// and only there.
func TestHostNotAllowed(t *testing.T) {
	pass := func(hosts ...string) secret.Violation {
		v := secret.Violation{Action: secret.Passthrough}
		for _, h := range hosts {
			v.Hosts = append(v.Hosts, must(hostname.ParsePattern(h)))
		}
		return v
	}
	tests := []struct {
		name   string
		action secret.Violation
		passes bool
		ends   bool
	}{
		{"default", secret.Violation{}, false, false},
		{"block", secret.Violation{Action: secret.Block}, false, false},
		{"terminate", secret.Violation{Action: secret.BlockAndTerminate}, false, true},
		{"pass anywhere", pass(), true, false},
		{"pass there", pass("evil.test"), true, false},
		{"pass elsewhere", pass("other.test"), false, false},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol, func(w *world) {
					w.cfg.Intercept = All
					w.cfg.OnViolation = tt.action
				})
				a := w.get(w.client(), "https://evil.test/echo", placeholder)
				if tt.passes {
					if a.status != 200 || !strings.Contains(a.body, "Bearer "+placeholder) {
						t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
					}
					w.expect(audit.Carried, policy.HostNotAllowed)
				} else {
					w.refused(a, 403, policy.HostNotAllowed)
					if len(w.evil.Requests()) != 0 {
						t.Error("the request was sent on")
					}
				}
				if got := len(w.ended) > 0; got != tt.ends {
					t.Errorf("sandbox ended: %v, want %v", got, tt.ends)
				}
				w.unseen()
			})
		}
	})
}

// The same name at another port is not the binding's.
func TestOtherPort(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		w.serve("good.test", netip.MustParseAddrPort("93.184.216.34:8443"), w.good.Addr())
		c := w.client()
		w.refused(w.get(c, "https://good.test:8443/echo", placeholder), 403, policy.HostNotAllowed)
		if a := w.get(c, "https://good.test:8443/echo", "own"); a.status != 200 {
			t.Errorf("a request without placeholder: %d %s %v", a.status, a.body, a.err)
		}
	})
}

// Passthrough for a secret's own host leaves the connection unopened where it
// could not have been trusted.
func TestPassUnopened(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, func(w *world) { w.cfg.OnViolation.Action = secret.Passthrough })
		cert := must(w.ca.SelfSigned("good.test"))
		u := w.start(testnet.UpstreamConfig{Cert: &cert})
		w.to[goodAddr] = u.Addr()
		c := w.client()
		if a := w.get(c, "https://good.test/echo", placeholder); a.err == nil {
			t.Errorf("the guest trusts a self-signed server: %d %s", a.status, a.body)
		}
		c.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
		if a := w.get(c, "https://good.test/echo", placeholder); !strings.Contains(a.body, placeholder) {
			t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
		}
		w.expect(audit.Spliced, policy.None)
	})
}

// A log that cannot be written stops substitution and nothing else.
func TestAuditUnavailable(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		c := w.client()
		w.cfg.Audit.Close()
		a := w.get(c, "https://good.test/echo", placeholder)
		if a.status != 503 || !strings.Contains(a.body, string(policy.AuditUnavailable)) {
			t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
		}
		if a := w.get(c, "https://good.test/echo", "own"); a.status != 200 {
			t.Errorf("a request without placeholder: %d %s %v", a.status, a.body, a.err)
		}
		w.unseen()
	})
}

// Where answers cannot be searched nothing is asked of a secret's host.
func TestNoScrubber(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		w.proxy.rules.Store(&rules{set: w.cfg.Secrets(), finder: w.proxy.currentRules().finder, err: io.ErrShortBuffer})
		c := w.client()
		w.refused(w.get(c, "https://good.test/echo", placeholder), 503, policy.LimitReached)
		w.refused(w.get(c, "https://good.test/echo", "own"), 503, policy.LimitReached)
		w.unseen()
	})
}

// A body's placeholder travels as the text that it is, and is on record.
func TestBodyCarried(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		body := strings.Repeat("x", 100_000) + placeholder + strings.Repeat("y", 100_000) + placeholder
		a := w.do(w.client(), "POST", "https://good.test/echo", strings.NewReader(body),
			header("Authorization", "Bearer "+placeholder))
		if a.status != 200 || !strings.HasSuffix(a.body, body) {
			t.Errorf("answer is %d, %d bytes, %v", a.status, len(a.body), a.err)
		}
		if r := w.last(w.good, 1); r.Header.Get("Authorization") != "Bearer "+value || r.BodySize != int64(len(body)) {
			t.Errorf("upstream got %q and %d bytes", r.Header, r.BodySize)
		}
		w.expect(audit.Carried, policy.SurfaceOff)
		if n := len(w.found(audit.Carried)); n != 1 {
			t.Errorf("%d carried events, want 1", n)
		}
	})
}

func TestTrailerCarried(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		a := w.do(w.client(), "POST", "https://good.test/echo", io.MultiReader(strings.NewReader("body")), func(r *http.Request) {
			r.Trailer = http.Header{"X-Sum": {"sum " + placeholder}}
		})
		if a.status != 200 {
			t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
		}
		if got := w.last(w.good, 1).Trailer.Get("X-Sum"); got != "sum "+placeholder {
			t.Errorf("upstream got trailer %q", got)
		}
		if e := w.expect(audit.Carried, policy.SurfaceOff); e.Surface != "trailer" {
			t.Errorf("event is %+v", e)
		}
	})
}

func TestParallel(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		c := w.client()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				a := w.get(c, fmt.Sprintf("https://good.test/echo?n=%d", i), placeholder)
				if a.status != 200 || !strings.Contains(a.body, fmt.Sprintf("n=%d", i)) {
					t.Errorf("answer %d is %d %s %v", i, a.status, a.body, a.err)
				}
				w.clean(a.all)
			})
		}
		all.Wait()
		for _, r := range w.good.Requests() {
			if r.Header.Get("Authorization") != "Bearer "+value {
				t.Errorf("upstream got %q", r.Header)
			}
		}
	})
}

// Secrets are judged one by one; two in one request both arrive.
func TestTwoSecrets(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		const second = "the-0ther-value-5551212"
		w := newWorld(t, protocol, secrets(func(w *world) []*secret.Secret {
			return []*secret.Secret{
				w.secret("API_KEY", placeholder, value, "good.test", 443),
				w.secret("OTHER", "$MSB_OTHER", second, "good.test", 443),
				w.secret("ELSEWHERE", "$MSB_ELSEWHERE", "not-for-good-test-1234", "evil.test", 443),
			}
		}))
		c := w.client()
		a := w.do(c, "GET", "https://good.test/echo", nil, both(header("Authorization", "Bearer "+placeholder), header("X-Api-Key", "$MSB_OTHER")))
		if a.status != 200 || strings.Contains(a.all, second) {
			t.Errorf("answer is %d %s %v", a.status, a.all, a.err)
		}
		w.clean(a.all)
		if r := w.last(w.good, 1); r.Header.Get("Authorization") != "Bearer "+value || r.Header.Get("X-Api-Key") != second {
			t.Errorf("upstream got %q", r.Header)
		}
		w.refused(w.do(c, "GET", "https://good.test/echo", nil, both(header("Authorization", "Bearer "+placeholder), header("X-Api-Key", "$MSB_ELSEWHERE"))),
			403, policy.HostNotAllowed)
	})
}

// A refusal tells what to change and nothing that the guest may not know.
func TestRefusalText(t *testing.T) {
	w := newWorld(t, "h1", secrets(func(w *world) []*secret.Secret {
		s := w.secret("API_KEY", placeholder, value, "good.test", 443)
		s.Hosts = append(s.Hosts, secret.Host{Pattern: must(hostname.ParsePattern("internal.hidden.test")), Port: 443})
		return []*secret.Secret{s}
	}))
	a := w.do(w.client(), "GET", "https://good.test/", nil, header("X-Note", placeholder))
	for _, want := range []string{"API_KEY", "good.test", "surface_off", "X-Note", "hint"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("refusal lacks %q: %s", want, a.body)
		}
	}
	if strings.Contains(a.body, "hidden") {
		t.Errorf("refusal tells the other hosts: %s", a.body)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type is %q", ct)
	}
	w.clean(a.all)
}

func TestBypassCoversSecret(t *testing.T) {
	w := newWorld(t, "h1")
	for _, p := range []string{"good.test", "*.good.test"} {
		cfg := w.cfg
		cfg.Bypass = []hostname.Pattern{must(hostname.ParsePattern(p))}
		if _, err := New(cfg); (err != nil) != (p == "good.test") {
			t.Errorf("bypass %s: error is %v", p, err)
		}
	}
}

// Edits of requests.

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// host sends a bearer token with another authority.
func host(h string) func(*http.Request) {
	return func(r *http.Request) {
		r.Host = h
		r.Header.Set("Authorization", "Bearer "+placeholder)
	}
}

func both(a, b func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) { a(r); b(r) }
}
