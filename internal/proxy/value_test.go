package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/secret"
)

// withValue makes v the value of the world's secret, and allows short ones.
func withValue(v string) option {
	return func(w *world) {
		w.store = must(secret.NewStore(secret.Room([]int{len(v)})))
		w.root.Cleanup(func() { w.store.Close() })
		w.cfg.Store = w.store
		s := w.secret("API_KEY", placeholder, v, "good.test", 443)
		s.Short = true
		set := must(secret.NewSet([]*secret.Secret{s}))
		w.cfg.Secrets = func() *secret.Set { return set }
	}
}

// TestOddValues is ATTACKS D1: a value arrives as it is, whatever is in it and
// however long it is, and its echo does not come back.
func TestOddValues(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for name, v := range map[string]string{
			"non-ASCII":   "p\u00e4ss\u2011w\u00f6rd \U0001f511",
			"no UTF-8":    "\xff\xfe\x80-12345678",
			"punctuation": `a"b'c&d#e f%g<h>i\j/k+l=m;n,o`,
			"64 KiB":      strings.Repeat("0123456789abcdef", secret.MaxValue/16),
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, protocol, withValue(v))
				c := w.client()
				for i, tt := range []struct {
					edit func(*http.Request)
					want string
				}{
					{header("Authorization", "Bearer "+placeholder), "Bearer " + v},
					{basic("user", placeholder), "Basic " + b64("user:"+v)},
				} {
					a := w.do(c, "GET", "https://good.test/echo", nil, tt.edit)
					if a.status != 200 {
						t.Fatalf("status %d, %.200s, %v", a.status, a.body, a.err)
					}
					if got := w.last(w.good, i+1).Header.Get("Authorization"); got != tt.want {
						t.Errorf("upstream got %d bytes %.80q, want %d bytes %.80q", len(got), got, len(tt.want), tt.want)
					}
					if strings.Contains(a.all, v) {
						t.Error("the value came back")
					}
				}
			})
		}
	})
}

// TestShortValue is D6: the seal has no marker for what is shorter than eight
// letters. In Basic the credentials as a whole are long enough; elsewhere the
// request is refused, not sent with the placeholder or half of the value.
func TestShortValue(t *testing.T) {
	const pin = "4711"
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, withValue(pin))
		c := w.client()
		if a := w.do(c, "GET", "https://good.test/ok", nil, basic("u", placeholder)); a.status != 200 {
			t.Fatalf("status %d, %s, %v", a.status, a.body, a.err)
		}
		if got := w.last(w.good, 1).Header.Get("Authorization"); got != "Basic "+b64("u:"+pin) {
			t.Errorf("upstream got %q", got)
		}
		a := w.do(c, "GET", "https://good.test/ok", nil, header("X-Api-Key", placeholder))
		if a.status != 403 || len(w.good.Requests()) != 1 {
			t.Errorf("status %d, %d requests", a.status, len(w.good.Requests()))
		}
		if n := len(w.found(audit.Substituted)); n != 1 {
			t.Errorf("%d are on record as substituted", n)
		}
	})
}
