package proxy

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// TestExclusive: on the host of an exclusive secret nobody's own credential
// passes, wherever APIs take one from.
func TestExclusive(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		name, field, value, query string
		refused                   bool
	}{
		{"no credential", "X-Other", "anything", "?page=2", false},
		{"the placeholder", "Authorization", "Bearer " + placeholder, "", false},
		{"the placeholder as password", "Authorization", basic("user:" + placeholder), "", false},
		{"the placeholder as user name", "Authorization", basic(placeholder + ":"), "", false},
		{"own bearer", "Authorization", "Bearer own-token", "", true},
		{"own bearer, any scheme", "Authorization", "Custom own-token", "", true},
		{"own beside the placeholder", "Authorization", "Bearer own-token " + placeholder, "", true},
		{"own key", "X-Api-Key", "own-key", "", true},
		{"own key, as CGI reads it", "X_Api_Key", "own-key", "", true},
		{"own key, by its suffix", "Service-Auth-Token", "own-key", "", true},
		{"own password", "Authorization", basic("user:own"), "", true},
		{"own password beside the placeholder", "Authorization", basic(placeholder + ":own"), "", true},
		{"session cookie", "Cookie", "session=own", "", true},
		{"own key in the query", "X-Other", "x", "?api_key=own", true},
		{"own key in the query, escaped", "X-Other", "x", "?x=1&%41PI_key=own", true},
		{"own signature", "X-Other", "x", "?X-Amz-Signature=own", true},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol, secrets(func(w *world) []*secret.Secret {
					x := w.secret("API_KEY", placeholder, value, "good.test", 443)
					x.Exclusive = true
					return []*secret.Secret{x}
				}))
				a := w.do(w.client(), "GET", "https://good.test/echo"+tt.query, nil, func(r *http.Request) {
					r.Header[tt.field] = []string{tt.value}
				})
				if !tt.refused {
					if a.status != 200 {
						t.Errorf("%d %s", a.status, a.body)
					}
					return
				}
				w.refused(a, 403, policy.ForeignCredential)
				if n := len(w.good.Requests()); n != 0 {
					t.Errorf("upstream got %d requests", n)
				}
			})
		}
	})
}

// TestNotExclusive: other hosts, and secrets that are not exclusive, take
// what the guest sends.
func TestNotExclusive(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		if a := w.get(w.client(), "https://good.test/echo", "own-token"); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// TestNoVerify: a host that need not prove who it is is served, and gets the
// value only if the secret says that it may.
func TestNoVerify(t *testing.T) {
	tests := []struct {
		name       string
		unverified []hostname.Name
		noVerify   []hostname.Name
		valid      bool
		harmless   int // status of a request without placeholder
		arrives    bool
	}{
		{"neither", nil, nil, false, 403, false},
		{"the secret alone", []hostname.Name{"good.test"}, nil, false, 403, false},
		{"the host alone", nil, []hostname.Name{"good.test"}, false, 200, false},
		{"both", []hostname.Name{"good.test"}, []hostname.Name{"good.test"}, false, 200, true},
		{"another host", []hostname.Name{"good.test"}, []hostname.Name{"evil.test"}, false, 403, false},
		{"the host alone, and it proves itself", nil, []hostname.Name{"good.test"}, true, 200, true},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol, secrets(func(w *world) []*secret.Secret {
					x := w.secret("API_KEY", placeholder, value, "good.test", 443)
					x.Unverified = tt.unverified
					return []*secret.Secret{x}
				}), func(w *world) { w.cfg.NoVerify = tt.noVerify })
				u := w.good
				if !tt.valid {
					cert := must(w.ca.SelfSigned("good.test"))
					u = w.start(testnet.UpstreamConfig{Cert: &cert})
					w.to[goodAddr] = u.Addr()
				}
				client := w.client()
				if a := w.get(client, "https://good.test/echo", "harmless"); a.status != tt.harmless {
					t.Errorf("harmless: %d %s", a.status, a.body)
				}
				a := w.get(client, "https://good.test/echo", placeholder)
				if tt.arrives {
					if got := w.last(u, 2).Header.Get("Authorization"); got != "Bearer "+value {
						t.Errorf("upstream got %q: %d %s", got, a.status, a.body)
					}
					return
				}
				w.refused(a, 403, policy.UpstreamUnverified)
			})
		}
	})
}
